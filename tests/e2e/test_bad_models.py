"""Halves that cannot be released: each is refused in words that a person reads, and users go on as before."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shipmate.core.refs import Pair
from tests.e2e.models import replace
from tests.e2e.world import Target, eventually


@pytest.fixture(autouse=True)
def _same_release(steady: Target) -> Iterator[None]:
    """Users are answered by the same release before and after, and nothing but it is in the release repository."""
    serving, tags = steady.answered_by(), steady.release_tags()
    assert serving == f"r-{steady.api.get()['serving']['number']}"
    yield
    assert steady.answered_by() == serving
    assert steady.api.get()["serving"]["number"] == int(serving.removeprefix("r-"))
    assert steady.state().active is None
    new = steady.release_tags() - tags
    assert all(_is_of_a_rejected_pair(steady, tag) for tag in new)


def _is_of_a_rejected_pair(target: Target, tag: str) -> bool:
    return any(release.pair.tag == tag and release.phase == "rejected" for release in target.state().releases)


def rejected(target: Target, folder: Path) -> tuple[str, str, Pair]:
    """Publish a folder; return the reason and the message it is rejected with, as the API tells them, and its pair."""
    number = target.next_release()
    target.publish(folder)
    release = target.until(number, "rejected")["release"]
    return release["ended_because"], release["message"], target.state().release(number).pair


def test_a_manifest_that_lists_a_file_that_is_not_there(steady: Target) -> None:
    folder = steady.world.models.derived("missing", lambda out, _: (out / "labels.txt").unlink())
    reason, message, pair = rejected(steady, folder)
    assert reason == "MissingFile"
    assert message == (
        "the manifest lists 'labels.txt', and models/steady-lite/missing/labels.txt is not there: "
        "upload every file first and the manifest last; publish a new version"
    )
    assert pair.tag not in steady.release_tags()
    status = steady.api.get()
    assert status["model_head"] == status["serving"]["model_version"], "a model that cannot be built is withdrawn"
    assert pair.model not in status["quarantined"]


def test_a_file_whose_bytes_are_not_the_listed_ones(steady: Target) -> None:
    def damage(out: Path, manifest: dict[str, Any]) -> None:
        data = bytearray((out / "model.onnx").read_bytes())
        replace(out, manifest, "model.onnx", bytes(data[:-1]) + b"!")
        data[-2] ^= 1
        replace(out, manifest, "model.onnx", bytes(data), listed=False)

    reason, message, pair = rejected(steady, steady.world.models.derived("damaged", damage))
    assert reason == "DigestMismatch"
    assert message.startswith("'model.onnx' has sha256 ")
    assert message.endswith("the upload was damaged or the file was changed; publish a new version")
    assert pair.tag not in steady.release_tags()
    assert eventually(lambda: not steady.upload_sessions(), "no unfinished upload is left in the registry's storage")


@pytest.mark.parametrize(
    ("version", "path", "fault"),
    [
        ("dots", "../../etc/passwd", "which leaves its folder"),
        ("whiteout", "golden/.wh.labels.txt", "begins with .wh., which deletes files in an image"),
        ("absolute", "/etc/passwd", "which is absolute"),
    ],
)
def test_a_name_that_has_no_place_in_a_layer(steady: Target, version: str, path: str, fault: str) -> None:
    number = steady.next_release()

    def list_it(_: Path, manifest: dict[str, Any]) -> None:
        manifest["files"].append({"path": path, "size": 1, "sha256": "0" * 64})

    blob = steady.publish(steady.world.models.derived(version, list_it))
    reason, message = steady.skipped(blob)
    assert reason == "UnsafeFileName"
    assert message.startswith(f"manifest.json lists {path!r}, ")
    assert fault in message
    assert steady.next_release() == number


def test_a_model_that_does_not_load_is_rejected_in_the_words_of_the_app(steady: Target) -> None:
    folder = steady.world.models.derived(
        "garbage", lambda out, manifest: replace(out, manifest, "model.onnx", os.urandom(4096))
    )
    reason, message, pair = rejected(steady, folder)
    assert reason == "CandidateNotReady"
    assert message.startswith("the candidate will not become ready; it says: ")
    assert "model.onnx does not load" in message
    assert pair.model in steady.api.get()["quarantined"]
    eventually(lambda: not steady.gate_pods(), "the gate's pod is gone")


def test_a_model_for_a_contract_that_no_app_speaks_waits(steady: Target) -> None:
    number = steady.next_release()
    steady.publish(steady.world.models.derived("contract-9", lambda _, manifest: manifest.update(contract="9")))
    words = (
        "model contract-9 needs app contract 9, app 8.0.0 speaks 1: "
        "the release waits until a half is published that fits"
    )
    eventually(lambda: steady.api.get()["next"] == words, "the status says what it waits for")
    assert steady.next_release() == number


def test_an_app_image_that_says_no_contract_is_skipped(steady: Target) -> None:
    number, before = steady.next_release(), steady.tag_digest()
    digest = steady.push_changed({"dev.shipmate.contract": None})
    try:
        reason, message = steady.skipped(digest)
        assert reason == "NoContractLabel"
        assert message.endswith('build it with LABEL dev.shipmate.contract="1"')
        assert steady.next_release() == number
    finally:
        steady.tag(before)


def test_a_release_image_pushed_as_an_app_is_skipped(steady: Target) -> None:
    before = steady.tag_digest()
    digest = steady.push_changed({"dev.shipmate.pair": "0" * 64})
    try:
        reason, message = steady.skipped(digest)
        assert reason == "AppIsReleaseImage"
        assert message.endswith("push the app image alone, without a model")
    finally:
        steady.tag(before)
