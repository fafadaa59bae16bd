"""A program that uses the API: many small calls, and it looks at what comes back."""

from locust import constant_throughput, task
from locust.contrib.fasthttp import FastHttpUser


class ApiClient(FastHttpUser):
    """Ten calls a second, however long they take: a slow answer makes no room in the plan."""

    weight = 6
    wait_time = constant_throughput(10)
    network_timeout = 10.0
    connection_timeout = 5.0

    @task(6)
    def hello(self) -> None:
        with self.client.get("/api/hello?name=Ada", name="GET hello", catch_response=True) as answer:
            if answer.status_code == 200 and '"Ada"' not in (answer.text or ""):
                answer.failure(f"not the answer that was asked for: {(answer.text or '')[:80]}")

    @task(3)
    def shop(self) -> None:
        with self.client.get("/api/shop?apple=3&pear=2", name="GET shop", catch_response=True) as answer:
            if answer.status_code == 200 and '"total"' not in (answer.text or ""):
                answer.failure(f"no total: {(answer.text or '')[:80]}")

    @task(2)
    def note(self) -> None:
        note = {"title": "Milk", "tags": ["shop"]}
        with self.client.post("/api/notes", json=note, name="POST notes", catch_response=True) as answer:
            if answer.status_code != 201:
                answer.failure(f"status {answer.status_code}, not 201: {answer.error or (answer.text or '')[:80]}")

    @task(1)
    def wrong_note(self) -> None:
        """What is wrong is said, and is no failure of the server's."""
        with self.client.post("/api/notes", json={"title": ""}, name="POST notes (wrong)", catch_response=True) as answer:
            if answer.status_code == 422:
                answer.success()
            else:
                answer.failure(f"status {answer.status_code}, not 422: {answer.error or (answer.text or '')[:80]}")
