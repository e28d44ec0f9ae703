"""The main job in order, on real pods: publish a model, publish code, roll back, refuse a bad model, resume."""

from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from localcloud.demo.users import Users
from shipmate.core.answers import question
from shipmate.core.ledger import Entry, Received
from tests.e2e.models import FLOWER
from tests.e2e.world import Target

SMALL = 200_000
"""More bytes than a release moves besides its model: a config, a manifest and the model's own small files."""


@pytest.fixture(scope="module")
def asking(vision: Target) -> Iterator[Users]:
    users = Users(vision.url, question([FLOWER]), each_kind=1, pause_seconds=0.2, patience_seconds=30)
    yield users
    seen = users.stop()
    assert seen.failed == 0, f"users lost {seen.failed} of {seen.requests}: {dict(seen.faults)}"
    assert {"r-1", "r-2", "r-3", "r-4", "r-6"} <= set(seen.by_release)
    assert "r-5" not in seen.by_release, "it was rejected"


def expect_answer(target: Target, release: str, *, model: str, app: str, label: str = "daisy") -> None:
    reply = target.ask(FLOWER)
    serving = target.state().serving
    assert serving is not None
    assert serving.name == release
    assert reply.json()["result"][0][0][0][0] == label
    assert {
        name: reply.headers[name] for name in ("X-Release", "X-Model-Version", "X-App-Version", "X-Model-Digest")
    } == {
        "X-Release": release,
        "X-Model-Version": model,
        "X-App-Version": app,
        "X-Model-Digest": serving.pair.model,
    }


def test_the_first_pair_goes_live(vision: Target, app_images: Future[tuple[str, str]], asking: Users) -> None:
    before = vision.api.get()
    assert (before["serving"], before["next"]) == (None, "no app image was published yet")
    vision.push(app_images.result()[0])
    vision.publish(vision.world.models.real("lite0", "1.0"))
    history = vision.until(1, "live")
    intake, *stages = [stage["outcome"] for stage in history["stages"]]
    assert intake in ("received", "repaired")  # the sweep may look between an upload and its event
    assert stages == ["planned", "built", "gated", "rolled_out", "live"]
    received = [entry.event.event_id for entry in vision.entries(Received) if not entry.repaired]
    assert len(received) == 2, "the events of both halves came in"
    assert history["publish_to_live_seconds"] > 0
    assert len(history["report"]["rows"]) == 6
    expect_answer(vision, "r-1", model="1.0", app="8.0.0")
    asking.start()


def test_a_model_publish_goes_live(vision: Target, asking: Users) -> None:
    folder = vision.world.models.real("lite0", "1.1", temperature=0.9)
    vision.publish(folder)
    history = vision.until(2, "live")
    assert history["release"]["reason"] == "model 1.1 was published"
    model_size = (folder / "model.onnx").stat().st_size
    assert model_size < history["cost"]["uploaded"] < model_size + 10 * SMALL
    assert history["report"]["compared_with"] == 1
    expect_answer(vision, "r-2", model="1.1", app="8.0.0")


def test_a_code_publish_uploads_nothing_of_the_model(vision: Target, app_images: Future[tuple[str, str]]) -> None:
    vision.push(app_images.result()[1])
    history = vision.until(3, "live")
    assert history["release"]["reason"] == "app 8.0.1 was published"
    assert history["cost"]["uploaded"] < SMALL
    assert history["cost"]["reused"] > (vision.world.models.real("lite0", "1.1") / "model.onnx").stat().st_size
    expect_answer(vision, "r-3", model="1.1", app="8.0.1")


def test_a_rollback_builds_nothing(vision: Target) -> None:
    answer = vision.api.post("/rollback", {"reason": "the new code rounds wrongly", "author": "bo"}, key="bo-goes-back")
    assert answer["message"] == (
        "rolls back to the pair of r-2 (app 8.0.0, model 1.1) and undoes r-3 (app 8.0.1, model 1.1) without a build, "
        "and holds the target there"
    )
    history = vision.until(4, "live")
    assert history["cost"]["uploaded"] == history["cost"]["mounted"] == 0
    assert "gated" not in [stage["outcome"] for stage in history["stages"]]
    assert history["release"]["image"] == vision.state().release(2).image
    expect_answer(vision, "r-4", model="1.1", app="8.0.0")
    assert vision.api.get()["hold"] == "bo: the new code rounds wrongly"
    assert vision.api.get("/requests/bo-goes-back")["message"] == "r-4 is live"


def test_a_bad_model_is_rejected_with_its_photos(vision: Target) -> None:
    vision.publish(vision.world.models.real("lite1", "1.2"))
    history = vision.until(5, "rejected")
    assert history["release"]["ended_because"] == "GateFailed"
    assert "of 6 golden photos are newly wrong, allowed 0" in history["release"]["message"]
    rows = {row["file"]: row for row in history["report"]["rows"]}
    flower = rows["golden/flower.jpg"]
    assert (flower["change"], flower["expected"]) == ("newly wrong", "daisy")
    assert (flower["live"][0][0], flower["candidate"][0][0]) == ("daisy", "honeycomb")
    assert history["report"]["rows"][0]["change"] == "newly wrong"
    assert vision.state().release(5).pair.model in vision.api.get()["quarantined"]
    expect_answer(vision, "r-4", model="1.1", app="8.0.0")


def test_a_good_model_waits_for_the_hold_and_ships_on_resume(vision: Target, asking: Users) -> None:
    vision.publish(vision.world.models.derived("1.3"))
    vision.until(6, "held")
    assert vision.answered_by() == "r-4"
    assert vision.api.get()["next"] == "r-6 is ready; a hold by bo keeps it: the new code rounds wrongly"
    vision.api.post("/resume", {"reason": "mended", "author": "bo"})
    vision.until(6, "live")
    expect_answer(vision, "r-6", model="1.3", app="8.0.0")
    assert vision.api.get()["hold"] is None


def test_an_earlier_pair_is_released_by_hand(vision: Target, asking: Users) -> None:
    wish = {"release": "r-1", "reason": "the first was the best after all", "author": "bo"}
    before = len(vision.entries(Entry))
    told = vision.api.post("/releases", {**wish, "dry_run": True})
    assert (told["accepted"], told["message"]) == (
        False,
        "would be taken: releases app 8.0.0 with model 1.0",
    )
    assert len(vision.entries(Entry)) == before
    plan = vision.api.get("/plan")
    assert (plan["app"], plan["model"]) == ("8.0.0", "1.3")
    for _ in range(2):  # the second time it is the same wish
        assert vision.api.post("/releases", wish, key="bo-goes-on")["accepted"]
    history = vision.until(7, "live")
    assert history["release"]["reason"] == wish["reason"]
    assert history["cost"]["uploaded"] == 0
    expect_answer(vision, "r-7", model="1.0", app="8.0.0")
    assert vision.state().next_number == 8
