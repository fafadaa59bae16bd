"""What the tests of the stack ask of metrics: a name that there is not would be 0, and 0 is what they want to see."""

import re
import sys
import unittest
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path.append(str(TESTS))
from scenario import in_flight  # noqa: E402
from stack import ROOT, Metrics  # noqa: E402

NAME = re.compile(r"\btroupe_[a-z0-9_]+")

GATEWAY = """
troupe_gateway_requests_in_flight 0
troupe_gateway_cache_live 1
troupe_gateway_cache_l2_lookups_total{result="hit"} 7
troupe_mesh_calls_in_flight{peer="balancer"} 0
troupe_mesh_calls_in_flight{peer="cache"} 1
"""
BALANCER = """
troupe_balancer_queue_depth{pool="default"} 0
troupe_mesh_calls_in_flight{peer="php-pool"} 0
"""
WORKERS = """
troupe_balancer_workers_ready{pool="default"} 2
troupe_balancer_worker_in_flight{pool="default",worker="php-pool@a"} 0
troupe_balancer_worker_in_flight{pool="default",worker="php-pool@b"} 3
"""


def busy(service: str, text: str) -> dict[str, float | None]:
    return {name: value for name, value in in_flight(service, Metrics(text)).items() if value != 0}


class Names(unittest.TestCase):
    def test_every_series_that_is_asked_for_is_counted_by_somebody(self) -> None:
        # The page is held against the code by tests of Rust's.
        counted = set(NAME.findall((ROOT / "docs" / "metrics.md").read_text()))
        asked = {name for file in TESTS.glob("*.py") for name in NAME.findall(file.read_text())}
        self.assertGreater(len(asked), 10)
        self.assertEqual(asked - counted, set())

    def test_a_name_may_have_a_digit(self) -> None:
        self.assertEqual(Metrics(GATEWAY).sum("troupe_gateway_cache_l2_lookups_total", result="hit"), 7)


class InFlight(unittest.TestCase):
    def test_calls_that_workers_have_are_in_flight(self) -> None:
        self.assertEqual(busy("balancer", BALANCER + WORKERS), {"troupe_balancer_worker_in_flight": 3})

    def test_a_balancer_without_workers_is_quiet(self) -> None:
        self.assertEqual(busy("balancer", BALANCER), {})
        self.assertEqual(busy("balancer", BALANCER + 'troupe_balancer_workers_ready{pool="default"} 0\n'), {})

    def test_a_gauge_that_should_be_there_and_is_not_is_no_silence(self) -> None:
        renamed = (BALANCER + WORKERS).replace("worker_in_flight", "inflight")
        self.assertEqual(busy("balancer", renamed), {"troupe_balancer_worker_in_flight": None})
        self.assertEqual(set(busy("php-pool", "")), {"troupe_mesh_calls_in_flight", "troupe_php_streams", "troupe_php_spooled_bytes"})

    def test_the_call_by_which_a_gateway_hears_of_purges_does_not_count(self) -> None:
        self.assertEqual(busy("gateway", GATEWAY), {})

    def test_other_services_need_not_be_linked(self) -> None:
        self.assertEqual(busy("metrics", ""), {})
        self.assertEqual(busy("cache", 'troupe_mesh_calls_in_flight{peer="gateway"} 2\ntroupe_cache_watchers 1\n'), {"troupe_mesh_calls_in_flight": 1})


if __name__ == "__main__":
    unittest.main()
