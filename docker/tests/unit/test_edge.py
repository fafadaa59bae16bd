"""The edge while it is rolled: its own configuration, in front of a server on this machine."""

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))
from stack import ROOT, free_port  # noqa: E402

EDGE = ROOT / "docker" / "edge"
HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
PATIENCE_SECONDS = 20
# Key and answer are those of RFC 6455; HAProxy looks whether they fit.
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
HANDSHAKE = (
    b"GET /chat HTTP/1.1\r\nHost: edge\r\n" + UPGRADE + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\n" + UPGRADE + b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
PLAIN = b"GET / HTTP/1.1\r\nHost: edge\r\n\r\n"


def configuration(port: int, control: int, gateway: int) -> str:
    """docker/edge/haproxy.cfg, but for its places and for the look-up of gateways by name."""
    text = (EDGE / "haproxy.cfg").read_text()
    for written, here in (
        ("bind :8080", f"bind 127.0.0.1:{port}"),
        ("ipv4@127.0.0.1:8404", f"ipv4@127.0.0.1:{control}"),
        ("/etc/troupe-edge/", f"{EDGE}/"),
        ("server-template gateway 16 gateway:8080", f"server gateway 127.0.0.1:{gateway}"),
    ):
        assert written in text, written
        text = text.replace(written, here)
    return text


def gateway(listener: socket.socket) -> None:
    """Switches to another protocol, in which it says everything again, or answers; until the listener is closed."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()


def serve(connection: socket.socket) -> None:
    with contextlib.suppress(OSError), connection:
        while head := until_blank_line(connection):
            if b"upgrade: websocket" not in head.lower():
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                continue
            connection.sendall(SWITCHED)
            while piece := connection.recv(1024):
                connection.sendall(piece)
            return


def until_blank_line(connection: socket.socket) -> bytes:
    found = b""
    while not found.endswith(b"\r\n\r\n") and (byte := connection.recv(1)):
        found += byte
    return found


@unittest.skipUnless(HAPROXY, "haproxy is not installed")
class Leaving(unittest.TestCase):
    @contextlib.contextmanager
    def edge(self) -> Iterator[int]:
        """Its port, once leave.sh has been there."""
        with tempfile.TemporaryDirectory(prefix="troupe-edge-") as folder, socket.create_server(("127.0.0.1", 0)) as listener:
            threading.Thread(target=gateway, args=(listener,), daemon=True).start()
            port, control = free_port(), free_port()
            file = Path(folder) / "haproxy.cfg"
            file.write_text(configuration(port, control, listener.getsockname()[1]))
            process = subprocess.Popen([HAPROXY, "-db", "-f", str(file)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                with connected(control) as command:
                    command.sendall(f"set map {EDGE}/leaving.map leaving yes\n".encode())
                    self.assertEqual(command.recv(1024).strip(), b"")
                yield port
            finally:
                process.terminate()
                process.wait()
                listener.shutdown(socket.SHUT_RDWR)

    def test_a_websocket_handshake_is_let_through(self) -> None:
        with self.edge() as port, connected(port) as client:
            client.sendall(HANDSHAKE)
            head = until_blank_line(client).lower()
            self.assertTrue(head.startswith(b"http/1.1 101 "), head)
            self.assertIn(b"\r\nconnection: upgrade\r\n", head)
            self.assertNotIn(b"close", head)
            client.sendall(b"frame")
            self.assertEqual(client.recv(1024), b"frame")

    def test_an_answer_ends_its_connection(self) -> None:
        with self.edge() as port, connected(port) as client:
            client.sendall(PLAIN)
            self.assertIn(b"\r\nconnection: close\r\n", until_blank_line(client).lower())


def connected(port: int) -> socket.socket:
    """To HAProxy, which takes a moment to listen."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


if __name__ == "__main__":
    unittest.main()
