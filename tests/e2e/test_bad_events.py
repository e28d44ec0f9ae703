"""Events that must start nothing, delivered as Event Grid delivers them: each is answered rightly, and on record."""

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from localcloud.eventgrid.subscriptions import ACCESS_KEY, TOPICS
from shipmate.core.ledger import IgnoredEvent, Planned, Received, Skipped
from tests.e2e.world import Target, as_cloud_event, eventually

UNKNOWN_DIGEST = "sha256:" + "5" * 64


@pytest.fixture(autouse=True)
def _no_release(steady: Target) -> Any:
    """Nothing in this module starts a release."""
    before = steady.next_release()
    yield
    assert steady.next_release() == before


@pytest.mark.parametrize("body", [b"", b"no JSON", b'"text"', b"[1]", b"[]", b"{"])
def test_a_body_that_is_no_event_is_refused(steady: Target, body: bytes) -> None:
    reply = steady.world.deliver("model_published", body)
    assert (reply.status_code, reply.text) == (
        400,
        "the body is no event: expected a JSON object or an array of them",
    )


@pytest.mark.parametrize("key", ["wrong", ""])
def test_a_wrong_key_is_refused_and_leaves_no_trace(steady: Target, key: str) -> None:
    event = steady.push_event(UNKNOWN_DIGEST)
    assert steady.world.deliver("image_pushed", [event], key=key).status_code == 401
    assert event["id"] not in steady.state().seen


def test_an_event_for_a_function_that_is_not_there_is_refused(steady: Target) -> None:
    assert steady.world.deliver("model_deleted", [steady.blob_event("x/1/manifest.json")]).status_code == 404


def changed(event: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**event, **fields}


FOREIGN = "/subscriptions/0/resourceGroups/r/providers/Microsoft"

NOT_OURS: dict[str, tuple[str, Callable[[Target], dict[str, Any]], str, str]] = {
    "a type that starts nothing": (
        "model_published",
        lambda t: changed(t.blob_event("steady-lite/1/manifest.json"), eventType="Microsoft.Storage.BlobDeleted"),
        "UnknownEventType",
        "events of type 'Microsoft.Storage.BlobDeleted' start nothing here",
    ),
    "the type without its prefix": (
        "image_pushed",
        lambda t: changed(t.push_event(UNKNOWN_DIGEST), eventType="ImagePushed"),
        "UnknownEventType",
        "only Microsoft.Storage.BlobCreated and Microsoft.ContainerRegistry.ImagePushed do",
    ),
    "another storage account": (
        "model_published",
        lambda t: changed(
            t.blob_event("steady-lite/1/manifest.json"), topic=f"{FOREIGN}.Storage/storageAccounts/theirs"
        ),
        "ForeignAccount",
        "storage account 'theirs' is not ours",
    ),
    "another registry": (
        "image_pushed",
        lambda t: changed(t.push_event(UNKNOWN_DIGEST), topic=f"{FOREIGN}.ContainerRegistry/registries/theirs"),
        "ForeignRegistry",
        "registry 'theirs' is not ours",
    ),
    "a connected registry": (
        "image_pushed",
        lambda t: changed(t.push_event(UNKNOWN_DIGEST), topic=f"{TOPICS['registry']}/connectedRegistries/edge"),
        "ConnectedRegistry",
        "a connected registry repeated a push",
    ),
    "a model of nobody": (
        "model_published",
        lambda t: t.blob_event("other/1/manifest.json"),
        "NoTarget",
        "no target takes its model from there",
    ),
    "a file that completes no model": (
        "model_published",
        lambda t: t.blob_event("steady-lite/9/model.onnx"),
        "NotTheManifest",
        "a model is complete when <name>/<version>/manifest.json is uploaded",
    ),
    "a blob that is only begun": (
        "model_published",
        lambda t: t.blob_event("steady-lite/9/manifest.json", api="CreateFile"),
        "BlobNotComplete",
        "'CreateFile' says that writing began, not that it is done",
    ),
    "a path that leaves its folder": (
        "model_published",
        lambda t: t.blob_event("steady-lite/../vision-lite/manifest.json"),
        "UnreadableData",
        "which no model folder has",
    ),
    "a push to the release repository": (
        "image_pushed",
        lambda t: t.push_event(UNKNOWN_DIGEST, repository="steady"),
        "OwnPush",
        "Shipmate itself pushes release images there",
    ),
    "a tag that nobody follows": (
        "image_pushed",
        lambda t: t.push_event(UNKNOWN_DIGEST, tag="feature-x"),
        "TagNotFollowed",
        "the followed tag is main",
    ),
    "a digest that is none": (
        "image_pushed",
        lambda t: t.push_event("latest"),
        "UnreadableData",
        "'latest' is no digest",
    ),
    "data that is no object": (
        "image_pushed",
        lambda t: changed(t.push_event(UNKNOWN_DIGEST), data=[1, 2]),
        "UnreadableData",
        "the event's data is no JSON object",
    ),
    "data that is a string without JSON": (
        "image_pushed",
        lambda t: changed(t.push_event(UNKNOWN_DIGEST), data="push"),
        "UnreadableData",
        "the event's data is a string that holds no JSON",
    ),
}


