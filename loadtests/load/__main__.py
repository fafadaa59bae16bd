"""wrk and Locust against a stack that runs, and one report of both; no report when a request failed.

Exit codes: 0 a report was written, 1 requests failed or nothing could be measured, 2 usage, 3 a goal of slo.toml was missed,
69 the stack does not answer or a tool is missing.
"""

import argparse
import datetime
import json
import shutil
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import baseline
import generators
import report

ROOT = Path(__file__).resolve().parent.parent
EXIT_FAILED, EXIT_MISSED, EXIT_UNAVAILABLE = 1, 3, 69
# A breath between two runs: what the last one left in queues is not the next one's load.
HEALTH_SECONDS = 10


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make load", description=__doc__.partition("\n")[0])
    parser.add_argument("--host", default="http://127.0.0.1:8080", help="the stack (HOST=); default: this machine's")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of wrk, interleaved; medians are reported")
    parser.add_argument("--seconds", type=int, default=8, help="length of one run of wrk")
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--users", type=int, default=40, help="Locust's users")
    parser.add_argument("--locust-seconds", type=int, default=30, help="length of Locust's run; 0 leaves it out")
    parser.add_argument("--shape", choices=["step", "spike", "soak"], help="a shape of loadtests/locust/shapes instead")
    parser.add_argument("--locust", default="locust", help="the program")
    parser.add_argument("--baseline", type=Path, metavar="BINARY", help="bare-actix, measured beside the stack for the ratios")
    parser.add_argument("--out", default=str(ROOT / "reports"), help="where the report's folder is made; - prints it only")
    chosen = parser.parse_args()
    if chosen.rounds < 1 or chosen.seconds < 1 or chosen.connections < 1:
        parser.error("--rounds, --seconds and --connections: at least 1")
    if urllib.parse.urlsplit(chosen.host).scheme != "http":
        parser.error(f"--host {chosen.host}: http://HOST:PORT")
    chosen.host = chosen.host.rstrip("/")
    return chosen


def main() -> int:
    options = arguments()
    for tool in ["wrk", *([options.locust] if options.locust_seconds else [])]:
        if not shutil.which(tool):
            say(f"error: {tool} is not installed; scripts/load.sh installs what is needed")
            return EXIT_UNAVAILABLE
    if problem := unhealthy(options.host):
        say(f"error: {options.host}/health: {problem}; start the stack (make stack), or say where it is: make load HOST=http://...")
        return EXIT_UNAVAILABLE
    with tempfile.TemporaryDirectory(prefix="troupe-load-") as scratch, baseline.running(options.baseline) as bare:
        try:
            results = measure(options, Path(scratch), bare)
        except generators.LoadFailed as failure:
            say(f"error: {failure}")
            return EXIT_FAILED
        if errors := report.errors(results):
            for line in errors:
                say(f"error: {line}")
            say("no report: a figure with errors in it is none")
            return EXIT_FAILED
        now = datetime.datetime.now(datetime.UTC)
        text = report.markdown(results, options, now)
        print(text)
        if options.out != "-":
            folder = Path(options.out) / f"load-{now:%Y-%m-%d}-{results['machine']['commit']}"
            report.store(folder, text, results, options, now, Path(scratch))
            say(f"stored in {folder}")
    return EXIT_MISSED if results["locust"] and results["locust"]["missed"] else 0


def measure(options: argparse.Namespace, scratch: Path, bare: str | None) -> dict:
    """Everything, in turn: rounds of wrk, each scenario once per round, then Locust."""
    runs: dict[str, list[dict]] = {}
    for number in range(1, options.rounds + 1):
        say(f"round {number} of {options.rounds}")
        if bare:
            runs.setdefault("bare actix-web", []).append(generators.wrk(bare, "/hello", "report.lua", options))
        for name, (path, script) in generators.SCENARIOS.items():
            runs.setdefault(name, []).append(generators.wrk(options.host, path, script, options))
            if problem := unhealthy(options.host):
                raise generators.LoadFailed(f"after {name}: {options.host}/health: {problem}")
    locust = None
    if options.locust_seconds:
        say(f"locust: {options.shape or f'{options.users} users for {options.locust_seconds} s'}")
        locust = generators.locust(options, scratch)
        if problem := unhealthy(options.host):
            raise generators.LoadFailed(f"after Locust: {options.host}/health: {problem}")
    return {"machine": report.machine_facts(), "wrk": runs, "locust": locust}


def unhealthy(host: str) -> str:
    """What is wrong with the stack; empty when it serves."""
    try:
        with urllib.request.urlopen(f"{host}/health", timeout=HEALTH_SECONDS) as answer:
            return "" if answer.status == 200 else f"status {answer.status}"
    except (urllib.error.URLError, OSError) as error:
        return str(getattr(error, "reason", error))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
