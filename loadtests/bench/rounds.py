"""The measuring: all peers are up, each round visits each of them in turn, and the medians of the rounds count."""

import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from load import BROWSER, LoadFailed, Sample, open_loop, wrk
from peers import NotUp, Peer

# Connections of the closed loop and headers beside Host, by name of the scenario.
CLOSED: dict[str, tuple[int, dict[str, str]]] = {
    "1 connection": (1, {}),
    "64 connections": (64, {}),
    "256 connections": (256, {}),
    "64 connections, browser's headers": (64, BROWSER),
}
OPEN = "open loop, half capacity"
MANY = "5,000 connections"
HITS = "cache hits, 64 connections"
HIT_CONNECTIONS = 64
CAPACITY_OF = "64 connections"
BARE = "bare-actix"
OPEN_CONNECTIONS = 64
# Two runs of the same kernel and the same peers a moment apart disturb each other; sockets of the last one close.
PAUSE_SECONDS = 0.3


@dataclass
class Durations:
    """Seconds, and how often."""

    rounds: int
    warm_up: int
    closed: int
    open: int
    many: int


@dataclass
class Samples:
    """All samples of one peer in one scenario."""

    samples: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def median(self, value) -> float | None:
        return statistics.median(value(sample) for sample in self.samples) if self.samples else None

    def rate(self) -> float | None:
        return self.median(lambda sample: sample.rate)

    def latency(self, percentile: str) -> float | None:
        return self.median(lambda sample: sample.latency_us[percentile])

    def errors(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for sample in self.samples:
            for kind, count in sample.errors.items():
                if count:
                    total[kind] = total.get(kind, 0) + count
        return total

    def void(self) -> str:
        """Why they are not to be believed, in a line; empty when they are. Any error voids: a server that fails fast would look fast."""
        if self.errors():
            return "errors"
        if self.problems:
            return self.problems[0].splitlines()[0]
        return "" if self.samples else "no sample"

    def is_void(self) -> bool:
        return bool(self.void())


Results = dict[str, dict[str, Samples]]


def measure(peers: list[Peer], durations: Durations, threads: int, open_loop_binary: Path) -> Results:
    results: Results = {peer.name: {} for peer in peers}
    hits = [peer for peer in peers if peer.hits_only or peer.name == BARE]
    everything = peers
    peers = [peer for peer in peers if not peer.hits_only]

    def record(peer: Peer, scenario: str, take) -> None:
        samples = results[peer.name].setdefault(scenario, Samples())
        try:
            time.sleep(PAUSE_SECONDS)
            samples.samples.append(take())
            peer.check()
        except (LoadFailed, NotUp) as error:
            samples.problems.append(str(error))
            say(f"    {peer.name}: {scenario}: {error}")

    say(f"warm-up, {durations.warm_up} s each")
    for peer in everything:
        try:
            wrk(peer, OPEN_CONNECTIONS, durations.warm_up, threads)
        except LoadFailed as error:
            say(f"    {peer.name}: {error}")

    for number in range(durations.rounds):
        say(f"round {number + 1} of {durations.rounds}, requests a second: {'; '.join(CLOSED)}")
        for peer in rotated(peers, number):
            for scenario, (connections, headers) in CLOSED.items():
                record(peer, scenario, lambda: wrk(peer, connections, durations.closed, threads, headers))
            rates = [f"{samples.samples[-1].rate:9,.0f}" for samples in results[peer.name].values() if samples.samples]
            say(f"    {peer.name:16}{' '.join(rates)}")

    # Bare actix-web alone would be compared with nothing.
    for number in range(durations.rounds if len(hits) > 1 else 0):
        say(f"hits, round {number + 1} of {durations.rounds}, requests a second")
        for peer in rotated(hits, number):
            record(peer, HITS, lambda: wrk(peer, HIT_CONNECTIONS, durations.closed, threads))
            if samples := results[peer.name][HITS].samples:
                say(f"    {peer.name:16}{samples[-1].rate:9,.0f}")

    for number in range(durations.rounds):
        say(f"open loop, round {number + 1} of {durations.rounds}")
        for peer in rotated(peers, number):
            capacity = results[peer.name][CAPACITY_OF].rate()
            if not capacity:
                results[peer.name].setdefault(OPEN, Samples()).problems.append(f"no capacity was found at {CAPACITY_OF}")
                continue
            rate = max(1, round(capacity / 2))
            record(
                peer,
                OPEN,
                lambda: open_loop(peer, open_loop_binary, rate, OPEN_CONNECTIONS, durations.open, threads),
            )

    say("5,000 connections, once")
    for peer in peers:
        record(peer, MANY, lambda: wrk(peer, 5000, durations.many, threads))
    return results


def rotated(peers: list[Peer], by: int) -> list[Peer]:
    """Each round starts with another peer, so that none always runs behind the same one."""
    if not peers:
        return []
    by %= len(peers)
    return peers[by:] + peers[:by]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
