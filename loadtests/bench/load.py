"""The load generators: wrk for what a peer can take, open-loop for how long a request takes below that."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import closed_loop
from closed_loop import SCRIPTS, SLACK_SECONDS, LoadFailed
from peers import Peer

REPORT_LUA = SCRIPTS / "report.lua"
UNIQUE_LUA = SCRIPTS / "unique.lua"


@dataclass
class Sample:
    """One run of a generator against one peer."""

    requests: int
    seconds: float
    bytes: int
    errors: dict[str, int]
    latency_us: dict[str, int]

    @property
    def rate(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def bytes_per_second(self) -> float:
        return self.bytes / self.seconds if self.seconds else 0.0

    def failed(self) -> int:
        return sum(self.errors.values())


# What a browser sends beside the request line, in number and size.
BROWSER = {
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en-GB,en;q=0.9,de;q=0.8",
    "Cache-Control": "max-age=0",
    "Cookie": "session=6f1c9e0d2b7a4835; theme=dark; consent=necessary; _seen=1731999999.42",
    "DNT": "1",
    "If-None-Match": '"none-of-these"',
    "Origin": "https://app.example",
    "Pragma": "no-cache",
    "Priority": "u=0, i",
    "Referer": "https://app.example/overview?tab=open",
    "Sec-CH-UA": '"Browser";v="141", "Not?A_Brand";v="8"',
    "Sec-CH-UA-Mobile": "?0",
    "Sec-CH-UA-Platform": '"Linux"',
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-origin",
    "Upgrade-Insecure-Requests": "1",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
}


def wrk(
    peer: Peer,
    connections: int,
    seconds: int,
    threads: int,
    headers: dict[str, str] | None = None,
    script: Path = REPORT_LUA,
) -> Sample:
    measured = closed_loop.wrk(peer.url(), connections, seconds, threads, script, headers)
    return Sample(
        measured["requests"],
        measured["duration_us"] / 1e6,
        measured["bytes"],
        measured["errors"],
        measured["latency_us"],
    )


def open_loop(peer: Peer, binary: Path, rate: int, connections: int, seconds: int, threads: int) -> Sample:
    command = [str(binary), f"--port={peer.port}", f"--path={peer.path}", f"--body={peer.body}", f"--rate={rate}"]
    command += [f"--connections={connections}", f"--seconds={seconds}", f"--threads={threads}"]
    measured = run(command, seconds)
    errors = {"failed": measured["errors"], "unfinished": measured["unfinished"]}
    latency = measured["latency_us"] | {"generator_late_p99": measured["generator_late_us_p99"]}
    return Sample(measured["requests"], float(seconds), 0, errors, latency)


def run(command: list[str], seconds: int) -> dict:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + SLACK_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise LoadFailed(f"{command[0]} did not end within {seconds + SLACK_SECONDS} s") from error
    return closed_loop.last_line(command, done.returncode, done.stdout, done.stderr)
