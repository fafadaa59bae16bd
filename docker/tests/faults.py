"""Networks that part, programs that freeze, disks that fill, Redis in every kind of trouble."""

import contextlib
import time
from collections.abc import Iterator

from kills import IN_FLIGHT
from scenario import HEALTHY_SECONDS, Bench
from stack import Failed, Skipped, check, run, wait
from traffic import Window

# What nobody announces is noticed by the links' PING: three seconds of silence, and a fourth for what that ends.
NOTICED_SECONDS = 6.0


@contextlib.contextmanager
def two_php_pools(bench: Bench) -> Iterator[str]:
    """A second php-pool for the time of the block; gives the first one's container."""
    bench.stack.scale("php-pool", 2)
    bench.stack.healthy(within=60)
    # Until the balancer has looked the name up again.
    time.sleep(6)
    try:
        yield bench.stack.ids("php-pool")[0]
    finally:
        bench.stack.scale("php-pool", 1)


def bounded(window: Window, began: float) -> int:
    """Requests may fail until the fault is noticed, and no longer."""
    late = window.since(began + NOTICED_SECONDS)
    check(not late, f"{len(late)} requests failed later than {NOTICED_SECONDS} s after the fault: {window.describe()}")
    return len(window.failures)


def cut_off(bench: Bench, container: str, service: str, network: str, seconds: float) -> None:
    run("docker", "network", "disconnect", network, container)
    time.sleep(seconds)
    run("docker", "network", "connect", "--alias", service, network, container)


def a_php_pool_is_cut_off(bench: Bench) -> str:
    """The network of one php-pool of two is taken away for eight seconds: the other serves, and both do after the heal."""
    with two_php_pools(bench) as container:
        with bench.watched() as window:
            time.sleep(1)
            began = time.monotonic()
            cut_off(bench, container, "php-pool", bench.stack.network("mesh"), 8)
            failed = bounded(window, began)
            bench.recovers(window, time.monotonic())
        before = bench.stack.metrics(container).sum("troupe_php_calls_total")
        wait(
            HEALTHY_SECONDS + 5,
            lambda: bench.stack.metrics(container).sum("troupe_php_calls_total") > before,
            "the php-pool that was cut off gets no calls any more",
        )
        bench.nothing_left()
    return f"{failed} of {window.requests} requests failed"


def the_balancer_is_cut_off(bench: Bench) -> str:
    """The only balancer's network is taken away: 503 with a reason meanwhile, and service again after the heal."""
    container = bench.stack.one("balancer")
    with bench.watched() as window:
        time.sleep(1)
        cut_off(bench, container, "balancer", bench.stack.network("mesh"), 6)
        healed = time.monotonic()
        took = bench.recovers(window, healed)
    check(window.failures, "no request noticed that the only balancer was away")
    odd = [f for f in window.failures if not any(said in f.why for said in ("status 50", "TimeoutError"))]
    check(not odd, f"not an answer of Troupe's own: {odd[:3]}")
    bench.nothing_left()
    return f"served again {took:.1f} s after the heal"


def a_php_pool_freezes(bench: Bench) -> str:
    """One php-pool of two stops without a word for eight seconds (docker pause), and goes on."""
    with two_php_pools(bench) as container:
        with bench.watched() as window:
            time.sleep(1)
            began = time.monotonic()
            run("docker", "pause", container)
            try:
                time.sleep(8)
            finally:
                run("docker", "unpause", container)
            failed = bounded(window, began)
            bench.recovers(window, time.monotonic())
        bench.nothing_left()
    check(failed <= IN_FLIGHT, f"{failed} requests failed, {IN_FLIGHT} at most: {window.describe()}")
    return f"{failed} of {window.requests} requests failed, the slowest took {window.slowest:.1f} s"


