"""The stack under test: compose and docker, and what the services say of themselves."""

import http.client
import json
import os
import re
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SERVICES = ("redis", "php-pool", "balancer", "cache", "gateway", "metrics", "edge")
# Those that have an operators' port.
TROUPE = ("php-pool", "balancer", "cache", "gateway", "metrics")
PROFILES = ("load", "observe", "tools")
# Longest time that one command of docker or compose may take; a start waits for four health checks in a row.
COMMAND_SECONDS = 240


class Failed(Exception):
    """A pass line that was not reached; says which, and what was seen instead."""


class Skipped(Exception):
    """What a scenario needs is not there; says what."""


def check(condition: object, otherwise: str) -> None:
    if not condition:
        raise Failed(otherwise)


def run(*command: str, env: dict[str, str] | None = None, tolerate: bool = False) -> str:
    """What a command prints. A failure is ours to tell of, unless it is tolerated."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=COMMAND_SECONDS, stdin=subprocess.DEVNULL, cwd=ROOT, env=env
    )
    if done.returncode != 0 and not tolerate:
        raise Failed(f"{' '.join(command)}: exit {done.returncode}: {(done.stderr or done.stdout).strip()[-800:]}")
    return done.stdout


def wait(seconds: float, condition, otherwise) -> float:
    """Waits until the condition holds, and says how long that took. `otherwise` is text, or makes it."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise Failed(otherwise if isinstance(otherwise, str) else otherwise())
        time.sleep(0.1)
    return time.monotonic() - began


