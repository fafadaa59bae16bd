"""ApacheBench: a new connection for every request, and how long each took to be made."""

import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from suite import LoadFailed

REQUESTS, CONNECTIONS, WARM_UP = 20_000, 50, 2_000
LONGEST_SECONDS = 120
# What ab says of times that scatter so much that their mean says nothing.
DOUBT = re.compile(r"(?:WARNING|ERROR): The median and mean for the initial connection time")
# Milliseconds below which the median of connect times has to be, and how often nginx's p99 theirs may be.
MEDIAN_BELOW, OF_NGINX = 1, 2
HEAD = ["", "connect mean", "sd", "p50", "p99", "max", "req/s", "rounds with a WARNING"]


def ab(url: str, requests: int = REQUESTS) -> dict:
    """One run."""
    with tempfile.TemporaryDirectory(prefix="troupe-ab-") as directory:
        each = Path(directory) / "each.tsv"
        command = ["ab", "-q", "-n", str(requests), "-c", str(CONNECTIONS), "-g", str(each), url]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LONGEST_SECONDS)
        except subprocess.TimeoutExpired as late:
            raise LoadFailed(f"{' '.join(command)}: not through after {LONGEST_SECONDS} s") from late
        if done.returncode != 0:
            raise LoadFailed(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()[-500:]}")
        return read(done.stdout, each.read_text())


def in_turn(urls: dict[str, str], rounds: int, after_each: Callable[[], None] = lambda: None) -> dict[str, list[dict]]:
    """Rounds that alternate, after a warm-up: by the names of `urls`. `after_each` looks whether all is well still."""
    for url in urls.values():
        ab(url, WARM_UP)
    runs: dict[str, list[dict]] = {name: [] for name in urls}
    for _ in range(rounds):
        for name, url in urls.items():
            runs[name].append(ab(url))
        after_each()
    return runs


def read(said: str, each: str) -> dict:
    """What ab prints, and its table of all requests, in numbers."""
    row = re.search(r"^Connect:\s+(\d+)\s+(\d+)\s+([\d.]+)\s+(\d+)\s+(\d+)$", said, re.MULTILINE)
    wrong = re.search(r"^Failed requests:\s+(\d+)$", said, re.MULTILINE)
    speed = re.search(r"^Requests per second:\s+([\d.]+)", said, re.MULTILINE)
    if not (row and wrong and speed):
        raise LoadFailed(f"ab printed no table of times: {said.strip()[-300:]}")
    head, *lines = each.splitlines()
    column = head.split("\t").index("ctime")
    times = sorted(int(line.split("\t")[column]) for line in lines)
    other = re.search(r"^Non-2xx responses:\s+(\d+)$", said, re.MULTILINE)
    return {
        "mean": int(row[2]), "sd": float(row[3]), "p50": times[len(times) // 2], "p99": times[len(times) * 99 // 100],
        "max": int(row[5]), "rate": float(speed[1]), "doubt": bool(DOUBT.search(said)),
        "failed": int(wrong[1]) + int(other[1] if other else 0),
    }


def summary(runs: list[dict]) -> dict:
    """The worst of each over the rounds."""
    worst = {key: max(run[key] for run in runs) for key in ("mean", "sd", "p50", "p99", "max")}
    return worst | {"rate": min(run["rate"] for run in runs), "doubts": sum(run["doubt"] for run in runs)}


def row(name: str, found: dict) -> list[str]:
    """What a table says of a summary."""
    figures = (f"{found[key]}" for key in ("mean", "sd", "p50", "p99", "max"))
    return [name, *figures, f"{found['rate']:,.0f}", str(found["doubts"])]


def errors(runs: dict[str, list[dict]]) -> list[str]:
    return [f"{name}: {run['failed']} failed" for name, each in runs.items() for run in each if run["failed"]]


def missed(stack: dict, nginx: dict | None) -> list[str]:
    """What the stack's connect times should be and are not."""
    found = []
    if stack["doubts"]:
        found.append(f"ab warned of connect times in {stack['doubts']} rounds")
    if stack["p50"] >= MEDIAN_BELOW:
        found.append(f"connect p50 {stack['p50']} ms must be below {MEDIAN_BELOW} ms")
    if nginx is None:
        found.append("connect p99 has nothing to be compared with: the stack is not on this machine")
    elif stack["p99"] > OF_NGINX * max(1, nginx["p99"]):
        found.append(f"connect p99 {stack['p99']} ms must be at most {OF_NGINX} times nginx's {nginx['p99']} ms")
    return found
