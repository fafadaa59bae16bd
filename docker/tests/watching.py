"""Who watches the stack: the metrics service and its dashboard, Prometheus and Grafana, and those that load it."""

import base64
import http.client
import json
import re
import time
import urllib.parse
import urllib.request
from pathlib import Path

from scenario import Bench
from stack import PROFILES, ROOT, TROUPE, check, free_port, run, wait

# An instance tells its first snapshot within a second or two of its link; membership names it within two.
TOLD_SECONDS = 20
# What an instance has counted it tells each second.
TELLING_SECONDS = 3
SCALE = {"php-pool": 3, "gateway": 2, "balancer": 2}


def metrics_count_every_instance(bench: Bench) -> str:
    """php-pool 3, gateway 2, balancer 2: /metrics/cluster names each of them and sums up what they count; then one of each."""
    counter = "troupe_php_calls_total"
    with bench.lossless() as window:
        # What those have counted that faults before this one took away stays in the sum.
        bench.traffic.pause()
        time.sleep(TELLING_SECONDS)
        gone = cluster(bench).sum(counter) - apart(bench, "php-pool", counter)
        bench.traffic.resume()
        bench.stack.up(**{service.replace("-", "_"): count for service, count in SCALE.items()})
        bench.stack.healthy(within=60)
        wait(TOLD_SECONDS, lambda: known(bench) == there(bench), lambda: f"known {known(bench)}, there {there(bench)}")
        time.sleep(3)
        scaled = known(bench)
        bench.traffic.pause()
        # What was asked last is told within a second.
        wait(
            5,
            lambda: cluster(bench).sum(counter) - gone == apart(bench, "php-pool", counter),
            lambda: f"{differ(bench, counter)}, {gone} of those that are gone",
        )
        calls = cluster(bench).sum(counter)
        bench.traffic.resume()
        for service in SCALE:
            bench.stack.scale(service, 1)
    # Who stops in order is forgotten, and what it counted is not.
    wait(TOLD_SECONDS, lambda: known(bench) == there(bench), lambda: f"known {known(bench)}, there {there(bench)}")
    check(cluster(bench).sum(counter) >= calls, "the sum fell when instances stopped")
    bench.nothing_left()
    return f"{window.requests} requests, instances {' '.join(f'{name} {count}' for name, count in scaled.items())}"


def cluster(bench: Bench):
    return bench.stack.metrics(bench.stack.one("metrics"), "/metrics/cluster")


def known(bench: Bench) -> dict[str, int]:
    merged = cluster(bench)
    return {service: int(merged.sum("troupe_metrics_instance_up", service=service)) for service in TROUPE}


def there(bench: Bench) -> dict[str, int]:
    return {service: len(bench.stack.ids(service)) for service in TROUPE}


def apart(bench: Bench, service: str, counter: str) -> float:
    return sum(bench.stack.metrics(container).sum(counter) for container in bench.stack.ids(service))


def differ(bench: Bench, counter: str) -> str:
    return f"{counter}: {cluster(bench).sum(counter)} in sum, {apart(bench, 'php-pool', counter)} counted"


def the_dashboard_asks_for_the_token(bench: Bench) -> str:
    """docker/compose.dashboard.yaml publishes the dashboard, which shows every instance to who has the token, and to nobody else."""
    port = free_port()
    files = ("-f", "compose.yaml", "-f", "docker/compose.dashboard.yaml")
    environment = bench.stack.env | {"DASHBOARD_PORT": str(port)}
    with bench.lossless():
        run(*bench.stack.compose_command, *files, "up", "-d", "--no-build", "--no-deps", "metrics", env=environment)
        bench.stack.healthy(within=60)
        password = base64.b64encode(f"any:{bench.stack.token()}".encode()).decode()
        wait(TOLD_SECONDS, lambda: known(bench) == there(bench), lambda: f"known {known(bench)}, there {there(bench)}")
        status, page = look(port, {"Authorization": f"Basic {password}"})
        check(status == 200, f"with the token /dashboard answers {status}: {page[:200]}")
        missing = [service for service in TROUPE if service not in page]
        check(not missing, f"not on the dashboard: {missing}")
        status, page = look(port, {})
        check(status == 401, f"without a token /dashboard answers {status}: {page[:200]}")
        # Back to what is published by default.
        bench.stack.compose("up", "-d", "--no-build", "--no-deps", "metrics")
        bench.stack.healthy(within=60)
    bench.nothing_left()
    return "published, and asks"


