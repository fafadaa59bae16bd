"""What is compared where answers come out of a cache: all in front of the same server, with a small and a larger body."""

from collections.abc import Callable
from pathlib import Path

from peers import BODY, HERE, Peer, Settings, fill, start_bare, start_static, start_troupe, tool
from process import Process

LARGE = HERE / "hello-10k.json"
# The bodies by the ending of the peers' names, and what titles call them.
BODIES: dict[str, tuple[Path, str]] = {"": (BODY, "100 B"), "-10k": (LARGE, "10 KiB")}


def start_troupe_cache(peer: Peer, settings: Settings, wrapper: list[str]) -> None:
    start_troupe(peer, settings, wrapper, "troupe-cache.toml", upstream=start_static(peer, settings))


def start_nginx(peer: Peer, settings: Settings, _wrapper: list[str]) -> None:
    upstream = start_static(peer, settings)
    directory = settings.directory
    config = fill("nginx-cache.conf", directory / "nginx-cache.conf", dir=directory, port=peer.port, upstream=upstream)
    command = [tool("nginx"), "-e", str(directory / "nginx-cache-start.log"), "-c", str(config)]
    peer.processes.insert(0, Process("nginx-cache", command, directory))


def start_varnish(peer: Peer, settings: Settings, _wrapper: list[str]) -> None:
    upstream = start_static(peer, settings)
    directory = settings.directory
    config = fill("varnish.vcl", directory / "varnish.vcl", upstream=upstream)
    work = directory / "varnish"
    work.mkdir(mode=0o755)
    command = [tool("varnishd"), "-F", "-n", str(work), "-f", str(config), "-s", "malloc,256m"]
    command += ["-a", f"127.0.0.1:{peer.port}", "-T", "none"]
    peer.processes.insert(0, Process("varnishd", command, directory))


def cache_peers() -> list[Peer]:
    """Those that are measured with hits alone, beside bare actix-web with the same bodies."""

    def both(name: str, title: str, start: Callable, ours: bool = False) -> list[Peer]:
        return [
            Peer(name + ending, f"{title}, {size}", start, body=body, ours=ours, hits_only=True)
            for ending, (body, size) in BODIES.items()
        ]

    return [
        Peer("bare-actix-10k", "bare actix-web, 10 KiB", start_bare, body=LARGE, hits_only=True),
        *both("troupe-cache", "Troupe, cache hit", start_troupe_cache, ours=True),
        *both("nginx-cache", "nginx proxy_cache hit", start_nginx),
        *both("varnish", "Varnish hit", start_varnish),
    ]


def base(name: str) -> str:
    """The bare server that answers with the same body."""
    return "bare-actix-10k" if name.endswith("-10k") else "bare-actix"
