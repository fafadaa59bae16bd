"""wrk, for what the stack can take; Locust, for how its users fare."""

import argparse
import csv
import os
import subprocess
import sys
from pathlib import Path

LOADTESTS = Path(__file__).resolve().parent.parent
# Behind this folder: it has a report.py, too.
sys.path.append(str(LOADTESTS / "bench"))
import closed_loop  # noqa: E402
from closed_loop import ANSWER_SECONDS, SLACK_SECONDS, LoadFailed, last_line  # noqa: E402,F401  the suites use them too

# By name: the path, where the script has none of its own, and the script.
SCENARIOS = {
    "one function": ("/api/hello", "report.lua"),
    "mixed routes": ("/", "mixed.lua"),
    "POST with a body": ("/", "post.lua"),
    "no two alike": ("/api/hello", "unique.lua"),
}
# Locust's own word for a missed goal; see locust/slo.py.
MISSED = 3


def wrk(host: str, path: str, script: str, options: argparse.Namespace, answer_seconds: int = ANSWER_SECONDS) -> dict:
    """One run: requests, duration_us, bytes, errors, latency_us."""
    threads = len(os.sched_getaffinity(0))
    return closed_loop.wrk(
        host + path, options.connections, options.seconds, threads, closed_loop.SCRIPTS / script, answer_seconds=answer_seconds
    )


def locust(options: argparse.Namespace, scratch: Path) -> dict:
    """One headless run: the rows of its table, and what it missed of slo.toml."""
    files = [str(LOADTESTS / "locust" / "locustfile.py")]
    command = [options.locust, "--headless", "--host", options.host, "--stop-timeout", "10s", "--only-summary"]
    command += ["--html", str(scratch / "locust.html"), "--csv", str(scratch / "locust"), "--exit-code-on-error", "0"]
    if options.shape:
        files.append(str(LOADTESTS / "locust" / "shapes" / f"{options.shape}.py"))
    else:
        command += ["-u", str(options.users), "-r", str(max(1, options.users // 5)), "-t", f"{options.locust_seconds}s"]
    command += ["-f", ",".join(files)]
    # A shape says itself when it ends.
    limit = None if options.shape else options.locust_seconds + SLACK_SECONDS
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired as error:
        raise LoadFailed(f"Locust did not end within {limit} s") from error
    table = scratch / "locust_stats.csv"
    if done.returncode not in (0, MISSED) or not table.exists():
        raise LoadFailed(f"Locust: exit {done.returncode}: {done.stderr.strip()[-800:]}")
    said = [line.removeprefix("slo: ") for line in done.stderr.splitlines() if line.startswith("slo: ")]
    missed = [line for line in said if " must be " in line]
    failures = [line.removeprefix("failed: ") for line in done.stderr.splitlines() if line.startswith("failed: ")]
    return {"rows": rows(table), "missed": missed, "failures": failures}


def rows(table: Path) -> list[dict]:
    found = []
    with table.open(newline="") as lines:
        for row in csv.DictReader(lines):
            found.append({
                "name": row["Name"],
                "requests": int(row["Request Count"]),
                "failures": int(row["Failure Count"]),
                "per_second": round(float(row["Requests/s"]), 1),
                **{key: float(row[column]) for key, column in (("p50", "50%"), ("p95", "95%"), ("p99", "99%"), ("max", "100%"))
                   if row[column] != "N/A"},
            })
    return found
