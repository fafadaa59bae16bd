"""Bounded load that runs through every fault: a fixed number of clients at a fixed pace, each answer checked."""

import asyncio
import contextlib
import hashlib
import itertools
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

# An answer that takes longer has failed. The gateway gives up after 30 s, with a reason.
ANSWER_SECONDS = 15
FAILURES_KEPT = 2000


@dataclass
class Failure:
    at: float
    what: str
    why: str


@dataclass
class Window:
    """What happened between two moments."""

    began: float
    requests: int = 0
    slowest: float = 0.0
    failures: list[Failure] = field(default_factory=list)

    def since(self, moment: float) -> list[Failure]:
        return [failure for failure in self.failures if failure.at >= moment]

    def describe(self, limit: int = 4) -> str:
        shown = [f"{f.what} after {f.at - self.began:.1f} s: {f.why}" for f in self.failures[:limit]]
        more = f" and {len(self.failures) - limit} more" if len(self.failures) > limit else ""
        return "; ".join(shown) + more


def upload(size: int) -> tuple[bytes, dict[str, str], str]:
    content = bytes(itertools.islice(itertools.cycle(b"0123456789abcdef\n"), size))
    boundary = "troupe-test-boundary"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="f.bin"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}, hashlib.sha256(content).hexdigest()


UPLOAD = upload(100_000)
NOTE = json.dumps({"title": "Milk", "tags": ["shop"]}).encode()


def alike(_: int) -> tuple[str, str, bytes, dict[str, str], int, str]:
    """Requests that all take the same time, so that workers differ by nothing but their share."""
    return "GET", "/api/slow?ms=25", b"", {}, 200, '"slept"'


def mixed(turn: int) -> tuple[str, str, bytes, dict[str, str], int, str]:
    """The turn's request: method, path, body, headers, and the status and text that the answer has to have."""
    match turn % 10:
        case 3:
            return "GET", "/api/shop?apple=3&pear=2", b"", {}, 200, '"total"'
        case 5:
            return "POST", "/api/notes", NOTE, {"Content-Type": "application/json"}, 201, '"Milk"'
        case 7:
            return "GET", "/api/slow?ms=60", b"", {}, 200, '"slept"'
        case 9 if turn % 50 == 9:
            return "POST", "/api/upload", UPLOAD[0], UPLOAD[1], 200, UPLOAD[2]
        case _:
            return "GET", f"/api/hello?name=n{turn}", b"", {}, 200, f'"n{turn}"'


class Traffic:
    """Clients on a thread of their own."""

    def __init__(self, port: int, clients: int = 8, rate: float = 80.0) -> None:
        self.port, self.clients, self.pause_between = port, clients, clients / rate
        self.next_request = mixed
        self.requests = 0
        self._busy = 0
        self._running = threading.Event()
        self._end = False
        self._lock = threading.Lock()
        self._windows: list[Window] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), daemon=True)
        self._thread.start()

    def window(self) -> Window:
        """Begins to note what happens."""
        window = Window(time.monotonic())
        with self._lock:
            self._windows.append(window)
        return window

    def close(self, window: Window) -> Window:
        with self._lock:
            self._windows.remove(window)
        return window

    def resume(self) -> None:
        self._running.set()

    def pause(self) -> None:
        """Stops asking, and waits for the answers under way."""
        self._running.clear()
        deadline = time.monotonic() + ANSWER_SECONDS + 5
        while self._busy and time.monotonic() < deadline:
            time.sleep(0.02)

    def stop(self) -> None:
        self._end = True
        self._thread.join(ANSWER_SECONDS + 5)

    def _note(self, what: str, why: str | None, seconds: float) -> None:
        with self._lock:
            self.requests += 1
            for window in self._windows:
                window.requests += 1
                window.slowest = max(window.slowest, seconds)
                if why and len(window.failures) < FAILURES_KEPT:
                    window.failures.append(Failure(time.monotonic(), what, why))

    async def _all(self) -> None:
        turns = itertools.count()
        await asyncio.gather(*(self._client(turns) for _ in range(self.clients)))

    async def _client(self, turns: "itertools.count[int]") -> None:
        connection = None
        while not self._end:
            if not self._running.is_set():
                # What stands behind the port may be replaced meanwhile: begin with fresh connections.
                if connection:
                    connection[1].close()
                    connection = None
                await asyncio.sleep(0.02)
                continue
            self._busy += 1
            method, path, body, headers, status, text = self.next_request(next(turns))
            began, why = time.monotonic(), None
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    connection = connection or await asyncio.open_connection("127.0.0.1", self.port)
                    found, answer, keep = await exchange(connection, method, path, body, headers)
                if found != status or text not in answer:
                    why = f"status {found}, {answer[:160]!r}"
                if not keep:
                    connection[1].close()
                    connection = None
            except (OSError, EOFError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
                why = f"{type(error).__name__} {error}"
                if connection:
                    connection[1].close()
                connection = None
            took = time.monotonic() - began
            self._note(f"{method} {path.partition('?')[0]}", why, took)
            self._busy -= 1
            # A refused connection costs nothing; without a pause it would be asked for thousands of times.
            await asyncio.sleep(max(0.005, self.pause_between - took))

    @contextlib.contextmanager
    def evenly(self) -> Iterator[None]:
        """Requests that are alike, each client with one after the other, for the time of the block."""
        before = self.pause_between
        self.next_request, self.pause_between = alike, 0.0
        try:
            yield
        finally:
            self.next_request, self.pause_between = mixed, before


async def exchange(connection, method, path, body, headers) -> tuple[int, str, bool]:
    """One request and its answer: the status, the body, and whether the connection may be used again."""
    reader, writer = connection
    lines = [f"{method} {path} HTTP/1.1", "Host: stack.test"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    fields = dict(line.partition(": ")[::2] for line in head.split("\r\n")[1:] if line)
    if "content-length" in fields:
        answer = await reader.readexactly(int(fields["content-length"]))
    elif fields.get("transfer-encoding") == "chunked":
        answer = b""
        while size := int((await reader.readuntil(b"\r\n")).strip() or b"0", 16):
            answer += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
    else:
        answer = await reader.read()
        fields["connection"] = "close"
    return status, answer.decode(errors="replace"), fields.get("connection") != "close"
