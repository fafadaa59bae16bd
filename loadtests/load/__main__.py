"""Load against a stack that runs, and one report; no report when a request failed.

Suites: load (wrk and Locust, the default), baseline, stress, crowd, curve, connects, guides.

Exit codes: 0 a report was written, 1 requests failed or nothing could be measured, 2 usage, 3 a goal was missed, 69 the stack does
not answer or a tool is missing.
"""

import argparse
import datetime
import shutil
import sys
import tempfile
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import connects
import crowd
import curve
import generators
import guides
import report
import steps
import yardstick
from suite import LoadFailed, Outcome, Unavailable, unhealthy, well

ROOT = Path(__file__).resolve().parent.parent
EXIT_FAILED, EXIT_MISSED, EXIT_UNAVAILABLE = 1, 3, 69


def load(options: argparse.Namespace) -> Outcome:
    """Rounds of wrk, each scenario once per round and in turn, then Locust."""
    runs: dict[str, list[dict]] = {}
    with tempfile.TemporaryDirectory(prefix="troupe-load-") as scratch, yardstick.running(options.baseline) as bare:
        for number in range(1, options.rounds + 1):
            say(f"round {number} of {options.rounds}")
            if bare:
                runs.setdefault("bare actix-web", []).append(generators.wrk(bare, "/hello", "report.lua", options))
            for name, (path, script) in generators.SCENARIOS.items():
                runs.setdefault(name, []).append(generators.wrk(options.host, path, script, options))
                well(options.host, name)
        locust, files = None, {}
        if options.locust_seconds:
            say(f"locust: {options.shape or f'{options.users} users for {options.locust_seconds} s'}")
            locust = generators.locust(options, Path(scratch))
            files = {file.name: file.read_text() for file in sorted(Path(scratch).glob("locust*")) if file.suffix in (".html", ".csv")}
            well(options.host, "Locust")
    results = {"wrk": runs, "locust": locust}
    data = {"summary": report.summary(results), **results}
    missed = locust["missed"] if locust else []
    return Outcome("Load", report.lines(results, options), data, report.errors(results), missed, files)


# By name: the suite, the length of one run of a generator in seconds, and the programs that it needs.
SUITES: dict[str, tuple[Callable[[argparse.Namespace], Outcome], int, tuple[str, ...]]] = {
    "load": (load, 8, ("wrk", "locust")),
    "baseline": (steps.baseline, 15, ("wrk",)),
    "stress": (steps.stress, 15, ("wrk",)),
    # Ten thousand connections take seconds to be made, and each waits for seconds.
    "crowd": (crowd.crowd, 2 * crowd.ANSWER_SECONDS, ("wrk",)),
    "curve": (curve.curve, 10, ("wrk",)),
    # These two count requests, not seconds.
    "connects": (connects.connects, 1, ("ab",)),
    "guides": (guides.guides, 1, ("ab", "hey", "wrk", "locust", "curl")),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make load", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", nargs="?", choices=SUITES, default="load")
    parser.add_argument("--host", default="http://127.0.0.1:8080", help="the stack (HOST=); default: this machine's")
    parser.add_argument("--rounds", type=int, default=3, help="load: rounds of wrk, interleaved; medians are reported")
    parser.add_argument("--seconds", type=int, help="length of one run of a generator; default: the suite's own")
    parser.add_argument("--connections", type=int, default=50, help="load: wrk's")
    parser.add_argument("--users", type=int, default=40, help="load: Locust's users")
    parser.add_argument("--locust-seconds", type=int, default=30, help="load: length of Locust's run; 0 leaves it out")
    parser.add_argument("--shape", choices=["step", "spike", "soak"], help="load: a shape of loadtests/locust/shapes instead")
    parser.add_argument("--locust", default="locust", help="the program")
    parser.add_argument("--baseline", type=Path, metavar="BINARY", help="bare-actix, measured beside the stack for the ratios")
    parser.add_argument("--open-loop", type=Path, metavar="BINARY", help="the generator of curve")
    parser.add_argument("--out", default=str(ROOT / "reports"), help="where the report's folder is made; - prints it only")
    chosen = parser.parse_args()
    chosen.seconds = SUITES[chosen.suite][1] if chosen.seconds is None else chosen.seconds
    if chosen.rounds < 1 or chosen.seconds < 1 or chosen.connections < 1:
        parser.error("--rounds, --seconds and --connections: at least 1")
    if urllib.parse.urlsplit(chosen.host).scheme != "http":
        parser.error(f"--host {chosen.host}: http://HOST:PORT")
    chosen.host = chosen.host.rstrip("/")
    return chosen


def main() -> int:
    options = arguments()
    suite, _, tools = SUITES[options.suite]
    needed = [options.locust if tool == "locust" else tool for tool in tools if tool != "locust" or options.locust_seconds]
    for tool in needed:
        if not shutil.which(tool):
            say(f"error: {tool} is not installed; scripts/load.sh installs what is needed")
            return EXIT_UNAVAILABLE
    if problem := unhealthy(options.host):
        say(f"error: {options.host}/health: {problem}; start the stack (make stack), or say where it is: make load HOST=http://...")
        return EXIT_UNAVAILABLE
    facts = report.machine_facts()
    try:
        outcome = suite(options)
    except LoadFailed as failure:
        say(f"error: {failure}")
        return EXIT_FAILED
    except Unavailable as missing:
        say(f"error: {missing}")
        return EXIT_UNAVAILABLE
    if outcome.errors:
        for line in outcome.errors:
            say(f"error: {line}")
        say("no report: a figure with errors in it is none")
        return EXIT_FAILED
    publish(outcome, facts, options)
    return EXIT_MISSED if outcome.missed else 0


def publish(outcome: Outcome, facts: dict, options: argparse.Namespace) -> None:
    now = datetime.datetime.now(datetime.UTC)
    goals = ["Missed: " + "; ".join(outcome.missed) + "." if outcome.missed else "Every goal is reached.", ""]
    where = [f"{options.host}. Where the generator shares the cores with the stack, ratios mean something and absolute figures do not.", ""]
    text = "\n".join(report.heading(outcome.title, facts, now) + where + outcome.lines + goals)
    print(text)
    if options.out != "-":
        kind = "load" if options.suite == "load" else f"load-{options.suite}"
        folder = Path(options.out) / f"{kind}-{now:%Y-%m-%d}-{facts['commit']}"
        report.store(folder, text, {"machine": facts, "missed": outcome.missed, **outcome.data}, options, now)
        for name, content in outcome.files.items():
            (folder / name).write_text(content)
        say(f"stored in {folder}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
