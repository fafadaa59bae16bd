"""Small calls beside a large body: how much longer they take while a body of a GiB passes over the same link, from an
HTTP server through balancer and gateway to a client that reads as fast as it can."""

import socket
import statistics
import threading
from dataclasses import dataclass, field
from pathlib import Path

from load import LoadFailed, open_loop
from peers import Peer, Settings, start_static, start_three
from rounds import say

RATE = 10_000
CONNECTIONS = 64
BODY_BYTES = 1 << 30
READ_BYTES = 1 << 20


@dataclass
class Beside:
    """One entry for each round."""

    alone_p99_us: list[int] = field(default_factory=list)
    beside_p99_us: list[int] = field(default_factory=list)
    relayed: list[float] = field(default_factory=list)

    def medians(self) -> tuple[float, float, float]:
        """p99 alone and beside the body in milliseconds, and bytes per second of the body."""
        alone, beside = statistics.median(self.alone_p99_us), statistics.median(self.beside_p99_us)
        return alone / 1e3, beside / 1e3, statistics.median(self.relayed)


class Download(threading.Thread):
    """Reads the large body, again and again, until it is told to stop."""

    def __init__(self, port: int):
        super().__init__(daemon=True)
        self.port = port
        self.bytes = 0
        self.problem = ""
        self._over = threading.Event()

    def run(self) -> None:
        buffer = bytearray(READ_BYTES)
        try:
            while not self._over.is_set():
                with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
                    connection.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    got = 0
                    while not self._over.is_set() and (length := connection.recv_into(buffer)):
                        if got == 0 and not buffer.startswith(b"HTTP/1.1 200 "):
                            raise OSError(f"answered {bytes(buffer[:32])!r}")
                        got += length
                        self.bytes += length
                    if not self._over.is_set() and got < BODY_BYTES:
                        raise OSError(f"ended after {got} bytes")
        except OSError as error:
            self.problem = str(error)

    def stop(self) -> None:
        self._over.set()
        self.join()


def start(peer: Peer, settings: Settings, wrapper: list[str]) -> None:
    upstream = start_static(peer, settings)
    with (settings.directory / "www" / "large").open("wb") as large:
        # A hole: read from memory, as fast as a file gets.
        large.truncate(BODY_BYTES)
    server = peer.processes.pop()
    start_three(peer, settings, wrapper, "troupe-relay.toml", upstream=upstream)
    peer.processes.append(server)


def measure(settings: Settings, binary: Path, rounds: int, seconds: int) -> Beside:
    """With and without the body in turn, so that what else the machine does meets both."""
    peer = Peer("troupe-relay", "Troupe, three processes", start, ours=True)
    found = Beside()
    try:
        peer.start(settings)
        open_loop(peer, binary, RATE, CONNECTIONS, 1, settings.threads)
        for number in range(rounds):
            found.alone_p99_us.append(calls(peer, settings, binary, seconds))
            download = Download(peer.port)
            download.start()
            try:
                found.beside_p99_us.append(calls(peer, settings, binary, seconds))
            finally:
                download.stop()
            if download.problem:
                raise LoadFailed(f"the large body: {download.problem}")
            found.relayed.append(download.bytes / seconds)
            line = f"{found.alone_p99_us[-1] / 1e3:.2f} ms alone, {found.beside_p99_us[-1] / 1e3:.2f} ms beside it"
            say(f"beside a large body, round {number + 1} of {rounds}, p99: {line}")
    finally:
        peer.stop()
    return found


def calls(peer: Peer, settings: Settings, binary: Path, seconds: int) -> int:
    sample = open_loop(peer, binary, RATE, CONNECTIONS, seconds, settings.threads)
    peer.check()
    if sample.failed():
        raise LoadFailed(f"{peer.name}: {sample.errors}")
    return sample.latency_us["p99"]


def ratio(beside: Beside | None) -> float | None:
    if not beside:
        return None
    alone, with_body, _ = beside.medians()
    return with_body / alone
