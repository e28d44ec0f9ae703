"""A relay in a process of its own and a webhook that answers as told, for the tests of the Event Grid relay."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from azure.core.credentials import AzureKeyCredential
from azure.eventgrid import EventGridEvent, EventGridPublisherClient

from localcloud.config import Cloud
from localcloud.eventgrid import Relay
from localcloud.eventgrid.client import RelayClient
from localcloud.eventgrid.subscriptions import ACCESS_KEY
from tests.localcloud.functions_host_process import free_port, until

CLOUD = Cloud("test")


@dataclass(frozen=True)
class Received:
    method: str
    headers: dict[str, str]
    body: Any
    at: float

    @property
    def kind(self) -> str | None:
        return self.headers.get("aeg-event-type")

    @property
    def event(self) -> dict[str, Any]:
        """The event of a notification, out of its array in EventGridSchema."""
        event: dict[str, Any] = self.body[0] if isinstance(self.body, list) else self.body
        return event


@dataclass
class Webhook:
    """What answers deliveries: `statuses` one after the other, then `status` for ever."""

    port: int
    status: int = 200
    statuses: list[int] = field(default_factory=list)
    answer_seconds: float = 0
    validates: Callable[[dict[str, Any]], tuple[int, Any]] = lambda data: (
        200,
        {"validationResponse": data["validationCode"]},
    )
    allows: str | None = "eventgrid.azure.net"
    received: list[Received] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?code=secret"

    @property
    def notifications(self) -> list[Received]:
        return [each for each in self.received if each.kind == "Notification"]

    def wait_for(self, count: int) -> list[Received]:
        """Return the notifications when there are so many."""
        until(lambda: len(self.notifications) >= count)
        return self.notifications

    def answer(self, received: Received) -> tuple[int, dict[str, str], Any]:
        self.received.append(received)
        if received.method == "OPTIONS":
            return 200, {} if self.allows is None else {"WebHook-Allowed-Origin": self.allows}, None
        if received.kind == "SubscriptionValidation":
            status, document = self.validates(received.body[0]["data"])
            return status, {}, document
        time.sleep(self.answer_seconds)
        return self.statuses.pop(0) if self.statuses else self.status, {}, None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 100

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a relay that stopped waiting or was killed broke the connection."""


@contextmanager
def webhook(port: int | None = None) -> Iterator[Webhook]:
    hook = Webhook(port or free_port())

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, reply, document = hook.answer(
                Received(self.command, headers, json.loads(raw) if raw else None, time.time())
            )
            body = b"" if document is None else json.dumps(document).encode()
            self.send_response(status)
            for name, value in {**reply, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_OPTIONS = _answer  # noqa: N815 - the names that http.server looks for

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in http.server
            """Be quiet."""

    with _Server(("127.0.0.1", hook.port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield hook
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def running(relay: Relay) -> Iterator[RelayClient]:
    """A relay that runs, by its control client."""
    relay.start()
    try:
        with RelayClient(relay.url) as client:
            yield client
    finally:
        relay.program().stop()


def relay_in(folder: Path, **options: Any) -> Relay:
    """A relay with a folder and port of its own, a hundred times faster than Event Grid."""
    return Relay(CLOUD, folder, free_port(), **{"time_scale": 0.01, **options})


def publisher(relay: Relay, topic: str = "storage", key: str = ACCESS_KEY) -> EventGridPublisherClient:
    """Microsoft's own client for a topic of a relay."""
    return EventGridPublisherClient(f"{relay.url}/topics/{topic}/api/events", AzureKeyCredential(key), retry_total=0)


def something_happened(subject: str = "/s", event_type: str = "Test.Happened", **data: Any) -> EventGridEvent:
    return EventGridEvent(subject=subject, event_type=event_type, data=data, data_version="7")
