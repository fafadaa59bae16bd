"""What watching costs a request: the instructions of the program as it is released, beside builds that count nothing (`unmeasured`)
and that do not look where a request's time goes (`untimed`). Gateway, balancer and php-pool in one process, one connection that asks
again when it is answered, under callgrind: Rust's user space, in which figures repeat.

    python3 loadtests/watching.py                     builds all three, measures them in turn, stores a report

Exit codes: 0 the goals are met, 1 one is missed or nothing could be measured, 2 usage.
"""

import argparse
import datetime
import json
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "loadtests" / "bench"))
import machine  # noqa: E402
from peers import free_port  # noqa: E402

RELEASED = "as released"
# What each build leaves out, and the share of a request that this may take, in percent.
BUILDS = {RELEASED: None, "unmeasured": 2.0, "untimed": 1.0}
# What starting and ending take is in both, and so in no difference.
FEW, MANY = 1_000, 6_000
START_SECONDS = 120
CONFIG = """
[node]
threads = 1
[gateway]
listen = ["127.0.0.1:{port}"]
access_log = false
[[route]]
path = "/{{function*}}"
functions = "default"
[php.default]
root = "{root}"
processes = {{ max = 2 }}
max_requests = 1_000_000
[admin]
listen = "127.0.0.1:{admin}"
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds, each build once per round")
    parser.add_argument("--binaries", type=Path, help="a folder with released, unmeasured and untimed, instead of building them")
    options = parser.parse_args()
    facts = machine.facts(0)
    folder = options.binaries or build()
    counted: dict[str, list[float]] = {name: [] for name in BUILDS}
    for number in range(options.rounds):
        for name, values in counted.items():
            binary = folder / name.rpartition(" ")[2]
            values.append((instructions(binary, MANY) - instructions(binary, FEW)) / (MANY - FEW))
        print(f"round {number + 1} of {options.rounds}: " + "; ".join(f"{name} {each[-1]:,.0f}" for name, each in counted.items()))
    now = datetime.datetime.now(datetime.UTC)
    text, met = report(counted, facts, now)
    print(text)
    place = ROOT / "loadtests" / "reports" / f"watching-{now:%Y-%m-%d}-{facts['commit']}"
    place.mkdir(parents=True, exist_ok=True)
    (place / "report.md").write_text(text)
    (place / "report.json").write_text(json.dumps({"machine": facts, "instructions": counted}, indent=1) + "\n")
    return 0 if met else 1


def build() -> Path:
    """All three builds, side by side."""
    folder = ROOT / "target" / "watching"
    folder.mkdir(parents=True, exist_ok=True)
    for name in BUILDS:
        features = [] if name == RELEASED else ["--features", name]
        subprocess.run(["cargo", "build", "--release", "--locked", "-p", "troupe", "--bin", "troupe", *features], cwd=ROOT, check=True)
        shutil.copy(ROOT / "target" / "release" / "troupe", folder / name.rpartition(" ")[2])
    return folder


def instructions(binary: Path, requests: int) -> int:
    """All that the process runs, from its start through so many requests to its end."""
    with tempfile.TemporaryDirectory(prefix="troupe-watching-") as name:
        directory = Path(name)
        # PHP runs as another user where this is root.
        directory.chmod(0o755)
        shutil.copytree(ROOT / "loadtests" / "peers" / "functions", directory / "functions")
        port = free_port()
        config = directory / "troupe.toml"
        config.write_text(CONFIG.format(port=port, admin=free_port(), root=directory / "functions"))
        command = ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={directory}/callgrind.%p", str(binary), "run"]
        command += ["--config", str(config), "--service", "gateway,balancer,php-pool"]
        with (directory / "log").open("w") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            ask(connect(port, process, directory / "log"), requests)
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=START_SECONDS)
        finally:
            process.kill()
            process.wait()
        return int(re.search(r"^(?:summary|totals): (\d+)", (directory / f"callgrind.{process.pid}").read_text(), re.MULTILINE)[1])


def connect(port: int, process: subprocess.Popen, log: Path) -> socket.socket:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS)
        except OSError:
            time.sleep(0.1)
            continue
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
    raise SystemExit(f"error: it does not come up: {log.read_text()[-1000:]}")


def ask(connection: socket.socket, requests: int) -> None:
    """One request after the other, each answered whole."""
    with connection:
        for _ in range(requests):
            connection.sendall(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while (end := answer.find(b"\r\n\r\n")) < 0:
                answer += connection.recv(65_536)
            length = int(re.search(rb"content-length: (\d+)", answer, re.IGNORECASE)[1])
            while len(answer) < end + 4 + length:
                answer += connection.recv(65_536)
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise SystemExit(f"error: answered {answer[:64]!r}")


def report(counted: dict[str, list[float]], facts: dict, now: datetime.datetime) -> tuple[str, bool]:
    """The report, and whether the goals are met."""
    whole = statistics.median(counted[RELEASED])
    rows, met = [], True
    for name, goal in BUILDS.items():
        median = statistics.median(counted[name])
        share = (whole - median) / whole * 100
        said = "" if goal is None else f"{whole - median:,.0f}, or {share:.2f} % (goal: ≤ {goal:g} %)"
        met &= goal is None or share <= goal
        rows.append(f"| {name} | {median:,.0f} | {min(counted[name]):,.0f} to {max(counted[name]):,.0f} | {said} |")
    lines = [
        f"# What watching costs, {now:%Y-%m-%d}, commit {facts['commit']}", "",
        ", ".join(f"{key.replace('_', ' ')}: {facts[key]}" for key in ("commit", "dirty", "cpu", "cores", "kernel")) + ".", "",
        f"Instructions per request, callgrind, Rust's user space; {MANY:,} requests less {FEW:,}, {len(counted[RELEASED])} rounds in turn.", "",
        "| build | median | least to most | less than as released |", "|---|---|---|---|", *rows, "",
    ]
    return "\n".join(lines), met


if __name__ == "__main__":
    sys.exit(main())
