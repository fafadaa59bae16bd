"""What a request costs as there are more workers and more routes, in instructions, which repeat where times do not.
Examples of the services are run under callgrind with few and with many rounds: what a round takes is the difference."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from peers import Settings
from rounds import say

# From one that needs no choice, over all that are compared, to many among which two are.
WORKERS = (1, 8, 9, 100, 1_000)
ROUTES = (10, 100, 1_000, 10_000)
PICKS = (500, 2_500)
REQUESTS = (50, 350)
COUNT_SECONDS = 300


@dataclass
class Scaling:
    """Instructions by the number of whatever there is more of."""

    path: str
    instructions: dict[int, float]
    # Of the rest of a request, where only a part of it was counted.
    rest: float = 0.0

    def of_request(self, size: int) -> float:
        return self.rest + self.instructions[size]

    def ratio(self) -> float:
        """The dearest beside the one with the fewest."""
        costs = [self.of_request(size) for size in self.instructions]
        return max(costs) / costs[0]


def measure(settings: Settings) -> list[Scaling]:
    say("cost per request with the number of workers and routes, under callgrind: a minute or so")
    hit, pick = (settings.bin_dir / "examples" / name for name in ("hit", "pick"))
    routes = {number: per_round(hit, REQUESTS, "uncached", str(number)) for number in ROUTES}
    workers = {number: per_round(pick, PICKS, str(number), first=True) for number in WORKERS}
    return [
        # A request that the gateway's own process answers at once: every real one costs more, so a pick is less of it.
        Scaling("cost per request, 1 → 1,000 workers", workers, rest=routes[ROUTES[0]]),
        Scaling("cost per request, 10 → 10,000 routes", routes),
    ]


def per_round(example: Path, rounds: tuple[int, int], *words: str, first: bool = False) -> float:
    """`words` stand before the number of rounds, or behind it."""
    counts = []
    for number in rounds:
        arguments = [*words, str(number)] if first else [str(number), *words]
        counts.append(count([str(example), *arguments]))
    return (counts[1] - counts[0]) / (rounds[1] - rounds[0])


def count(command: list[str]) -> int:
    """All instructions of a run. Raises ValueError when callgrind does not say."""
    wrapper = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    done = subprocess.run([*wrapper, *command], capture_output=True, text=True, timeout=COUNT_SECONDS, check=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if not found:
        raise ValueError(f"callgrind says no number: {done.stderr[-300:]}")
    return int(found[1])
