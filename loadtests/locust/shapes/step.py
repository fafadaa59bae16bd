"""More users step by step: at which step does it begin to hurt? STEPS, STEP_USERS and STEP_SECONDS set it."""

import os

from locust import LoadTestShape

STEPS = int(os.environ.get("STEPS", "5"))
STEP_USERS = int(os.environ.get("STEP_USERS", "20"))
STEP_SECONDS = float(os.environ.get("STEP_SECONDS", "20"))


class Step(LoadTestShape):
    """Users grow by the same number, each time for the same while."""

    def tick(self):
        step = int(self.get_run_time() // STEP_SECONDS) + 1
        return (step * STEP_USERS, STEP_USERS) if step <= STEPS else None
