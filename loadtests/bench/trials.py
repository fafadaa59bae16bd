"""Times of many trials of the same thing, and the client they are made with: one request, of which each step can be
timed."""

import socket
import time
from dataclasses import dataclass, field

# A figure in milliseconds is a 99th percentile over at least so many.
ENOUGH = 200
# Far above every figure: who is not answered by then never is.
PATIENCE_SECONDS = 30.0


@dataclass
class Trials:
    """How long something took, each time, in milliseconds."""

    name: str
    # What the 99th percentile must not exceed; None where there is no such figure.
    limit_ms: float | None
    samples_ms: list[float] = field(default_factory=list)
    # What happened instead, where it was not that.
    failures: list[str] = field(default_factory=list)

    def add(self, right: bool, seconds: float, otherwise: str) -> None:
        """One trial: how long it took if all was `right`, else what was the matter."""
        if right:
            self.samples_ms.append(seconds * 1e3)
        else:
            self.failures.append(otherwise)

    def percentile(self, percent: int) -> float | None:
        """By nearest rank: a time that was measured, never one between two."""
        ordered = sorted(self.samples_ms)
        rank = -(-len(ordered) * percent // 100)
        return ordered[rank - 1] if ordered else None

    def limit(self) -> str:
        if self.limit_ms is None:
            return ""
        return f"≤ {self.limit_ms / 1e3:g} s" if self.limit_ms >= 1000 else f"≤ {self.limit_ms:g} ms"


class Request:
    """One request on a connection of its own, sent when it is made."""

    def __init__(self, port: int, target: str, method: str = "GET"):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        length = "Content-Length: 0\r\n" if method == "POST" else ""
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n{length}Connection: close\r\n\r\n"
        self._socket.sendall(head.encode())

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> bytes:
        """What comes next; empty at the end."""
        return self._socket.recv(1 << 16)

    def status(self) -> int:
        """Waits for the response and reads it to its end. 0 when there is none."""
        answer = b""
        try:
            while piece := self.read():
                answer += piece
        except OSError:
            return 0
        finally:
            self.close()
        word = answer[9:12]
        return int(word) if answer.startswith(b"HTTP/1.1 ") and word.isdigit() else 0

    def close(self) -> None:
        self._socket.close()


def ask(port: int, target: str, method: str = "GET") -> tuple[int, float]:
    """The status of one request, and how many seconds it took with its connection."""
    begun = time.monotonic()
    status = Request(port, target, method).status()
    return status, time.monotonic() - begun
