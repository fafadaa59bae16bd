"""`connects`: how evenly connections are taken, as `ab` sees it, beside nginx in the same run."""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ab
import steps
from suite import Outcome, Unavailable, is_here, table, well

# Behind this folder: it has a report.py, too.
sys.path.append(str(Path(__file__).resolve().parent.parent / "bench"))
import peers  # noqa: E402

ROUNDS = 3


def connects(options: argparse.Namespace) -> Outcome:
    """New connections for every request, in rounds that alternate with nginx."""
    with tempfile.TemporaryDirectory(prefix="troupe-connects-") as name, nginx(options, Path(name)) as beside:
        sides = {"stack": options.host + steps.API} | ({"nginx": beside} if beside else {})
        runs = ab.in_turn(sides, ROUNDS, lambda: well(options.host, "ab"))
    found = {side: ab.summary(each) for side, each in runs.items()}
    lines = [f"`ab -n {ab.REQUESTS} -c {ab.CONNECTIONS}`, {ROUNDS} rounds in turn, times in ms as ab rounds them; the worst round counts.", ""]
    lines += table(ab.HEAD, [ab.row(side, one) for side, one in found.items()])
    missed = ab.missed(found["stack"], found.get("nginx"))
    return Outcome("Connect times", lines, {"runs": runs, "summary": found}, ab.errors(runs), missed)


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
