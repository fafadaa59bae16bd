"""Each program killed without a word: it comes back by itself, and costs what was in flight at most."""

import time

from scenario import Bench, Scenario
from stack import check, wait

# Eight clients: each may lose the request it had under way, and two more that were sent before anybody knew: on a machine that
# is busy with something else, a connection's end is told of late.
IN_FLIGHT = 24
PROGRAMS = {
    "php-pool": "troupe", "balancer": "troupe", "gateway": "troupe", "cache": "troupe", "metrics": "troupe", "redis": "redis-server",
    "edge": "haproxy",
}
# No request needs them.
BESIDE_THE_PATH = ("cache", "metrics", "redis")
# The front and the only gateway take the port away until they are back.
CARRIES_THE_PORT = ("gateway", "edge")


def killed(service: str) -> Scenario:
    def scenario(bench: Bench) -> str:
        container = bench.stack.one(service)
        before = bench.stack.started(container)
        with bench.watched() as window:
            time.sleep(1)
            check(not window.failures, f"requests failed before the kill: {window.describe()}")
            began = time.monotonic()
            bench.stack.kill(container, PROGRAMS[service])
            wait(10, lambda: bench.stack.started(container) != before, f"{service} was not started again")
            took = bench.recovers(window, began)
        failed = len(window.failures)
        if service in BESIDE_THE_PATH:
            check(failed == 0, f"{failed} requests failed for want of {service}: {window.describe()}")
        elif service not in CARRIES_THE_PORT:
            check(failed <= IN_FLIGHT, f"{failed} requests failed, {IN_FLIGHT} at most: {window.describe()}")
        bench.nothing_left()
        return f"{failed} of {window.requests} requests failed, the last {took:.1f} s after the kill"

    scenario.__name__ = f"{service.replace('-', '_')}_is_killed"
    scenario.__doc__ = f"kill -9 of {service}: back by itself, healthy, at most what was in flight lost."
    return scenario


def one_of_two_php_pools_is_killed(bench: Bench) -> str:
    """kill -9 of one php-pool of two: the other takes over at once."""
    bench.stack.scale("php-pool", 2)
    bench.stack.healthy(within=60)
    time.sleep(6)
    with bench.watched() as window:
        time.sleep(1)
        began = time.monotonic()
        bench.stack.kill(bench.stack.ids("php-pool")[0], "troupe")
        took = bench.recovers(window, began)
    failed = len(window.failures)
    check(failed <= IN_FLIGHT, f"{failed} requests failed, {IN_FLIGHT} at most: {window.describe()}")
    bench.nothing_left()
    with bench.lossless():
        bench.stack.scale("php-pool", 1)
    return f"{failed} of {window.requests} requests failed, the last {took:.1f} s after the kill"


SCENARIOS = [*(killed(service) for service in PROGRAMS), one_of_two_php_pools_is_killed]
