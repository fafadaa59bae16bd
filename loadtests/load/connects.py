"""`connects`: how evenly connections are taken, as `ab` sees it, beside nginx in the same run."""

import argparse
import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import steps
from suite import LoadFailed, Outcome, Unavailable, is_here, table, well

# Behind this folder: it has a report.py, too.
sys.path.append(str(Path(__file__).resolve().parent.parent / "bench"))
import peers  # noqa: E402

REQUESTS, CONNECTIONS, WARM_UP = 20_000, 50, 2_000
ROUNDS = 3
AB_SECONDS = 120
# What ab says of times that scatter so much that their mean says nothing.
DOUBT = re.compile(r"(?:WARNING|ERROR): The median and mean for the initial connection time")


def connects(options: argparse.Namespace) -> Outcome:
    """New connections for every request, in rounds that alternate with nginx."""
    runs: dict[str, list[dict]] = {}
    with tempfile.TemporaryDirectory(prefix="troupe-connects-") as name, nginx(options, Path(name)) as beside:
        sides = {"stack": options.host + steps.API} | ({"nginx": beside} if beside else {})
        for url in sides.values():
            ab(url, WARM_UP, Path(name))
        for _ in range(ROUNDS):
            for side, url in sides.items():
                runs.setdefault(side, []).append(ab(url, REQUESTS, Path(name)))
            well(options.host, "ab")
    found = {side: summary(each) for side, each in runs.items()}
    missed = []
    if found["stack"]["doubts"]:
        missed.append(f"ab warned of connect times in {found['stack']['doubts']} of {ROUNDS} rounds")
    if found["stack"]["p50"] >= 1:
        missed.append(f"connect p50 {found['stack']['p50']} ms must be below 1 ms")
    if "nginx" in found and found["stack"]["p99"] > 2 * max(1, found["nginx"]["p99"]):
        missed.append(f"connect p99 {found['stack']['p99']} ms must be at most twice nginx's {found['nginx']['p99']} ms")
    if "nginx" not in found:
        missed.append("connect p99 has nothing to be compared with: the stack is not on this machine")
    errors = [f"{side}: {run['failed']} failed" for side, each in runs.items() for run in each if run["failed"]]
    lines = [f"`ab -n {REQUESTS} -c {CONNECTIONS}`, {ROUNDS} rounds in turn, times in ms as ab rounds them; the worst round counts.", ""]
    head = ["", "connect mean", "sd", "p50", "p99", "max", "req/s", "rounds with a WARNING"]
    lines += table(head, [
        [side, *(f"{one[key]}" for key in ("mean", "sd", "p50", "p99", "max")), f"{one['rate']:,.0f}", str(one["doubts"])]
        for side, one in found.items()
    ])
    return Outcome("Connect times", lines, {"runs": runs, "summary": found}, errors, missed)


@contextlib.contextmanager
def nginx(options: argparse.Namespace, directory: Path) -> Iterator[str | None]:
    """nginx with a file of the same kind, on this machine; none beside a stack elsewhere."""
    if not is_here(options.host):
        yield None
        return

    def start(peer: peers.Peer, settings: peers.Settings, _wrapper: list[str]) -> None:
        peer.port = peers.start_static(peer, settings)

    peer = peers.Peer("nginx", "nginx", start)
    try:
        # Its workers run as another user.
        directory.chmod(0o755)
        peer.start(peers.Settings(Path(), directory, 0))
    except peers.NotUp as problem:
        raise Unavailable(f"nginx, which connect times are compared with: {problem}") from problem
    try:
        yield peer.url()
    finally:
        peer.stop()


def ab(url: str, requests: int, directory: Path) -> dict:
    each = directory / "each.tsv"
    command = ["ab", "-q", "-n", str(requests), "-c", str(CONNECTIONS), "-g", str(each), url]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=AB_SECONDS)
    if done.returncode != 0:
        raise LoadFailed(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()[-500:]}")
    return read(done.stdout, each.read_text())


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
