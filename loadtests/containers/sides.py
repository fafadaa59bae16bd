"""The sides of the comparison: where each answers, and what its containers have used."""

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.append(str(ROOT / "docker" / "tests"))
from stack import Stack, run  # noqa: E402

HERE = Path(__file__).resolve().parent
QUIET = ("-f", "compose.yaml", "-f", str(HERE / "quiet.yaml"))
START_SECONDS = 120
# A new instance is found within two seconds, and its share grows for balancer.slow_start = 10 s.
GROWN_SECONDS = 14
# Of /proc/PID/stat, from the third field on: the process's own time, and that of children which have ended.
USER, SYSTEM, CHILDREN_USER, CHILDREN_SYSTEM = 11, 12, 13, 14


@dataclass
class Side:
    """One set of containers that answers at one address of the engine's network, by service."""

    title: str
    path: str
    front: str
    project: str
    containers: dict[str, list[str]] = field(default_factory=dict)

    def find(self) -> None:
        """Looks up the containers, after a start or a change of scale."""
        label = "com.docker.compose"
        listed = run("docker", "ps", "--no-trunc", "--filter", f"label={label}.project={self.project}",
                     "--format", f'{{{{.Label "{label}.service"}}}} {{{{.ID}}}}')
        self.containers = {}
        for service, container in sorted(line.split() for line in listed.splitlines()):
            self.containers.setdefault(service, []).append(container)

    def host(self) -> str:
        """Not the published port: through it, the engine's own proxy would be measured."""
        container = self.containers[self.front][0]
        template = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        return f"http://{run('docker', 'inspect', '--format', template, container).split()[0]}:8080"

    def used(self) -> dict[str, float]:
        """Seconds of processor time so far, by service."""
        return {service: sum(map(seconds, containers)) for service, containers in self.containers.items()}


def seconds(container: str) -> float:
    pids = [line.strip() for line in run("docker", "top", container, "-o", "pid").splitlines()[1:]]
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(int(fields[index]) for index in (USER, SYSTEM, CHILDREN_USER, CHILDREN_SYSTEM))
    return ticks / os.sysconf("SC_CLK_TCK")


class Sides:
    """All of them, started; gone in the end."""

    def __init__(self, compose: list[str]) -> None:
        self.stack = Stack(compose, "test")
        self._beside = {**os.environ, "COMPOSE_PROJECT_NAME": f"{self.stack.project}beside"}
        project = self._beside["COMPOSE_PROJECT_NAME"]
        self.composed = Side("composed stack", "/api/hello", "edge", self.stack.project)
        self.gateway = Side("composed stack, asked at its gateway", "/api/hello", "gateway", self.stack.project)
        self.fpm = Side("nginx + php-fpm", "/hello.php", "nginx", project)
        self.one = Side("Troupe in one process", "/api/hello", "one", project)

    def __enter__(self) -> "Sides":
        self.stack.compose(*QUIET, "up", "-d", "--no-build")
        self._compose_beside("up", "-d")
        self.stack.healthy(within=START_SECONDS)
        for side in (self.composed, self.gateway, self.fpm, self.one):
            side.find()
        # Two sides in one project: each counts its own.
        self.fpm.containers.pop("one", None)
        self.one.containers = {"one": self.one.containers["one"]}
        return self

    def __exit__(self, *_: object) -> None:
        self._compose_beside("down", "-t", "2")
        self.stack.down()

    def scale(self, php_pools: int, gateways: int) -> None:
        """More or fewer; returns when their shares have grown."""
        self.stack.compose(*QUIET, "up", "-d", "--no-build", f"--scale=php-pool={php_pools}", f"--scale=gateway={gateways}")
        self.stack.healthy(within=START_SECONDS)
        time.sleep(GROWN_SECONDS)
        self.composed.find()

    def _compose_beside(self, *arguments: str) -> None:
        run(*self.stack.compose_command, "-f", str(HERE / "beside.yaml"), *arguments, env=self._beside)
