"""What every fault is measured by: failures while it lasts, health soon after, and nothing left behind."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import census
from stack import TROUPE, Failed, Metrics, Stack, check, run, wait
from traffic import Traffic, Window

# After a fault everything has to be well again within this.
HEALTHY_SECONDS = 10.0
# Without failures for this long, traffic counts as recovered.
CALM_SECONDS = 1.5
# The engine looks for health every three seconds, and then says so.
LOOK_SECONDS = 4.0
# Traffic after which a process that was just started has what it needs: its buffers, and PHP its code.
WARM_SECONDS = 6.0


@dataclass
class Bench:
    """What a scenario works with."""

    stack: Stack
    traffic: Traffic
    # When the programs started that are warm.
    _warm: frozenset[str] = frozenset()

    def unharmed(self, scenario: "Scenario") -> str:
        """Runs a scenario; in the end every service holds what it held before: descriptors, links, processes, memory.

        Memory that grew may have been needed for the first time. So where it did, the scenario runs once more: what grows each
        time is a leak.
        """
        before = self._at_rest()
        outcome = scenario(self)
        grown = self._holds_no_more(before)
        if not grown or scenario in REMEMBERED:
            return outcome
        again = self._at_rest()
        outcome = scenario(self)
        regrown = self._holds_no_more(again)
        check(not regrown, f"memory grew twice: {'; '.join(grown)}; then {'; '.join(regrown)}")
        return f"{outcome}; twice, since at first memory grew: {'; '.join(grown)}"

    def _at_rest(self) -> dict[str, census.Held]:
        """Without traffic, and with programs that have had some."""
        held = self._quiet_census()
        if frozenset(one.started for one in held.values()) != self._warm:
            self.traffic.resume()
            time.sleep(WARM_SECONDS)
            held = self._quiet_census()
            self._warm = frozenset(one.started for one in held.values())
        return held

    def _quiet_census(self) -> dict[str, census.Held]:
        self.traffic.pause()
        # Connections of the last requests end.
        time.sleep(1)
        return census.take(self.stack)

    def _holds_no_more(self, before: dict[str, census.Held]) -> list[str]:
        """Waits until nothing is held that was not held before; gives what memory grew nevertheless."""
        self.traffic.pause()
        found: list[str] = []

        def no_more() -> bool:
            try:
                after = census.take(self.stack)
            except Failed as failure:
                found[:] = [str(failure)]
                return False
            found[:] = census.leaked(before, after)
            return not found

        wait(HEALTHY_SECONDS, no_more, lambda: f"held {HEALTHY_SECONDS} s after it, and not before: {'; '.join(found)}")
        after = census.take(self.stack)
        deadline = time.monotonic() + HEALTHY_SECONDS
        while census.grown(before, after) and time.monotonic() < deadline:
            time.sleep(1)
            after = census.take(self.stack)
        return census.grown(before, after)

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
        """Waits until requests have stopped failing and every container is healthy, both soon after `since`; says how long after
        it the last request failed."""

        def left(more: float) -> float:
            return max(0.0, since + within + more - time.monotonic())

        def calm() -> bool:
            last = max((failure.at for failure in window.failures), default=since)
            return time.monotonic() - max(last, since) >= CALM_SECONDS

        wait(left(CALM_SECONDS), calm, lambda: f"{within} s later requests still fail: {window.describe()}")
        wait(left(LOOK_SECONDS), lambda: not self.stack.unhealthy(), lambda: f"{within} s later not healthy: {self.stack.unhealthy()}")
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
        busy: dict[str, float | None] = {}

        def quiet() -> bool:
            busy.clear()
            # What is not there is not known to be nothing.
            busy.update({name: value for name, value in in_flight(service, self.stack.metrics(container)).items() if value != 0})
            return not busy

        wait(HEALTHY_SECONDS, quiet, lambda: f"{service} {container[:12]} is still busy without traffic: {busy}")


CALLS = "troupe_mesh_calls_in_flight"
WITH_WORKERS = "troupe_balancer_worker_in_flight"
# What each service shows as soon as it is linked to the next, whether there is any of it or not.
GAUGES = {
    "gateway": (CALLS, "troupe_gateway_requests_in_flight"),
    "balancer": (CALLS, "troupe_balancer_queue_depth"),
    "php-pool": (CALLS, "troupe_php_streams", "troupe_php_spooled_bytes"),
}


def in_flight(service: str, metrics: Metrics) -> dict[str, float | None]:
    """What a service has under way, by gauge; None where it does not show one that it should."""
    names = GAUGES.get(service, ())
    # One for each worker: of none there is none.
    if metrics.sum("troupe_balancer_workers_ready"):
        names += (WITH_WORKERS,)
    found = {name: metrics.sum(name) if metrics.has(name) else None for name in names}
    # By which a gateway hears of purges: a call that lasts as long as both.
    watches = metrics.sum("troupe_cache_watchers") + metrics.sum("troupe_gateway_cache_live")
    if metrics.has(CALLS):
        found[CALLS] = max(0.0, metrics.sum(CALLS) - watches)
    return found


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

# Scenarios that end before what is remembered has reached its bound, such as the last 16,384 purges: what memory they leave
# held says nothing. Everything else that is held is looked at.
REMEMBERED: set[Scenario] = set()


def fills_memory(scenario: Scenario) -> Scenario:
    """Marks one of those."""
    REMEMBERED.add(scenario)
    return scenario
