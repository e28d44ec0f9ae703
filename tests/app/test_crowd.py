"""A crowd: users are told at once, the pod's probes are answered, and every place is given back."""

import http.client
import io
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import flask.testing
import pytest

from app import places, web
from app.images import MAX_REQUEST_BYTES
from app.lifecycle import Lifecycle
from app.places import REFUSALS, USERS, WAITING, Places
from app.problems import ProblemError
from tests.app.apps import RunningApp, running, tiny_folder
from tests.app.pictures import png

MIB = 1 << 20


@pytest.fixture
def client(lifecycle: Lifecycle) -> flask.testing.FlaskClient:
    return web.create(lifecycle).test_client()


def fill(all_of: Places) -> None:
    for _ in range(USERS):
        all_of.admit()


def test_a_crowd_is_told_to_come_again(
    lifecycle: Lifecycle, client: flask.testing.FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "WAIT_SECONDS", 0.01)
    fill(lifecycle.places)
    for path in ("/score", "/v2/models/tiny/infer", "/nothing", "/livez"):
        refused = client.post(path, data=b"x")
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
        assert refused.json is not None
        assert refused.json["detail"] == "24 requests were worked on here for 0 s. Ask again in a moment."
        assert refused.headers["X-Model-Version"] == "7"
    page = client.post("/try", data={"photo": (io.BytesIO(png(8, 8)), "a.png")})
    assert (page.status_code, page.headers["Retry-After"]) == (503, "2")
    assert "<strong>✗ Too many requests at once.</strong>" in page.text
    for path in ("/livez", "/readyz", "/metrics", "/", "/version", "/try", "/v2/health/ready"):
        assert client.get(path).status_code == 200
    assert 'app_requests_total{method="POST",route="/score",status="503"} 1.0' in client.get("/metrics").text
    lifecycle.places.leave()
    assert client.post("/score", data=b"x").status_code == 415


def test_every_way_to_be_answered_gives_the_place_back(
    lifecycle: Lifecycle, client: flask.testing.FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    json = "application/json"

    def ask() -> Iterator[int]:
        yield client.post("/score", data={"photo": (io.BytesIO(png(8, 8)), "a.png")}).status_code
        yield client.post("/score", data=b"x").status_code
        yield client.post("/score", data=b"x", content_type=json).status_code
        yield client.post("/score", data=b" " * (MAX_REQUEST_BYTES + 1), content_type=json).status_code
        yield client.get("/score").status_code
        yield client.get("/nothing").status_code
        yield client.get("/static/try.js", buffered=True).status_code
        yield client.post("/v2/models/tiny/infer", data=b"{").status_code
        yield client.post("/try", data=b"x").status_code
        gone = client.post("/score", input_stream=io.BytesIO(b"{"), content_length=9, content_type=json)
        yield gone.status_code
        with monkeypatch.context() as broken:
            broken.setattr("app.scoring.score", lambda *_, **__: 1 // 0)
            yield client.post("/score", data=b'{"input": ["AAAA"]}', content_type=json).status_code

    monkeypatch.setattr(places, "WAIT_SECONDS", 0.01)
    client.application.config["PROPAGATE_EXCEPTIONS"] = False
    for _ in range(3):
        assert list(ask()) == [200, 415, 400, 413, 405, 404, 200, 400, 415, 400, 500]
    fill(lifecycle.places)
    with pytest.raises(ProblemError):
        lifecycle.places.admit()


@contextmanager
def slow_senders(app: RunningApp, count: int) -> Iterator[None]:
    """Clients that each owe 99 of 100 bytes."""
    address = urlsplit(app.url)
    head = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    with ExitStack() as sockets:
        for _ in range(count):
            connection = socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=20)
            sockets.enter_context(connection).sendall(head)
        yield


def post(app: RunningApp, path: str, size: int) -> tuple[int, bytes]:
    """Ask as a plain client does: it reads nothing before it has sent all."""
    connection = http.client.HTTPConnection(urlsplit(app.url).netloc, timeout=30)
    connection.request("POST", path, b"A" * size, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    answer = reply.status, reply.read()
    connection.close()
    return answer


@pytest.mark.app
def test_slow_senders_keep_neither_probes_nor_refusals_waiting(tmp_path: Path) -> None:
    with running(tiny_folder(tmp_path)) as app:
        app.wait()
        with slow_senders(app, USERS):
            deadline = time.monotonic() + 30
            while (told := post(app, "/score", 8 * MIB))[0] == 400:  # some are not there yet
                assert time.monotonic() < deadline
            status, answer = told
            assert status == 503
            assert b"24 requests were worked on here for 10 s" in answer
            with slow_senders(app, WAITING + 3 * REFUSALS):
                for path in ("/livez", "/readyz", "/metrics", "/"):
                    assert app.client.get(path, timeout=5).status_code == 200
        deadline = time.monotonic() + 20
        while post(app, "/score", 1)[0] != 400:
            assert time.monotonic() < deadline


@pytest.mark.app
@pytest.mark.parametrize(
    ("path", "size", "status"),
    [("/score", 17 * MIB, 413), ("/score", 40 * MIB, 413), ("/nothing", 8 * MIB, 404), ("/version", 8 * MIB, 405)],
)
def test_a_plain_client_reads_why_it_was_refused(app: RunningApp, path: str, size: int, status: int) -> None:
    assert post(app, path, size)[0] == status
