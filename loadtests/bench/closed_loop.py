"""wrk, for what a server can take: each connection asks again when it is answered."""

import json
import subprocess
import urllib.parse
from pathlib import Path

import unanswered

SCRIPTS = Path(__file__).resolve().parent.parent / "wrk"
# Beyond its load a generator needs time to connect and to report; what takes longer hangs.
SLACK_SECONDS = 60
# A slower answer is an error: wrk counts it when it comes, and `unanswered` those that do not. As long as a browser's patience, so that
# slow and failed stay apart.
ANSWER_SECONDS = 10


class LoadFailed(Exception):
    """A generator could not do its work: nothing was measured. Says why."""


def wrk(
    url: str,
    connections: int,
    seconds: int,
    threads: int,
    script: Path,
    headers: dict[str, str] | None = None,
    answer_seconds: int = ANSWER_SECONDS,
) -> dict:
    """One run: requests, duration_us, bytes, errors by kind, latency_us."""
    command = ["wrk", f"-t{min(threads, connections)}", f"-c{connections}", f"-d{seconds}s", f"--timeout={answer_seconds}s"]
    command += ["-s", str(script)]
    for name, value in (headers or {}).items():
        command += ["-H", f"{name}: {value}"]
    command.append(url)
    port = urllib.parse.urlsplit(url).port or 80
    try:
        ended = unanswered.watched(command, port, seconds, answer_seconds, SLACK_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise LoadFailed(f"wrk did not end within {seconds + SLACK_SECONDS} s") from error
    except unanswered.Unseen as error:
        raise LoadFailed(str(error)) from error
    measured = last_line(command, ended.code, ended.said, ended.complained)
    # Where nothing was answered at all, it does not matter since when.
    measured["errors"]["unanswered"] = ended.unanswered if measured["requests"] else connections
    return measured


def last_line(command: list[str], code: int, said: str, complained: str) -> dict:
    """What a generator says in the end, which is JSON."""
    last = said.strip().rpartition("\n")[2]
    if code != 0 or not last.startswith("{"):
        raise LoadFailed(f"{' '.join(command)}: exit {code}: {(complained or said).strip()[-500:]}")
    return json.loads(last)
