"""Calm, ten times as many users at once, calm again: does it come back? SPIKE_USERS and SPIKE_SECONDS set it."""

import os

from locust import LoadTestShape

USERS = int(os.environ.get("SPIKE_USERS", "100"))
SECONDS = float(os.environ.get("SPIKE_SECONDS", "20"))


class Spike(LoadTestShape):
    """A third of the time before the spike, a third in it, a third after it."""

    def tick(self):
        phase = int(self.get_run_time() // SECONDS)
        calm = max(1, USERS // 10)
        return {0: (calm, calm), 1: (USERS, USERS), 2: (calm, USERS)}.get(phase)
