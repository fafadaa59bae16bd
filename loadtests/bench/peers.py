"""What is compared: how each peer is started, and that each answers the same."""

import http.client
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from process import Process, wait_until

HERE = Path(__file__).resolve().parent.parent / "peers"
BODY = HERE / "hello.json"
# Bare metal starts in milliseconds; under valgrind Troupe takes a while.
START_SECONDS = 20.0
START_SECONDS_WRAPPED = 120.0


class NotUp(Exception):
    """A peer does not come up, or answers something else than the others."""


@dataclass
class Settings:
    bin_dir: Path
    directory: Path
    threads: int


@dataclass
class Peer:
    """One column of the table. `processes` is empty while it does not run; the first of them takes the connections."""

    name: str
    title: str
    start_with: Callable[["Peer", Settings, list[str]], None]
    path: str = "/hello"
    ours: bool = False
    # The file with the body that it answers.
    body: Path = BODY
    # It takes part only where hits are compared.
    hits_only: bool = False
    port: int = 0
    processes: list[Process] = field(default_factory=list)
    # Where those of its processes listen that others link to, by label.
    listening: dict[str, int] = field(default_factory=dict)

    def start(self, settings: Settings, wrapper: list[str] | None = None) -> None:
        self.port = free_port()
        directory = settings.directory / f"{self.name}-{self.port}"
        directory.mkdir(mode=0o755)
        own = Settings(settings.bin_dir, directory, settings.threads)
        try:
            self.start_with(self, own, wrapper or [])
        except OSError as error:
            self.stop()
            raise NotUp(f"{self.name}: {error}") from error
        seconds = START_SECONDS_WRAPPED if wrapper else START_SECONDS
        wait_until(lambda: self.answers() or not self.all_alive(), seconds)
        try:
            self.check()
        except NotUp:
            self.stop()
            raise

    def stop(self) -> None:
        # The one that takes connections first, so that those behind it see no new work while they go.
        for process in self.processes:
            process.stop()
        self.processes = []

    def all_alive(self) -> bool:
        return all(process.is_alive() for process in self.processes)

    def front(self) -> Process:
        return self.processes[0]

    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"

    def get(self) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", self.path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def answers(self) -> bool:
        try:
            return self.get()[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def check(self) -> None:
        """Raises NotUp unless every process lives and the answer is the one that all peers give."""
        for process in self.processes:
            if not process.is_alive():
                raise NotUp(f"{self.name}: {process.label} has ended\n{process.log_tail()}")
        try:
            status, body = self.get()
        except (OSError, http.client.HTTPException) as error:
            tails = "\n".join(process.log_tail() for process in self.processes)
            raise NotUp(f"{self.name}: does not answer on port {self.port}: {error}\n{tails}") from error
        if (status, body) != (200, self.body.read_bytes()):
            raise NotUp(f"{self.name}: answers {status} {body[:200]!r} instead of the body of {self.body.name}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fill(template: str, target: Path, **words: object) -> Path:
    text = (HERE / template).read_text()
    for word, value in words.items():
        text = text.replace(f"@{word}@", str(value))
    target.write_text(text)
    return target


def start_bare(peer: Peer, settings: Settings, wrapper: list[str]) -> None:
    command = [
        str(settings.bin_dir / "bare-actix"),
        f"--port={peer.port}",
        f"--threads={settings.threads}",
        f"--body={peer.body}",
    ]
    peer.processes.append(Process("bare-actix", command, settings.directory, wrapper))


def start_fpm(keep_alive: bool) -> Callable[[Peer, Settings, list[str]], None]:
    def start(peer: Peer, settings: Settings, _wrapper: list[str]) -> None:
        directory = settings.directory
        shutil.copytree(HERE / "fpm", directory / "www")
        fpm = fill("php-fpm.conf", directory / "php-fpm.conf", dir=directory)
        nginx = fill(
            "nginx.conf",
            directory / "nginx.conf",
            dir=directory,
            port=peer.port,
            # Per worker. An idle connection occupies a PHP process: more of them than processes, and the peer stalls.
            upstream_keepalive="keepalive 2;" if keep_alive else "",
            keep_conn="fastcgi_keep_conn on;" if keep_alive else "",
        )
        command = [tool("nginx"), "-e", str(directory / "nginx-start.log"), "-c", str(nginx)]
        peer.processes.append(Process("nginx", command, directory))
        binary = tool("php-fpm8.2", "php-fpm8.4", "php-fpm8.3", "php-fpm")
        peer.processes.append(Process("php-fpm", [binary, "-F", "-y", str(fpm)], directory))

    return start


def start_troupe(peer: Peer, settings: Settings, wrapper: list[str], template: str, **words: object) -> None:
    """Troupe in one process, before whatever it needs that runs already."""
    words = {"port": peer.port, "admin": free_port(), "threads": settings.threads, **words}
    config = fill(template, settings.directory / "troupe.toml", **words)
    command = [str(settings.bin_dir / "troupe"), "run", "--config", str(config)]
    peer.processes.insert(0, Process("troupe", command, settings.directory, wrapper))


def start_troupe_with_functions(peer: Peer, settings: Settings, wrapper: list[str], template: str, **words: object) -> None:
    shutil.copytree(HERE / "functions", settings.directory / "functions", dirs_exist_ok=True)
    start_troupe(peer, settings, wrapper, template, dir=settings.directory, **words)


def start_troupe_one(peer: Peer, settings: Settings, wrapper: list[str]) -> None:
    start_troupe_with_functions(peer, settings, wrapper, "troupe-one.toml")


def start_troupe_three(peer: Peer, settings: Settings, wrapper: list[str]) -> None:
    start_three(peer, settings, wrapper, "troupe-three.toml")


def start_three(peer: Peer, settings: Settings, wrapper: list[str], template: str, **words: object) -> None:
    directory = settings.directory
    shutil.copytree(HERE / "functions", directory / "functions", dirs_exist_ok=True)
    key = directory / "mesh.key"
    key.write_text(os.urandom(32).hex())
    key.chmod(0o600)
    listen = peer.listening = {"balancer": free_port(), "php-pool": free_port()}
    config = fill(
        template,
        directory / "troupe.toml",
        dir=directory,
        port=peer.port,
        balancer=listen["balancer"],
        php_pool=listen["php-pool"],
        threads=settings.threads,
        **words,
    )
    for service in ("gateway", "balancer", "php-pool"):
        command = [str(settings.bin_dir / "troupe"), "run", "--config", str(config), "--service", service]
        command += ["--set", f'admin.listen="127.0.0.1:{free_port()}"']
        if service in listen:
            command += ["--set", f'mesh.listen="127.0.0.1:{listen[service]}"']
        peer.processes.append(Process(service, command, directory, wrapper))


def start_static(peer: Peer, settings: Settings) -> int:
    """nginx with the one answer as a file: what proxies are measured in front of. Returns its port."""
    directory, port = settings.directory, free_port()
    (directory / "www").mkdir()
    shutil.copy(peer.body, directory / "www" / "hello")
    nginx = fill("nginx-static.conf", directory / "nginx.conf", dir=directory, port=port)
    command = [tool("nginx"), "-e", str(directory / "nginx-start.log"), "-c", str(nginx)]
    peer.processes.append(Process("nginx", command, directory))
    return port


def start_haproxy(peer: Peer, settings: Settings, _wrapper: list[str]) -> None:
    upstream = start_static(peer, settings)
    config = fill(
        "haproxy.cfg", settings.directory / "haproxy.cfg", port=peer.port, upstream=upstream, threads=settings.threads
    )
    command = [tool("haproxy"), "-db", "-f", str(config)]
    peer.processes.insert(0, Process("haproxy", command, settings.directory))


def start_troupe_upstream(peer: Peer, settings: Settings, wrapper: list[str]) -> None:
    start_troupe(peer, settings, wrapper, "troupe-upstream.toml", upstream=start_static(peer, settings))


def tool(*names: str) -> str:
    """The first of these programs; /usr/sbin is not in everybody's PATH."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    for name in names:
        if found := shutil.which(name, path=path):
            return found
    raise FileNotFoundError(f"{names[0]} is not installed")


def all_peers() -> list[Peer]:
    return [
        Peer("bare-actix", "bare actix-web", start_bare),
        Peer("nginx-fpm", "nginx + php-fpm", start_fpm(keep_alive=False), path="/hello.php"),
        Peer("nginx-fpm-keep", "nginx + php-fpm, FastCGI keep-alive", start_fpm(keep_alive=True), path="/hello.php"),
        Peer("troupe-one", "Troupe, one process", start_troupe_one, ours=True),
        Peer("troupe-three", "Troupe, three processes", start_troupe_three, ours=True),
        Peer("haproxy", "HAProxy before nginx", start_haproxy),
        Peer("troupe-upstream", "Troupe before nginx", start_troupe_upstream, ours=True),
    ]
