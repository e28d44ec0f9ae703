"""What Event Grid says: each way an event may look, and what is made of it."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from azure.eventgrid import SystemEventNames
from hypothesis import given
from hypothesis import strategies as st

from shipmate.core.events import (
    BLOB_CREATED,
    IMAGE_PUSHED,
    Ignored,
    ImagePushed,
    ModelPublished,
    RawEvent,
    delivered,
    normalise_etag,
    normalise_sequencer,
    parse_event,
)
from shipmate.errors import Invalid

STORAGE = "/subscriptions/0/resourceGroups/local/providers/Microsoft.Storage/storageAccounts/devstoreaccount1"
REGISTRY = "/subscriptions/0/resourceGroups/local/providers/Microsoft.ContainerRegistry/registries/local"
DIGEST = "sha256:" + "a" * 64
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def blob_created(**changes: Any) -> dict[str, Any]:
    """Return an event as in the documents (Event Grid schema for Blob Storage), with some keys changed."""
    event = {
        "topic": STORAGE,
        "subject": "/blobServices/default/containers/models/blobs/net/1.0/manifest.json",
        "eventType": "Microsoft.Storage.BlobCreated",
        "id": "831e1650-001e-001b-66ab-eeb76e069631",
        "data": blob_data(),
        "dataVersion": "",
        "metadataVersion": "1",
        "eventTime": "2026-01-01T12:00:00Z",
    }
    return {**event, **changes}


def blob_data(**changes: Any) -> dict[str, Any]:
    data = {
        "api": "PutBlockList",
        "clientRequestId": "6d79dbfb-0e37-4fc4-981f-442c9ca65760",
        "requestId": "831e1650-001e-001b-66ab-eeb76e000000",
        "eTag": "0x8D4BCC2E4835CD0",
        "contentType": "application/json",
        "contentLength": 524288,
        "blobType": "BlockBlob",
        "url": "https://devstoreaccount1.blob.core.windows.net/models/net/1.0/manifest.json",
        "sequencer": "00000000000004420000000000028963",
        "storageDiagnostics": {"batchId": "b68529f3-68cd-4744-baa4-3c0498ec19f0"},
    }
    return {key: value for key, value in {**data, **changes}.items() if value is not ...}


def image_pushed(**changes: Any) -> dict[str, Any]:
    """Return an event as in the documents (Event Grid schema for Container Registry), with some keys changed."""
    event = {
        "id": "831e1650-001e-001b-66ab-eeb76e069632",
        "topic": REGISTRY,
        "subject": "vision-app:main",
        "eventType": "Microsoft.ContainerRegistry.ImagePushed",
        "eventTime": "2026-01-01T12:00:00.123456789Z",
        "data": push_data(),
        "dataVersion": "1.0",
        "metadataVersion": "1",
    }
    return {**event, **changes}


def push_data(**changes: Any) -> dict[str, Any]:
    target = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "size": 524,
        "digest": DIGEST,
        "length": 524,
        "repository": "vision-app",
        "tag": "main",
    }
    return {
        "id": "831e1650-001e-001b-66ab-eeb76e069631",
        "timestamp": "2026-01-01T12:00:00.123456789Z",
        "action": "push",
        "target": {key: value for key, value in {**target, **changes}.items() if value is not ...},
        "request": {"id": "x", "host": "local.azurecr.io", "method": "PUT", "useragent": "buildah"},
    }


def cloud(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event in CloudEvents 1.0."""
    return {
        "specversion": "1.0",
        "id": event["id"],
        "type": event["eventType"],
        "source": event["topic"],
        "subject": event["subject"],
        "time": event["eventTime"],
        "data": event["data"],
    }


def raw(body: dict[str, Any]) -> RawEvent:
    """Return the event as the trigger would hand it over, at noon."""
    keys = ("id", "type", "source", "subject") if "specversion" in body else ("id", "eventType", "topic", "subject")
    return delivered({key: body.get(key) for key in keys}, NOON, body.get("data"))


def parsed(body: Any) -> ModelPublished | ImagePushed | Ignored:
    return parse_event(raw(body))


