"""What every fault is measured by: failures while it lasts, health soon after, and nothing left behind."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from stack import TROUPE, Metrics, Stack, check, run, wait
from traffic import Traffic, Window

# After a fault everything has to be well again within this.
HEALTHY_SECONDS = 10.0
# Without failures for this long, traffic counts as recovered.
CALM_SECONDS = 1.5
# Instances that go on over a fault may have this many descriptors more than before it: connections that are kept.
SPARE_DESCRIPTORS = 64


@dataclass
class Bench:
    """What a scenario works with."""

    stack: Stack
    traffic: Traffic

    @contextlib.contextmanager
    def watched(self) -> Iterator[Window]:
        """Traffic, and what becomes of it inside the block."""
        self.traffic.resume()
        window = self.traffic.window()
        try:
            yield window
        finally:
            self.traffic.close(window)

    @contextlib.contextmanager
    def lossless(self, settle: float = 1.0) -> Iterator[Window]:
        """Nothing inside the block may cost a request."""
        with self.watched() as window:
            time.sleep(settle)
            yield window
            time.sleep(settle)
        check(window.requests > 0, "no request was made")
        check(not window.failures, f"{len(window.failures)} of {window.requests} requests failed: {window.describe()}")

    def recovers(self, window: Window, since: float, within: float = HEALTHY_SECONDS) -> float:
        """Waits until requests have stopped failing and every container is healthy; says how long after `since`."""

        def calm() -> bool:
            last = max((failure.at for failure in window.failures), default=since)
            return time.monotonic() - max(last, since) >= CALM_SECONDS

        wait(within + CALM_SECONDS, calm, lambda: f"{within} s later requests still fail: {window.describe()}")
        wait(
            within + CALM_SECONDS,
            lambda: not self.stack.unhealthy(),
            lambda: f"{within} s later not healthy: {self.stack.unhealthy()}",
        )
        last = max((failure.at for failure in window.failures), default=since)
        return max(0.0, last - since)

    def nothing_left(self) -> None:
        """With the traffic stopped: nothing in flight, no stream, no process without its pool, no zombie."""
        self.traffic.pause()
        for service in TROUPE:
            for container in self.stack.ids(service):
                self._quiet(service, container)
        for container in self.stack.ids("php-pool"):
            wait(HEALTHY_SECONDS, lambda: processes_fit(self.stack, container), lambda: processes(container))
        self.traffic.resume()

    def _quiet(self, service: str, container: str) -> None:
        busy: dict[str, float] = {}

        def quiet() -> bool:
            busy.clear()
            busy.update({name: value for name, value in in_flight(self.stack.metrics(container)).items() if value})
            return not busy

        wait(HEALTHY_SECONDS, quiet, lambda: f"{service} {container[:12]} is still busy without traffic: {busy}")


GAUGES = (
    "troupe_gateway_requests_in_flight",
    "troupe_balancer_inflight",
    "troupe_balancer_queue_depth",
    "troupe_mesh_calls_in_flight",
    "troupe_php_streams",
    "troupe_php_spooled_bytes",
)


def in_flight(metrics: Metrics) -> dict[str, float]:
    return {name: metrics.sum(name) for name in GAUGES}


def processes(container: str) -> str:
    return run("docker", "top", container, "-o", "pid,ppid,stat,args")


def processes_fit(stack: Stack, container: str) -> bool:
    """As many processes of PHP as the pool says it has, and its zygote; none that is dead and not taken notice of."""
    rows = [line.split(None, 3) for line in processes(container).splitlines()[1:]]
    php = [row for row in rows if "php" in row[3].split()[0].rpartition("/")[2]]
    zombies = [row for row in rows if row[2].startswith("Z")]
    known = stack.metrics(container).sum("troupe_php_processes")
    return not zombies and len(php) <= known + 1


Scenario = Callable[[Bench], str]
