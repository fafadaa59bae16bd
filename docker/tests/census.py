"""What the stack holds at rest: descriptors, links, processes and memory, before a fault and after it."""

from dataclasses import dataclass
from pathlib import Path

from stack import SERVICES, TROUPE, Stack, run

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


def take(stack: Stack) -> dict[str, Held]:
    """Of every service with one container; the others are not at rest."""
    ids = {service: stack.ids(service) for service in SERVICES}
    return {service: held(stack, service, found[0]) for service, found in ids.items() if len(found) == 1}


def held(stack: Stack, service: str, container: str) -> Held:
    state = stack.inspect(container)["State"]
    pids = family(container, state["Pid"])
    open_now = sum(map(descriptors, pids))
    links = 0
    if service in TROUPE:
        told = stack.metrics(container)
        links = int(told.sum("troupe_mesh_links"))
        open_now -= DESCRIPTORS_PER_PHP * int(told.sum("troupe_php_processes"))
    return Held(state["StartedAt"], open_now, links, len(pids), sum(map(resident, pids)))


def family(container: str, root: int) -> list[int]:
    """The container's first process and its descendants, but for PHP's processes, which come and go with the load and are
    counted by scenario.processes_fit(). Health checks come from outside, and are not among them."""
    rows = [line.split(None, 2) for line in run("docker", "top", container, "-o", "pid,ppid,comm").splitlines()[1:]]
    children: dict[int, list[int]] = {}
    for pid, parent, program in rows:
        if not program.startswith("php"):
            children.setdefault(int(parent), []).append(int(pid))
    found, queue = [root], [root]
    while queue:
        younger = children.get(queue.pop(), [])
        found += younger
        queue += younger
    return found


def descriptors(pid: int) -> int:
    """0 where this machine does not let us look: only root may."""
    try:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
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
    return [
        f"{service}: {now.memory / 1e6:.1f} MB, {before[service].memory / 1e6:.1f} MB before"
        for service, now in after.items()
        if service in before and now.memory > before[service].memory * (1 + GROWTH) + MEMORY_NOISE
    ]
