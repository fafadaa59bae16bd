"""The yardstick beside the stack: actix-web with nothing behind it, on this machine, for the time of a run."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

BODY = Path(__file__).resolve().parent.parent / "peers" / "hello.json"
START_SECONDS = 10


@contextlib.contextmanager
def running(binary: Path | None) -> Iterator[str | None]:
    """Its URL; none without a binary, and then there are no ratios."""
    if binary is None or not binary.exists():
        yield None
        return
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [str(binary), f"--port={port}", f"--threads={len(os.sched_getaffinity(0))}", f"--body={BODY}"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
