"""What a run was asked for, and what of it there is nothing of. What was asked for and failed is no figure that merely was not measured."""

import http.client
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from load import LoadFailed
from peers import NotUp
from rounds import say

# Measured by themselves, with peers of their own or none.
MISSES = "misses"
RELAY = "relay"
TIERS = "tiers"
POLICIES = "policies"
HEAL = "heal"
SCALING = "scaling"
ALONE = (MISSES, RELAY, TIERS, POLICIES, HEAL, SCALING)
# What may keep one of those from being measured, and is no reason to lose the others; the middle two where a program says something else
# than its figures.
FAILURES = (LoadFailed, NotUp, OSError, ValueError, LookupError, subprocess.SubprocessError, http.client.HTTPException)

Found = TypeVar("Found")


@dataclass
class Asked:
    """Peers and parts by their names, and why some of them are missing."""

    names: frozenset[str]
    missing: dict[str, str] = field(default_factory=dict)

    def lacks(self, name: str, error: Exception) -> None:
        self.missing[name] = str(error) or type(error).__name__
        say(f"skipped: {name}: {self.missing[name]}")

    def part(self, name: str, measure: Callable[[], Found], nothing: Found) -> Found:
        """What a part finds; nothing where it was not asked for, or failed."""
        if name not in self.names:
            return nothing
        try:
            return measure()
        except FAILURES as error:
            self.lacks(name, error)
            return nothing

    def why_missing(self, *names: str) -> str:
        """In a line, of the first of them that is."""
        return next((self.missing[name].splitlines()[0] for name in names if name in self.missing), "")
