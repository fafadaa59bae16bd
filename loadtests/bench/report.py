"""The tables, for people and for programs."""

import dataclasses
import json
from pathlib import Path

from caches import base
from goals import Verdict
from memory import AtRest
from misses import Cost
from peers import Peer
from policies import Ratios
from relay import RATE, Beside
from rounds import CAPACITY_OF, CLOSED, HITS, MANY, OPEN, Results
from scaling import Scaling
from tiers import GATEWAYS, Tiers
from trials import Trials


@dataclasses.dataclass
class Run:
    """Everything one run has found."""

    date: str
    options: dict[str, object]
    machine: dict[str, object]
    peers: list[Peer]
    skipped: dict[str, str]
    results: Results
    at_rest: dict[str, AtRest]
    peaks: dict[str, list[dict]]
    instructions: dict[str, dict[str, float]]
    instructions_by: str
    verdicts: list[Verdict]
    costs: dict[str, Cost]
    beside: Beside | None
    tiered: Tiers | None
    ratios: list[Ratios]
    scaling: list[Scaling]
    healing: list[Trials]


def markdown(run: Run) -> str:
    lines = [f"# Side by side, {run.date}, commit {run.machine['commit']}{' (dirty)' if run.machine['dirty'] else ''}", ""]
    lines += [
        "The load generator shares the cores with what it measures: ratios within this run mean something, absolute",
        "figures do not. Medians over interleaved rounds; access logs off everywhere; any error voids a row.",
        "",
    ]
    facts = {**run.machine, **run.options}
    lines += [", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in facts.items()), ""]
    for name, reason in run.skipped.items():
        lines += [f"**Skipped: {name}**: {reason.splitlines()[0]}", ""]
    lines += ["## Against the figures", ""]
    lines += table(
        ["path", "must", "measured", ""], [[v.path, v.must, v.measured, v.outcome] for v in run.verdicts]
    )
    for scenario in [*CLOSED, OPEN, MANY]:
        rows = [row(run, peer, scenario) for peer in run.peers if scenario in run.results.get(peer.name, {})]
        if rows:
            lines += [f"## {scenario[0].upper()}{scenario[1:]}", ""]
            head = ["", "req/s", "× bare", "× nginx+fpm", "MB/s", "p50 ms", "p99 ms", "p99.9 ms", "errors"]
            lines += table(head, rows)
    lines += hits(run) + over_tiers(run) + hit_ratios(run) + cost_of_misses(run) + beside_a_body(run)
    lines += until_well(run) + with_size(run)
    lines += ["## Memory", ""]
    rest = [
        [title(run, name), f"{found.front_rss / 1024:.1f} MiB", f"{found.per_idle_connection:.1f} KiB"]
        for name, found in run.at_rest.items()
    ]
    lines += table(["", "front process at rest", "per idle keep-alive connection"], rest)
    peaks = [
        [title(run, name), entry["process"], f"{entry['peak_rss'] / 1024:.1f}", pss(entry)]
        for name, entries in run.peaks.items()
        for entry in entries
    ]
    lines += table(["", "process", "peak RSS MiB", "PSS together MiB"], peaks)
    lines += ["## Instructions per request", ""]
    if run.instructions:
        counts = [
            [title(run, name), label, f"{value:,.0f}"]
            for name, labels in run.instructions.items()
            for label, value in labels.items()
        ]
        lines += [f"Counted by {run.instructions_by}, PHP not included.", ""]
        lines += table(["", "process", "instructions"], counts)
    else:
        lines += ["Not counted.", ""]
    return "\n".join(lines)


def hits(run: Run) -> list[str]:
    """Each beside bare actix-web with the same body, and Varnish with the same body."""
    rows = []
    for peer in run.peers:
        samples = run.results.get(peer.name, {}).get(HITS)
        if not samples or not samples.samples:
            continue
        ending = "-10k" if peer.name.endswith("-10k") else ""

        def against(other: str, own=samples) -> str:
            found = run.results.get(other, {}).get(HITS)
            rate = found.rate() if found else None
            return f"{(own.rate() or 0) / rate:.2f}" if rate and not found.is_void() and not own.is_void() else ""

        times = [f"{(samples.latency(name) or 0.0) / 1000:.2f}" for name in ("p50", "p99", "p999")]
        errors = ", ".join(f"{kind} {count}" for kind, count in samples.errors().items()) or "0"
        cells = [peer.title, f"{samples.rate():,.0f}", against(base(peer.name)), against(f"varnish{ending}")]
        rows.append([*cells, *times, errors])
    if not rows:
        return []
    head = ["", "req/s", "× bare, same body", "× Varnish, same body", "p50 ms", "p99 ms", "p99.9 ms", "errors"]
    return [f"## {HITS[0].upper()}{HITS[1:]}", "", *table(head, rows)]


def over_tiers(run: Run) -> list[str]:
    tiered = run.tiered
    if not tiered:
        return []
    times = lambda value: [f"{value(percent):.2f}" for percent in (50, 99)]  # noqa: E731
    rows = [
        [f"hit in Redis, {size}", f"{len(rounds)} rounds", *times(lambda percent: tiered.hit_ms(size, f"p{percent}"))]
        for size, rounds in tiered.hits.items()
    ]
    rows += [
        [
            f"purge, {GATEWAYS} gateways, cache services: {caches}",
            f"{len(took)} purges",
            *times(lambda percent: tiered.purge_ms(caches, percent)),
        ]
        for caches, took in tiered.purges.items()
    ]
    text = "Redis on the same machine. Hits at one connection; a purge from its order to the word that no gateway gives it."
    return ["## The cache's second tier", "", text, "", *table(["", "of", "p50 ms", "p99 ms"], rows)]


def hit_ratios(run: Run) -> list[str]:
    if not run.ratios:
        return []
    rows = []
    for found in run.ratios:
        trace = f"{found.urls:,} URLs, {found.exponent}, {found.of_1000_asked_for_once}"
        cells = [f"{ratio:.2%}" for ratio in (found.s3_fifo, found.lru, found.tiny_lfu)]
        rows.append([found.trace, trace, f"{found.requests:,}", f"{found.capacity >> 20} MiB", *cells, found.digest])
    head = ["Zipf trace", "URLs, exponent, of 1,000 asked for once", "requests", "room", "S3-FIFO", "LRU", "W-TinyLFU"]
    return ["## Hit ratios", "", *table([*head, "digest of the trace"], rows)]


def cost_of_misses(run: Run) -> list[str]:
    if not run.costs:
        return []
    rows = []
    for name, cost in run.costs.items():
        gateway, php = cost.medians()
        rows.append([name, f"{gateway:.2f}", f"{php:.2f}"])
    head = ["every request another URL", "µs of Troupe's processor time per request", "µs of PHP's"]
    return ["## Cost of a miss", "", *table(head, rows)]


def beside_a_body(run: Run) -> list[str]:
    if not run.beside:
        return []
    alone, beside, rate = run.beside.medians()
    head = [f"{RATE:,} small calls a second, three processes", "p99 ms", "the body, MB/s"]
    rows = [["alone", f"{alone:.2f}", ""], ["beside a relayed GiB", f"{beside:.2f}", f"{rate / 1e6:,.0f}"]]
    return ["## Small calls beside a large body", "", *table(head, rows)]


def until_well(run: Run) -> list[str]:
    if not run.healing:
        return []
    rows = []
    for trials in run.healing:
        found = [trials.percentile(percent) for percent in (50, 99, 100)]
        times = ["" if time is None else f"{time:.1f}" for time in found]
        failures = f"{len(trials.failures)}: {trials.failures[0].splitlines()[0]}" if trials.failures else "0"
        rows.append([trials.name, trials.limit(), str(len(trials.samples_ms)), *times, failures])
    head = ["", "p99 must", "trials", "p50 ms", "p99 ms", "most ms", "otherwise"]
    return ["## Until all is well again", "", *table(head, rows)]


def with_size(run: Run) -> list[str]:
    rows = []
    for found in run.scaling:
        for size, instructions in found.instructions.items():
            rows.append([found.path, f"{size:,}", f"{instructions:,.0f}", f"{found.of_request(size):,.0f}"])
    if not rows:
        return []
    head = ["", "of them", "instructions counted", "of a request"]
    return ["## Cost per request with the number of workers and routes", "", "Counted by callgrind.", "", *table(head, rows)]


def row(run: Run, peer: Peer, scenario: str) -> list[str]:
    samples = run.results[peer.name][scenario]
    if not samples.samples:
        return [peer.title] + [""] * 7 + [f"void: {samples.problems[0].splitlines()[0]}"]
    rate = samples.rate() or 0.0

    def against(other: str) -> str:
        base = run.results.get(other, {}).get(scenario)
        base_rate = base.rate() if base else None
        # A rate that was asked for says nothing, nor does one of errors.
        if not base or not base_rate or scenario == OPEN or samples.is_void() or base.is_void():
            return ""
        return f"{rate / base_rate:.2f}"

    megabytes = (samples.median(lambda sample: sample.bytes_per_second) or 0.0) / 1e6
    times = [f"{(samples.latency(name) or 0.0) / 1000:.2f}" for name in ("p50", "p99", "p999")]
    kinds = [f"{kind} {count}" for kind, count in samples.errors().items()]
    if samples.problems:
        kinds.append(f"no answer afterwards {len(samples.problems)} ×")
    errors = ", ".join(kinds) or "0"
    cells = [peer.title, f"{rate:,.0f}", against("bare-actix"), against("nginx-fpm")]
    return [*cells, f"{megabytes:.1f}" if megabytes else "", *times, errors]


def title(run: Run, name: str) -> str:
    return next((peer.title for peer in run.peers if peer.name == name), name)


def pss(entry: dict) -> str:
    return f"{entry['pss_together'] / 1024:.1f}" if "pss_together" in entry else ""


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A markdown table whose columns line up in a terminal too."""
    widths = [max(len(cells[column]) for cells in [head, *rows]) for column in range(len(head))]

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return [line(head), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows), ""]


def store(run: Run, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.md").write_text(markdown(run) + "\n")
    data = {
        "date": run.date,
        "options": run.options,
        "machine": run.machine,
        "skipped": run.skipped,
        "verdicts": [dataclasses.asdict(verdict) for verdict in run.verdicts],
        "capacity_scenario": CAPACITY_OF,
        "results": {
            peer: {scenario: dataclasses.asdict(samples) for scenario, samples in scenarios.items()}
            for peer, scenarios in run.results.items()
        },
        "miss_microseconds": {name: dataclasses.asdict(cost) for name, cost in run.costs.items()},
        "beside_a_large_body": dataclasses.asdict(run.beside) if run.beside else None,
        "tiers_microseconds": dataclasses.asdict(run.tiered) if run.tiered else None,
        "hit_ratios": [dataclasses.asdict(found) for found in run.ratios],
        "until_well": [dataclasses.asdict(trials) for trials in run.healing],
        "instructions_with_size": [dataclasses.asdict(found) for found in run.scaling],
        "at_rest": {peer: dataclasses.asdict(found) for peer, found in run.at_rest.items()},
        "peaks": run.peaks,
        "instructions_per_request": run.instructions,
    }
    (directory / "report.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
