"""The user of so many guides: the front page, and data three times as often."""

from locust import HttpUser, between, task


class WebsiteUser(HttpUser):
    wait_time = between(1, 3)

    @task(1)
    def index(self):
        self.client.get("/")

    @task(3)
    def data(self):
        self.client.get("/api/data")
