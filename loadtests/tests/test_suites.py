"""What the suites of `make load` take for a failure."""

import argparse
import importlib.util
import sys
import unittest
from pathlib import Path
from unittest import mock

LOADTESTS = Path(__file__).resolve().parent.parent
sys.path.append(str(LOADTESTS / "load"))
import crowd  # noqa: E402
import curve  # noqa: E402
import guides  # noqa: E402
import steps  # noqa: E402
import unanswered  # noqa: E402  where the suites find it

SECONDS = 1
OPTIONS = argparse.Namespace(host="http://127.0.0.1:1", seconds=SECONDS, open_loop=Path("open-loop"))
TIMES = dict.fromkeys(("mean", "p50", "p90", "p95", "p99", "p999", "max"), 1000)


def of_wrk(requests: int, **errors: int) -> dict:
    counted = dict.fromkeys(("connect", "read", "write", "status", "timeout", "unanswered"), 0) | errors
    return {"requests": requests, "bytes": 1, "duration_us": SECONDS * 1_000_000, "errors": counted, "latency_us": TIMES}


def of_open_loop(**found: int) -> dict:
    return {"rate": 50, "requests": 50, "errors": 0, "unfinished": 0, "latency_us": TIMES, "generator_late_us_p99": 0} | found


class Suites(unittest.TestCase):
    def setUp(self) -> None:
        for name in ("time.sleep", "steps.well", "steps.unhealthy", "curve.well", "crowd.well"):
            self.replace(name, None)
        self.replace("steps.comes_back", 0.0)
        for name in ("curve.fetch", "crowd.fetch"):
            self.replace(name, b"body")
        self.replace("crowd.many_descriptors", 1_000_000)

    def replace(self, name: str, value: object) -> None:
        patch = mock.patch(name, return_value=value)
        patch.start()
        self.addCleanup(patch.stop)

    def wrk_finds(self, requests: int, **errors: int) -> None:
        self.replace("generators.wrk", of_wrk(requests, **errors))

    def test_a_baseline_with_connections_that_hang_is_an_error(self) -> None:
        self.wrk_finds(100, unanswered=25)
        errors = steps.baseline(OPTIONS).errors
        self.assertEqual(len(errors), len(steps.BASELINE))
        self.assertIn("'unanswered': 25", errors[0])

    def test_a_crowd_of_which_some_hang_is_an_error(self) -> None:
        self.wrk_finds(100, unanswered=1)
        self.assertEqual(len(crowd.crowd(OPTIONS).errors), 2 * len(crowd.SIZES))

    def test_stress_that_is_too_much_is_a_finding_and_no_error(self) -> None:
        self.wrk_finds(100, unanswered=50)
        outcome = steps.stress(OPTIONS)
        self.assertEqual(outcome.errors, [])
        self.assertIn("at 100 connections", outcome.data["broke"])

    def test_stress_in_which_nothing_is_answered_is_an_error(self) -> None:
        self.wrk_finds(0, unanswered=100)
        self.assertEqual(len(steps.stress(OPTIONS).errors), 1)

    def test_a_curve_with_unfinished_requests_is_an_error(self) -> None:
        self.wrk_finds(100)
        for found, count in ((of_open_loop(), 0), (of_open_loop(unfinished=1), 4), (of_open_loop(errors=1), 4)):
            self.replace("curve.open_loop", found)
            self.assertEqual(len(curve.curve(OPTIONS).errors), count, found)

    def test_a_guides_wrk_without_an_answer_is_wrong(self) -> None:
        self.assertEqual(guides.wrk("Requests/sec:   1234.50\nTransfer/sec:  1MB"), "")
        self.assertIn("no request", guides.wrk("Requests/sec:      0.00\nTransfer/sec:  0B"))

    def test_a_crowd_runs_for_long_enough_to_see_what_its_limit_forbids(self) -> None:
        spec = importlib.util.spec_from_file_location("load_main", LOADTESTS / "load" / "__main__.py")
        main = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(main)
        _, seconds, _ = main.SUITES["crowd"]
        self.assertLessEqual(crowd.ANSWER_SECONDS, seconds * unanswered.OF_A_RUN)


if __name__ == "__main__":
    unittest.main()
