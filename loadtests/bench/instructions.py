"""Instructions per request: what is repeatable where times are not.

perf counts a running peer where the machine lets it (virtual machines often do not); callgrind counts anywhere, some
fifty times slower, on a peer of its own. Either way only our programs are counted, not the PHP behind them, and what
they do besides requests (timers, heartbeats) is spread over the requests.
"""

import re
import shutil
import subprocess
from pathlib import Path

from load import wrk
from peers import Peer, Settings

# Of our own programs, those whose figures are compared.
COUNTED = ("bare-actix", "troupe-one", "troupe-three", "troupe-upstream")
PERF_SECONDS = 3
PERF_CONNECTIONS = 64
CALLGRIND_SECONDS = 10
# Valgrind runs one thread at a time: more connections only queue.
CALLGRIND_CONNECTIONS = 16


def perf_counts() -> bool:
    """Whether perf can count instructions here."""
    if not shutil.which("perf"):
        return False
    done = subprocess.run(["perf", "stat", "-x,", "-e", "instructions:u", "true"], capture_output=True, text=True)
    return done.returncode == 0 and parse_perf(done.stderr) is not None


def parse_perf(text: str) -> int | None:
    for line in text.splitlines():
        value, _, rest = line.partition(",")
        if "instructions" in rest and value.isdigit():
            return int(value)
    return None


def with_perf(peer: Peer, threads: int) -> dict[str, float]:
    counters = {
        process.label: subprocess.Popen(
            ["perf", "stat", "-x,", "-e", "instructions:u", "-p", str(process.pid), "--", "sleep", str(PERF_SECONDS)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in peer.processes
    }
    # The load is a little longer than the count, so that the count never sees an idle peer.
    sample = wrk(peer, PERF_CONNECTIONS, PERF_SECONDS + 1, threads)
    counted = sample.rate * PERF_SECONDS
    result = {}
    for label, counter in counters.items():
        _, text = counter.communicate(timeout=60)
        if (value := parse_perf(text)) is not None:
            result[label] = value / counted
    return result


def with_callgrind(peer: Peer, settings: Settings) -> dict[str, float]:
    """Starts the peer under callgrind; it must not run yet. Raises NotUp when it does not come up there."""
    directory = settings.directory
    wrapper = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={directory}/callgrind.%p", "-q"]
    peer.start(settings, wrapper)
    try:
        wrk(peer, CALLGRIND_CONNECTIONS, 3, 1)
        for process in peer.processes:
            control("--zero", process.pid, directory)
        sample = wrk(peer, CALLGRIND_CONNECTIONS, CALLGRIND_SECONDS, 1)
        result = {}
        for process in peer.processes:
            control("--dump", process.pid, directory)
            total = callgrind_total(directory, process.pid)
            if total is not None and sample.requests:
                result[process.label] = total / sample.requests
        return result
    finally:
        peer.stop()


def control(action: str, pid: int, directory: Path) -> None:
    subprocess.run(["callgrind_control", action, str(pid)], cwd=directory, capture_output=True, timeout=60, check=True)


def callgrind_total(directory: Path, pid: int) -> int | None:
    """Of the newest dump, all threads together."""
    dumps = sorted(directory.glob(f"callgrind.{pid}*"), key=lambda dump: dump.stat().st_mtime)
    for dump in reversed(dumps):
        totals = [int(value) for value in re.findall(r"^(?:totals|summary): (\d+)", dump.read_text(), re.MULTILINE)]
        if totals and max(totals) > 0:
            return max(totals)
    return None
