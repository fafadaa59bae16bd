"""How long it takes until all is well again: balancer and php-pool are killed and started again, and a balancer stands
still, again and again; what PHP's processes do is in hangs.py, new code in
reloads.py."""

import os
import select
import shutil
import signal
import threading
import time
from pathlib import Path

import hangs
import reloads
from peers import HERE, NotUp, Peer, Settings, start_three
from process import Process, descendants, start_of, stat_fields, wait_until
from rounds import say
from trials import Request, Trials, ask

# How long a service is away, in turn: its callers' attempts to reach it become rarer meanwhile, up to twice a second.
AWAY_SECONDS = [step / 10 for step in range(10)]
# How long a call takes to reach whoever is going to die. Much longer than that.
ON_ITS_WAY_SECONDS = 0.05
POLL_SECONDS = 0.001
GONE_SECONDS = 10.0
# Requests in a row that must be served before the service counts as well again.
IN_A_ROW = 3
# A balancer that stands still, so often.
FREEZES = 5
# Requests in a row, each on a connection of its own, after which every thread of the gateway has had some.
ALL_THREADS = 30
TCP_LISTEN = "0A"


def start(peer: Peer, settings: Settings, wrapper: list[str]) -> None:
    shutil.copytree(HERE / "heal", settings.directory / "functions")
    start_three(peer, settings, wrapper, "troupe-three.toml")


def measure(settings: Settings, count: int) -> list[Trials]:
    """`count` trials of each. What could not be measured has no trials, and says why."""
    found: list[Trials] = []
    # Most of a trial is waiting for a clock, so two stacks do not disturb each other.
    killers = [Killer(settings, service, count) for service in ("balancer", "php-pool")]
    say(f"healing: {count} times kill -9 of a balancer, and of a php-pool")
    for killer in killers:
        killer.start()
    for killer in killers:
        killer.join()
        found += killer.found
    say(f"healing: a balancer stands still, {FREEZES} times")
    found += frozen(settings, max(1, count // FREEZES))
    found += hangs.measure(settings, count)
    found += reloads.measure(settings, count)
    for trials in found:
        for failure in trials.failures[:3]:
            say(f"    {trials.name}: {failure}")
    return found


class Killer(threading.Thread):
    """A stack of its own, one service of which dies again and again."""

    def __init__(self, settings: Settings, service: str, count: int):
        super().__init__(daemon=True)
        self.settings, self.service, self.count = settings, service, count
        self.peer = Peer(f"heal-{service}", f"kill -9 of the {service}", start, ours=True)
        self.told = Trials(f"kill -9 of the {service}: the caller of a call that it had is told", None)
        self.well = Trials(f"kill -9 of the {service}: serving again, from its listener on", 1000)
        self.gone = Trials("kill -9 of the php-pool: the zygote and all processes are gone", 1000)
        self.found = [self.told, self.well] + ([self.gone] if service == "php-pool" else [])

    def run(self) -> None:
        try:
            self.peer.start(self.settings)
            for number in range(self.count):
                self.trial(AWAY_SECONDS[number % len(AWAY_SECONDS)])
        except (NotUp, OSError) as error:
            self.well.failures.append(str(error))
        finally:
            self.peer.stop()

    def trial(self, away: float) -> None:
        process = next(process for process in self.peer.processes if process.label == self.service)
        family = {pid: start_of(pid) for pid in descendants(process.pid)}
        waiting = Request(self.peer.port, "/sleeps?ms=2000", "POST")
        time.sleep(ON_ITS_WAY_SECONDS)
        killed = time.monotonic()
        process.kill()
        status = waiting.status()
        self.told.add(status == 502, time.monotonic() - killed, f"told {status}")
        if self.service == "php-pool":
            left = lambda: any(is_there(pid, begun) for pid, begun in family.items())  # noqa: E731
            gone = wait_until(lambda: not left(), GONE_SECONDS, POLL_SECONDS)
            self.gone.add(gone and len(family) > 1, time.monotonic() - killed, f"of {len(family)} some are left")
        time.sleep(away)
        asked = Request(self.peer.port, "/hello")
        process.start()
        listens, served = until_served(self.peer.port, self.peer.listening[self.service], asked)
        if served is None or listens is None:
            self.well.add(False, 0.0, "not served again")
            raise NotUp(f"{self.peer.name}: not served again\n{process.log_tail()}")
        # The answer may come before it was seen that there is a listener.
        self.well.add(True, max(0.0, served - listens), "")


def is_there(pid: int, begun: str | None) -> bool:
    """Whether the process that began then is there, and not only as an entry that nobody has waited for."""
    return start_of(pid) == begun and not stat_fields(pid)[:1] == ["Z"]


def until_served(port: int, listener: int, asked: Request) -> tuple[float | None, float | None]:
    """When `listener` was bound, and when the first of some requests that were all served was answered."""
    listens = served = None
    deadline = time.monotonic() + GONE_SECONDS
    while served is None and time.monotonic() < deadline:
        if listens is None and is_listening(listener):
            listens = time.monotonic()
        if not select.select([asked], [], [], POLL_SECONDS)[0]:
            continue
        status, answered = asked.status(), time.monotonic()
        if status == 200 and all(ask(port, "/hello")[0] == 200 for _ in range(IN_A_ROW)):
            served = answered
        else:
            asked = Request(port, "/hello")
    return listens or (served if served is not None and is_listening(listener) else None), served


def is_listening(port: int) -> bool:
    """Without connecting, which whoever listens would take for a peer."""
    ending = f":{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == TCP_LISTEN and fields[1].endswith(ending):
            return True
    return False


def frozen(settings: Settings, calls: int) -> list[Trials]:
    """Calls that a balancer was given before it stood still, so that no socket tells."""
    told = Trials("a balancer that stands still: the callers of the calls that it had are told", 4000)
    peer = Peer("heal-frozen", "a balancer that stands still", start, ours=True)
    try:
        peer.start(settings)
        balancer = next(process for process in peer.processes if process.label == "balancer")
        for _ in range(FREEZES):
            freeze(peer, balancer, told, calls)
    except (NotUp, OSError) as error:
        told.failures.append(str(error))
    finally:
        peer.stop()
    return [told]


def freeze(peer: Peer, balancer: Process, told: Trials, calls: int) -> None:
    waiting = [Request(peer.port, "/sleeps?ms=6000", "POST") for _ in range(calls)]
    time.sleep(ON_ITS_WAY_SECONDS)
    begun = time.monotonic()
    os.kill(balancer.pid, signal.SIGSTOP)
    try:
        while waiting:
            ready, _, _ = select.select(waiting, [], [], GONE_SECONDS)
            if not ready:
                told.failures += ["not told"] * len(waiting)
                break
            for request in ready:
                now, status = time.monotonic(), request.status()
                told.add(status in (502, 504), now - begun, f"told {status}")
                waiting.remove(request)
    finally:
        os.kill(balancer.pid, signal.SIGCONT)
    if not wait_until(lambda: all(peer.answers() for _ in range(ALL_THREADS)), GONE_SECONDS):
        raise NotUp(f"{peer.name}: does not answer after it went on\n{balancer.log_tail()}")
