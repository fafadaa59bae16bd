"""A server that does not answer some of its connections, for ever."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextlib.contextmanager
def server(hangs: Callable[[int], bool]) -> Iterator[int]:
    """Its port. `hangs` is asked about each connection by its number, in the order in which they come."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        port, loop = listener.getsockname()[1], asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_until_complete, args=(serve(listener, hangs),))
        thread.start()
        try:
            yield port
        finally:
            loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
            thread.join()
            loop.close()


async def serve(listener: socket.socket, hangs: Callable[[int], bool]) -> None:
    number = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal number
        number += 1
        silent = hangs(number)
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError), contextlib.closing(writer):
            while await reader.readuntil(b"\r\n\r\n"):
                if silent:
                    await asyncio.Event().wait()
                writer.write(ANSWER)

    listening = await asyncio.start_server(answer, sock=listener)
    with contextlib.suppress(asyncio.CancelledError):
        await listening.serve_forever()


def nobody(_: int) -> bool:
    return False


def everybody(_: int) -> bool:
    return True


def every_second(number: int) -> bool:
    return number % 2 == 0
