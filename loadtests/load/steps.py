"""`baseline` and `stress`, after the tuning guides: the same steps before and after a change, and more until it breaks."""

import argparse
import time

import generators
from suite import Outcome, comes_back, failed, rate, table, unhealthy, well

# The page that a cache answers, and the function that PHP answers.
CACHED, API = "/api/page", "/api/hello"
# What, where, with how many connections, and for how many times --seconds.
BASELINE = [
    ("cached page", CACHED, 50, 1),
    ("API", API, 50, 1),
    ("high concurrency", API, 1_000, 1),
    ("sustained", API, 200, 4),
]
STRESS = [100, 500, 1_000, 2_000, 5_000]
# Between two steps: what the last one left in queues is not the next one's load.
COOL_DOWN_SECONDS = 5
HEAD = ["", "connections", "req/s", "MB/s", "mean ms", "p50 ms", "p95 ms", "p99 ms", "max ms", "errors"]


def baseline(options: argparse.Namespace) -> Outcome:
    """Four steps that have to go without an error."""
    runs = {}
    for name, path, connections, times in BASELINE:
        runs[name] = step(options, path, connections, options.seconds * times)
        well(options.host, name)
    errors = [f"{name}: {failed(run)}" for name, run in runs.items() if failed(run)]
    body = [row(name, connections, runs[name]) for name, _, connections, _ in BASELINE]
    lines = [f"{options.seconds} s each, the sustained one four times as long; /health answered 200 after each.", ""]
    return Outcome("Baseline", [*lines, *table(HEAD, body)], {"runs": runs}, errors)


def stress(options: argparse.Namespace) -> Outcome:
    """More and more connections until something fails; then it has to come back by itself."""
    runs: dict[int, dict] = {}
    broke = ""
    for connections in STRESS:
        runs[connections] = step(options, API, connections, options.seconds)
        time.sleep(COOL_DOWN_SECONDS)
        if failed(runs[connections]):
            broke = f"at {connections} connections: {failed(runs[connections])}"
        elif problem := unhealthy(options.host):
            broke = f"after {connections} connections: /health: {problem}"
        if broke:
            break
    took = comes_back(options.host)
    missed = [] if took is not None else ["/health did not answer 200 again"]
    # To break under too much is what is looked for; to answer nothing is no figure.
    errors = [f"{connections} connections: {failed(run)}" for connections, run in runs.items() if not run["requests"]]
    body = [row("API", connections, run) for connections, run in runs.items()]
    says = f"It broke {broke}." if broke else f"Nothing failed up to {STRESS[-1]} connections."
    lines = [f"{options.seconds} s each, then {COOL_DOWN_SECONDS} s of rest and a look at /health. {says}", ""]
    return Outcome("Stress", [*lines, *table(HEAD, body)], {"runs": runs, "broke": broke}, errors, missed)


def step(
    options: argparse.Namespace, path: str, connections: int, seconds: int, answer_seconds: int = generators.ANSWER_SECONDS
) -> dict:
    chosen = argparse.Namespace(**vars(options) | {"connections": connections, "seconds": seconds})
    return generators.wrk(options.host, path, "report.lua", chosen, answer_seconds)


def row(name: str, connections: int, run: dict) -> list[str]:
    times = [f"{run['latency_us'][time] / 1000:.2f}" for time in ("mean", "p50", "p95", "p99", "max")]
    megabytes = f"{run['bytes'] / run['duration_us']:.1f}"
    return [name, f"{connections:,}", f"{rate(run):,.0f}", megabytes, *times, str(sum(run["errors"].values()))]
