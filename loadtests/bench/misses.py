"""What a miss costs: the processor time of requests that are looked up, fetched and stored, over that of the same
requests where nothing is cached. No two requests are alike, so the cache answers none of them."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from load import UNIQUE_LUA, LoadFailed, wrk
from peers import Peer, Settings, start_troupe_with_functions
from process import processor_seconds
from rounds import say

CONNECTIONS = 64
# What each route says about the cache, by the names of the peers.
CACHES = {"miss": '{ ttl = "1h" }', "uncached": "false"}


@dataclass
class Cost:
    """Microseconds of processor time per request, one for each round."""

    gateway: list[float] = field(default_factory=list)
    php: list[float] = field(default_factory=list)

    def medians(self) -> tuple[float, float]:
        return statistics.median(self.gateway), statistics.median(self.php)


def start(cache: str) -> Callable[[Peer, Settings, list[str]], None]:
    def start_with(peer: Peer, settings: Settings, wrapper: list[str]) -> None:
        start_troupe_with_functions(peer, settings, wrapper, "troupe-miss.toml", cache=cache)

    return start_with


def measure(settings: Settings, rounds: int, seconds: int) -> dict[str, Cost]:
    """Both in turn, so that what else the machine does meets both."""
    peers = [Peer(f"troupe-{name}", name, start(cache), ours=True) for name, cache in CACHES.items()]
    costs = {peer.title: Cost() for peer in peers}
    try:
        for peer in peers:
            peer.start(settings)
            wrk(peer, CONNECTIONS, seconds, settings.threads, script=UNIQUE_LUA)
        for number in range(rounds):
            for peer in peers if number % 2 == 0 else reversed(peers):
                take(peer, costs[peer.title], seconds, settings.threads)
            line = "; ".join(f"{name} {costs[name].gateway[-1]:.2f}" for name in costs)
            say(f"cost of a miss, round {number + 1} of {rounds}, µs in Troupe: {line}")
    finally:
        for peer in peers:
            peer.stop()
    return costs


def take(peer: Peer, cost: Cost, seconds: int, threads: int) -> None:
    process = peer.front()
    before, all_before = processor_seconds(process.pid), processor_seconds(process.pid, descendants_too=True)
    sample = wrk(peer, CONNECTIONS, seconds, threads, script=UNIQUE_LUA)
    peer.check()
    if sample.failed() or not sample.requests:
        raise LoadFailed(f"{peer.name}: {sample.errors} in {sample.requests} requests")
    own = processor_seconds(process.pid) - before
    cost.gateway.append(own * 1e6 / sample.requests)
    together = processor_seconds(process.pid, descendants_too=True) - all_before
    cost.php.append((together - own) * 1e6 / sample.requests)


def ratio(costs: dict[str, Cost]) -> float | None:
    if not costs or not all(cost.gateway for cost in costs.values()):
        return None
    return costs["miss"].medians()[0] / costs["uncached"].medians()[0]