def look(port: int, headers: dict[str, str]) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/dashboard", headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def prometheus_scrapes_every_instance(bench: Bench) -> str:
    """Profile `observe`: every instance is found by its service's name, also after --scale, and its rules are loaded."""
    bench.stack.needs_image("prometheus")
    port = free_port()
    environment = bench.stack.env | {"PROMETHEUS_PORT": str(port)}
    prometheus = (*bench.stack.compose_command, "--profile", "observe")
    run(*prometheus, "up", "-d", "--no-build", "--no-deps", "prometheus", env=environment)
    try:
        bench.stack.scale("php-pool", 3)
        bench.stack.healthy(within=60)
        # A start, two look-ups of names and a scrape.
        wait(60, lambda: scraped(port) == there(bench), lambda: f"scraped {scraped(port)}, there {there(bench)}")
        counted = scraped(port)
        groups = asked(port, "/api/v1/rules")["groups"]
        broken = [rule["name"] for group in groups for rule in group["rules"] if rule["health"] == "err"]
        check(not broken, f"rules that cannot be worked out: {broken}")
        written = list((ROOT / "docker" / "prometheus").glob("*.yml"))
        check(groups or not written, f"no rules were loaded from {written}")
    finally:
        run(*prometheus, "rm", "-s", "-f", "prometheus", env=environment)
        bench.stack.scale("php-pool", 1)
    bench.nothing_left()
    return f"{sum(counted.values())} instances, {sum(len(group['rules']) for group in groups)} rules"


def scraped(port: int) -> dict[str, int]:
    """Instances that answered their last scrape, by service."""
    try:
        targets = asked(port, "/api/v1/targets?state=active")["activeTargets"]
    except OSError:
        return {}
    found = dict.fromkeys(TROUPE, 0)
    for target in targets:
        if target["health"] == "up":
            found[target["labels"]["service"]] += 1
    return found


def asked(port: int, path: str) -> dict:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return json.load(answer)["data"]


def locust_shares_its_users_out(bench: Bench) -> str:
    """Profile `load`: a master and two workers of Locust, 20 users for some seconds: no request fails."""
    bench.stack.needs_image("locust")
    port = free_port()
    environment = bench.stack.env | {"LOCUST_PORT": str(port)}
    locust = (*bench.stack.compose_command, "--profile", "load")
    names = ("locust", "locust-worker")
    run(*locust, "up", "-d", "--no-build", "--no-deps", "--scale=locust-worker=2", *names, env=environment)
    try:
        page = f"http://127.0.0.1:{port}"
        wait(60, lambda: workers(page) == 2, lambda: f"{workers(page)} workers joined the master, not 2")
        users = urllib.parse.urlencode({"user_count": 20, "spawn_rate": 20, "host": "http://edge:8080"}).encode()
        urllib.request.urlopen(f"{page}/swarm", users, timeout=10).close()
        time.sleep(10)
        total = next(row for row in statistics(page)["stats"] if row["name"] == "Aggregated")
    finally:
        run(*locust, "rm", "-s", "-f", *names, env=environment)
    check(total["num_requests"] >= 100, f"{total['num_requests']} requests")
    check(total["num_failures"] == 0, f"{total['num_failures']} of {total['num_requests']} requests failed")
    bench.nothing_left()
    return f"{total['num_requests']} requests"


def statistics(page: str) -> dict:
    with urllib.request.urlopen(f"{page}/stats/requests", timeout=10) as answer:
        return json.load(answer)


def workers(page: str) -> int:
    try:
        return sum(worker["state"] != "missing" for worker in statistics(page).get("workers", []))
    except OSError:
        return 0


def every_compose_file_is_understood(bench: Bench) -> str:
    """Each file beside compose.yaml, with all profiles; and every file that they mount is there."""
    profiles = [word for profile in PROFILES for word in ("--profile", profile)]
    beside = [ROOT / "compose.dev.yaml", *sorted((ROOT / "docker").glob("compose.*.yaml"))]
    for file in [None, *beside]:
        files = ("-f", "compose.yaml", *(("-f", str(file)) if file else ()))
        text = bench.stack.compose(*files, *profiles, "config")
        # Written "- SOURCE:TARGET" by docker-compose 1.29, "source: SOURCE" by Compose v2.
        sources = set(re.findall(rf"^\s*(?:- |source: )({re.escape(str(ROOT))}/[^:\n]*)", text, re.MULTILINE))
        check(sources, f"{file}: nothing is mounted")
        missing = [source for source in sources if not Path(source).exists()]
        check(not missing, f"{file}: mounts what is not there: {missing}")
    return f"{1 + len(beside)} files"


SCENARIOS = [
    every_compose_file_is_understood,
    metrics_count_every_instance,
    the_dashboard_asks_for_the_token,
    prometheus_scrapes_every_instance,
    locust_shares_its_users_out,
]
