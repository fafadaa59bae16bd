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
    """Nothing where it cannot be run."""
    command = [str(bin_dir / "examples" / "policies"), "--json"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=True
        )
        found = [Ratios(**json.loads(line)) for line in done.stdout.splitlines()]
    except (OSError, subprocess.SubprocessError, ValueError, TypeError) as error:
        say(f"hit ratios: {error}")
        return []
    for ratios in found:
        say(f"hit ratio, {ratios.trace}: {ratios.s3_fifo:.2%}, LRU {ratios.lru:.2%}")
    return found
