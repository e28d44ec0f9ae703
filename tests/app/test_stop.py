"""How the app goes: it drains, and nothing that was asked is lost."""

import http.client
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app import drain, web
from app.lifecycle import Lifecycle
from app.settings import Settings
from tests.app.apps import RunningApp, running, tiny_folder

pytestmark = pytest.mark.app


def test_draining(tmp_path: Path) -> None:
    with running(tiny_folder(tmp_path), DRAIN_SECONDS="0.6") as app:
        app.wait()
        assert "connection" not in app.client.get("/").headers
        held: list[float] = []

        def drain() -> None:
            started = time.monotonic()
            connection = http.client.HTTPConnection(urlsplit(app.url).netloc)
            connection.request("GET", "/drain")
            reply = connection.getresponse()
            assert (reply.status, reply.read(), reply.getheader("Connection")) == (200, b"drained\n", "close")
            connection.close()
            held.append(time.monotonic() - started)

        thread = threading.Thread(target=drain)
        thread.start()
        ready = app.wait(503)
        assert ready.json()["detail"] == "This instance is about to stop and still answers what reaches it."
        assert ready.headers["connection"] == "close"
        for path in ("/", "/nothing", "/livez"):
            connection = http.client.HTTPConnection(urlsplit(app.url).netloc)
            connection.request("GET", path)
            reply = connection.getresponse()
            assert reply.getheader("Connection") == "close"
            reply.read()
            assert connection.sock is None  # the client saw it closed
        thread.join()
        assert held[0] >= 0.6


def test_the_server_really_closes_while_draining(tmp_path: Path) -> None:
    import socket

    with running(tiny_folder(tmp_path), DRAIN_SECONDS="0") as app:
        app.wait()
        app.client.get("/drain")
        address = urlsplit(app.url)
        with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=5) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            received = b""
            while piece := raw.recv(4096):
                received += piece
        assert b"connection: close" in received
        assert received.endswith(b"Healthy")


def test_nobody_drains_a_pod_from_outside(tmp_path: Path) -> None:
    client = web.create(Lifecycle(Settings(model_dir=tmp_path))).test_client()
    refused = client.get("/drain", environ_base={"REMOTE_ADDR": "10.1.2.3"})
    assert refused.status_code == 403
    assert refused.json is not None
    assert refused.json["detail"] == "Only this pod's own preStop hook may drain it."


def test_the_hook_drains_the_app_of_its_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # of the pod; nobody answers there
    monkeypatch.setenv("no_proxy", "")
    with running(tiny_folder(tmp_path), DRAIN_SECONDS="0") as app:
        app.wait()
        assert drain.main(app.client.base_url.port or 0) == 0
        assert app.client.get("/readyz").status_code == 503
    assert drain.main(1) == 1


@dataclass
class User:
    """Keeps asking until told to stop, or until nobody listens any more; counts what was lost after connecting."""

    netloc: str
    keep_alive: bool
    stop: threading.Event
    answered: int = 0
    lost: list[str] = field(default_factory=list)

    def run(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self.stop.is_set():
            if connection is None or connection.sock is None:
                connection = http.client.HTTPConnection(self.netloc, timeout=30)
                try:
                    connection.connect()
                except OSError:
                    return  # nobody listens: a Service would have sent us to another pod
            try:
                connection.request("GET", "/")
                assert connection.getresponse().read() == b"Healthy"
                self.answered += 1
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(repr(error))
                connection.close()
                connection = None
            if not self.keep_alive and connection is not None:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()


def test_a_drain_goes_on_while_somebody_comes(tmp_path: Path) -> None:
    with running(tiny_folder(tmp_path), DRAIN_SECONDS="0.2", DRAIN_AT_MOST_SECONDS="60") as app:
        app.wait()
        with ThreadPoolExecutor(1) as hook:
            drained = hook.submit(app.client.get, "/drain", timeout=60)
            for _ in range(30):  # somebody whose node has not heard that this pod leaves
                assert http_get(app, "/") == 200
                time.sleep(0.1)
            assert not drained.done()
            assert drained.result().status_code == 200


def http_get(app: RunningApp, path: str) -> int:
    connection = http.client.HTTPConnection(urlsplit(app.url).netloc, timeout=60)
    connection.request("GET", path)
    reply = connection.getresponse()
    reply.read()
    connection.close()
    return reply.status


def test_nothing_is_lost_when_it_drains_and_stops_under_load(tmp_path: Path) -> None:
    with running(tiny_folder(tmp_path), DRAIN_SECONDS="1", DRAIN_AT_MOST_SECONDS="1") as app:
        app.wait()
        stop = threading.Event()
        # the Service stops sending to a pod that is not ready: here users stop asking when the drain is over; what is
        # being answered when SIGTERM comes is the next test
        users = [User(urlsplit(app.url).netloc, keep_alive, stop) for keep_alive in [True] * 8 + [False] * 8]
        threads = [threading.Thread(target=user.run) for user in users]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 60
        while any(user.answered <= 10 for user in users) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert app.client.get("/drain", timeout=60).status_code == 200
        stop.set()
        for thread in threads:
            thread.join(60)
        assert app.stop() == 0
        assert [user.lost for user in users if user.lost] == []
        assert all(user.answered > 10 for user in users)


def test_sigterm_waits_for_what_was_asked(tmp_path: Path) -> None:
    """A request that is being answered when SIGTERM comes is answered: here /drain itself, which takes its time."""
    with running(tiny_folder(tmp_path), DRAIN_SECONDS="3") as app:
        app.wait()
        asked = threading.Semaphore(0)
        replies: list[tuple[int, bytes]] = []

        def ask() -> None:
            connection = http.client.HTTPConnection(urlsplit(app.url).netloc, timeout=60)
            connection.request("GET", "/drain")
            asked.release()
            reply = connection.getresponse()
            replies.append((reply.status, reply.read()))
            connection.close()

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        assert all(asked.acquire(timeout=30) for _ in threads)
        app.wait(503)
        time.sleep(0.5)  # the app has read what came in
        assert app.stop() == 0
        for thread in threads:
            thread.join(60)
        assert replies == [(200, b"drained\n")] * 8
