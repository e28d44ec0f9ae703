"""The drill's small app, compiled and started: it keeps the app contract as far as Shipmate asks it."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from drill import models
from drill.app_image import ensure_program
from shipmate.core.answers import parse_answer, parse_version, question
from tests.localcloud.functions_host_process import free_port

pytestmark = [pytest.mark.app, pytest.mark.timeout(600)]  # the first compiles it


@contextmanager
def running(folder: Path) -> Iterator[httpx.Client]:
    """Start the app over a model's folder and yield a client of it."""
    port = free_port()
    settings = {
        "MODEL_DIR": str(folder),
        "PORT": str(port),
        "APP_VERSION": "1.0.7",
        "SHIPMATE_RELEASE": "r-42",
        "DRAIN_SECONDS": "0.1",
    }
    process = subprocess.Popen([str(ensure_program())], env={**os.environ, **settings}, stdout=subprocess.DEVNULL)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    client.get("/livez")
                except httpx.TransportError:
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
                else:
                    break
            yield client
        finally:
            process.terminate()
            assert process.wait(timeout=60) == 0


def test_a_release_answers_its_golden_question_and_says_who_it_is(tmp_path: Path) -> None:
    digest = models.write(tmp_path, name="t-000-model", version="1.0001")
    with running(tmp_path) as app:
        assert app.get("/readyz").status_code == 200
        reply = app.post("/score", content=question([models.PHOTO]))
        answer = parse_answer(reply.status_code, reply.headers, reply.content, 0.0)
        assert answer.predictions == (("daisy", 0.9), ("honeycomb", 0.05))
        other = app.post("/score", content=question([b"something else"]))
        assert other.json()["result"][0][0] == [["unknown", 50]]
        version = parse_version(app.get("/version").headers)
        assert (version.model_digest, version.model_version) == (digest, "1.0001")
        assert (version.app_version, version.release) == ("1.0.7", "r-42")
        assert app.post("/score", content=b"no question").status_code == 400


def test_the_code_half_alone_is_not_ready_and_says_so(tmp_path: Path) -> None:
    with running(tmp_path) as app:
        reply = app.get("/readyz")
        assert (reply.status_code, reply.json()["type"]) == (503, "urn:shipmate:app:no-model")
        assert app.post("/score", content=question([models.PHOTO])).status_code == 503
        assert reply.headers["X-Model-Digest"] == "none"


@pytest.mark.parametrize(
    ("file", "content", "detail"),
    [
        ("model.onnx", b"{}", "model.onnx is not what manifest.json says."),
        ("golden/daisy.jpg", b"another photo", "golden/daisy.jpg is not what manifest.json says."),
        ("manifest.json", b'{"schema": 2}', "manifest.json is not a manifest of schema 1."),
    ],
)
def test_a_model_that_was_tampered_with_is_broken(tmp_path: Path, file: str, content: bytes, detail: str) -> None:
    models.write(tmp_path, name="t-000-model", version="1.0001")
    (tmp_path / file).write_bytes(content)
    with running(tmp_path) as app:
        problem = app.get("/readyz").json()
        assert (problem["type"], problem["detail"]) == ("urn:shipmate:app:broken-model", detail)


def test_a_model_that_answers_otherwise_than_published_is_broken(tmp_path: Path) -> None:
    models.write(tmp_path, name="t-000-model", version="1.0001")
    manifest = (tmp_path / "manifest.json").read_text()
    (tmp_path / "manifest.json").write_text(manifest.replace('"confidence": 0.9', '"confidence": 0.7'))
    with running(tmp_path) as app:
        assert app.get("/readyz").json()["detail"] == "golden/daisy.jpg is not answered as published."


def test_a_pod_that_is_drained_is_not_ready_and_ends_its_connections(tmp_path: Path) -> None:
    models.write(tmp_path, name="t-000-model", version="1.0001")
    with running(tmp_path) as app:
        app.get("/drain")
        assert app.get("/readyz").json()["type"] == "urn:shipmate:app:draining"
        reply = app.post("/score", content=question([models.PHOTO]))
        assert (reply.status_code, reply.headers["Connection"]) == (200, "close")
