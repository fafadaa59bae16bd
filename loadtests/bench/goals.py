"""The figures a release must meet, judged over one run."""

from collections.abc import Callable
from dataclasses import dataclass

from asked import HEAL, MISSES, POLICIES, RELAY, SCALING, TIERS, Asked
from caches import BODIES, base
from memory import AtRest
from misses import Cost, ratio as miss_ratio
from policies import Ratios
from relay import Beside, ratio as relay_ratio
from rounds import HITS, MANY, OPEN, Results, Samples
from scaling import Scaling
from tiers import CACHES, GATEWAYS, Tiers
from trials import Trials

NOT_MEASURED = "not measured"
# Neither at so many connections nor at 5,000 may a request fail.
BUSY = "256 connections"


@dataclass
class Verdict:
    path: str
    must: str
    measured: str
    outcome: str


def judge(
    asked: Asked,
    results: Results,
    at_rest: dict[str, AtRest],
    costs: dict[str, Cost],
    beside: Beside | None,
    tiered: Tiers | None,
    ratios: list[Ratios],
    scaling: list[Scaling],
    healing: list[Trials],
) -> list[Verdict]:
    verdicts: list[Verdict] = []
    told: set[str] = set()

    def add(of: tuple[str, ...], path: str, must: str, value: float | None, limit: float, at_least: bool, unit: str, void: str = "") -> None:
        """`of` are the peers and parts that the value comes of. What one was asked for is there, or void."""
        if value is None and set(of) <= asked.names:
            void = void or asked.why_missing(*of) or "no figure"
            told.update(of)
        measured = "" if value is None else f"{value:.2f} {unit}".rstrip()
        if void:
            outcome = f"void: {void}"
        elif value is None:
            outcome = NOT_MEASURED
        else:
            outcome = "pass" if (value >= limit if at_least else value <= limit) else "MISS"
        verdicts.append(Verdict(path, must, measured, outcome))

    def samples(peer: str, scenario: str) -> Samples | None:
        return results.get(peer, {}).get(scenario)

    def ratio(
        path: str, must: str, limit: float, at_least: bool, scenario: str, of: str, to: str, value: Callable[[Samples], float | None]
    ) -> None:
        above, below = samples(of, scenario), samples(to, scenario)
        if not above or not below:
            add((of, to), path, must, None, limit, at_least, "×")
            return
        over, under = value(above), value(below)
        quotient = over / under if over is not None and under else None
        add((of, to), path, must, quotient, limit, at_least, "×", above.void() or below.void())

    at64 = "64 connections"
    rate = lambda found: found.rate()  # noqa: E731
    p50 = lambda found: found.latency("p50")  # noqa: E731
    p99 = lambda found: found.latency("p99")  # noqa: E731
    one, three, bare, nginx = "troupe-one", "troupe-three", "bare-actix", "nginx-fpm"

    ratio("PHP function, one process", "≥ 0.70 × bare actix-web", 0.70, True, at64, one, bare, rate)
    ratio("PHP function, one process", "≥ 2.5 × nginx + php-fpm", 2.5, True, at64, one, nginx, rate)
    ratio("PHP function, three processes", "≥ 0.60 × bare actix-web", 0.60, True, at64, three, bare, rate)
    ratio("PHP function, three processes", "≥ 2 × nginx + php-fpm", 2.0, True, at64, three, nginx, rate)
    ratio("HTTP upstream", "≥ 0.9 × HAProxy", 0.9, True, at64, "troupe-upstream", "haproxy", rate)
    for ending, (_, size) in BODIES.items():
        troupe, bare_same = f"troupe-cache{ending}", base(f"troupe-cache{ending}")
        ratio(f"L1 hit, {size}", "≥ 0.85 × bare actix-web", 0.85, True, HITS, troupe, bare_same, rate)
        ratio(f"L1 hit, {size}", "≥ 1.5 × Varnish", 1.5, True, HITS, troupe, f"varnish{ending}", rate)
    add((MISSES,), "processor time of a miss", "≤ 1.10 × no caching", miss_ratio(costs), 1.10, False, "×")
    for _, size in BODIES.values():
        value = tiered.hit_ms(size, "p99") if tiered else None
        add((TIERS,), f"p99 of a hit in Redis, {size}, one connection", "≤ 5 ms", value, 5.0, False, "ms")
    for caches in CACHES:
        value = tiered.purge_ms(caches, 99) if tiered else None
        path = f"p99 of a purge, {GATEWAYS} gateways, cache services: {caches}"
        add((TIERS,), path, "≤ 50 ms", value, 50.0, False, "ms")
    by_trace = {found.trace: found for found in ratios}
    half, crawled = by_trace.get("room for half"), by_trace.get("with a crawler")
    value = half.s3_fifo * 100 if half else None
    add((POLICIES,), "hit ratio, Zipf trace, room for half", "≥ 95 %", value, 95.0, True, "%")
    value = crawled.s3_fifo / crawled.lru if crawled else None
    add((POLICIES,), "hit ratio, Zipf trace with a crawler", "≥ 1.00 × LRU", value, 1.0, True, "×")
    ratio("p50 at one connection, three processes", "≤ 2.5 × one process", 2.5, False, "1 connection", three, one, p50)
    for peer, title in ((one, "one process"), (three, "three processes")):
        ratio(f"p99 at 64 connections, {title}", "≤ 1.5 × bare actix-web", 1.5, False, at64, peer, bare, p99)
    for peer, title in ((one, "one process"), (three, "three processes")):
        found = samples(peer, OPEN)
        latency = p99(found) if found else None
        value = None if latency is None else latency / 1000
        void = found.void() if found else ""
        add((peer,), f"p99 at half capacity, open loop, {title}", "≤ 5 ms", value, 5.0, False, "ms", void)
    add((RELAY,), "p99 of small calls beside a relayed GiB", "≤ 2 × alone", relay_ratio(beside), 2.0, False, "×")
    for peer, title in ((one, "one process"), (three, "gateway of three")):
        found = at_rest.get(peer)
        value = found.per_idle_connection if found else None
        add((peer,), f"memory per idle connection, {title}", "≤ 24 KiB", value, 24.0, False, "KiB")
    found = at_rest.get(three)
    value = found.front_rss * 1024 / 1e6 if found else None
    add((three,), "gateway process at rest", "≤ 25 MB RSS", value, 25.0, False, "MB")
    for scenario in (BUSY, MANY):
        for peer, title in ((one, "one process"), (three, "three processes")):
            path = f"failed requests at {scenario}, {title}"
            if found := samples(peer, scenario):
                verdicts.append(failures(path, found))
            else:
                add((peer,), path, "0", None, 0, False, "")
    for peer, scenarios in results.items():
        for scenario, found in scenarios.items():
            # What no figure is judged by voids the run all the same, where it is Troupe's.
            if peer.startswith("troupe-") and found.is_void() and not (peer in (one, three) and scenario in (BUSY, MANY)):
                verdicts.append(failures(f"failed requests at {scenario}, {peer}", found))
    for found in scaling:
        add((SCALING,), found.path, "flat within 10 %", found.ratio(), 1.10, False, "×")
    for trials in healing:
        if trials.limit_ms is not None:
            void = trials.failures[0].splitlines()[0] if trials.failures else ""
            add((HEAL,), f"p99: {trials.name}", trials.limit(), trials.percentile(99), trials.limit_ms, False, "ms", void)
        elif trials.failures:
            verdicts.append(Verdict(trials.name, "no failure", str(len(trials.failures)), "MISS"))
    for name in asked.missing:
        if name not in told:
            verdicts.append(Verdict(name, "measured", "", f"void: {asked.why_missing(name)}"))
    return verdicts


def failures(path: str, found: Samples) -> Verdict:
    failed = sum(found.errors().values()) + len(found.problems)
    return Verdict(path, "0", str(failed), "MISS" if found.is_void() else "pass")


def met(verdicts: list[Verdict]) -> bool:
    """What was not asked for is no reason to fail; everything else that is no pass is."""
    return all(verdict.outcome in ("pass", NOT_MEASURED) for verdict in verdicts)
