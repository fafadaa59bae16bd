"""`curve`: how long a request takes at a quarter, half, three quarters and nine tenths of what the stack can take."""

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

import generators
import steps
from suite import LoadFailed, Outcome, address, failed, fetch, rate, table, well

PATH = steps.API
CONNECTIONS = 64
SHARES = (0.25, 0.50, 0.75, 0.90)


def curve(options: argparse.Namespace) -> Outcome:
    """Capacity by a closed loop, then an open one at each share of it: latencies count from when a request fell due."""
    if options.open_loop is None:
        raise LoadFailed("the generator loadtests/open-loop is not built; scripts/load.sh builds it where cargo is")
    closed = steps.step(options, PATH, CONNECTIONS, options.seconds)
    well(options.host, "the closed loop")
    capacity = rate(closed)
    runs = {}
    with tempfile.NamedTemporaryFile(prefix="troupe-body-") as body:
        body.write(fetch(options.host + PATH))
        body.flush()
        for share in SHARES:
            runs[share] = open_loop(options, int(capacity * share), body.name)
            well(options.host, f"{share:.0%} of the capacity")
    errors = [f"closed loop: {failed(closed)}"] if failed(closed) else []
    errors += [f"{share:.0%}: {wrong}" for share, run in runs.items() if (wrong := unanswered(run))]
    head = ["of the capacity", "req/s asked", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "generator late, p99 ms"]
    lines = [f"Capacity: {capacity:,.0f} req/s at {CONNECTIONS} connections of a closed loop. A request that is not answered is an error.", ""]
    lines += table(head, [
        [f"{share:.0%}", f"{run['rate']:,}",
         *(latency(run, time) for time in ("p50", "p90", "p99", "p999")),
         f"{run['generator_late_us_p99'] / 1000:.2f}"]
        for share, run in runs.items()
    ])
    lines += ["In brackets: the generator was late by half of that or more, for want of a core; a stack elsewhere (HOST=) shows its own.", ""]
    data = {"capacity": round(capacity), "closed": closed, "open": {f"{share:.2f}": run for share, run in runs.items()}}
    return Outcome("Latency at fixed rates", lines, data, errors)


def unanswered(run: dict) -> dict[str, int]:
    """What was answered wrongly, and what was not answered or for want of an answer not even sent; those that occurred."""
    return {kind: run[kind] for kind in ("errors", "unfinished") if run[kind]}


def latency(run: dict, time: str) -> str:
    """In milliseconds; in brackets where it says as much of the generator as of the stack."""
    took = run["latency_us"][time]
    doubtful = time in ("p99", "p999") and run["generator_late_us_p99"] * 2 >= took
    return f"[{took / 1000:.2f}]" if doubtful else f"{took / 1000:.2f}"


def open_loop(options: argparse.Namespace, per_second: int, body: str) -> dict:
    name, port = address(options.host)
    threads = 1 if len(os.sched_getaffinity(0)) < 4 else 2
    command = [str(options.open_loop), f"--host={name}", f"--port={port}", f"--path={PATH}", f"--body={body}"]
    command += [f"--rate={max(1, per_second)}", f"--connections={CONNECTIONS}", f"--seconds={options.seconds}", f"--threads={threads}"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=options.seconds + generators.SLACK_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise LoadFailed(f"{Path(command[0]).name} did not end within {options.seconds + generators.SLACK_SECONDS} s") from error
    return generators.last_line(command, done.returncode, done.stdout, done.stderr)
