"""The snippets of docs/containers.md for a front of one's own, taken from the page and put to work."""

import contextlib
import http.client
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from scenario import Bench
from stack import ROOT, Skipped, Stack, check, free_port, run, wait
from traffic import Traffic

# The addresses that the page uses for two gateways.
WRITTEN = ("10.0.0.11", "10.0.0.12")
PAGE = ROOT / "docs" / "containers.md"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


def snippet(language: str, addresses: list[str], port: int) -> str:
    """The page's block in this language, with the addresses and the port of the moment."""
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    check(found, f"{PAGE.name} has no block in {language}")
    text = found.group(1)
    for written, address in zip(WRITTEN, addresses, strict=True):
        check(written in text, f"{PAGE.name}: {written} is not in the block in {language}")
        text = text.replace(written, address)
    return re.sub(r"(bind :|listen )8080", rf"\g<1>{port}", text)


@contextlib.contextmanager
def haproxy(stack: Stack, addresses: list[str], folder: Path) -> Iterator[int]:
    """HAProxy of the edge's image, in the gateways' network."""
    port = free_port()
    (folder / "haproxy.cfg").write_text(snippet("haproxy", addresses, 8080))
    image = stack.inspect(stack.one("edge"))["Config"]["Image"]
    container = run(
        "docker", "run", "-d", "--rm", "--init", "--network", stack.network("front"), "-p", f"127.0.0.1:{port}:8080",
        "-v", f"{folder}/haproxy.cfg:/haproxy.cfg:ro", image, "-db", "-f", "/haproxy.cfg",
    ).strip()
    try:
        yield port
    finally:
        run("docker", "kill", container, tolerate=True)


@contextlib.contextmanager
def nginx(_: Stack, addresses: list[str], folder: Path) -> Iterator[int]:
    """This machine's nginx: it reaches the containers by their addresses."""
    port = free_port()
    around = f"daemon off; pid {folder}/pid; error_log stderr; events {{}}\nhttp {{\naccess_log off;\n"
    paths = "".join(f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(around + paths + snippet("nginx", addresses, port) + "}\n")
    process = subprocess.Popen(
        [NGINX, "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")],
        stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


def loses_nothing(bench: Bench, front: Callable) -> str:
    """Two gateways behind the front, one of which drains and ends: no request fails."""
    bench.stack.scale("gateway", 2)
    bench.stack.healthy(within=60)
    ids = bench.stack.ids("gateway")
    networks = [bench.stack.inspect(one)["NetworkSettings"]["Networks"] for one in ids]
    addresses = [network[bench.stack.network("front")]["IPAddress"] for network in networks]
    with tempfile.TemporaryDirectory(prefix="troupe-front-") as folder:
        Path(folder).chmod(0o755)
        with front(bench.stack, addresses, Path(folder)) as port:
            traffic = Traffic(port)
            try:
                wait(10, lambda: serves(port), "the front does not serve")
                traffic.resume()
                window = traffic.window()
                time.sleep(3)
                run("docker", "stop", "-t", "40", ids[1])
                time.sleep(2)
                traffic.pause()
            finally:
                traffic.stop()
    bench.stack.scale("gateway", 1)
    check(window.requests > 0, "no request was made")
    check(not window.failures, f"{len(window.failures)} of {window.requests} requests failed: {window.describe()}")
    return f"{window.requests} requests"


def serves(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def the_pages_haproxy_drains(bench: Bench) -> str:
    """docs/containers.md's HAProxy in front of two gateways, one of which goes: nothing fails."""
    return loses_nothing(bench, haproxy)


def the_pages_nginx_drains(bench: Bench) -> str:
    """docs/containers.md's nginx in front of two gateways, one of which goes: nothing fails."""
    if NGINX is None:
        raise Skipped("nginx is not installed here")
    return loses_nothing(bench, nginx)


SCENARIOS = [the_pages_haproxy_drains, the_pages_nginx_drains]
