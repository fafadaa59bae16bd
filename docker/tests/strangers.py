"""Instances that are not like the others: another key, the next version of the protocol, clocks that are wrong and that jump."""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from scenario import HEALTHY_SECONDS, Bench
from stack import Failed, Skipped, check, run, wait

# Debian's libfaketime, for programs with threads. The containers' libc is the one it was built for.
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
# What is written to a clock's file is believed within a second.
JUMP_SECONDS = 2
# A new instance is found within two seconds, and its share grows for balancer.slow_start = 10 s.
GROWN_SECONDS = 14
# The images of the next protocol version have the tests' tag with this behind it; see scripts/test-stack.sh.
NEXT = "-next"


@contextlib.contextmanager
def one_more(bench: Bench, service: str, image: str = "", script: str = "") -> Iterator[str]:
    """A container like the service's own in its name, network, secrets and variables; gives its id."""
    real = bench.stack.one(service)
    described = bench.stack.inspect(real)["Config"]
    environment = [part for variable in described["Env"] for part in ("-e", variable)]
    command = ["-c", script or f"exec troupe run --service {service}"]
    container = run(
        "docker", "run", "-d", "--init", "--network", bench.stack.network("mesh"), "--network-alias", service,
        "--volumes-from", real, *environment, "--entrypoint", "bash", image or described["Image"], *command,
    ).strip()
    try:
        yield container
    finally:
        run("docker", "stop", "-t", "40", container, tolerate=True)
        run("docker", "rm", "-f", container, tolerate=True)


def an_instance_has_another_key(bench: Bench) -> str:
    """A php-pool with a key of its own is found by its name, gets no link, and costs nothing."""
    script = "head -c 48 /dev/urandom | base64 > /tmp/k && exec troupe run --service php-pool --set mesh.key_file=/tmp/k"
    balancer = bench.stack.one("balancer")

    def refused() -> float:
        return bench.stack.metrics(balancer).sum("troupe_mesh_failed_dials_total")

    before = refused()
    with bench.lossless(), one_more(bench, "php-pool", script=script):
        wait(20, lambda: refused() > before, "the balancer never tried the stranger")
        time.sleep(3)
        status, body = bench.stack.get("/api/hello")
        check(status == 200, f"status {status}: {body[:200]}")
    bench.nothing_left()
    return "refused"


def instances_of_two_protocol_versions(bench: Bench) -> str:
    """A balancer and a php-pool of the next protocol version join those of this one: all call each other, and nothing fails."""
    tag = bench.stack.env["TROUPE_TAG"] + NEXT
    images = {"php-pool": f"troupe-php:{tag}", "balancer": f"troupe:{tag}"}
    for image in images.values():
        try:
            run("docker", "image", "inspect", image)
        except Failed as missing:
            raise Skipped(f"the image {image} is not here") from missing
    with bench.lossless() as window, contextlib.ExitStack() as others:
        newer = {service: others.enter_context(one_more(bench, service, image)) for service, image in images.items()}
        older = bench.stack.one("balancer")
        time.sleep(GROWN_SECONDS)

        def called() -> list[float]:
            """Each of the four, as the newer ones count their callers' calls and callees count theirs."""
            counters = {"php-pool": "troupe_php_calls_total", "balancer": "troupe_balancer_calls_total"}
            return [
                bench.stack.metrics(container).sum(counter)
                for service, counter in counters.items()
                for container in (newer[service], bench.stack.one(service))
            ]

        before = called()
        wait(HEALTHY_SECONDS + 10, lambda: all(now > was for now, was in zip(called(), before, strict=True)),
             lambda: f"not all four get calls: {before}, then {called()}")
        # The balancer of this version says which versions it and the newer php-pool agree on.
        log = run("sh", "-c", f"docker logs --since 2m {older} 2>&1")
        check('"newest":2' in log and '"protocol":1' in log, "the balancer has no link to an instance of the next version")
    bench.nothing_left()
    return f"{window.requests} requests"


def clocks_are_wrong_and_jump(bench: Bench) -> str:
    """A php-pool three hours ahead, a balancer and a gateway a day behind; then the php-pool's clock jumps back: nothing fails."""
    if not FAKETIME.exists():
        raise Skipped("libfaketime is not installed here")
    with tempfile.TemporaryDirectory(prefix="troupe-clock-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        clocks = {"php-pool": "+3h", "balancer": "-1d", "gateway": "-1d"}
        override = ["services:"]
        for service, offset in clocks.items():
            (folder / service).write_text(offset + "\n")
            override += [
                f"  {service}:",
                "    environment:",
                # Deadlines and pauses go by the monotonic clock, which nobody sets.
                "      LD_PRELOAD: /faketime.so",
                "      FAKETIME_TIMESTAMP_FILE: /clock",
                "      FAKETIME_CACHE_DURATION: '1'",
                "      FAKETIME_DONT_FAKE_MONOTONIC: '1'",
                "      DONT_FAKE_MONOTONIC: '1'",
                f"    volumes: ['{FAKETIME.resolve()}:/faketime.so:ro', '{folder / service}:/clock:ro']",
            ]
        (folder / "compose.yaml").write_text("\n".join(override) + "\n")
        files = ("-f", "compose.yaml", "-f", str(folder / "compose.yaml"))
        bench.traffic.pause()
        try:
            bench.stack.compose(*files, "up", "-d", "--no-build")
            bench.stack.healthy(within=60)
            with bench.lossless() as window:
                far = {service: skew(bench, service) for service in clocks}
                check(far["php-pool"] > 3_000 and far["balancer"] < -80_000 and far["gateway"] < -80_000, f"clocks: {far}")
                # Membership is written and read meanwhile, and reports go both ways.
                time.sleep(8)
                (folder / "php-pool").write_text("-2h\n")
                time.sleep(JUMP_SECONDS)
                jumped = skew(bench, "php-pool")
                check(jumped < -3_000, f"the clock of php-pool did not jump: {jumped:.0f} s")
                time.sleep(8)
                healthy = bench.stack.unhealthy()
                check(not healthy, f"not healthy: {healthy}")
        finally:
            bench.traffic.pause()
            bench.stack.compose("up", "-d", "--no-build")
            bench.stack.healthy(within=60)
    bench.nothing_left()
    return f"{window.requests} requests, clocks off by {', '.join(f'{seconds:.0f} s' for seconds in [*far.values(), jumped])}"


def skew(bench: Bench, service: str) -> float:
    """Seconds by which a container's clock is ahead of this machine's."""
    return float(bench.stack.execute(bench.stack.one(service), "date +%s.%N")) - time.time()


SCENARIOS = [an_instance_has_another_key, instances_of_two_protocol_versions, clocks_are_wrong_and_jump]
