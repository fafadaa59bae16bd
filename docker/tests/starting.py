"""From nothing to a serving stack, and what its containers may do."""

import socket
import time

from scenario import Bench
from stack import SERVICES, TROUPE, check, run, wait

# A start waits for Redis, php-pool, balancer, gateway and edge, one after the other, each asked every three seconds.
START_SECONDS = 120
# node.drain_delay and node.drain_timeout.
DRAIN_SECONDS = 33
LABELS = ("title", "description", "licenses", "version", "revision")


def starts_from_nothing(bench: Bench) -> str:
    """`up` without a volume, a secret or an edit serves functions/."""
    began = time.monotonic()
    bench.stack.up()
    wait(START_SECONDS, lambda: answers(bench), lambda: f"not serving: {bench.stack.unhealthy()}")
    took = time.monotonic() - began
    bench.stack.healthy(within=15)
    status, body = bench.stack.get("/api/hello?name=Ada")
    check(status == 200 and '"Ada"' in body, f"/api/hello answers {status}: {body[:200]}")
    status, _ = bench.stack.get("/api/no-such-function")
    check(status == 404, f"a function that is not there answers {status}")
    return f"serving after {took:.0f} s"


def answers(bench: Bench) -> bool:
    try:
        return bench.stack.get("/api/hello")[0] == 200
    except OSError:
        return False


def containers_are_confined(bench: Bench) -> str:
    """No root, nothing to write to, no capability, one published port, secrets for Troupe's group alone; labelled, asked for their
    health, and given the time to drain."""
    published = []
    for service in SERVICES:
        container = bench.stack.one(service)
        seen = bench.stack.inspect(container)
        host = seen["HostConfig"]
        check(seen["Config"]["User"] not in ("", "root", "0"), f"{service} runs as root")
        check(host["ReadonlyRootfs"], f"{service} can write to its root")
        check(host["CapDrop"] == ["ALL"] and not host["CapAdd"], f"{service} has capabilities: {host['CapDrop']}")
        check(host["Init"], f"{service} has no init")
        check("no-new-privileges" in " ".join(host["SecurityOpt"]), f"{service} may gain privileges")
        if service != "redis":
            labels = seen["Config"]["Labels"]
            unset = [name for name in LABELS if labels.get(f"org.opencontainers.image.{name}", "unknown") == "unknown"]
            check(service == "edge" or not unset, f"{service}: labels without a value: {unset}")
            check(labels.get("org.opencontainers.image.title", "").startswith("troupe"), f"{service}: labels {labels}")
            check(seen["Config"]["StopTimeout"] >= DRAIN_SECONDS, f"{service} is killed after {seen['Config']['StopTimeout']} s")
        health = seen["Config"].get("Healthcheck", {}).get("Test", [])
        check(health and (service not in TROUPE or health == ["CMD", "troupe", "health"]), f"{service} is asked for its health by {health}")
        published += [f"{service} {port}" for port, to in seen["NetworkSettings"]["Ports"].items() if to]
    check(published == ["edge 8080/tcp"], f"published: {published}")
    listed = bench.stack.execute(bench.stack.one("gateway"), "stat -c '%a %u %n' /run/troupe/*").split("\n")
    for line in filter(None, listed):
        check(line.startswith("440 10001 "), f"a secret that others may read: {line}")
    check(len(listed) >= 3, f"secrets: {listed}")
    return f"{len(SERVICES)} services"


def images_are_small(bench: Bench) -> str:
    """The Rust services' image is at most 60 MB over its base."""
    image = bench.stack.inspect(bench.stack.one("gateway"))["Image"]
    layers = run("docker", "history", "--no-trunc", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", image)
    sizes = [int(line.split()[0]) for line in layers.splitlines() if line]
    # The base is the last of the lines: it came first.
    over = sum(sizes[:-1]) / 1e6
    check(over <= 60, f"{over:.1f} MB over its base")
    return f"{over:.1f} MB over its base"


def who_leaves_is_not_waited_for(bench: Bench) -> str:
    """A client that closes its connection at the edge: the gateway gives its call up, long before the function ends."""
    gateway = bench.stack.one("gateway")

    def in_flight() -> float:
        return bench.stack.metrics(gateway).sum("troupe_gateway_requests_in_flight")

    with socket.create_connection(("127.0.0.1", bench.stack.port), timeout=10) as client:
        client.sendall(b"GET /api/slow?ms=10000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait(5, lambda: in_flight() == 1, "the request did not reach the gateway")
    took = wait(4, lambda: in_flight() == 0, "the gateway still waits for what nobody waits for")
    return f"given up {took:.1f} s after the client left"


SCENARIOS = [starts_from_nothing, containers_are_confined, images_are_small, who_leaves_is_not_waited_for]