MODEL = ModelPublished(
    event_id="831e1650-001e-001b-66ab-eeb76e069631",
    account="devstoreaccount1",
    container="models",
    path="net/1.0/manifest.json",
    etag="0x8D4BCC2E4835CD0",
    sequencer="0" * 32 + "00000000000004420000000000028963",
    occurred_at=NOON,
)
IMAGE = ImagePushed(
    event_id="831e1650-001e-001b-66ab-eeb76e069632",
    registry="local",
    repository="vision-app",
    tag="main",
    digest=DIGEST,  # type: ignore[arg-type] # a digest by its looks
    occurred_at=NOON,
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(blob_created(), MODEL, id="a blob, EventGridSchema"),
        pytest.param(cloud(blob_created()), MODEL, id="a blob, CloudEvents"),
        pytest.param(blob_created(data=json.dumps(blob_data())), MODEL, id="a blob, data as a JSON string"),
        pytest.param(blob_created(data=blob_data(eTag='"0x8D4BCC2E4835CD0"')), MODEL, id="a quoted eTag"),
        pytest.param(blob_created(data=blob_data(eTag='W/"0x8D4BCC2E4835CD0"')), MODEL, id="a weak eTag"),
        pytest.param(
            blob_created(data=blob_data(sequencer="0" * 16 + "00000000000004420000000000028963")),
            MODEL,
            id="a sequencer of 48 digits",
        ),
        pytest.param(
            blob_created(data=blob_data(clientRequestId=..., contentLength=0, url="https://elsewhere.test/x")),
            MODEL,
            id="a url that says otherwise is not looked at",
        ),
        pytest.param(blob_created(eventTime="2026-01-01T14:00:00+02:00"), MODEL, id="another time zone"),
        pytest.param(blob_created(eventTime="2026-01-01T12:00:00"), MODEL, id="a time without a zone is UTC"),
        pytest.param(image_pushed(), IMAGE, id="a push, EventGridSchema, nine digits of a second"),
        pytest.param(cloud(image_pushed()), IMAGE, id="a push, CloudEvents"),
        pytest.param(image_pushed(data=json.dumps(push_data())), IMAGE, id="a push, data as a JSON string"),
        pytest.param(cloud(image_pushed(data=json.dumps(push_data()))), IMAGE, id="both at once"),
    ],
)
def test_one_event_in_its_many_forms(body: Any, expected: ModelPublished | ImagePushed) -> None:
    assert parsed(body) == expected


@pytest.mark.parametrize("api", ["CopyBlob", "FlushWithClose", "PutBlob", "PutBlockList", "SftpCommit"])
def test_a_blob_is_complete(api: str) -> None:
    assert isinstance(parsed(blob_created(data=blob_data(api=api))), ModelPublished)


def test_what_is_missing_is_none() -> None:
    event = parsed(blob_created(data=blob_data(eTag=..., sequencer=...)))
    assert isinstance(event, ModelPublished)
    assert (event.etag, event.sequencer) == (None, None)
    empty = parsed(blob_created(data=blob_data(eTag="")))
    assert isinstance(empty, ModelPublished)
    assert empty.etag is None


BLOBS = "/blobServices/default/containers/models/blobs/"


