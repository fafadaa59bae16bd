"""`guides`: the plain commands that guides to load testing tell their readers to type, as they stand."""

import argparse
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import generators
from suite import LoadFailed, Outcome, address, table, well
from unanswered import Unseen, watched

FOLDER = Path(__file__).resolve().parent.parent / "guides"
COMMAND_SECONDS = 180
OUTPUT_KEPT = 20_000


@dataclass
class Command:
    """A line to type, with the stack's URL for {host}; `wrong` says what is wrong with what it prints."""

    line: str
    wrong: Callable[[str], str]
    # How long it runs, where what it prints says nothing of requests that are never answered.
    watched_seconds: int = 0


def ab(said: str) -> str:
    done = re.search(r"^Complete requests:\s+(\d+)$", said, re.MULTILINE)
    failed = re.search(r"^Failed requests:\s+(\d+)$", said, re.MULTILINE)
    if not done or int(done[1]) != 10_000:
        return "not 10,000 complete requests"
    if not failed or int(failed[1]):
        return f"failed requests: {failed[1] if failed else '?'}"
    return "answers that are not 2xx" if "Non-2xx" in said else ""


def hey(said: str) -> str:
    statuses = re.findall(r"^\s+\[(\d+)\]\s+(\d+) responses$", said, re.MULTILINE)
    if "Error distribution" in said or {status for status, _ in statuses} != {"200"}:
        return f"statuses {statuses}" + (", and errors" if "Error distribution" in said else "")
    return ""


def wrk(said: str) -> str:
    rate = re.search(r"^Requests/sec:\s+([\d.]+)$", said, re.MULTILINE)
    if not rate or not float(rate[1]):
        return "no request was answered"
    wrong = [line.strip() for line in said.splitlines() if "Socket errors" in line or "Non-2xx" in line]
    return "; ".join(wrong)


def locust(said: str) -> str:
    row = re.search(r"^\s*Aggregated\s+(\d+)\s+(\d+)\(", said, re.MULTILINE)
    if not row or int(row[1]) == 0:
        return "no request"
    return f"{row[2]} of {row[1]} requests failed" if int(row[2]) else ""


def curl(said: str) -> str:
    times = dict(re.findall(r"^\s*(time_\w+):\s+([\d.]+)s$", said, re.MULTILINE))
    if len(times) != 7:
        return f"{len(times)} times, not 7"
    total, connect = float(times["time_total"]), float(times["time_connect"])
    return "" if 0 < connect <= total else f"connect {connect} s, total {total} s"


COMMANDS = [
    Command("ab -n 10000 -c 100 {host}/api/test", ab),
    Command("ab -n 10000 -c 100 -k {host}/api/test", ab),
    Command("ab -n 10000 -c 100 -p post.json -T application/json {host}/api/test", ab),
    Command("hey -n 10000 -c 100 {host}/api/data", hey),
    Command("hey -z 10s -q 100 -c 10 {host}/api/data", hey),
    Command("wrk -t4 -c100 -d30s {host}/api/data", wrk, watched_seconds=30),
    Command("locust -f locustfile.py --headless -u 100 -r 10 -t 30s --only-summary --host {host}", locust),
    Command("curl -w @curl-format.txt -o /dev/null -s {host}/api/data", curl),
]


def guides(options: argparse.Namespace) -> Outcome:
    """Each command once; all of them have to go without one failed request."""
    body, errors, data = [], [], {}
    for command in COMMANDS:
        line = command.line.format(host=options.host)
        words = line.split()
        program = shutil.which(options.locust if words[0] == "locust" else words[0])
        if program is None:
            errors.append(f"{words[0]} is not installed: {line}")
            continue
        code, said, unanswered = typed(command, [str(Path(program).absolute()), *words[1:]], options.host)
        wrong = command.wrong(said) or (f"exit {code}" if code else f"{unanswered} connections without an answer" if unanswered else "")
        if wrong:
            errors.append(f"{line}: {wrong}")
        well(options.host, line)
        data[line] = {"exit": code, "wrong": wrong, "said": said[-OUTPUT_KEPT:]}
        body.append([f"`{line}`", wrong or figure(said)])
    return Outcome("The guides' own commands", table(["command", ""], body), {"commands": data}, errors)


def typed(command: Command, words: list[str], host: str) -> tuple[int, str, int]:
    """Its exit code, what it prints, and how many of its connections hung."""
    if not command.watched_seconds:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_SECONDS, cwd=FOLDER)
        return done.returncode, done.stdout + done.stderr, 0
    seconds, port = command.watched_seconds, address(host)[1]
    try:
        ended = watched(words, port, seconds, generators.ANSWER_SECONDS, COMMAND_SECONDS - seconds, cwd=str(FOLDER))
    except Unseen as error:
        raise LoadFailed(str(error)) from error
    return ended.code, ended.said + ended.complained, ended.unanswered


def figure(said: str) -> str:
    """The one number that such a command is run for."""
    found = re.search(r"(?:Requests per second:|Requests/sec:|time_total:)\s+[\d.]+s?", said)
    return re.sub(r"\s+", " ", found[0]) if found else "no failures"
