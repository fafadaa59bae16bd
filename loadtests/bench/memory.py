"""What a peer's processes hold: at rest, per idle connection, and at most."""

import http.client
import time
from dataclasses import dataclass

from peers import Peer

# Allocators and kernel accounting settle within moments; twice that.
SETTLE_SECONDS = 1.0
WARM_UP_REQUESTS = 300


@dataclass
class AtRest:
    """KiB."""

    front_rss: int
    per_idle_connection: float
    connections: int


def measure_at_rest(peer: Peer, connections: int) -> AtRest:
    """On a freshly started peer: what load has left behind would hide what connections cost."""
    time.sleep(SETTLE_SECONDS)
    front_rss = peer.front().memory()[0].rss
    warm = http.client.HTTPConnection("127.0.0.1", peer.port, timeout=10)
    for _ in range(WARM_UP_REQUESTS):
        exchange(warm, peer)
    warm.close()
    time.sleep(SETTLE_SECONDS)

    before = connection_memory(peer)
    idle = []
    try:
        for _ in range(connections):
            connection = http.client.HTTPConnection("127.0.0.1", peer.port, timeout=10)
            exchange(connection, peer)
            idle.append(connection)
        time.sleep(SETTLE_SECONDS)
        after = connection_memory(peer)
    finally:
        for connection in idle:
            connection.close()
    return AtRest(front_rss, (after - before) / connections, connections)


def exchange(connection: http.client.HTTPConnection, peer: Peer) -> None:
    connection.request("GET", peer.path)
    connection.getresponse().read()


def connection_memory(peer: Peer) -> int:
    """RSS of what holds connections: the front process and, for nginx, its workers; PHP's processes hold none."""
    return sum(memory.rss for memory in peer.front().memory() if not memory.name.startswith("php"))


def peaks(peer: Peer) -> list[dict]:
    """Peak RSS of each process in KiB; PHP's processes together, with their PSS, because they share most of it."""
    rows = []
    for process in peer.processes:
        php = []
        for memory in process.memory():
            if memory.name.startswith("php") and memory.pid != process.pid:
                php.append(memory)
            else:
                rows.append({"process": f"{process.label}: {memory.name}", "peak_rss": memory.peak_rss})
        if php:
            rows.append(
                {
                    "process": f"{process.label}: {len(php)} × PHP",
                    "peak_rss": max(memory.peak_rss for memory in php),
                    "pss_together": sum(memory.pss for memory in php),
                }
            )
    return rows