@pytest.mark.parametrize("name", NOT_OURS)
@pytest.mark.parametrize("schema", ["EventGridSchema", "CloudEvents"])
def test_an_event_that_is_not_ours_is_acknowledged_and_on_record(steady: Target, name: str, schema: str) -> None:
    function, make, reason, message = NOT_OURS[name]
    event = make(steady)
    body = [event] if schema == "EventGridSchema" else as_cloud_event(event)
    assert steady.world.deliver(function, body).status_code == 202
    found = steady.world.why_ignored(event["id"])
    assert found[0] == reason
    assert message in found[1]


@pytest.mark.parametrize("schema", ["EventGridSchema", "CloudEvents"])
def test_data_may_come_as_a_json_string(steady: Target, schema: str) -> None:
    event = steady.push_event(UNKNOWN_DIGEST, repository="somewhere-else")
    event["data"] = json.dumps(event["data"])
    body = [event] if schema == "EventGridSchema" else as_cloud_event(event)
    assert steady.world.deliver("image_pushed", body).status_code == 202
    assert steady.world.why_ignored(event["id"])[0] == "NoTarget"


def test_an_event_without_a_field_that_every_event_has_is_delivered_again(steady: Target) -> None:
    event = steady.push_event(UNKNOWN_DIGEST)
    del event["subject"]
    assert steady.world.deliver("image_pushed", [event]).status_code == 500


def test_the_relay_brings_what_a_publisher_sends(steady: Target) -> None:
    event = as_cloud_event(steady.push_event(UNKNOWN_DIGEST))
    event["source"] = f"{FOREIGN}.ContainerRegistry/registries/theirs"
    reply = steady.world.http.post(
        f"{steady.world.local.cloud.eventgrid_url}/topics/registry/api/events",
        json=[event],
        headers={"aeg-sas-key": ACCESS_KEY},
    )
    assert reply.status_code == 200, reply.text
    assert steady.world.why_ignored(event["id"]) == ("ForeignRegistry", "registry 'theirs' is not ours")


def test_a_release_image_of_our_own_came_back_as_an_event_and_was_ignored(steady: Target) -> None:
    image = str(steady.state().release(1).image)
    told = [each["event"] for each in steady.world.relay.events()]
    pushes = [event for event in told if event["subject"].startswith("steady:")]
    assert image in json.dumps(pushes)
    assert {steady.world.why_ignored(each["id"])[0] for each in pushes} == {"OwnPush"}


def test_events_that_came_twice_made_one_release(steady: Target) -> None:
    """The first release's events were delivered twice by the relay."""
    ids = [entry.event.event_id for entry in steady.entries(Received) if not entry.repaired]
    assert len(ids) == len(set(ids))
    again = [each for each in steady.world.relay.deliveries() if each["eventId"] in ids and each["fault"]]
    assert {(each["fault"], each["state"]) for each in again} == {("duplicate", "delivered")}
    assert len(again) == 2
    first = [entry for entry in steady.entries(Planned) if entry.release == 1]
    assert len(first) == 1
    assert len({entry.pair for entry in steady.entries(Planned)}) == len(steady.entries(Planned))


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(lambda event: [event], id="in EventGridSchema"),
        pytest.param(lambda event: [changed(event, data=json.dumps(event["data"]))], id="with data as a JSON string"),
        pytest.param(as_cloud_event, id="as a CloudEvent"),
        pytest.param(
            lambda event: as_cloud_event(changed(event, data=json.dumps(event["data"]))),
            id="as a CloudEvent with data as a JSON string",
        ),
    ],
)
def test_the_same_push_told_by_another_event_makes_no_release(steady: Target, told: Callable[[Any], Any]) -> None:
    """Each is taken in, and the image that it tells of is read: only then is it known for the same."""
    event = steady.push_event(steady.tag_digest())
    assert steady.world.deliver("image_pushed", told(event)).status_code == 202
    eventually(lambda: event["id"] in {entry.event_id for entry in _skipped(steady)}, "the event is on record")
    (found,) = [entry for entry in _skipped(steady) if entry.event_id == event["id"]]
    assert (found.reason, found.message) == ("Duplicate", "the same bytes are known as 8.0.0")


def _skipped(target: Target) -> list[Skipped]:
    return target.entries(Skipped)


def test_an_older_event_of_the_same_blob_is_stale(steady: Target) -> None:
    state = steady.state()
    path, known = next((key, value) for key, value in state.sequencers.items() if key.startswith("models/steady-lite/"))
    older = f"{int(known, 16) - 1:048X}"
    event = steady.blob_event(path.removeprefix("models/"), sequencer=older)
    assert steady.world.deliver("model_published", [event]).status_code == 202
    (found,) = [entry.event for entry in steady.entries(IgnoredEvent) if entry.event.event_id == event["id"]]
    assert (found.reason, found.message) == ("Stale", "a newer event of the same blob was taken in before")


def test_a_push_that_the_tag_has_left_is_stale(steady: Target) -> None:
    assert steady.world.deliver("image_pushed", [steady.push_event(UNKNOWN_DIGEST)]).status_code == 202
    assert steady.skipped(UNKNOWN_DIGEST) == ("Stale", "the tag main points to a newer image by now")


def test_a_model_that_is_gone_is_skipped(steady: Target) -> None:
    path = f"steady-lite/{uuid.uuid4().hex}/manifest.json"
    assert steady.world.deliver("model_published", [steady.blob_event(path)]).status_code == 202
    assert steady.skipped(path) == ("Gone", f"{path} is not there any more; publish the model again")
