"""The composed stack beside nginx with php-fpm in containers, and beside Troupe in one process; and as it is scaled.

Exit codes: 0 a report was written, 1 requests failed or nothing could be measured, 2 usage, 3 a report was written and a goal was
missed. scripts/bench-stack.sh builds the images and calls this.
"""

import argparse
import datetime
import statistics
import sys
from pathlib import Path

from sides import ROOT, Side, Sides

sys.path.append(str(ROOT / "loadtests" / "load"))
import ab  # noqa: E402
import generators  # noqa: E402
import report  # noqa: E402
from suite import LoadFailed, failed, rate, table  # noqa: E402

CONNECTIONS = 64
# php-pools and gateways.
SCALES = [(1, 1), (2, 1), (4, 1), (1, 2), (2, 2)]
TIMES = ("p50", "p99")
# Of new connections.
CONNECT_ROUNDS = 3


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench-stack.sh", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds, each side once per round")
    parser.add_argument("--seconds", type=int, default=5, help="length of one run of wrk")
    parser.add_argument("--compose", default="docker-compose", help="what runs compose files")
    parser.add_argument("--out", default=str(ROOT / "loadtests" / "reports"), help="where the report's folder is made; - prints it only")
    options = parser.parse_args()
    if options.rounds < 1 or options.seconds < 1:
        parser.error("--rounds and --seconds: at least 1")
    options.connections = CONNECTIONS
    facts = report.machine_facts()
    try:
        with Sides(options.compose.split()) as sides:
            beside, connects, scaled = compare(sides, options), connect(sides), scale(sides, options)
    except LoadFailed as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    now = datetime.datetime.now(datetime.UTC)
    found = {title: ab.summary(runs) for title, runs in connects.items()}
    missed = ab.missed(found[sides.composed.title], found[sides.fpm.title])
    said = [*lines(beside, scaled, options), *connect_lines(found), *(f"Missed: {goal}." for goal in missed), ""]
    text = "\n".join(report.heading("The stack in containers", facts, now) + said)
    print(text)
    if options.out != "-":
        folder = Path(options.out) / f"stack-{now:%Y-%m-%d}-{facts['commit']}"
        named = {f"{pools} php-pools, {gateways} gateways": runs for (pools, gateways), runs in scaled.items()}
        report.store(folder, text, {"machine": facts, "beside": beside, "connects": connects, "scaled": named}, options, now)
        print(f"stored in {folder}", file=sys.stderr)
    return 3 if missed else 0


def compare(sides: Sides, options: argparse.Namespace) -> dict[str, list[dict]]:
    """All sides in turn."""
    runs: dict[str, list[dict]] = {}
    everyone = [sides.composed, sides.gateway, sides.fpm, sides.one]
    for side in everyone:
        measure(side, options)
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
        # Nobody is always behind the same other.
        for side in everyone[number % len(everyone):] + everyone[: number % len(everyone)]:
            runs.setdefault(side.title, []).append(measure(side, options))
    return runs


def connect(sides: Sides) -> dict[str, list[dict]]:
    """New connections for each request: how long it takes to be let in, where all do the same work in containers of the same kind."""
    print("connect times", file=sys.stderr)
    runs = ab.in_turn({side.title: side.host() + side.path for side in (sides.composed, sides.gateway, sides.fpm)}, CONNECT_ROUNDS)
    if wrong := ab.errors(runs):
        raise LoadFailed(f"connect times: {'; '.join(wrong)}")
    return runs


def scale(sides: Sides, options: argparse.Namespace) -> dict[tuple[int, int], dict[str, list[dict]]]:
    """The stack at each scale, in turn with the one process, which does not change: what the machine has to give does."""
    found = {}
    for pools, gateways in SCALES:
        print(f"php-pool {pools}, gateway {gateways}", file=sys.stderr)
        sides.scale(pools, gateways)
        measure(sides.composed, options)
        pairs = [(measure(sides.composed, options), measure(sides.one, options)) for _ in range(options.rounds)]
        found[pools, gateways] = {"stack": [stack for stack, _ in pairs], "one": [one for _, one in pairs]}
    return found


def measure(side: Side, options: argparse.Namespace) -> dict:
    """One run of wrk, with what each service used meanwhile: microseconds of processor time per request."""
    before = side.used()
    run = generators.wrk(side.host(), side.path, "report.lua", options)
    after = side.used()
    if failed(run) or not run["requests"]:
        raise LoadFailed(f"{side.title}: {failed(run) or 'no request was answered'}")
    return run | {"cpu_us": {service: (after[service] - before[service]) * 1e6 / run["requests"] for service in after}}


def lines(beside: dict, scaled: dict, options: argparse.Namespace) -> list[str]:
    said = [
        f"wrk, {CONNECTIONS} connections, {options.rounds} rounds of {options.seconds} s in turn, medians; generator and containers share the "
        "cores. Asked at the front's address in the engine's network, not at a published port; access logs off. "
        "Ratios are of runs of the same round.", "",
        "## Beside others", "",
    ]
    stack = beside["composed stack"]
    head = ["", "req/s", "least to most", "of the stack", "p50 ms", "p99 ms", "CPU per request µs", "by service"]
    said += table(head, [[title, *figures(runs), *ratio(runs, stack), *times(runs), *costs(runs)] for title, runs in beside.items()])
    said += ["## Scaled", "", "On the same cores: more instances can only cost. `of one process` is the stack's rate by that of the one process beside it.", ""]
    head = ["php-pool", "gateway", "req/s", "least to most", "of one process", "p50 ms", "p99 ms", "CPU per request µs", "by service"]
    said += table(head, [
        [str(pools), str(gateways), *figures(runs["stack"]), *ratio(runs["stack"], runs["one"]), *times(runs["stack"]), *costs(runs["stack"])]
        for (pools, gateways), runs in scaled.items()
    ])
    return said


def connect_lines(found: dict[str, dict]) -> list[str]:
    return [
        "## New connections", "",
        f"`ab -n {ab.REQUESTS} -c {ab.CONNECTIONS}`, {CONNECT_ROUNDS} rounds in turn, times in ms as ab rounds them; the worst round counts.", "",
        *table(ab.HEAD, [ab.row(title, one) for title, one in found.items()]),
    ]


def figures(runs: list[dict]) -> list[str]:
    rates = [rate(run) for run in runs]
    return [f"{statistics.median(rates):,.0f}", f"{min(rates):,.0f} to {max(rates):,.0f}"]


def ratio(runs: list[dict], others: list[dict]) -> list[str]:
    return [f"{statistics.median(rate(run) / rate(other) for run, other in zip(runs, others, strict=True)):.2f}"]


def times(runs: list[dict]) -> list[str]:
    return [f"{statistics.median(run['latency_us'][time] for run in runs) / 1000:.2f}" for time in TIMES]


def costs(runs: list[dict]) -> list[str]:
    by_service = {service: statistics.median(run["cpu_us"][service] for run in runs) for service in runs[0]["cpu_us"]}
    shown = [f"{service} {cost:.1f}" for service, cost in by_service.items() if cost >= 0.05]
    return [f"{sum(by_service.values()):.1f}", ", ".join(shown)]


if __name__ == "__main__":
    sys.exit(main())
