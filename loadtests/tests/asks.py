"""A closed loop like wrk's, which does not say what became of it: asks.py PORT CONNECTIONS SECONDS."""

import asyncio
import contextlib
import sys

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
# Connections that are let in get answers meanwhile, and a fast loop would only keep the machine busy.
PAUSE_SECONDS = 0.01


async def main(port: int, connections: int, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(*(ask(port) for _ in range(connections)))


async def ask(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while True:
        writer.write(REQUEST)
        await reader.readuntil(b"ok")
        await asyncio.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
