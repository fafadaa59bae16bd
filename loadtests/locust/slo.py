"""Holds a run against slo.toml when it ends, and makes the exit code of it: 0 within, 3 beyond, 1 nothing measured."""

import os
import sys
import tomllib
from pathlib import Path

from locust import events

BREACH = 3
NOTHING = 1
FILE = Path(os.environ.get("SLO") or Path(__file__).resolve().parent / "slo.toml")
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


def breaches(goals: dict, stats) -> list[str]:
    """What was not reached, of the requests that were made."""
    rows = {entry.name: entry for entry in stats.entries.values()} | {"*": stats.total}
    found = []
    for name, limits in goals.items():
        row = rows.get(name)
        if row is None or row.num_requests == 0:
            # A short run need not come by everything; one that made no request at all is told of below.
            continue
        for key, limit in limits.items():
            if key == "requests":
                measured, missed = row.num_requests, row.num_requests < limit
            elif key == "error_ratio":
                measured, missed = row.fail_ratio, row.fail_ratio > limit
            elif key in PERCENTILES:
                measured = row.get_response_time_percentile(PERCENTILES[key])
                missed = measured > limit
            else:
                raise SystemExit(f"{FILE}: {name}: unknown key {key!r}; known: requests, error_ratio, {', '.join(PERCENTILES)}")
            if missed:
                found.append(f"{name}: {key} is {measured:g}, must be {'at least' if key == 'requests' else 'at most'} {limit:g}")
    return found


@events.quitting.add_listener
def judge(environment, **_) -> None:
    # Workers of a distributed run know their own part only.
    if type(environment.runner).__name__ == "WorkerRunner":
        return
    total = environment.stats.total
    if total.num_requests == 0:
        print("slo: no request was made", file=sys.stderr)
        environment.process_exit_code = NOTHING
        return
    found = breaches(tomllib.loads(FILE.read_text()), environment.stats)
    # Locust's own table of failures may have been written before the last ones.
    for error in environment.stats.errors.values():
        print(f"failed: {error.method} {error.name}: {error.occurrences} x {error.error}", file=sys.stderr)
    for line in found:
        print(f"slo: {line}", file=sys.stderr)
    print(f"slo: {'breached' if found else 'kept'}: {total.num_requests} requests, {total.num_failures} failed", file=sys.stderr)
    environment.process_exit_code = BREACH if found else 0
