"""`crowd`: ten thousand connections at once, with small, middling and large answers."""

import argparse
import time

import steps
from suite import LoadFailed, Outcome, failed, fetch, many_descriptors, table, well

CONNECTIONS = 10_000
# With so many before it, each waits for seconds; and half of a run, for what is never answered has to be seen in it.
ANSWER_SECONDS = 15
# Beside its connections, a generator needs some descriptors of its own.
SPARE = 100
# By what the body is near to: items of the page that the cache keeps, and of the list that PHP makes for each request.
SIZES = {"100 B": (0, 2), "6.5 KB": (126, 126), "50 KB": (965, 960)}
# What guides to servers for ten thousand users print of their own stacks.
GUIDES = [
    ("a guide: nginx, php-fpm and Redis, tuned", "10,000 users", "50,000", "250"),
    ("a guide: the same, all answers cached", "10,000 users", "120,000", "95"),
]
DIFFERS = (
    "What differs: the guides have 4 vCPU for the servers and a generator elsewhere, and do not say what their answers hold; here "
    "generator and stack share this machine's cores. A closed loop of 10,000 connections has a mean latency of 10,000 "
    "divided by its rate, whatever the server does: only p99 beside the mean says how evenly they are served."
)


def crowd(options: argparse.Namespace) -> Outcome:
    """Each size from the cache and from PHP; no request may fail."""
    available = many_descriptors()
    if available < CONNECTIONS + SPARE:
        raise LoadFailed(f"{CONNECTIONS:,} connections need as many descriptors, and the limit is {available:,}: raise ulimit -Hn")
    runs, body, errors = {}, [], []
    for size, (cached_items, items) in SIZES.items():
        for kind, path in (("cache", f"/api/page?items={cached_items}"), ("PHP", f"/api/data?items={items}")):
            name, length = f"{kind}, {size}", len(fetch(options.host + path))
            run = steps.step(options, path, CONNECTIONS, options.seconds, ANSWER_SECONDS)
            time.sleep(steps.COOL_DOWN_SECONDS)
            well(options.host, name)
            runs[name] = run | {"body": length}
            body.append([f"{name} ({length:,} B)", *steps.row("", CONNECTIONS, run)[1:]])
            if failed(run):
                errors.append(f"{name}: {failed(run)}")
    rest = f"{options.seconds} s each, then {steps.COOL_DOWN_SECONDS} s of rest; /health answered 200 after each."
    lines = [f"{rest} An answer that takes longer than {ANSWER_SECONDS} s, or never comes, is an error.", "", *table(steps.HEAD, body)]
    lines += table(["beside it", "", "req/s", "p99 ms"], [list(guide) for guide in GUIDES]) + [DIFFERS, ""]
    return Outcome("The crowd", lines, {"runs": runs}, errors)
