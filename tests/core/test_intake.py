"""Intake: whom an event concerns, and whether it is news."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from shipmate.core.events import Ignored, ImagePushed, ModelPublished
from shipmate.core.intake import Sources, concerned, is_duplicate, stale, version_of
from shipmate.core.state import State
from shipmate.core.targets import AppSource, DeploymentRef, ModelSource, ReleaseRepository, Target
from tests.fakes.histories import Story, published, pushed

OURS = Sources("account", "registry")


def target(name: str, **changes: Any) -> Target:
    whole = Target(
        name=name,
        app=AppSource("vision-app"),
        model=ModelSource("models", "net"),
        release=ReleaseRepository("vision"),
        deployment=DeploymentRef("vision", name),
        public_url="http://door.test",
    )
    return msgspec.structs.replace(whole, **changes)


TARGETS = [
    target("vision"),
    target("beta", app=AppSource("vision-app", "next")),
    target("onnx", model=ModelSource("models", "single", file="model.onnx"), app=AppSource("other-app")),
]


def model(**changes: Any) -> ModelPublished:
    return msgspec.structs.replace(published("e1", "1.0"), **changes)


def image(**changes: Any) -> ImagePushed:
    return msgspec.structs.replace(pushed("e1", "A1"), **changes)


@pytest.mark.parametrize(
    ("event", "names"),
    [
        pytest.param(model(), ["vision", "beta"], id="a manifest, for two targets"),
        pytest.param(model(account="ACCOUNT"), ["vision", "beta"], id="accounts know no case"),
        pytest.param(model(path="single/2/model.onnx"), ["onnx"], id="a single file"),
        pytest.param(image(), ["vision"], id="a push of the followed tag"),
        pytest.param(image(tag="next"), ["beta"], id="a push of another target's tag"),
        pytest.param(image(registry="Registry"), ["vision"], id="registries know no case"),
        pytest.param(image(repository="other-app"), ["onnx"], id="another app"),
    ],
)
def test_whom_an_event_concerns(event: ModelPublished | ImagePushed, names: list[str]) -> None:
    found = concerned(event, TARGETS, OURS)
    assert not isinstance(found, Ignored)
    assert [each.name for each in found] == names


@pytest.mark.parametrize(
    ("event", "reason", "message", "subject"),
    [
        pytest.param(
            model(account="theirs"),
            "ForeignAccount",
            "storage account 'theirs' is not ours",
            "models/net/1.0/manifest.json",
            id="another account",
        ),
        pytest.param(
            model(container="logs"),
            "NoTarget",
            "no target takes its model from there",
            "logs/net/1.0/manifest.json",
            id="another container",
        ),
        pytest.param(
            model(path="network/1.0/manifest.json"),
            "NoTarget",
            "no target takes its model from there",
            "models/network/1.0/manifest.json",
            id="a name that begins alike",
        ),
        pytest.param(
            model(path="net/1.0/model.onnx"),
            "NotTheManifest",
            "a model is complete when <name>/<version>/manifest.json is uploaded; this is another file",
            "models/net/1.0/model.onnx",
            id="a part of a model",
        ),
        pytest.param(
            model(path="single/1.0/manifest.json"),
            "NotTheManifest",
            "a model is complete when <name>/<version>/model.onnx is uploaded; this is another file",
            "models/single/1.0/manifest.json",
            id="a manifest where a single file counts",
        ),
        pytest.param(
            image(registry="theirs"),
            "ForeignRegistry",
            "registry 'theirs' is not ours",
            "vision-app:main",
            id="another registry",
        ),
        pytest.param(
            image(repository="vision"),
            "OwnPush",
            "Shipmate itself pushes release images there",
            "vision:main",
            id="our own push",
        ),
        pytest.param(
            image(repository="website"),
            "NoTarget",
            "no target takes its app from there",
            "website:main",
            id="another repository",
        ),
        pytest.param(
            image(tag="dev"), "TagNotFollowed", "the followed tag is main, next", "vision-app:dev", id="another tag"
        ),
    ],
)
def test_what_concerns_nobody_says_why(
    event: ModelPublished | ImagePushed, reason: str, message: str, subject: str
) -> None:
    assert concerned(event, TARGETS, OURS) == Ignored("e1", reason, message, subject)


@pytest.mark.parametrize(
    ("path", "version"),
    [
        pytest.param("net/1.0/manifest.json", "1.0", id="a version"),
        pytest.param("net/manifest.json", None, id="no version"),
        pytest.param("net//manifest.json", None, id="an empty version"),
        pytest.param("net/1.0/deep/manifest.json", None, id="deeper"),
        pytest.param("net/1.0/golden/flower.jpg", None, id="a photo"),
        pytest.param("Net/1.0/manifest.json", None, id="names know case"),
    ],
)
def test_which_version_a_blob_publishes(path: str, version: str | None) -> None:
    assert version_of(ModelSource("models", "net"), path) == version


def test_an_event_is_known_by_its_id() -> None:
    state = Story().receive(pushed("e1", "A1")).ignore("e2").state
    assert is_duplicate(state, pushed("e1", "A9"))
    assert is_duplicate(state, published("e2", "M1"))
    assert not is_duplicate(state, pushed("e3", "A1"))


LONG = f"{0xFF:064x}"  # what 32 and 48 digits in any case become


@pytest.mark.parametrize(
    ("event", "is_stale"),
    [
        pytest.param(published("e2", "M1", sequencer=0xFE), True, id="older"),
        pytest.param(published("e2", "M1", sequencer=0xFF), True, id="the same again"),
        pytest.param(published("e2", "M1", sequencer=0x100), False, id="newer"),
        pytest.param(published("e2", "M2", sequencer=0x01), False, id="of another blob"),
        pytest.param(
            msgspec.structs.replace(published("e2", "M1", sequencer=0x01), container="other"),
            False,
            id="of the same path in another container",
        ),
        pytest.param(
            msgspec.structs.replace(published("e2", "M1"), sequencer=None), False, id="found by the sweep, no sequencer"
        ),
        pytest.param(pushed("e2", "A1"), False, id="pushes have no sequencer"),
    ],
)
def test_what_is_stale(event: ModelPublished | ImagePushed, is_stale: bool) -> None:
    state = Story().receive(published("e1", "M1", sequencer=0xFF)).state
    assert state.sequencers == {"models/net/M1/manifest.json": LONG}
    found = stale(state, event)
    if not is_stale:
        assert found is None
    else:
        message = "a newer event of the same blob was taken in before"
        assert found == Ignored("e2", "Stale", message, "models/net/M1/manifest.json")


def test_the_first_event_of_a_blob_is_news() -> None:
    assert stale(State(), published("e1", "M1", datetime(2020, 1, 1, tzinfo=UTC))) is None
