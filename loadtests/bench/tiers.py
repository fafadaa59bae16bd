"""The cache over several processes, with Redis on the same machine: how long a hit in the second tier takes, and how long a
purge from its order to the word that no gateway gives any more what was purged."""

import http.client
import json
import math
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from caches import BODIES
from load import LoadFailed, wrk
from peers import NotUp, Peer, Settings, fill, free_port, start_static, tool
from process import Process, wait_until
from rounds import say

# Of this many trials the 99th percentile is the third longest.
PURGES = 300
GATEWAYS = 4
# Instances of the cache service; a purge at one waits for the gateways of the other as well.
CACHES = (1, 2)
LINKED_SECONDS = 20.0
# A young history of purges confirms none before two seconds are over.
FIRST_PURGE_SECONDS = 20.0


@dataclass
class Tiers:
    """Microseconds. For each body the percentiles of each round, for each number of cache services what each purge took."""

    hits: dict[str, list[dict[str, int]]] = field(default_factory=dict)
    purges: dict[int, list[int]] = field(default_factory=dict)

    def hit_ms(self, size: str, percentile: str) -> float | None:
        """The median of the rounds."""
        rounds = self.hits.get(size)
        return statistics.median(found[percentile] for found in rounds) / 1000 if rounds else None

    def purge_ms(self, caches: int, percent: int) -> float | None:
        """By the nearest rank."""
        took = sorted(self.purges.get(caches, []))
        return took[math.ceil(len(took) * percent / 100) - 1] / 1000 if took else None


class Apart(Peer):
    """So many gateways and cache services, each in a process of its own."""

    def __init__(self, gateways: int, caches: int, l1: str, body: Path):
        super().__init__(f"troupe-tiers-{caches}-{body.stem}", f"{gateways} gateways, {caches} cache services", start, body=body, ours=True)
        self.gateways, self.caches, self.l1 = gateways, caches, l1
        self.ports: list[int] = []
        self.admins: list[int] = []


def start(peer: Apart, settings: Settings, _wrapper: list[str]) -> None:
    directory = settings.directory
    upstream = start_static(peer, settings)
    redis, balancer = free_port(), free_port()
    command = [tool("redis-server"), "--port", str(redis), "--bind", "127.0.0.1", "--save", "", "--maxmemory", "128mb"]
    peer.processes.append(Process("redis", command, directory))
    key = directory / "mesh.key"
    key.write_text(os.urandom(32).hex())
    key.chmod(0o600)
    caches = [free_port() for _ in range(peer.caches)]
    words = {"dir": directory, "threads": settings.threads, "upstream": upstream, "redis": redis, "balancer": balancer}
    places = json.dumps([f"127.0.0.1:{port}" for port in caches])
    config = fill("troupe-tiers.toml", directory / "troupe.toml", caches=places, l1=peer.l1, **words)

    def run(label: str, service: str, admin: int, setting: str) -> Process:
        command = [str(settings.bin_dir / "troupe"), "run", "--config", str(config), "--service", service]
        command += ["--set", f'admin.listen="127.0.0.1:{admin}"', "--set", setting]
        return Process(label, command, directory)

    peer.processes += [
        run(f"cache-{number}", "cache", free_port(), f'mesh.listen="127.0.0.1:{port}"') for number, port in enumerate(caches)
    ]
    peer.processes.append(run("balancer", "balancer", free_port(), f'mesh.listen="127.0.0.1:{balancer}"'))
    peer.ports = [peer.port, *(free_port() for _ in range(peer.gateways - 1))]
    peer.admins = [free_port() for _ in peer.ports]
    # In front, so that they are the first to stop.
    peer.processes[:0] = [
        run(f"gateway-{number}", "gateway", admin, f'gateway.listen=["127.0.0.1:{port}"]')
        for number, (port, admin) in enumerate(zip(peer.ports, peer.admins, strict=True))
    ]


def measure(settings: Settings, rounds: int, seconds: int) -> Tiers:
    found = Tiers()
    for body, size in BODIES.values():
        with running(Apart(1, 1, "0B", body), settings) as peer:
            for number in range(rounds):
                sample = hits(peer, seconds)
                found.hits.setdefault(size, []).append(sample)
                line = f"p50 {sample['p50']} µs, p99 {sample['p99']} µs"
                say(f"hit in Redis, {size}, round {number + 1} of {rounds}: {line}")
    for caches in CACHES:
        with running(Apart(GATEWAYS, caches, "64MiB", BODIES[""][0]), settings) as peer:
            found.purges[caches] = purges(peer)
            line = f"p50 {found.purge_ms(caches, 50):.1f} ms, p99 {found.purge_ms(caches, 99):.1f} ms"
            say(f"{PURGES} purges, {peer.title}: {line}")
    return found


