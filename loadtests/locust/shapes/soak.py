"""The same load for long: does anything grow? SOAK_USERS and SOAK_MINUTES set it."""

import os

from locust import LoadTestShape

USERS = int(os.environ.get("SOAK_USERS", "40"))
MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))


class Soak(LoadTestShape):
    """All users from the start to the end."""

    def tick(self):
        return (USERS, max(1, USERS // 10)) if self.get_run_time() < MINUTES * 60 else None
