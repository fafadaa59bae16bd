"""What was asked for and failed is a failure of `make bench`, and what was not asked for is not."""

import sys
import unittest
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "bench"))
import goals  # noqa: E402
from asked import ALONE, HEAL, RELAY, SCALING, Asked  # noqa: E402
from load import LoadFailed, Sample  # noqa: E402
from peers import NotUp  # noqa: E402
from rounds import CLOSED, MANY, OPEN, Samples  # noqa: E402
from trials import Trials  # noqa: E402

LATENCY = dict.fromkeys(("p50", "p90", "p99", "p999", "max"), 1000)


def samples(rate: int = 1000, **errors: int) -> Samples:
    return Samples([Sample(rate, 1.0, 0, errors, LATENCY)])


def everywhere(**others: Samples) -> dict[str, Samples]:
    return {scenario: samples() for scenario in [*CLOSED, OPEN, MANY]} | others


def judge(asked: Asked, results: dict | None = None, healing: list[Trials] | None = None) -> dict[str, str]:
    """The outcomes by path; of those that are met or were not asked for, none."""
    verdicts = goals.judge(asked, results or {}, {}, {}, None, None, [], [], healing or [])
    bad = {verdict.path: verdict.outcome for verdict in verdicts if not goals.met([verdict])}
    assert goals.met(verdicts) != bool(bad)
    return bad


class Judged(unittest.TestCase):
    def test_what_was_not_asked_for_fails_nothing(self) -> None:
        self.assertEqual(judge(Asked(frozenset())), {})
        self.assertEqual(judge(Asked(frozenset({"bare-actix"})), {"bare-actix": everywhere()}), {})

    def test_errors_void_a_figure_also_where_nothing_was_answered(self) -> None:
        asked = Asked(frozenset({"troupe-upstream", "haproxy"}))
        for found in (samples(errors=1), samples(rate=0, unanswered=64), Samples(problems=["wrk did not end\nlog"])):
            bad = judge(asked, {"troupe-upstream": everywhere() | {"64 connections": found}, "haproxy": everywhere()})
            self.assertTrue(bad["HTTP upstream"].startswith("void: "), bad)
            # So do they below the line.
            bad = judge(asked, {"haproxy": everywhere() | {"64 connections": found}, "troupe-upstream": everywhere()})
            self.assertTrue(bad["HTTP upstream"].startswith("void: "), bad)

    def test_errors_of_troupes_fail_where_no_figure_is_judged(self) -> None:
        scenario = "64 connections, browser's headers"
        for peer, fails in (("troupe-upstream", True), ("haproxy", False)):
            bad = judge(Asked(frozenset({peer})), {peer: everywhere() | {scenario: samples(errors=1)}})
            self.assertEqual(bool(bad), fails, bad)

    def test_connections_that_hang_are_failed_requests(self) -> None:
        results = {"troupe-one": everywhere() | {MANY: samples(unanswered=2500)}}
        bad = judge(Asked(frozenset({"troupe-one"})), results)
        self.assertEqual(bad[f"failed requests at {MANY}, one process"], "MISS")

    def test_a_peer_that_does_not_start_voids_its_figures(self) -> None:
        for peer, figure in (("troupe-one", "PHP function, one process"), ("haproxy", "HTTP upstream"), ("nginx-fpm-keep", "nginx-fpm-keep")):
            asked = Asked(frozenset({"troupe-one", "troupe-upstream", "bare-actix", "haproxy", "nginx-fpm", "nginx-fpm-keep"}))
            asked.missing[peer] = "does not answer\nits log"
            results = {name: everywhere() for name in asked.names if name != peer}
            bad = judge(asked, results)
            self.assertEqual(bad[figure], "void: does not answer", bad)

    def test_a_part_that_fails_voids_the_run(self) -> None:
        for part in ALONE:
            asked = Asked(frozenset({part}))
            self.assertIsNone(asked.part(part, self.fails(LoadFailed("3 of 4 requests failed")), None))
            bad = judge(asked)
            self.assertIn("void: 3 of 4 requests failed", bad.values())

    def test_whatever_keeps_a_part_from_being_measured_is_told(self) -> None:
        for error in (NotUp("gone"), FileNotFoundError(2, "gone"), ValueError("gone"), KeyError("gone"), TimeoutError("gone")):
            asked = Asked(frozenset({RELAY}))
            asked.part(RELAY, self.fails(error), None)
            self.assertIn("gone", asked.why_missing(RELAY))

    def test_a_part_that_was_not_asked_for_is_not_measured(self) -> None:
        asked = Asked(frozenset({SCALING}))
        self.assertIsNone(asked.part(RELAY, self.fails(NotUp("asked all the same")), None))
        self.assertEqual(asked.missing, {})

    def test_trials_with_failures_fail_with_and_without_a_limit(self) -> None:
        asked = Asked(frozenset({HEAL}))
        self.assertEqual(judge(asked, healing=[Trials("told", None, [1.0]), Trials("well", 1000, [1.0])]), {})
        self.assertEqual(judge(asked, healing=[Trials("told", None, [1.0], ["told 200"])]), {"told": "MISS"})
        self.assertEqual(judge(asked, healing=[Trials("well", 1000, [1.0], ["not served"])]), {"p99: well": "void: not served"})

    def test_no_trial_is_no_success(self) -> None:
        asked = Asked(frozenset({HEAL}))
        self.assertEqual(judge(asked, healing=[Trials("well", 1000, [], ["not up"])]), {"p99: well": "void: not up"})
        self.assertEqual(judge(asked, healing=[Trials("gone", 1000)]), {"p99: gone": "void: no figure"})

    def fails(self, error: Exception):
        def measure() -> None:
            raise error

        return measure


if __name__ == "__main__":
    unittest.main()