@contextmanager
def running(peer: Apart, settings: Settings) -> Iterator[Apart]:
    try:
        peer.start(settings)
        linked = wait_until(lambda: all(is_live(admin) for admin in peer.admins), LINKED_SECONDS)
        if not linked:
            raise NotUp(f"{peer.name}: a gateway does not hear of purges\n{peer.front().log_tail()}")
        yield peer
    finally:
        peer.stop()


def is_live(admin: int) -> bool:
    try:
        status, text = ask(admin, "GET", "/metrics")
    except (OSError, http.client.HTTPException):
        return False
    return status == 200 and b"\ntroupe_gateway_cache_live 1\n" in text


def ask(port: int, method: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        # What is not sent by a form of some other site's says so.
        connection.request(method, path, headers={"X-Troupe-Request": "1"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def hits(peer: Apart, seconds: int) -> dict[str, int]:
    """One connection, so that no request waits for another. Every answer has to come out of the second tier."""
    # Whatever labels follow.
    name = 'troupe_gateway_cache_l2_lookups_total{result="hit"'
    wait_until(lambda: counted(peer, name) > 0 or not peer.answers(), LINKED_SECONDS)
    before = counted(peer, name)
    sample = wrk(peer, 1, seconds, 1)
    given = counted(peer, name) - before
    peer.check()
    if sample.failed() or given < sample.requests:
        raise LoadFailed(f"{peer.name}: {sample.errors}, {given:.0f} of {sample.requests} requests were answered out of Redis")
    return sample.latency_us


def counted(peer: Apart, name: str) -> float:
    text = ask(peer.admins[0], "GET", "/metrics")[1].decode()
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


def purges(peer: Apart) -> list[int]:
    """What every gateway has is purged by each of them in turn; when that is answered, none may give it."""
    gateways = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for port in peer.ports]
    admins = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for port in peer.admins]
    order = f"/api/cache/purge?url=http://127.0.0.1:{peer.port}{peer.path}"
    try:
        first = lambda: ask(peer.admins[0], "POST", "/api/cache/purge?all=true")[0] == 200  # noqa: E731
        if not wait_until(first, FIRST_PURGE_SECONDS):
            raise LoadFailed(f"{peer.name}: no purge is confirmed")
        return [one_purge(peer, gateways, admins[number % len(admins)], order) for number in range(PURGES)]
    finally:
        for connection in [*gateways, *admins]:
            connection.close()


def one_purge(peer: Apart, gateways: list, admin: http.client.HTTPConnection, order: str) -> int:
    for gateway in gateways:
        cache_status(peer, gateway)
        if "troupe-l1; hit" not in (said := cache_status(peer, gateway)):
            raise LoadFailed(f"{peer.name}: a gateway has not stored what it gave: {said}")
    began = time.perf_counter_ns()
    admin.request("POST", order, headers={"X-Troupe-Request": "1"})
    response = admin.getresponse()
    text = response.read()
    took = (time.perf_counter_ns() - began) // 1000
    if response.status != 200 or json.loads(text)["confirmed"] != len(gateways):
        raise LoadFailed(f"{peer.name}: a purge was answered {response.status} {text[:200]!r}")
    said = [cache_status(peer, gateway) for gateway in gateways]
    # The first fetches it anew, for all of them.
    if "hit" in said[0] or any("troupe-l1; hit" in status for status in said):
        raise LoadFailed(f"{peer.name}: what was purged was given: {said}")
    return took


def cache_status(peer: Apart, gateway: http.client.HTTPConnection) -> str:
    # All of them by the same name: it is a part of the key.
    gateway.request("GET", peer.path, headers={"Host": f"127.0.0.1:{peer.port}"})
    response = gateway.getresponse()
    if response.read() != peer.body.read_bytes():
        raise LoadFailed(f"{peer.name}: answered {response.status} with another body")
    return response.headers.get("Cache-Status", "")
