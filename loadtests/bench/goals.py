"""The figures a release must meet, judged over one run."""

from dataclasses import dataclass

from caches import BODIES, base
from memory import AtRest
from misses import Cost, ratio as miss_ratio
from policies import Ratios
from relay import Beside, ratio as relay_ratio
from rounds import HITS, MANY, OPEN, Results
from scaling import Scaling
from tiers import CACHES, GATEWAYS, Tiers
from trials import Trials

NOT_MEASURED = "not measured"


@dataclass
class Verdict:
    path: str
    must: str
    measured: str
    outcome: str


def judge(
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

    def samples(peer: str, scenario: str):
        found = results.get(peer, {}).get(scenario)
        return found if found and found.samples else None

    def add(path: str, must: str, value: float | None, limit: float, at_least: bool, unit: str, void: bool) -> None:
        if value is None:
            verdicts.append(Verdict(path, must, "", NOT_MEASURED))
            return
        met = value >= limit if at_least else value <= limit
        outcome = "void: errors" if void else "pass" if met else "MISS"
        verdicts.append(Verdict(path, must, f"{value:.2f} {unit}".rstrip(), outcome))

    def ratio(path: str, must: str, limit: float, at_least: bool, scenario: str, of: str, to: str, value) -> None:
        above, below = samples(of, scenario), samples(to, scenario)
        if not above or not below or not value(below):
            add(path, must, None, limit, at_least, "×", False)
            return
        void = above.is_void() or below.is_void()
        add(path, must, value(above) / value(below), limit, at_least, "×", void)

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
    add("processor time of a miss", "≤ 1.10 × no caching", miss_ratio(costs), 1.10, False, "×", False)
    for _, size in BODIES.values():
        value = tiered.hit_ms(size, "p99") if tiered else None
        add(f"p99 of a hit in Redis, {size}, one connection", "≤ 5 ms", value, 5.0, False, "ms", False)
    for caches in CACHES:
        value = tiered.purge_ms(caches, 99) if tiered else None
        path = f"p99 of a purge, {GATEWAYS} gateways, cache services: {caches}"
        add(path, "≤ 50 ms", value, 50.0, False, "ms", False)
    by_trace = {found.trace: found for found in ratios}
    half, crawled = by_trace.get("room for half"), by_trace.get("with a crawler")
    add("hit ratio, Zipf trace, room for half", "≥ 95 %", half and half.s3_fifo * 100, 95.0, True, "%", False)
    value = crawled.s3_fifo / crawled.lru if crawled else None
    add("hit ratio, Zipf trace with a crawler", "≥ 1.00 × LRU", value, 1.0, True, "×", False)
    ratio("p50 at one connection, three processes", "≤ 2.5 × one process", 2.5, False, "1 connection", three, one, p50)
    for peer, title in ((one, "one process"), (three, "three processes")):
        ratio(f"p99 at 64 connections, {title}", "≤ 1.5 × bare actix-web", 1.5, False, at64, peer, bare, p99)
    for peer, title in ((one, "one process"), (three, "three processes")):
        found = samples(peer, OPEN)
        value = p99(found) / 1000 if found else None
        add(f"p99 at half capacity, open loop, {title}", "≤ 5 ms", value, 5.0, False, "ms", bool(found and found.is_void()))
    add("p99 of small calls beside a relayed GiB", "≤ 2 × alone", relay_ratio(beside), 2.0, False, "×", False)
    for peer, title in ((one, "one process"), (three, "gateway of three")):
        found = at_rest.get(peer)
        value = found.per_idle_connection if found else None
        add(f"memory per idle connection, {title}", "≤ 24 KiB", value, 24.0, False, "KiB", False)
    found = at_rest.get(three)
    value = found.front_rss * 1024 / 1e6 if found else None
    add("gateway process at rest", "≤ 25 MB RSS", value, 25.0, False, "MB", False)
    for scenario in ("256 connections", MANY):
        for peer, title in ((one, "one process"), (three, "three processes")):
            found = results.get(peer, {}).get(scenario)
            failed = sum(found.errors().values()) + len(found.problems) if found else None
            if failed is None:
                verdicts.append(Verdict(f"failed requests at {scenario}, {title}", "0", "", NOT_MEASURED))
            else:
                outcome = "pass" if failed == 0 else "MISS"
                verdicts.append(Verdict(f"failed requests at {scenario}, {title}", "0", str(failed), outcome))
    for found in scaling:
        add(found.path, "flat within 10 %", found.ratio(), 1.10, False, "×", False)
    for trials in healing:
        if trials.limit_ms is not None:
            p99, void = trials.percentile(99), bool(trials.failures)
            add(f"p99: {trials.name}", trials.limit(), p99, trials.limit_ms, False, "ms", void)
    return verdicts
