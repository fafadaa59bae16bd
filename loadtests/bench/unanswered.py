"""Requests that are never answered. wrk counts answers, late ones included; a connection whose answer never comes is in none of its
figures. In a closed loop every connection waits for an answer all the time, so the kernel is asked, at two moments of a run, how many
bytes each of wrk's connections has received: one that has received none between them hangs.

The server is not asked and does not notice: a look takes the kernel some milliseconds for thousands of connections.
"""

import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

# The second look: shortly before wrk closes its connections, which it does when its time is over.
BEFORE_THE_END_SECONDS = 0.2
# A wait of more than this share of a run may have begun before the first look.
OF_A_RUN = 0.5

# Of <linux/netlink.h>, <linux/sock_diag.h> and <linux/inet_diag.h>.
HEADER = struct.Struct("=IHHII")
REQUEST = struct.Struct("=BBBxI")
SOCKET_ID = struct.Struct("!HH44x")
ATTRIBUTE = struct.Struct("=HH")
NUMBER, COUNTER = struct.Struct("=i"), struct.Struct("=Q")
# A struct inet_diag_msg, of which idiag_inode is the last; in a struct tcp_info the place of tcpi_bytes_received.
MESSAGE, RECEIVED_AT = struct.Struct("=68xI"), 128
SOCK_DIAG, SOCK_DIAG_BY_FAMILY, DUMP, ERROR, DONE = 4, 20, 0x301, 2, 3
# ESTABLISHED; and SYN_SENT, of a server that accepts nobody any more.
WAITING = 1 << 1 | 1 << 2
TCP_INFO = 2
RECEIVE_BYTES = 1 << 18


class Unseen(Exception):
    """Whether all connections were answered is not known; says why."""


@dataclass
class Ended:
    """What a run of wrk printed, and how many of its connections hung in the end."""

    code: int
    said: str
    complained: str
    unanswered: int


def watched(command: list[str], port: int, seconds: int, answer_seconds: float, slack_seconds: float, cwd: str | None = None) -> Ended:
    """Runs wrk, which asks a server at `port` for so many seconds. A connection hangs that waits for `answer_seconds`, or for half of the
    run if that is shorter. Raises subprocess.TimeoutExpired when wrk does not end, and Unseen."""
    limit = min(answer_seconds, seconds * OF_A_RUN)
    unanswered = 0
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd
    ) as process:
        try:
            if not ends_within(process, seconds - BEFORE_THE_END_SECONDS - limit):
                before = received(port)
                if not ends_within(process, limit):
                    unanswered = len(silent(before, received(port)) & sockets(process.pid))
            if process.poll() == 0:
                raise Unseen(f"{command[0]} ended before {seconds} s were over, and nobody saw whether its connections were answered")
            said, complained = process.communicate(timeout=slack_seconds)
        finally:
            process.kill()
    return Ended(process.returncode, said, complained, unanswered)


def ends_within(process: subprocess.Popen, seconds: float) -> bool:
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def silent(before: dict[int, int], after: dict[int, int]) -> set[int]:
    """The sockets that have received nothing in between."""
    return {inode for inode, received_bytes in after.items() if before.get(inode) == received_bytes}


def sockets(pid: int) -> set[int]:
    """The inodes that a process has open; another client of the same server may well be silent."""
    found = set()
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            found.add(entry.stat().st_ino)
    except OSError as error:
        raise Unseen(f"which connections are wrk's: {error}") from error
    return found


def received(port: int) -> dict[int, int]:
    """By inode: the bytes that each client of this port has received, over either version of IP."""
    found: dict[int, int] = {}
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, SOCK_DIAG) as kernel:
            for family in (socket.AF_INET, socket.AF_INET6):
                # What is asked for as an extension is named by its bit.
                request = REQUEST.pack(family, socket.IPPROTO_TCP, 1 << TCP_INFO - 1, WAITING) + SOCKET_ID.pack(0, port)
                kernel.send(HEADER.pack(HEADER.size + len(request), SOCK_DIAG_BY_FAMILY, DUMP, 0, 0) + request)
                found |= dict(map(counted, messages(kernel)))
    except OSError as error:
        raise Unseen(f"the kernel does not tell what connections have received: {error}") from error
    return found


def messages(kernel: socket.socket) -> Iterator[bytes]:
    """The messages of one answer, without their headers."""
    while True:
        datagram = kernel.recv(RECEIVE_BYTES)
        while datagram:
            length, kind, *_ = HEADER.unpack_from(datagram)
            message, datagram = datagram[HEADER.size : length], datagram[aligned(length) :]
            if kind in (ERROR, DONE):
                if (code := NUMBER.unpack_from(message)[0]) < 0:
                    raise OSError(-code, os.strerror(-code))
                return
            yield message


def counted(message: bytes) -> tuple[int, int]:
    """Inode and bytes received of one socket."""
    (inode,), attributes = MESSAGE.unpack_from(message), message[MESSAGE.size :]
    while attributes:
        length, kind = ATTRIBUTE.unpack_from(attributes)
        if kind == TCP_INFO:
            return inode, COUNTER.unpack_from(attributes, ATTRIBUTE.size + RECEIVED_AT)[0]
        attributes = attributes[aligned(length) :]
    raise OSError("a socket without its tcp_info")


def aligned(length: int) -> int:
    return length + 3 & ~3
