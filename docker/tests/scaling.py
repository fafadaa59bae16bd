"""More and fewer instances, and every container replaced, under load and without one failed request."""

import os
import re
import shutil
import time

from scenario import Bench
from stack import Skipped, Stack, check, run, wait

# Shares may differ from their mean by this much.
EVEN = 0.15
# A new instance is found within two seconds, and its share grows for balancer.slow_start = 10 s.
GROWN_SECONDS = 16
COUNTED_SECONDS = 8
# Fewer calls per instance say nothing about shares: a busy machine is given longer.
LEAST_CALLS = 50
COUNTED_AT_MOST = 6
SILENT_GATEWAYS = 4


def php_pools_come_and_go(bench: Bench) -> str:
    """php-pool 1, 4, 2: nothing fails, and each worker gets an even share."""
    with bench.lossless() as window:
        bench.stack.scale("php-pool", 4)
        bench.stack.healthy(within=60)
        with bench.traffic.evenly():
            time.sleep(GROWN_SECONDS)
            four = even_share(bench.stack, "php-pool", "troupe_php_calls_total")
            bench.stack.scale("php-pool", 2)
            two = even_share(bench.stack, "php-pool", "troupe_php_calls_total")
    bench.nothing_left()
    with bench.lossless():
        bench.stack.scale("php-pool", 1)
    return f"{window.requests} requests, shares of four {four}, of two {two}"


def gateways_come_and_go(bench: Bench) -> str:
    """gateway 1, 3, 1: nothing fails, and the edge shares evenly."""
    with bench.lossless() as window:
        bench.stack.scale("gateway", 3)
        bench.stack.healthy(within=60)
        time.sleep(3)
        three = even_share(bench.stack, "gateway", "troupe_gateway_requests_total")
        bench.stack.scale("gateway", 1)
    bench.nothing_left()
    return f"{window.requests} requests, shares {three}"


def gateways_that_do_not_listen_yet(bench: Bench) -> str:
    """Containers called gateway where nothing listens, as each is at first: the edge finds out without losing a request."""
    network, image = f"{bench.stack.project}_front", f"troupe-edge:{bench.stack.env['TROUPE_TAG']}"
    edge, began, silent = bench.stack.one("edge"), f"{time.time():.3f}", []

    def down() -> set[str]:
        return set(re.findall(r"Server gateways/(\w+) is DOWN", run("docker", "logs", "--since", began, edge)))

    with bench.lossless() as window:
        try:
            for _ in range(SILENT_GATEWAYS):
                alias = ("--network", network, "--network-alias", "gateway")
                silent.append(run("docker", "run", "-d", "--rm", *alias, "--entrypoint", "sleep", image, "60").strip())
            wait(30, lambda: len(down()) == SILENT_GATEWAYS, lambda: f"of {SILENT_GATEWAYS} silent gateways the edge found {down()}")
        finally:
            run("docker", "rm", "-f", *silent, tolerate=True)
    return f"{window.requests} requests"


def balancers_come_and_go(bench: Bench) -> str:
    """balancer 1, 2, 1, with two php-pools behind: nothing fails, and both pools go on sharing evenly."""
    with bench.lossless() as window:
        bench.stack.up(php_pool=2, balancer=2)
        bench.stack.healthy(within=60)
        with bench.traffic.evenly():
            time.sleep(GROWN_SECONDS)
            pools = even_share(bench.stack, "php-pool", "troupe_php_calls_total")
        bench.stack.scale("balancer", 1)
        bench.stack.scale("php-pool", 1)
    bench.nothing_left()
    return f"{window.requests} requests, shares of php-pools behind two balancers {pools}"


def even_share(stack: Stack, service: str, counter: str) -> str:
    ids = stack.ids(service)
    before = {container: stack.metrics(container).sum(counter) for container in ids}
    counts, mean = [0.0], 0.0
    for _ in range(COUNTED_AT_MOST):
        time.sleep(COUNTED_SECONDS)
        counts = [stack.metrics(container).sum(counter) - before[container] for container in ids]
        mean = sum(counts) / len(counts)
        if mean >= LEAST_CALLS:
            break
    shares = " ".join(f"{count / (mean or 1):.2f}" for count in counts)
    check(mean >= LEAST_CALLS, f"{service}: only {mean:.0f} calls each: this machine has no time for the test")
    check(all(abs(count - mean) <= EVEN * mean for count in counts), f"{service}: uneven shares {shares} of {mean:.0f}")
    return shares


def every_container_is_replaced(bench: Bench) -> str:
    """The services one after the other, by scripts/stack.sh roll, and Redis: nothing fails."""
    replaced = []
    for service in ("php-pool", "balancer", "cache", "gateway", "metrics"):
        old = bench.stack.ids(service)
        with bench.lossless():
            bench.stack.roll(service)
        new = bench.stack.ids(service)
        check(len(new) == len(old) and not set(new) & set(old), f"{service}: {len(old)} before, {new} after")
        replaced.append(service)
    with bench.lossless():
        old_redis = bench.stack.one("redis")
        run("docker", "rm", "-f", old_redis)
        bench.stack.up()
        bench.stack.healthy(within=30)
        check(bench.stack.one("redis") != old_redis, "Redis was not replaced")
    bench.nothing_left()
    return ", ".join([*replaced, "redis"])


def the_edge_is_replaced(bench: Bench) -> str:
    """The one container that owns the port, by scripts/stack.sh roll: what is under way is finished, new connections wait, nothing fails."""
    if os.geteuid() != 0 or not shutil.which("iptables"):
        raise Skipped("needs root and iptables, to hold connections back")
    old = bench.stack.one("edge")
    with bench.lossless() as window:
        bench.stack.roll("edge")
    check(bench.stack.one("edge") != old, "the edge was not replaced")
    rules = run("iptables", "-t", "raw", "-S")
    check("troupe-hold" not in rules, f"connections are still held back: {rules}")
    bench.nothing_left()
    return f"{window.requests} requests, the slowest took {window.slowest:.1f} s"


SCENARIOS = [
    php_pools_come_and_go,
    gateways_come_and_go,
    gateways_that_do_not_listen_yet,
    balancers_come_and_go,
    every_container_is_replaced,
    the_edge_is_replaced,
]