def the_disk_is_full(bench: Bench) -> str:
    """php-pool's place for uploads is full: uploads are refused with a reason, everything else goes on."""
    container = bench.stack.one("php-pool")
    with bench.watched() as window:
        bench.stack.execute(container, "head -c 1G /dev/zero > /tmp/filler 2>&-; true")
        try:
            # One request in fifty is an upload.
            wait(15, lambda: window.failures, lambda: "no upload noticed that the disk was full")
            time.sleep(2)
        finally:
            bench.stack.execute(container, "rm /tmp/filler")
        bench.recovers(window, time.monotonic())
    others = [f for f in window.failures if "upload" not in f.what or "status 50" not in f.why]
    check(not others, f"not only uploads failed: {others[:3]}")
    bench.nothing_left()
    return f"{len(window.failures)} uploads refused: {window.failures[0].why[:60]}"


def packets_are_late_and_lost(bench: Bench) -> str:
    """20 ms of delay and 1 % of loss at the balancer: slower, and nothing fails."""
    container = bench.stack.one("balancer")
    pid = str(bench.stack.inspect(container)["State"]["Pid"])
    enter = ("nsenter", "-t", pid, "-n", "tc", "qdisc")
    try:
        run(*enter, "add", "dev", "eth0", "root", "netem", "delay", "20ms", "5ms", "loss", "1%")
    except (Failed, OSError) as missing:
        raise Skipped("needs root, tc, and a kernel with netem") from missing
    with bench.watched() as window:
        try:
            time.sleep(6)
        finally:
            run(*enter, "del", "dev", "eth0", "root")
        bench.recovers(window, time.monotonic())
    check(not window.failures, f"{len(window.failures)} of {window.requests} requests failed: {window.describe()}")
    bench.nothing_left()
    return f"{window.requests} requests, the slowest took {window.slowest:.2f} s"


def packets_are_lost(bench: Bench) -> str:
    """One packet in fifty that comes to the balancer is dropped, where the kernel's packet filter can: nothing fails."""
    container = bench.stack.one("balancer")
    enter = ("nsenter", "-t", str(bench.stack.inspect(container)["State"]["Pid"]), "-n", "iptables")
    rule = ("INPUT", "-m", "statistic", "--mode", "random", "--probability", "0.02", "-j", "DROP")
    try:
        run(*enter, "-I", *rule)
    except (Failed, OSError) as missing:
        raise Skipped("needs root, iptables, and a kernel with its statistic match") from missing
    with bench.watched() as window:
        try:
            time.sleep(8)
        finally:
            run(*enter, "-D", *rule)
        bench.recovers(window, time.monotonic())
    check(not window.failures, f"{len(window.failures)} of {window.requests} requests failed: {window.describe()}")
    bench.nothing_left()
    return f"{window.requests} requests, the slowest took {window.slowest:.2f} s"


def redis_is_stopped(bench: Bench) -> str:
    """Redis away for six seconds: nothing fails."""
    with bench.lossless():
        container = bench.stack.one("redis")
        run("docker", "stop", container)
        time.sleep(6)
        run("docker", "start", container)
        bench.stack.healthy(within=HEALTHY_SECONDS)
    bench.nothing_left()
    return "nothing failed"


def redis_is_frozen(bench: Bench) -> str:
    """Redis takes connections and never answers: nothing fails."""
    with bench.lossless():
        container = bench.stack.one("redis")
        run("docker", "pause", container)
        try:
            time.sleep(6)
        finally:
            run("docker", "unpause", container)
        bench.stack.healthy(within=HEALTHY_SECONDS)
    bench.nothing_left()
    return "nothing failed"


def redis_is_flushed(bench: Bench) -> str:
    """Redis forgets everything: nothing fails."""
    with bench.lossless(settle=3):
        script = 'REDISCLI_AUTH="$(cat /run/troupe/redis.password)" redis-cli flushall'
        said = bench.stack.execute(bench.stack.one("redis"), script)
        check("OK" in said, f"redis-cli flushall says {said!r}")
    bench.nothing_left()
    return "nothing failed"


SCENARIOS = [
    a_php_pool_is_cut_off,
    the_balancer_is_cut_off,
    a_php_pool_freezes,
    the_disk_is_full,
    packets_are_late_and_lost,
    packets_are_lost,
    redis_is_stopped,
    redis_is_frozen,
    redis_is_flushed,
]
