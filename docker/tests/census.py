"""What the stack holds at rest: descriptors, links, processes and memory, PHP's too, before a fault and after it."""

from dataclasses import dataclass
from pathlib import Path

from stack import SERVICES, TROUPE, Failed, Stack, run

# Memory may have grown by this much.
GROWTH = 0.10
# Below this, growth is the allocator's: one more page of each size and thread. A process holds 10 to 30 MB.
MEMORY_NOISE = 2 << 20
# What php-pool holds of each process of PHP: both ends of its two FIFOs.
DESCRIPTORS_PER_PHP = 4
# Connections that are kept for the next request: the edge's to the gateways, and the gateways' clients that are about to leave.
SPARE_DESCRIPTORS = 8


@dataclass
class Held:
    """By one container."""

    started: str
    # But for those that processes of PHP account for.
    descriptors: int
    links: int
    processes: int
    memory: int
    # Of a process of PHP, on average; their number goes with the load.
    php_memory: int


def take(stack: Stack) -> dict[str, Held]:
    """Of every service with one container; the others are not at rest."""
    ids = {service: stack.ids(service) for service in SERVICES}
    return {service: held(stack, service, found[0]) for service, found in ids.items() if len(found) == 1}


def held(stack: Stack, service: str, container: str) -> Held:
    state = stack.inspect(container)["State"]
    pids, php = family(container, state["Pid"])
    open_now = sum(map(descriptors, pids))
    links = 0
    if service in TROUPE:
        told = stack.metrics(container)
        links = int(told.sum("troupe_mesh_links"))
        open_now -= DESCRIPTORS_PER_PHP * int(told.sum("troupe_php_processes"))
    return Held(state["StartedAt"], open_now, links, len(pids), sum(map(resident, pids)), sum(map(resident, php)) // max(1, len(php)))


def family(container: str, root: int) -> tuple[list[int], list[int]]:
    """The container's first process and its descendants; and PHP's processes, which come and go with the load and are counted by
    scenario.processes_fit(). Health checks come from outside, and are not among them."""
    rows = [line.split(None, 2) for line in run("docker", "top", container, "-o", "pid,ppid,comm").splitlines()[1:]]
    children: dict[int, list[int]] = {}
    php = [int(pid) for pid, _, program in rows if program.startswith("php")]
    for pid, parent, _ in rows:
        if int(pid) not in php:
            children.setdefault(int(parent), []).append(int(pid))
    found, queue = [root], [root]
    while queue:
        younger = children.get(queue.pop(), [])
        found += younger
        queue += younger
    return found, php


def descriptors(pid: int) -> int:
    """0 of a process that has just ended."""
    try:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except PermissionError as error:
        raise Failed("the descriptors of containers are root's to count: run this as root") from error
    except OSError:
        return 0


def resident(pid: int) -> int:
    """Bytes of its own: what is mapped from files is shared and comes and goes with the page cache."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def leaked(before: dict[str, Held], after: dict[str, Held]) -> list[str]:
    """What is there now and was not before, but for memory."""
    found = [f"{service}: not one container" for service in SERVICES if service not in after]
    for service, now in after.items():
        was = before.get(service)
        if was is None:
            continue
        if now.descriptors > was.descriptors + SPARE_DESCRIPTORS:
            found.append(f"{service}: {now.descriptors} descriptors, {was.descriptors} before")
        if now.links != was.links:
            found.append(f"{service}: {now.links} links, {was.links} before")
        if now.processes > was.processes:
            found.append(f"{service}: {now.processes} processes, {was.processes} before")
    return found


def grown(before: dict[str, Held], after: dict[str, Held]) -> list[str]:
    """Who holds more memory than before, beyond what is allowed."""
    sizes = [
        (name, was, now)
        for service in after
        if service in before
        for name, was, now in (
            (service, before[service].memory, after[service].memory),
            (f"PHP in {service}", before[service].php_memory, after[service].php_memory),
        )
    ]
    return [
        f"{name}: {now / 1e6:.1f} MB, {was / 1e6:.1f} MB before"
        for name, was, now in sizes
        if was and now > was * (1 + GROWTH) + MEMORY_NOISE
    ]
