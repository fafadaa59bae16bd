"""A person with a browser: a page, a look at it, the next page; many headers, cookies, and now and then a stream."""

from locust import between, task
from locust.contrib.fasthttp import FastHttpUser

HEADERS = {
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Encoding": "gzip, deflate",
    "Accept-Language": "en-GB,en;q=0.9,de;q=0.8",
    "Cookie": "session=6f1c9e0d2b7a4835; theme=dark; consent=necessary",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Upgrade-Insecure-Requests": "1",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
}


class Visitor(FastHttpUser):
    """Looks at a page for a second or three."""

    weight = 3
    wait_time = between(1, 3)
    network_timeout = 15.0
    connection_timeout = 5.0

    @task(8)
    def page(self) -> None:
        with self.client.get("/api/upload", name="GET page", headers=HEADERS, catch_response=True) as answer:
            if answer.status_code == 200 and "<form" not in (answer.text or ""):
                answer.failure("a page without its form")

    @task(4)
    def landing(self) -> None:
        self.client.get("/", name="GET /", headers=HEADERS)

    @task(2)
    def slow_page(self) -> None:
        self.client.get("/api/slow?ms=120", name="GET slow", headers=HEADERS)

    @task(1)
    def stream(self) -> None:
        headers = HEADERS | {"Accept": "text/event-stream"}
        with self.client.get("/api/clock?ticks=2", name="GET stream", headers=headers, catch_response=True) as answer:
            if answer.status_code == 200 and (answer.text or "").count("data:") != 2:
                answer.failure("not two events")

    @task(1)
    def lost(self) -> None:
        """A link that leads nowhere."""
        path = "/api/no-such-page"
        with self.client.get(path, name="GET (not there)", headers=HEADERS, catch_response=True) as answer:
            if answer.status_code == 404:
                answer.success()
            else:
                answer.failure(f"status {answer.status_code}, not 404")
