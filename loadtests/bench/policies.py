"""Hit ratios of the store's policy beside LRU, on traces that are the same at every run: services/cache/examples/policies asks
the store for what they ask for, as the gateway would."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rounds import say

# A million requests and six caches take seconds; what takes longer hangs.
SECONDS = 300


@dataclass
class Ratios:
    """What came of one trace; the ratios are shares of 1."""

    trace: str
    urls: int
    exponent: float
    of_1000_asked_for_once: int
    requests: int
    capacity: int
    # Two runs that have it in common asked for the same.
    digest: str
    s3_fifo: float
    lru: float
    tiny_lfu: float


def measure(bin_dir: Path) -> list[Ratios]:
    command = [str(bin_dir / "examples" / "policies"), "--json"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=True)
    found = [ratios(line) for line in done.stdout.splitlines()]
    for one in found:
        say(f"hit ratio, {one.trace}: {one.s3_fifo:.2%}, LRU {one.lru:.2%}")
    return found


def ratios(line: str) -> Ratios:
    try:
        return Ratios(**json.loads(line))
    except TypeError as error:
        raise ValueError(f"other figures than were expected: {error}") from error
