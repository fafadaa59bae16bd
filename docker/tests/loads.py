"""The load tests against the stack: their reports, and what they say of goals missed, of requests that fail, and of nobody there."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

from scenario import Bench, Scenario, fills_memory
from stack import ROOT, Skipped, check, free_port, run

# Tools that are missing are installed first.
LOAD_SECONDS = 300
SHORT = ("--rounds", "1", "--seconds", "1", "--connections", "8")
# Locust may come from a package index that this machine does not reach.
UNAVAILABLE = 69


def load(*arguments: str, host: str, **environment: str) -> subprocess.CompletedProcess:
    command = ("scripts/load.sh", *arguments)
    return subprocess.run(
        command, env={**os.environ, "HOST": host, **environment}, cwd=ROOT, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=LOAD_SECONDS,
    )


def expect(done: subprocess.CompletedProcess, code: int, said: str) -> None:
    told = f"{done.stdout}\n{done.stderr}"
    check(done.returncode == code, f"exit {done.returncode}, not {code}: {told[-800:]}")
    check(said in told, f"does not say {said!r}: {told[-800:]}")


# Each POST is a purge.
@fills_memory
def the_load_tests_run(bench: Bench) -> str:
    """wrk and Locust for some seconds: a report with figures; exit 3 beyond a goal, 1 and no report when requests fail, 69 without a stack."""
    bench.traffic.pause()
    stack, nobody = f"http://127.0.0.1:{bench.stack.port}", f"http://127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory(prefix="troupe-loads-") as name:
        folder = Path(name)
        # Goals of its own: how fast a busy machine answers is no matter of this test.
        goal = folder / "slo.toml"
        goal.write_text('["*"]\nrequests = 10\nerror_ratio = 0.0\np99 = 15000\n')
        locust = ("--users", "10", "--locust-seconds", "6")
        done = load(*SHORT, *locust, "--out", str(folder / "kept"), host=stack, SLO=str(goal))
        if done.returncode == UNAVAILABLE and "Locust could not be installed" in done.stderr:
            raise Skipped("Locust cannot be installed here")
        expect(done, 0, "Every goal is reached.")
        report = one_report(folder / "kept")
        figures = json.loads((report / "report.json").read_text())
        rates = {name: found["per_second"] for name, found in figures["summary"].items()}
        check(len(rates) >= 4 and all(rates.values()), f"wrk's figures: {rates}")
        check(sum(row["requests"] for row in figures["locust"]["rows"]) > 0, f"Locust's figures: {figures['locust']}")
        for file in ("report.md", "locust.html", "locust_stats.csv"):
            check((report / file).stat().st_size > 0, f"{file} is empty")

        goal.write_text('["*"]\np50 = 0.001\n')
        shape = {"SPIKE_USERS": "10", "SPIKE_SECONDS": "2"}
        done = load(*SHORT, "--shape", "spike", "--out", str(folder / "missed"), host=stack, SLO=str(goal), **shape)
        expect(done, 3, "Missed: *: p50")
        check("Missed: " in (one_report(folder / "missed") / "report.md").read_text(), "the report does not tell what was missed")

        bench.stack.compose("stop", "-t", "10", "php-pool")
        try:
            done = load(*SHORT, "--locust-seconds", "0", "--out", str(folder / "failed"), host=stack)
        finally:
            bench.stack.compose("start", "php-pool")
            bench.stack.healthy(within=60)
        expect(done, 1, "no report")
        check(not (folder / "failed").exists(), "a report was written though requests failed")
        expect(load(*SHORT, "--locust-seconds", "0", host=nobody), UNAVAILABLE, "start the stack")
    bench.nothing_left()
    return ", ".join(f"{name} {rate} req/s" for name, rate in rates.items())


def one_report(folder: Path) -> Path:
    reports = sorted(folder.iterdir()) if folder.exists() else []
    check(len(reports) == 1, f"one report in {folder}, and not {reports}")
    return reports[0]


@fills_memory
def the_load_tests_run_in_a_container(bench: Bench) -> str:
    """`compose run load` prints a report, `compose run wrk` what it measured."""
    bench.stack.needs_image("load")
    bench.traffic.pause()
    once = (*bench.stack.compose_command, "run", "--rm", "-T")
    # Goals of its own, again.
    goal = ("-e", "SLO=/dev/null")
    report = run(*once, *goal, "load", "load", *SHORT, "--locust-seconds", "4", env=bench.stack.env)
    check("## wrk" in report and "## Locust" in report and "Every goal is reached." in report, f"printed: {report[-800:]}")
    wrk = ("-t1", "-c4", "-d1s", "-s", "/loadtests/wrk/report.lua", "http://edge:8080/api/hello")
    told = json.loads(run(*once, "wrk", *wrk, env=bench.stack.env).strip().rpartition("\n")[2])
    check(told["requests"] > 0 and not any(told["errors"].values()), f"wrk: {told}")
    bench.nothing_left()
    return f"{told['requests']} requests of wrk"


SCENARIOS: list[Scenario] = [the_load_tests_run, the_load_tests_run_in_a_container]
