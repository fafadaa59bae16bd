"""What every suite gives back, and what all of them ask of the stack."""

import re
import resource
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

# Behind this folder: it has a report.py, too.
sys.path.append(str(Path(__file__).resolve().parent.parent / "bench"))
from closed_loop import LoadFailed  # noqa: E402  what the generators raise, the suites do

# How long /health may take.
HEALTH_SECONDS = 10
# After load that was too much, the stack has to be well again within this.
BACK_SECONDS = 10


class Unavailable(Exception):
    """A tool is missing, or the stack does not answer; says which."""


@dataclass
class Outcome:
    """What a suite found. Errors make its figures void; what was missed is in the report and in the exit code."""

    title: str
    lines: list[str]
    data: dict
    errors: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    # What else belongs into the report's folder, by name.
    files: dict[str, str] = field(default_factory=dict)


def unhealthy(host: str) -> str:
    """What is wrong with the stack; empty when it serves."""
    try:
        with urllib.request.urlopen(f"{host}/health", timeout=HEALTH_SECONDS) as answer:
            return "" if answer.status == 200 else f"status {answer.status}"
    except (urllib.error.URLError, OSError) as error:
        return str(getattr(error, "reason", error))


def well(host: str, after: str) -> None:
    """Raises LoadFailed unless /health answers 200."""
    if problem := unhealthy(host):
        raise LoadFailed(f"after {after}: {host}/health: {problem}")


def comes_back(host: str) -> float | None:
    """Seconds until /health answers 200 again; none if not within BACK_SECONDS."""
    began = time.monotonic()
    while time.monotonic() - began < BACK_SECONDS:
        if not unhealthy(host):
            return time.monotonic() - began
        time.sleep(0.2)
    return None


def fetch(url: str) -> bytes:
    """The body of an answer; raises LoadFailed for any status but 200."""
    try:
        with urllib.request.urlopen(url, timeout=HEALTH_SECONDS) as answer:
            return answer.read()
    except (urllib.error.URLError, OSError) as error:
        raise LoadFailed(f"{url}: {error}") from error


def address(host: str) -> tuple[str, int]:
    """Name and port of a stack's URL."""
    parts = urllib.parse.urlsplit(host)
    return parts.hostname or "", parts.port or 80


def is_here(host: str) -> bool:
    """Whether it is this machine, or a container of an engine on it."""
    name = address(host)[0]
    if name in ("127.0.0.1", "localhost", "::1"):
        return True
    routed = subprocess.run(["ip", "route", "get", name], capture_output=True, text=True)
    device = re.search(r" dev (\S+)", routed.stdout)
    return bool(device and re.match(r"lo$|br-|docker", device[1]))


def many_descriptors() -> int:
    """As many descriptors for the generators as this process may have; says how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def rate(run: dict) -> float:
    return run["requests"] / (run["duration_us"] / 1e6)


def failed(run: dict) -> dict[str, int]:
    """The errors of a run of wrk by kind, those that occurred; where nothing was answered, every connection is one."""
    return {kind: count for kind, count in run["errors"].items() if count}


def table(head: list[str], body: list[list[str]]) -> list[str]:
    widths = [max(len(cells[column]) for cells in [head, *body]) for column in range(len(head))]

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return [line(head), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, body), ""]
