"""How long calls take while the code that they run is replaced again and again."""

import shutil
import subprocess
import threading
import time
from pathlib import Path

from peers import HERE, NotUp, Peer, Settings, free_port, start_troupe_with_functions
from rounds import say
from trials import ENOUGH, Trials, ask

CALL_MS = 200
CALLS_PER_SECOND = 500
# Enough to keep that rate: each has one call under way, and rests for a moment.
CLIENTS = 110
# As many, and some for those that are just being replaced.
PROCESSES = 128
# The first call of each process compiles, and all come at once.
WARM_UP_SECONDS = 3
ALONE_SECONDS = 5
# Of a full run, which has ENOUGH trials of everything else.
RELOADS = 20
RELOAD_SECONDS = 60
# By how much the 99th percentile may rise.
RISE = 1.2


class Clients:
    """Call at a fixed rate, and note how long it took in whatever trials are current."""

    def __init__(self, peer: Peer):
        self.found = Trials("warm-up", None)
        self._peer = peer
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        every = CLIENTS / CALLS_PER_SECOND
        due = time.monotonic() + every * number / CLIENTS
        while not self._over.wait(max(0.0, due - time.monotonic())):
            found = self.found
            try:
                status, seconds = ask(self._peer.port, "/slow")
                found.add(status == 200, seconds, f"answered {status}")
            except OSError as error:
                found.add(False, 0.0, str(error))
            due = max(due + every, time.monotonic())

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def write(directory: Path, version: int) -> None:
    code = f"<?php\n// Version {version}.\nreturn function (): string {{ usleep({CALL_MS * 1000}); return 'slept'; }};\n"
    (directory / "functions" / "slow.php").write_text(code)


def measure(settings: Settings, count: int) -> list[Trials]:
    """`count` of other trials; replaced as many times as fit that."""
    reloads = max(1, RELOADS * count // ENOUGH)
    admin = free_port()
    places: list[Path] = []

    def start(peer: Peer, own: Settings, wrapper: list[str]) -> None:
        shutil.copytree(HERE / "heal", own.directory / "functions")
        write(own.directory, 0)
        places.append(own.directory)
        start_troupe_with_functions(peer, own, wrapper, "troupe-reloads.toml", admin=admin, processes=PROCESSES)

    peer = Peer("heal-reloads", "code that is replaced", start, ours=True)
    meanwhile = Trials(f"a call of {CALL_MS} ms while code is replaced, {reloads} times in a row", None)
    clients = None
    try:
        peer.start(settings)
        say(f"healing: {reloads} reloads beside {CALLS_PER_SECOND} calls a second of {CALL_MS} ms")
        clients = Clients(peer)
        time.sleep(WARM_UP_SECONDS)
        alone = clients.found = Trials(f"a call of {CALL_MS} ms, {CALLS_PER_SECOND} of them a second", None)
        time.sleep(ALONE_SECONDS)
        clients.found = meanwhile
        meanwhile.limit_ms = RISE * (alone.percentile(99) or 0.0)
        for version in range(1, reloads + 1):
            write(places[0], version)
            command = [str(settings.bin_dir / "troupe"), "reload", "--admin", f"http://127.0.0.1:{admin}"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=RELOAD_SECONDS)
            if done.returncode != 0:
                meanwhile.failures.append(f"reload: {done.stderr.strip()}")
        return [alone, meanwhile]
    except (NotUp, OSError, subprocess.SubprocessError) as error:
        meanwhile.failures.append(str(error))
        return [meanwhile]
    finally:
        if clients:
            clients.stop()
        peer.stop()
