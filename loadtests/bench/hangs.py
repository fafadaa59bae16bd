"""How long it takes until a process of PHP that hangs, dies or is left by its client is no trouble any more, and how
long a piece that PHP flushes takes to its client."""

import shutil
import signal
import threading
import time
from pathlib import Path

from peers import HERE, NotUp, Peer, Settings, start_troupe_with_functions
from rounds import say
from trials import Request, Trials, ask

# Of pools whose functions hang. What counts is what comes after it.
TIMEOUT_MS = 200
# In what ways they hang.
HANGS = ("sleep", "read", "busy")
SIGNALS = (signal.SIGKILL, signal.SIGSEGV)
# Of whoever has nothing to do with it, between two calls.
BYSTANDER_PAUSE_SECONDS = 0.01
# Pieces of a stream for each trial of the others.
PIECES = 5
# Four processes take 100 ms for a call, so this many clients at this pace ask for five times what can be served.
CROWD = 50
CROWD_PACE_SECONDS = 0.25


def start(peer: Peer, settings: Settings, wrapper: list[str]) -> None:
    shutil.copytree(HERE / "heal", settings.directory / "functions")
    start_troupe_with_functions(peer, settings, wrapper, "troupe-heal.toml", timeout=TIMEOUT_MS)


def measure(settings: Settings, count: int) -> list[Trials]:
    peer = Peer("heal-php", "processes of PHP that hang and die", start, ours=True)
    found: list[Trials] = []
    try:
        peer.start(settings)
        for take in (hang, die, flush, leave, refuse):
            found += take(peer, settings.directory, count)
            peer.check()
    except (NotUp, OSError) as error:
        found.append(Trials("processes of PHP that hang and die", None, failures=[str(error)]))
    finally:
        peer.stop()
    return found


class Bystander(threading.Thread):
    """Calls another pool again and again, until it is told to stop."""

    def __init__(self, peer: Peer, name: str):
        super().__init__(daemon=True)
        self.found = Trials(name, None)
        self._peer = peer
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(BYSTANDER_PAUSE_SECONDS):
            status, seconds = ask(self._peer.port, "/hello")
            self.found.add(status == 200, seconds, f"answered {status}")

    def stop(self) -> Trials:
        self._over.set()
        self.join()
        return self.found


def hang(peer: Peer, _: Path, count: int) -> list[Trials]:
    """All ways at once: two of them only wait."""
    say(f"healing: PHP hangs, {count} times in each of {len(HANGS)} ways")
    bystander = Bystander(peer, "another pool's call, while nothing hangs")
    bystander.start()
    time.sleep(count * BYSTANDER_PAUSE_SECONDS * 2)
    found = [bystander.stop()]
    bystander = Bystander(peer, "another pool's call, while others hang, one of them busy")
    told = [Trials(f"PHP hangs ({how}): 504, later than its timeout", 200) for how in HANGS]
    served = [Trials(f"PHP hangs ({how}): the process in its place serves, from the 504 on", 100) for how in HANGS]

    def trials(index: int) -> None:
        how = HANGS[index]
        for _ in range(count):
            status, seconds = ask(peer.port, f"/{how}/hangs?how={how}")
            told[index].add(status == 504, seconds - TIMEOUT_MS / 1e3, f"answered {status}")
            status, seconds = ask(peer.port, f"/{how}/hello")
            served[index].add(status == 200, seconds, f"answered {status}")

    threads = [threading.Thread(target=trials, args=(index,), daemon=True) for index in range(len(HANGS))]
    for thread in [bystander, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    return [*found, bystander.stop(), *told, *served]


def die(peer: Peer, directory: Path, count: int) -> list[Trials]:
    say(f"healing: PHP dies, {count} times of each of {len(SIGNALS)} signals")
    found = []
    note = directory / "died"
    for number in SIGNALS:
        told = Trials(f"PHP dies of {number.name}: 502, from its death on", 50)
        for _ in range(count):
            status, _ = ask(peer.port, f"/dies?signal={number.value}&note={note}", "POST")
            told.add(status == 502, time.monotonic() - int(note.read_text()) / 1e9, f"answered {status}")
        found.append(told)
    return found


def flush(peer: Peer, _: Path, count: int) -> list[Trials]:
    say(f"healing: a stream of {count * PIECES} pieces")
    arrived = Trials("a flushed piece of a stream arrives", 20)
    stream = Request(peer.port, "/stream/events")
    text = b""
    try:
        while len(arrived.samples_ms) < count * PIECES:
            piece = stream.read()
            now = time.monotonic()
            if not piece:
                arrived.failures.append("the stream has ended")
                break
            *events, text = (text + piece).split(b"\n\n")
            for event in events:
                _, _, written = event.rpartition(b"data: ")
                arrived.add(written.isdigit(), now - int(written) / 1e9 if written.isdigit() else 0.0, repr(event))
    finally:
        stream.close()
    return [arrived]


def leave(peer: Peer, _: Path, count: int) -> list[Trials]:
    say(f"healing: {count} streams are left by their clients")
    freed = Trials("a stream is left by its client: its process serves others", 1000)
    for _ in range(count):
        stream = Request(peer.port, "/stream/events")
        begun = b"data: " in stream.read() + stream.read()
        stream.close()
        status, seconds = ask(peer.port, "/stream/hello")
        freed.add(begun and status == 200, seconds, f"answered {status}")
    return [freed]


def refuse(peer: Peer, _: Path, count: int) -> list[Trials]:
    say(f"healing: five times as much as can be served, until {count} are refused")
    refused = Trials("a call that finds the queue full at five times the capacity is refused", 10)
    over = threading.Event()

    def client(number: int) -> None:
        due = time.monotonic() + CROWD_PACE_SECONDS * number / CROWD
        while not over.wait(max(0.0, due - time.monotonic())):
            status, seconds = ask(peer.port, "/narrow/sleeps?ms=100")
            if status != 200:
                refused.add(status == 503, seconds, f"answered {status}")
            due = max(due + CROWD_PACE_SECONDS, time.monotonic())

    threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(CROWD)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + count
    while len(refused.samples_ms) < count and not refused.failures and time.monotonic() < end:
        time.sleep(CROWD_PACE_SECONDS)
    over.set()
    for thread in threads:
        thread.join()
    return [refused]
