"""Somebody who sends files, and wants to know that they came whole."""

import hashlib
import random

from locust import between, task
from locust.contrib.fasthttp import FastHttpUser

BOUNDARY = "troupe-load-boundary"


def form(size: int) -> tuple[bytes, str]:
    """A form with one file of this size, and the file's digest."""
    content = random.Random(size).randbytes(size)
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="file.bin"\r\n'
    head += "Content-Type: application/octet-stream\r\n\r\n"
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode(), hashlib.sha256(content).hexdigest()


# Below and above what is kept in memory on the way (64 KiB), and one that takes many frames.
FORMS = {"20 kB": form(20_000), "200 kB": form(200_000), "2 MB": form(2_000_000)}


class Uploader(FastHttpUser):
    """One file after the other, with pauses."""

    weight = 1
    wait_time = between(0.5, 1.5)
    network_timeout = 30.0
    connection_timeout = 5.0

    @task(6)
    def small(self) -> None:
        self.send("20 kB")

    @task(3)
    def medium(self) -> None:
        self.send("200 kB")

    @task(1)
    def large(self) -> None:
        self.send("2 MB")

    def send(self, size: str) -> None:
        body, digest = FORMS[size]
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        name = f"POST upload {size}"
        with self.client.post("/api/upload", data=body, headers=headers, name=name, catch_response=True) as answer:
            if answer.status_code == 200 and digest not in (answer.text or ""):
                answer.failure("what came is not what was sent")
