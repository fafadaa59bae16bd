"""Starts the stack in containers from nothing, and breaks it in every way that is foreseen, under load.

Exit codes: 0 every pass line was reached, 1 one was not, 2 usage. scripts/test-stack.sh builds the images and calls this.
"""

import argparse
import signal
import subprocess
import sys
import time

import faults
import fronts
import kills
import loads
import overlays
import scaling
import sharing
import starting
import strangers
import watching
from scenario import Bench, Scenario
from stack import Failed, Skipped, Stack
from traffic import Traffic

# The start comes first, and carries the others. Kills and scaling count on one instance of each service, as do they leave it.
ALL: list[Scenario] = [
    *starting.SCENARIOS, *kills.SCENARIOS, *scaling.SCENARIOS, *faults.SCENARIOS, *strangers.SCENARIOS, *fronts.SCENARIOS,
    *watching.SCENARIOS, *sharing.SCENARIOS, *overlays.SCENARIOS, *loads.SCENARIOS,
]
ESSENTIAL = starting.starts_from_nothing


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/test-stack.sh", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", metavar="WORD,...", help="only faults with one of these words in their name")
    parser.add_argument("--list", action="store_true", help="name them and do nothing")
    parser.add_argument("--keep", action="store_true", help="leave the stack running in the end")
    parser.add_argument("--compose", default="docker-compose", help="what runs compose files")
    parser.add_argument("--tag", default="test", help="the images' tag")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    only = options.only.split(",") if options.only else [""]
    chosen = [one for one in ALL if one is ESSENTIAL or any(word in one.__name__ for word in only)]
    if options.list:
        for scenario in ALL:
            print(f"{scenario.__name__:36} {scenario.__doc__}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    stack = Stack(options.compose.split(), options.tag)
    bench = Bench(stack, Traffic(stack.port))
    began, words = time.monotonic(), []
    try:
        for scenario in chosen:
            words.append(attempt(scenario, bench))
            if words[-1] == "FAIL":
                if scenario is ESSENTIAL:
                    break
                mend(bench)
    finally:
        bench.traffic.stop()
        if options.keep:
            print(f"kept: project {stack.project} at http://127.0.0.1:{stack.port}", flush=True)
        else:
            stack.down()
    # What was not reached after a failed start is skipped, too.
    passed, failed = words.count("pass"), words.count("FAIL")
    print(f"{bench.traffic.requests} requests, {time.monotonic() - began:.0f} s")
    print(f"test-stack: {passed} passed, {failed} failed, {len(chosen) - passed - failed} skipped", flush=True)
    return 1 if failed else 0


def attempt(scenario: Scenario, bench: Bench) -> str:
    began = time.monotonic()
    try:
        outcome, word = scenario(bench) if scenario is ESSENTIAL else bench.unharmed(scenario), "pass"
    except Skipped as why:
        outcome, word = f"{why}", "skip"
    except (Failed, OSError, subprocess.TimeoutExpired) as failure:
        outcome, word = f"{failure}", "FAIL"
    print(f"{word}  {scenario.__name__:36} {time.monotonic() - began:5.1f} s  {outcome}", flush=True)
    if word == "FAIL":
        print(bench.stack.logs(), file=sys.stderr, flush=True)
    return word


def mend(bench: Bench) -> None:
    """One failure is not to make others: back to one instance of each, anew."""
    bench.traffic.pause()
    bench.stack.down()
    bench.stack.up()
    bench.stack.healthy(within=60)


if __name__ == "__main__":
    sys.exit(main())
