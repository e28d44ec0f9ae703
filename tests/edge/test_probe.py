"""The public door, against a server on loopback."""

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from shipmate.core.answers import LONGEST_REPLY, Version
from shipmate.edge.probe import Door
from shipmate.errors import Retryable, Unreachable
from shipmate.ports import Door as DoorPort

PHOTO = b"\x89PNG\r\n"


class App(BaseHTTPRequestHandler):
    """Answers as the scoring application does; each path prefix is a mood."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_POST(self) -> None:
        self.server.connections.add(self.client_address)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        mood = self.path.split("/")[1]
        if mood == "slow":
            time.sleep(3)
        if mood == "flood":
            self.answer(200, b"x" * (LONGEST_REPLY + 1))
        elif mood == "down":
            self.answer(503, json.dumps({"detail": "no model yet"}).encode())
        elif self.headers["Content-Type"] != "application/json":
            self.answer(415, b"")
        else:
            photos = [base64.b64decode(each) for each in json.loads(body)["input"]]
            labels = [[["daisy", 91.25], ["bee", 5.0], ["vase", 0.5]] for photo in photos if photo == PHOTO]
            self.answer(200, json.dumps({"result": [labels, "Computed in 3 ms"]}).encode())

    def do_GET(self) -> None:
        if "drip" in self.path:
            self.send_response(200)
            self.send_header("Content-Length", "600")
            self.end_headers()
            for _ in range(600):
                self.wfile.write(b"x")
                time.sleep(0.05)
            return
        if "flood" in self.path:
            self.answer(200, b"x" * (LONGEST_REPLY + 1))
            return
        self.answer(503 if "down" in self.path else 200, b"starting" if "down" in self.path else b"1.22.0")

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        for name, value in [
            ("X-Model-Digest", "sha256:1"),
            ("X-Model-Version", "1.6"),
            ("X-App-Version", "2.3.0"),
            ("X-Release", "r-4"),
            ("Content-Length", str(len(body))),
        ]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), App)
        self.connections: set[tuple[str, int]] = set()

    def handle_error(self, *_: object) -> None:
        """Say nothing when a client went away before its reply."""


@pytest.fixture
def app() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def url(app: Server) -> str:
    return f"http://127.0.0.1:{app.server_port}"


def test_the_door_tells_who_answered_what_and_how_fast(url: str) -> None:
    door: DoorPort = Door()
    answer = door.ask(url, PHOTO)
    assert answer.predictions == (("daisy", 0.9125), ("bee", 0.05), ("vase", 0.005))
    assert (answer.model_digest, answer.model_version) == ("sha256:1", "1.6")
    assert (answer.app_version, answer.release) == ("2.3.0", "r-4")
    assert answer.seconds > 0
    assert door.version(url) == Version("sha256:1", "1.6", "2.3.0", "r-4")


def test_each_question_comes_on_a_connection_of_its_own(app: Server, url: str) -> None:
    door = Door()
    for _ in range(3):
        door.ask(url, PHOTO)
    assert len(app.connections) == 3


def test_a_door_that_answers_no_is_retried_with_its_words(url: str) -> None:
    with pytest.raises(Retryable, match="/score answered 503: no model yet"):
        Door().ask(f"{url}/down", PHOTO)
    with pytest.raises(Retryable, match="/down/version answered 503: starting"):
        Door().version(f"{url}/down")


def test_a_door_that_does_not_answer_is_retried(url: str) -> None:
    with pytest.raises(Retryable, match=r"/slow/score did not answer within 0\.1 s"):
        Door(timeout_seconds=0.1).ask(f"{url}/slow", PHOTO)


def test_a_door_that_answers_drop_by_drop_is_retried(url: str) -> None:
    began = time.monotonic()
    with pytest.raises(Retryable, match=r"/drip/version did not answer within 0\.3 s"):
        Door(timeout_seconds=0.3).version(f"{url}/drip")
    assert time.monotonic() - began < 10


def test_a_door_that_is_shut_is_retried() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(Unreachable, match=r"/version could not be reached: .*refused"):
            Door().version(f"http://127.0.0.1:{taken.getsockname()[1]}")


def hang_up(server: socket.socket) -> None:
    server.accept()[0].close()


def test_a_door_that_hangs_up_was_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=hang_up, args=(server,), daemon=True).start()
        with pytest.raises(Retryable, match="/version could not be asked: ") as told:
            Door().version(f"http://127.0.0.1:{server.getsockname()[1]}")
    assert not isinstance(told.value, Unreachable)


def test_the_machines_proxy_settings_are_not_for_the_door(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):  # the tests' own have 127.0.0.1 in it
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert Door().version(url).release == "r-4"


def test_a_reply_that_does_not_end_is_not_read_to_its_end(url: str) -> None:
    with pytest.raises(Retryable, match=r"/flood/score has a reply of more than 1 MiB; it should be the app contract"):
        Door().ask(f"{url}/flood", PHOTO)
    with pytest.raises(Retryable, match=r"/flood/version has a reply of more than 1 MiB"):
        Door().version(f"{url}/flood")
