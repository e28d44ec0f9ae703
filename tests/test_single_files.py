"""Models that are one file: the same bytes under another version make the same image all the same."""

from collections.abc import Callable

import msgspec
import pytest

from shipmate.commands import HoldBody, ReleaseBody, ResumeBody, RollbackBody
from shipmate.core.events import ModelPublished, normalise_etag
from shipmate.core.ledger import Phase
from shipmate.core.targets import ModelSource
from tests.situations import clean_up, shipped, users_meet
from tests.world import TARGET, World

BARE = {"version": "1", "labels": None, "input": None, "golden": ()}


def upload(world: World, version: str, weights: bytes) -> ModelPublished:
    """Upload a model's file as a version; return its event."""
    world.answers[version] = ("daisy", 0.9)
    blob = world.models.put("models", f"net/{version}/model.onnx", weights)
    sequencer = f"{len(world.answers):064x}"
    return ModelPublished(
        f"upload-{version}",
        "account",
        "models",
        blob.path,
        normalise_etag(blob.etag),
        sequencer,
        world.clock.now(),
    )


def uploaded_twice() -> World:
    """Return a world in which r-1 has version 1, whose bytes were uploaded as version 2 since, and r-2 newer code."""
    world = World(msgspec.structs.replace(TARGET, model=ModelSource("models", "net", file="model.onnx")))
    world.ship(world.push_app("2.3.0"), upload(world, "1", b"weights"))
    world.ship(upload(world, "2", b"weights"))
    world.ship(world.push_app("2.4.0"))
    return world


def test_a_rollback_builds_the_image_again_although_the_file_has_another_version_by_now() -> None:
    world = uploaded_twice()
    image = clean_up(world, 0)
    world.commands().rollback("vision", "key", "ana", RollbackBody(reason="2.4.0 is worse"))
    world.run()
    assert shipped(world)[-1].endswith("live")
    assert world.state.release(3).image == image
    assert users_meet(world) == ("2.3.0", "1")


def test_a_release_by_hand_of_such_a_pair_makes_the_image_that_it_had() -> None:
    world = uploaded_twice()
    image = clean_up(world, 0)
    for key in ("key-1", "key-2"):
        world.commands().release("vision", key, "ana", ReleaseBody(reason="2.4.0 is slower", release="r-1"))
        world.run()
        assert world.state.releases[-1].image == image
        world.commands().release("vision", f"{key}b", "ana", ReleaseBody(reason="it is not", release="r-2"))
        world.run()


def test_a_held_release_of_a_file_that_was_uploaded_again_is_restored_as_it_was() -> None:
    world = World(msgspec.structs.replace(TARGET, model=ModelSource("models", "net", file="model.onnx")))
    world.ship(world.push_app("2.3.0"), upload(world, "1", b"weights 1"))
    world.commands().hold("vision", "key-1", "ana", HoldBody(reason="a demo is on"))
    world.ship(upload(world, "2", b"weights 2"))
    world.ship(upload(world, "2b", b"weights 2"))
    clean_up(world)
    world.commands().resume("vision", "key-2", "ana", ResumeBody(reason="it is over"))
    world.run()
    assert users_meet(world) == ("2.3.0", "2")
    assert not world.state.quarantine


@pytest.mark.parametrize(
    ("spoil", "phase"),
    [
        (lambda world: None, Phase.LIVE),
        (lambda world: world.models.delete("models", "net/1/manifest.json"), Phase.FAILED),
        (lambda world: world.models.put("models", "net/1/manifest.json", b"{}"), Phase.FAILED),
        (lambda world: world.models.publish("net/1", {"model.onnx": b"others"}, **BARE), Phase.FAILED),
    ],
    ids=["it is there", "it is gone", "it is no manifest", "it is another model"],
)
def test_a_folder_with_no_more_than_a_file_is_read_where_its_version_was_published(
    spoil: Callable[[World], object], phase: Phase
) -> None:
    world = World()
    for version in ("1", "2"):
        world.answers[version] = ("daisy", 0.9)
        world.models.publish(f"net/{version}", {"model.onnx": b"weights"}, **{**BARE, "version": version})
        blob = world.models.properties("models", f"net/{version}/manifest.json")
        event = ModelPublished(version, "account", "models", blob.path, blob.etag, version.zfill(64), world.clock.now())
        world.ship(world.push_app("2.3.0"), event)
    world.ship(world.push_app("2.4.0"))
    clean_up(world, 0)
    spoil(world)
    world.commands().rollback("vision", "key", "ana", RollbackBody(reason="2.4.0 is worse"))
    world.run()
    assert world.state.releases[-1].phase is phase
