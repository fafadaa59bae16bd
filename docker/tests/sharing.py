"""The cache over several gateways: what one has fetched another gives, and what was purged none gives."""

import http.client
import time

from scenario import Bench, Scenario
from stack import check, wait

# A function of the examples that is cached for a minute, and says at which second it was called.
TARGET = "/api/page"
# Far above what a purge, or a service that starts, needs.
SOON = 20.0


def asked(bench: Bench, gateway: str, target: str) -> tuple[str, str]:
    """What a gateway answers on its own address: `Cache-Status` and the body."""
    networks = bench.stack.inspect(gateway)["NetworkSettings"]["Networks"]
    connection = http.client.HTTPConnection(networks[bench.stack.network("mesh")]["IPAddress"], 8080, timeout=10)
    try:
        connection.request("GET", target, headers={"Host": "cached.test"})
        answer = connection.getresponse()
        body = answer.read().decode()
        check(answer.status == 200, f"{target} of {gateway[:12]} answers {answer.status}: {body[:200]}")
        return answer.getheader("Cache-Status", ""), body
    finally:
        connection.close()


def gateways_share_what_they_fetch(bench: Bench) -> str:
    """Two gateways and two cache services: the second gives what the first has fetched, and a purge at one is done at both."""
    with bench.lossless():
        bench.stack.up(gateway=2, cache=2)
        bench.stack.healthy(within=60)
        first, second = bench.stack.ids("gateway")
        for gateway in (first, second):
            # The first answer of a route that does not mention the cache tells that it wants to be cached.
            asked(bench, gateway, TARGET)
            wait(SOON, lambda one=gateway: live(bench, one), f"{gateway[:12]} does not hear of purges")
        shared = ""

        def is_shared() -> bool:
            nonlocal shared
            target = f"{TARGET}?{time.monotonic_ns()}"
            _, fetched = asked(bench, first, target)
            status, given = asked(bench, second, target)
            shared = status
            return status.startswith("troupe-l2; hit") and given == fetched

        wait(SOON, is_shared, lambda: f"the second gateway fetched for itself: {shared}")
        target = f"{TARGET}?purged"
        _, before = asked(bench, first, target)
        asked(bench, second, target)
        time.sleep(1.1)
        told = bench.stack.execute(first, "troupe purge --all --token-file /run/troupe/admin.token --json")
        check('"confirmed": 2' in told or '"confirmed":2' in told, f"the purge was not confirmed by both: {told}")
        for gateway in (first, second):
            status, after = asked(bench, gateway, target)
            check(after != before, f"{gateway[:12]} gives what was purged: {status}")
        for service in ("gateway", "cache"):
            bench.stack.scale(service, 1)
    bench.nothing_left()
    return shared


def live(bench: Bench, gateway: str) -> bool:
    return bench.stack.metrics(gateway).sum("troupe_gateway_cache_live") == 1


SCENARIOS: list[Scenario] = [gateways_share_what_they_fetch]