class Stack:
    """One project of compose with a name, a port, a network and secrets of its own."""

    def __init__(self, compose: list[str], tag: str, suffix: str = "") -> None:
        self.compose_command = compose
        self.project = f"troupetest{os.getpid()}{suffix}"
        self.port = free_port()
        self.env = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": self.project,
            "TROUPE_PORT": str(self.port),
            "TROUPE_TAG": tag,
        }
        self.env.pop("TROUPE_SECRETS", None)
        self._token = ""

    def compose(self, *arguments: str) -> str:
        return run(*self.compose_command, *arguments, env=self.env)

    def up(self, *services: str, **scale: int) -> None:
        """Starts what is not there, and scales; a keyword's _ stands for -."""
        options = [f"--scale={name.replace('_', '-')}={count}" for name, count in scale.items()]
        self.compose("up", "-d", "--no-build", "--no-recreate", *options, *services)

    def scale(self, service: str, count: int) -> None:
        self.compose("up", "-d", "--no-build", "--no-deps", "--no-recreate", f"--scale={service}={count}", service)

    def down(self) -> None:
        """Ends it, its secrets included."""
        self._token = ""
        profiles = [word for profile in PROFILES for word in ("--profile", profile)]
        self.compose(*profiles, "down", "-v", "--remove-orphans", "-t", "2")

    def roll(self, service: str) -> None:
        run(str(ROOT / "scripts" / "stack.sh"), "roll", service, env=self.env)

    def needs_image(self, service: str) -> None:
        """Images that a machine may not have."""
        profiles = [word for profile in PROFILES for word in ("--profile", profile)]
        listed = self.compose(*profiles, "config").partition("services:")[2]
        image = listed.partition(f"\n  {service}:\n")[2].partition("\n    image: ")[2].partition("\n")[0].strip()
        try:
            run("docker", "image", "inspect", image)
        except Failed as missing:
            raise Skipped(f"the image {image or service} is not here") from missing

    def ids(self, service: str) -> list[str]:
        """The containers of a service, those that have ended included, the oldest first."""
        # Asked of docker itself: compose takes a second for it, and this is asked for all the time.
        label = "com.docker.compose"
        listed = run(
            "docker", "ps", "-a", "--no-trunc", "--filter", f"label={label}.project={self.project}",
            "--filter", f"label={label}.service={service}", "--filter", f"label={label}.oneoff=False",
            "--format", f'{{{{.Label "{label}.container-number"}}}} {{{{.ID}}}}',
        )
        return [line.split()[1] for line in sorted(listed.splitlines(), key=lambda line: int(line.split()[0]))]

    def one(self, service: str) -> str:
        ids = self.ids(service)
        check(len(ids) == 1, f"{len(ids)} containers of {service}, not one")
        return ids[0]

    def network(self, name: str) -> str:
        return f"{self.project}_{name}"

    def inspect(self, container: str) -> dict:
        return json.loads(run("docker", "inspect", container))[0]

    def state(self, container: str) -> str:
        state = self.inspect(container)["State"]
        return state.get("Health", {}).get("Status", "") or state["Status"]

    def unhealthy(self) -> dict[str, str]:
        """Containers that are not well, by name."""
        ids = [container for service in SERVICES for container in self.ids(service)]
        described = json.loads(run("docker", "inspect", *ids)) if ids else []
        states = {one["Name"].lstrip("/"): one["State"] for one in described}
        there = {one["Config"]["Labels"]["com.docker.compose.service"] for one in described}
        sick = {
            name: state.get("Health", {}).get("Status", state["Status"])
            for name, state in states.items()
            if state["Status"] != "running" or state.get("Health", {}).get("Status") != "healthy"
        }
        return sick | {service: "missing" for service in SERVICES if service not in there}

    def healthy(self, within: float) -> float:
        return wait(within, lambda: not self.unhealthy(), lambda: f"after {within} s not healthy: {self.unhealthy()}")

    def execute(self, container: str, script: str) -> str:
        """Runs a script of bash in a container, as its own user."""
        return run("docker", "exec", container, "bash", "-c", script)

    def kill(self, container: str, program: str) -> None:
        """Ends a program in a container without a word; docker itself would take `docker kill` for a wish to stop."""
        script = 'for p in /proc/[0-9]*; do [ "$(cat $p/comm 2>&-)" = "$1" ] && kill -9 "${p#/proc/}"; done; true'
        # The shell may be taken along by the end of its container.
        run("docker", "exec", container, "bash", "-c", script, "bash", program, tolerate=True)

    def started(self, container: str) -> str:
        return self.inspect(container)["State"]["StartedAt"]

    def get(self, path: str) -> tuple[int, str]:
        """One request to the published port."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        finally:
            connection.close()

    def token(self) -> str:
        """The admin token."""
        self._token = self._token or self.execute(self.ids("gateway")[0], "cat /run/troupe/admin.token").strip()
        return self._token

    def metrics(self, container: str, path: str = "/metrics") -> "Metrics":
        """What an instance says of itself, asked on its own address: only this machine can."""
        status, text = self.ask(container, path, {"Authorization": f"Bearer {self.token()}"})
        check(status == 200, f"{path} of {container[:12]} answers {status}: {text[:200]}")
        return Metrics(text)

    def ask(self, container: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        """One request to the operators' port of an instance, on its own address."""
        networks = self.inspect(container)["NetworkSettings"]["Networks"]
        address = networks.get(self.network("mesh"), {}).get("IPAddress", "")
        check(address, f"container {container[:12]} is not in the mesh's network")
        connection = http.client.HTTPConnection(address, 9090, timeout=10)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError as error:
            raise Failed(f"{path} of {container[:12]} does not answer: {error}") from error
        finally:
            connection.close()

    def logs(self, lines: int = 30) -> str:
        said = subprocess.run(
            [*self.compose_command, "logs", "--no-color", f"--tail={lines}"], capture_output=True, text=True, env=self.env,
            cwd=ROOT, timeout=COMMAND_SECONDS,
        )
        quiet = (line for line in said.stdout.splitlines() if '"level":"info"' not in line and '"status":2' not in line)
        return "\n".join(quiet)


class Metrics:
    """Prometheus text, read."""

    LINE = re.compile(r"^([a-z0-9_]+)(?:\{(.*)\})? (\S+)$")
    LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

    def __init__(self, text: str) -> None:
        self.samples: list[tuple[str, dict[str, str], float]] = []
        for line in text.splitlines():
            if found := self.LINE.match(line):
                name, labels, value = found.groups()
                self.samples.append((name, dict(self.LABEL.findall(labels or "")), float(value)))

    def has(self, name: str) -> bool:
        return any(known == name for known, _, _ in self.samples)

    def sum(self, name: str, **labels: str) -> float:
        """0 where there is no such series: `has` tells the two apart."""
        return sum(
            value
            for known, has, value in self.samples
            if known == name and all(has.get(label) == wanted for label, wanted in labels.items())
        )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
