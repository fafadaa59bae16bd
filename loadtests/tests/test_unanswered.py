"""Connections that are never answered are counted, and only those of the generator."""

import shutil
import socket
import subprocess
import sys
import unittest
from pathlib import Path

import hanging

LOADTESTS = Path(__file__).resolve().parent.parent
sys.path.append(str(LOADTESTS / "bench"))
import closed_loop  # noqa: E402
import unanswered  # noqa: E402

CONNECTIONS = 8
# Half of it is a hundred times what a server needs to answer a few connections.
SECONDS = 2
# The generator is still there when it is looked at, also where that is late.
ASKS_SECONDS = SECONDS + 2


def watched(port: int, asks_seconds: float = ASKS_SECONDS) -> int:
    command = [sys.executable, str(LOADTESTS / "tests" / "asks.py"), str(port), str(CONNECTIONS), str(asks_seconds)]
    return unanswered.watched(command, port, SECONDS, answer_seconds=10, slack_seconds=60).unanswered


class Watched(unittest.TestCase):
    def test_where_everybody_is_answered_nothing_is_counted(self) -> None:
        with hanging.server(hanging.nobody) as port:
            self.assertEqual(watched(port), 0)

    def test_connections_that_hang_among_others_are_counted(self) -> None:
        with hanging.server(hanging.every_second) as port:
            self.assertEqual(watched(port), CONNECTIONS // 2)

    def test_a_server_that_accepts_nobody_answers_nobody(self) -> None:
        # Only one or two get as far as the queue of those that are to be accepted.
        with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
            self.assertEqual(watched(listener.getsockname()[1]), CONNECTIONS)

    def test_the_silence_of_another_client_is_not_the_generators(self) -> None:
        with hanging.server(hanging.nobody) as port, socket.create_connection(("127.0.0.1", port)):
            self.assertEqual(watched(port), 0)

    def test_a_generator_that_ends_before_it_is_looked_at_was_not_seen(self) -> None:
        with hanging.server(hanging.nobody) as port, self.assertRaises(unanswered.Unseen):
            watched(port, asks_seconds=1)

    def test_a_generator_that_does_not_end_is_stopped(self) -> None:
        with hanging.server(hanging.nobody) as port, self.assertRaises(subprocess.TimeoutExpired):
            command = [sys.executable, str(LOADTESTS / "tests" / "asks.py"), str(port), "1", "600"]
            unanswered.watched(command, port, 1, answer_seconds=10, slack_seconds=0.5)


@unittest.skipUnless(shutil.which("wrk"), "wrk is not installed")
class Wrk(unittest.TestCase):
    def errors(self, hangs) -> dict[str, int]:
        with hanging.server(hangs) as port:
            run = closed_loop.wrk(f"http://127.0.0.1:{port}/", CONNECTIONS, SECONDS, 1, closed_loop.SCRIPTS / "report.lua")
        return {kind: count for kind, count in run["errors"].items() if count}

    def test_a_run_without_an_error_has_none(self) -> None:
        self.assertEqual(self.errors(hanging.nobody), {})

    def test_answers_that_never_come_are_errors(self) -> None:
        self.assertEqual(self.errors(hanging.every_second), {"unanswered": CONNECTIONS // 2})

    def test_a_run_in_which_nothing_was_answered_fails_on_every_connection(self) -> None:
        self.assertEqual(self.errors(hanging.everybody), {"unanswered": CONNECTIONS})


if __name__ == "__main__":
    unittest.main()