@pytest.mark.parametrize(
    ("body", "reason", "message"),
    [
        pytest.param(
            blob_created(eventType="Microsoft.Storage.BlobDeleted"),
            "UnknownEventType",
            "events of type 'Microsoft.Storage.BlobDeleted' start nothing here",
            id="another type of event",
        ),
        pytest.param(
            image_pushed(eventType="ImagePushed"),
            "UnknownEventType",
            "only Microsoft.Storage.BlobCreated and Microsoft.ContainerRegistry.ImagePushed do",
            id="the type as the documents misprint it",
        ),
        pytest.param(
            blob_created(data=blob_data(api="CreateFile")),
            "BlobNotComplete",
            "'CreateFile' says that writing began, not that it is done",
            id="CreateFile",
        ),
        pytest.param(blob_created(data=blob_data(api="SftpCreate")), "BlobNotComplete", "began", id="SftpCreate"),
        pytest.param(blob_created(data=blob_data(api=["PutBlob"])), "BlobNotComplete", "began", id="an api in a list"),
        pytest.param(blob_created(data=blob_data(api=...)), "BlobNotComplete", "'None' says", id="no api"),
        pytest.param(blob_created(data="{"), "UnreadableData", "holds no JSON", id="data that is no JSON"),
        pytest.param(blob_created(data="[" * 100_000), "UnreadableData", "holds no JSON", id="data nested too deep"),
        pytest.param(blob_created(data='"\ud800"'), "UnreadableData", "holds no JSON", id="data that is no UTF-8"),
        pytest.param(blob_created(data="[]"), "UnreadableData", "is no JSON object", id="data that is a list"),
        pytest.param(blob_created(data=None), "UnreadableData", "is no JSON object", id="no data"),
        pytest.param(
            blob_created(subject="/blobServices/default/containers/models"),
            "UnreadableData",
            "does not name a blob",
            id="a subject without a blob",
        ),
        pytest.param(
            blob_created(subject="/blobServices/default/containers/Mo/blobs/a"),
            "UnreadableData",
            "does not name a blob",
            id="no container's name",
        ),
        pytest.param(
            blob_created(subject=f"{BLOBS}a\nb"), "UnreadableData", "does not name a blob", id="a line end in the path"
        ),
        pytest.param(
            blob_created(subject=f"{BLOBS}net/../secret/manifest.json"),
            "UnreadableData",
            "holds an escape, '.' or '..', which no model folder has",
            id="'..' in the path",
        ),
        pytest.param(blob_created(subject=f"{BLOBS}net/./x"), "UnreadableData", "escape", id="'.' in the path"),
        pytest.param(
            blob_created(subject=f"{BLOBS}net/%2e%2e/x"), "UnreadableData", "escape", id="an escape in the path"
        ),
        pytest.param(
            blob_created(data=blob_data(sequencer="xyz")), "UnreadableData", "no hexadecimal", id="no sequencer"
        ),
        pytest.param(
            blob_created(data=blob_data(sequencer=5)), "UnreadableData", "no hexadecimal", id="a sequencer as a number"
        ),
        pytest.param(
            blob_created(data=blob_data(sequencer="a" * 65)), "UnreadableData", "no hexadecimal", id="65 digits"
        ),
        pytest.param(
            blob_created(data=blob_data(eTag=["x"])), "UnreadableData", "no entity tag", id="an eTag in a list"
        ),
        pytest.param(blob_created(data=blob_data(eTag="a b")), "UnreadableData", "no entity tag", id="no eTag"),
        pytest.param(
            image_pushed(topic=f"{REGISTRY}/connectedRegistries/edge", dataVersion="2.0"),
            "ConnectedRegistry",
            "its parent told us already",
            id="a connected registry",
        ),
        pytest.param(
            image_pushed(data=push_data(tag=...)), "NoTag", "a part of an image index, or by digest", id="no tag"
        ),
        pytest.param(image_pushed(data=push_data(tag="")), "NoTag", "without a tag", id="an empty tag"),
        pytest.param(image_pushed(data=push_data(tag=7)), "UnreadableData", "no text", id="a tag as a number"),
        pytest.param(image_pushed(data=push_data(tag="a/b")), "UnreadableData", "is no tag", id="no tag's name"),
        pytest.param(
            image_pushed(data=push_data(repository="../up")), "UnreadableData", "is no repository name", id="no name"
        ),
        pytest.param(
            image_pushed(data=push_data(digest="sha256:short")), "UnreadableData", "is no digest", id="no digest"
        ),
        pytest.param(
            image_pushed(data=push_data(digest=...)), "UnreadableData", "no repository and digest", id="digest missing"
        ),
        pytest.param(
            image_pushed(data=push_data(repository=None)), "UnreadableData", "no repository and digest", id="nameless"
        ),
        pytest.param(image_pushed(data={"action": "push"}), "UnreadableData", "names no target", id="no target"),
    ],
)
def test_what_starts_nothing_says_why(body: Any, reason: str, message: str) -> None:
    event = parsed(body)
    assert isinstance(event, Ignored)
    assert event.event_id == body["id"]
    assert event.subject == body["subject"]
    assert event.reason == reason
    assert message in event.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param({}, "the event has no 'id': Event Grid always sends it", id="empty"),
        pytest.param({"specversion": "1.0", "id": "x", "type": "y"}, "the event has no 'source'", id="a CloudEvent"),
        pytest.param(blob_created(subject=""), "the event has no 'subject'", id="an empty subject"),
        pytest.param(blob_created(topic=None), "the event has no 'topic'", id="topic null"),
        pytest.param(blob_created(id=7), "the event has no 'id'", id="an id as a number"),
        pytest.param(blob_created(id="x" * 257), "'id' has 257 characters: Event Grid sends at most 256", id="id"),
        pytest.param(blob_created(eventType="x" * 257), "'eventType' has 257 characters", id="a long type"),
        pytest.param(blob_created(topic="x" * 1025), "'topic' has 1025 characters", id="a long topic"),
        pytest.param(blob_created(subject="x" * 2049), "'subject' has 2049 characters", id="a long subject"),
    ],
)
def test_what_is_no_event_at_all_is_refused(body: Any, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        raw(body)


def test_the_longest_event_is_taken() -> None:
    body = blob_created(id="x" * 256, topic=STORAGE.rjust(1024, "/"), subject=f"{BLOBS}{'x' * 1024}".ljust(2048, "x"))
    assert isinstance(parsed(body), ModelPublished)


def test_half_a_surrogate_pair_is_spelled_out_where_the_worker_let_it_through() -> None:
    raw = RawEvent("\ud800", "Microsoft.Storage.BlobCreated", STORAGE, f"{BLOBS}\ud800", NOON, blob_data())
    event = parse_event(raw)
    assert isinstance(event, Ignored)
    assert event.event_id == "\\ud800"
    assert event.subject == f"{BLOBS}\\ud800"
    assert event.message == r"'\ud800' is no Unicode text"


@pytest.mark.parametrize("container", ["abc", "a-b", "models", "a1-b2-c3", "$root", "a" * 63])
def test_container_names(container: str) -> None:
    event = parsed(blob_created(subject=f"/blobServices/default/containers/{container}/blobs/x"))
    assert isinstance(event, ModelPublished)
    assert event.container == container


@pytest.mark.parametrize("container", ["ab", "a--b", "-ab", "ab-", "ABC", "a_b", "a" * 64])
def test_no_container_names(container: str) -> None:
    event = parsed(blob_created(subject=f"/blobServices/default/containers/{container}/blobs/x"))
    assert isinstance(event, Ignored)


def test_sequencers_compare_as_text() -> None:
    short, long = normalise_sequencer("0" * 31 + "F"), normalise_sequencer("0" * 46 + "10")
    assert short < long
    assert normalise_sequencer("ABC") == normalise_sequencer("0abc")


@given(st.integers(0, 16**32 - 1), st.integers(0, 16**48 - 1))
def test_sequencers_compare_as_the_numbers_they_are(small: int, large: int) -> None:
    assert (normalise_sequencer(f"{small:032X}") < normalise_sequencer(f"{large:048x}")) == (small < large)


@pytest.mark.parametrize("etag", ["0x8D", '"0x8D"', 'W/"0x8D"', '"0x8D'])
def test_etags_lose_their_quotes(etag: str) -> None:
    assert normalise_etag(etag) == "0x8D"


# -- any JSON -------------------------------------------------------------------------------------------------------

texts = st.text(st.characters(), max_size=8)  # with halves of surrogate pairs
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def spoilt(event: dict[str, Any], path: list[str], value: Any) -> Any:
    """Return an event with one value replaced, at that path as far as it goes."""
    if not path or not isinstance(event, dict):
        return value
    return {**event, path[0]: spoilt(event.get(path[0], {}), path[1:], value)}


keys = st.sampled_from(
    [
        *([key] for key in blob_created()),
        *(["data", key] for key in blob_data()),
        *(["data", key] for key in push_data()),
        *(["data", "target", key] for key in push_data()["target"]),
        ["specversion"],
    ]
)
likely = st.sampled_from(["PutBlob", "0x1", DIGEST, "a" * 64, "2026-01-01T00:00:00Z", f"{BLOBS}x", "", "%", "{}", "["])


@given(
    st.sampled_from([blob_created(), image_pushed()]),
    st.booleans(),
    st.lists(st.tuples(keys, jsons | likely), max_size=3),
)
def test_no_spoilt_event_raises_anything_but_invalid(
    event: dict[str, Any], in_cloud_events: bool, changes: list[tuple[list[str], Any]]
) -> None:
    if in_cloud_events:
        event = cloud(event)
    for path, value in changes:
        event = spoilt(event, path, value)
    try:
        found = parsed(event)
    except Invalid:
        return
    assert found.event_id
    if not isinstance(found, Ignored):
        str(found).encode()  # can be written to the ledger


@given(st.builds(RawEvent, texts, texts | likely, texts, texts | likely, st.just(NOON), jsons))
def test_no_raw_event_raises(raw: RawEvent) -> None:
    parse_event(raw)


def test_what_starts_a_release_is_called_as_azure_calls_it() -> None:
    assert SystemEventNames.StorageBlobCreatedEventName == BLOB_CREATED
    assert SystemEventNames.ContainerRegistryImagePushedEventName == IMAGE_PUSHED
