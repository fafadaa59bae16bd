"""Processes of a run: started in sessions of their own, measured through /proc, and gone at the end."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

# A drain may take its time; what is still there afterwards is killed.
STOP_SECONDS = 8.0
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass
class Memory:
    """Of one process, in KiB."""

    pid: int
    name: str
    rss: int
    peak_rss: int
    pss: int


class Process:
    """One program with all its descendants."""

    def __init__(self, label: str, command: list[str], directory: Path, wrapper: list[str] | None = None):
        self.label = label
        self.log = directory / f"{label}.log"
        self._command = [*(wrapper or []), *command]
        self._directory = directory
        self.start()

    def start(self) -> None:
        """Runs the program; once more, when it has ended."""
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def kill(self) -> None:
        """Ends the program as a crash does, and only it."""
        self._popen.kill()
        self._popen.wait()

    def is_alive(self) -> bool:
        return self._popen.poll() is None

    def memory(self) -> list[Memory]:
        """The program itself first, then its descendants."""
        found = [read_memory(pid) for pid in [self.pid, *descendants(self.pid)]]
        return [memory for memory in found if memory]

    def log_tail(self, lines: int = 8) -> str:
        text = self.log.read_text(errors="replace").splitlines()
        return "\n".join(text[-lines:])

    def stop(self) -> None:
        # Descendants may have left the session; they are known by their start, so that no stranger's reused pid is hit.
        family = {pid: start_of(pid) for pid in descendants(self.pid)}
        if self.is_alive():
            self._popen.terminate()
            try:
                self._popen.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._popen.kill()
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        self._popen.wait()
        for pid, start in family.items():
            if start is not None and start_of(pid) == start:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass


def stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on; the second, the name, may hold anything."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def start_of(pid: int) -> str | None:
    fields = stat_fields(pid)
    return fields[19] if len(fields) > 19 else None


def processor_seconds(pid: int, descendants_too: bool = False) -> float:
    """Time on a processor, in user and kernel mode, up to now; with the descendants, also of those that have ended."""
    family = [pid, *descendants(pid)] if descendants_too else [pid]
    # utime and stime, the 14th and 15th; then cutime and cstime, of children that have ended and were waited for.
    taken = slice(11, 15 if descendants_too else 13)
    fields = [stat_fields(member) for member in family]
    return sum(int(ticks) for found in fields for ticks in found[taken]) / TICKS_PER_SECOND


def descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = stat_fields(int(entry))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry))
    found, queue = [], [root]
    while queue:
        for pid in children.get(queue.pop(), []):
            found.append(pid)
            queue.append(pid)
    return found


def read_memory(pid: int) -> Memory | None:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in (status + rollup).splitlines() if ":" in line)

    def kib(name: str) -> int:
        return int(fields.get(name, "0").split()[0])

    return Memory(pid, fields["Name"].strip(), kib("VmRSS"), kib("VmHWM"), kib("Pss"))


def wait_until(condition, seconds: float, pause: float = 0.05) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(pause)
    return False
