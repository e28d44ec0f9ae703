"""The relay's pure rules: filters, the retry schedule, the access log, notifications, dead letters."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from localcloud.eventgrid.azurite_log import Position, parse_line, read_on
from localcloud.eventgrid.dead_letters import blob_name, document_of
from localcloud.eventgrid.delivery import outcome_of, reason_to_give_up, wait_after
from localcloud.eventgrid.events import BadEvent, Event, parse_published
from localcloud.eventgrid.registry_notifications import BadEnvelope, nine_digits, parse_envelope
from localcloud.eventgrid.store import Delivery
from localcloud.eventgrid.subscriptions import AdvancedFilter, Filter, RetryPolicy, Subscription

EVENT = Event(
    id="1",
    type="Microsoft.Storage.BlobCreated",
    topic="/t",
    subject="/blobServices/default/containers/models/blobs/Lite/manifest.json",
    time="2026-01-01T00:00:00Z",
    data={"api": "PutBlob", "size": 3},
)


def subscription(**changes: Any) -> Subscription:
    return Subscription(**{"name": "abc", "topic": "t", "endpoint_url": "http://127.0.0.1/", **changes})


def delivery(**changes: Any) -> Delivery:
    fields = {"number": 1, "event_number": 1, "event": EVENT, "published_at": 1000.0, "subscription": "abc"}
    return Delivery(**{**fields, "due_at": 1000.0, "state": "pending", "fault": None, **changes})


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (Filter(), True),
        (Filter(included_event_types=("microsoft.storage.blobcreated", "x")), True),
        (Filter(included_event_types=("x",)), False),
        (Filter(subject_begins_with="/BLOBservices/default/containers/models/"), True),
        (Filter(subject_begins_with="/BLOBservices/", is_subject_case_sensitive=True), False),
        (Filter(subject_ends_with="MANIFEST.json"), True),
        (Filter(subject_ends_with="manifest.json", is_subject_case_sensitive=True), True),
        (Filter(subject_ends_with=".txt"), False),
    ],
)
def test_filters(given: Filter, wanted: bool) -> None:
    assert given.matches(EVENT) is wanted


@pytest.mark.parametrize(
    ("operator", "key", "values", "wanted"),
    [
        ("StringIn", "data.api", ("CopyBlob", "putblob"), True),
        ("StringIn", "data.api", ("CopyBlob",), False),
        ("StringIn", "data.missing", ("x",), False),
        ("StringIn", "data.api.deeper", ("x",), False),
        ("StringIn", "data.size", ("3",), False),
        ("StringNotIn", "data.api", ("CopyBlob",), True),
        ("StringNotIn", "data.missing", ("CopyBlob",), True),
        ("StringBeginsWith", "data.api", ("put", "copy"), True),
        ("StringEndsWith", "data.api", ("List",), False),
        ("StringContains", "subject", ("/lite/",), True),
    ],
)
def test_advanced_filters(operator: Any, key: str, values: tuple[str, ...], wanted: bool) -> None:
    advanced = AdvancedFilter(operator_type=operator, key=key, values=values)
    assert Filter(advanced_filters=(advanced,)).matches(EVENT) is wanted


def test_the_schedule() -> None:
    waits = [wait_after(attempts) for attempts in range(1, 13)]
    assert waits == [10, 30, 60, 300, 600, 1800, 3600, 10800, 21600, 43200, 43200, 43200]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "Delivered"),
        (204, "Delivered"),
        (404, "NotFound"),
        (408, "TimedOut"),
        (413, "RequestEntityTooLarge"),
        (503, "Busy"),
        (205, "ResetContent"),
        (299, "Http299"),
    ],
)
def test_outcomes(status: int, outcome: str) -> None:
    assert outcome_of(status) == outcome


@pytest.mark.parametrize(
    ("changes", "policy", "now", "reason"),
    [
        ({}, {}, 1e9, None),  # however late: one attempt is always made
        ({"attempts": 1, "last_status": 500}, {}, 1001, None),
        ({"attempts": 1, "last_status": 400}, {}, 1001, "UndeliverableDueToHttpBadRequest"),
        ({"attempts": 30}, {}, 1001, "MaxDeliveryAttemptsExceeded"),
        ({"attempts": 2}, {"max_delivery_attempts": 2}, 1001, "MaxDeliveryAttemptsExceeded"),
        ({"attempts": 2}, {"event_time_to_live_in_minutes": 1}, 1000.5, None),
        ({"attempts": 2}, {"event_time_to_live_in_minutes": 1}, 1000.7, "TimeToLiveExceeded"),
    ],
)
def test_giving_up(changes: dict[str, Any], policy: dict[str, int], now: float, reason: str | None) -> None:
    given = subscription(retry_policy=RetryPolicy(**policy))
    assert reason_to_give_up(delivery(**changes), given, now=now, time_scale=0.01) == reason


def test_a_dead_letter_of_each_schema() -> None:
    failed = delivery(attempts=2, last_status=500, last_outcome="InternalServerError", last_at=1001.5)
    plain = document_of(failed, subscription(), "MaxDeliveryAttemptsExceeded")
    assert plain["eventType"] == EVENT.type
    assert {key: plain[key] for key in plain if key not in {"id", "topic", "subject", "data"}} == {
        "eventType": EVENT.type,
        "eventTime": EVENT.time,
        "dataVersion": "",
        "metadataVersion": "1",
        "deadLetterReason": "MaxDeliveryAttemptsExceeded",
        "deliveryAttempts": 2,
        "lastDeliveryOutcome": "InternalServerError",
        "lastHttpStatusCode": 500,
        "publishTime": "1970-01-01T00:16:40.0000000Z",
        "lastDeliveryAttemptTime": "1970-01-01T00:16:41.5000000Z",
    }
    cloud = document_of(failed, subscription(event_delivery_schema="CloudEventSchemaV1_0"), "TimeToLiveExceeded")
    assert cloud["specversion"] == "1.0"
    assert cloud["deadletterreason"] == "TimeToLiveExceeded"
    name = blob_name(subscription(), datetime(2026, 1, 2, 3, tzinfo=UTC))
    assert name.startswith("ABC/2026/1/2/3/")
    assert name.endswith(".json")


# -- Azurite's access log


@pytest.mark.parametrize(
    ("request_line", "status", "found"),
    [
        ("PUT /devstoreaccount1/mmm/a%20b/%C3%BC%2B%25.txt", 201, ("PutBlob", "mmm", "a b/ü+%.txt")),
        ("PUT /devstoreaccount1/mmm/b?comp=blocklist", 201, ("PutBlockList", "mmm", "b")),
        ("PUT /devstoreaccount1/mmm/b?sv=1&sig=a%2Fb", 201, ("PutBlob", "mmm", "b")),
        ("PUT /devstoreaccount1/mmm/copy", 202, ("CopyBlob", "mmm", "copy")),
        ("DELETE /devstoreaccount1/mmm/b", 202, ("DeleteBlob", "mmm", "b")),
        ("PUT /devstoreaccount1/mmm/b?comp=block&blockid=TURBdw%3D%3D", 201, None),
        ("PUT /devstoreaccount1/mmm/b?comp=appendblock", 201, None),
        ("PUT /devstoreaccount1/mmm/b?comp=metadata", 200, None),
        ("PUT /devstoreaccount1/mmm/b?comp=snapshot", 201, None),
        ("PUT /devstoreaccount1/mmm/b", 409, None),
        ("PUT /devstoreaccount1/mmm/b", 412, None),
        ("PUT /devstoreaccount1/mmm?restype=container", 201, None),
        ("PUT /devstoreaccount1/queue", 201, None),
        ("DELETE /devstoreaccount1/queue/messages/id?popreceipt=x", 204, None),
        ("DELETE /devstoreaccount1/mmm?restype=container", 202, None),
        ("DELETE /devstoreaccount1/mmm/b?snapshot=2026-01-01T00:00:00.0000000Z", 202, None),
        ("HEAD /devstoreaccount1/mmm/b", 200, None),
        ("GET /devstoreaccount1/mmm/b", 200, None),
        ("PUT /another/mmm/b", 201, None),
    ],
)
def test_lines_of_the_access_log(request_line: str, status: int, found: tuple[str, str, str] | None) -> None:
    line = f'127.0.0.1 - - [23/Nov/2026:01:33:45 +0000] "{request_line} HTTP/1.1" {status} -\n'
    parsed = parse_line(line.encode())
    assert (parsed and (parsed.api, parsed.container, parsed.blob)) == found
    if parsed:
        assert parsed.second == datetime(2026, 11, 23, 1, 33, 45, tzinfo=UTC)


def test_other_lines_of_the_access_log() -> None:
    assert parse_line(b"Azurite Blob service is starting at http://127.0.0.1:27000\n") is None
    assert parse_line(b"\xff\xfe\n") is None


def test_the_log_is_read_on_and_from_the_start_when_it_is_another(tmp_path: Path) -> None:
    log = tmp_path / "azurite.log"
    assert read_on(log, Position()) == []
    log.write_bytes(b"one\ntwo\nhal")
    lines = read_on(log, Position())
    assert [line for line, _ in lines] == [b"one\n", b"two\n"]
    behind = lines[-1][1]
    with log.open("ab") as file:
        file.write(b"f\n")
    assert [line for line, _ in read_on(log, behind)] == [b"half\n"]
    log.write_bytes(b"new\n")  # shorter
    assert [line for line, _ in read_on(log, behind)] == [b"new\n"]
    log.write_bytes(b"another log that is longer\n")
    assert [line for line, _ in read_on(log, behind)] == [b"another log that is longer\n"]


# -- the registry's notifications


def notification(action: str, target: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "id": "n-1",
        "timestamp": "2026-11-23T01:02:03.12345Z",
        "action": action,
        "target": {"repository": "vision-app", "digest": "sha256:" + "a" * 64, **target},
        "request": {"id": "r", "addr": "127.0.0.1:1", "host": "127.0.0.1:17010", "method": "PUT", "useragent": "u"},
        "actor": {},
        "source": {"addr": "host:1", "instanceID": "i"},
        **changes,
    }


def envelope(*notifications: Any) -> bytes:
    return json.dumps({"events": list(notifications)}).encode()


def test_a_pushed_tag() -> None:
    manifest = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 5, "length": 5, "tag": "main"}
    body = envelope(notification("push", {**manifest, "url": "http://h/v2/vision-app/manifests/sha256:aa"}))
    (event,) = parse_envelope(body)
    assert event.type == "Microsoft.ContainerRegistry.ImagePushed"
    assert event.topic.endswith("/Microsoft.ContainerRegistry/registries/local")
    assert (event.subject, event.time, event.data_version) == (
        "vision-app:main",
        "2026-11-23T01:02:03.123450000Z",
        "1.0",
    )
    assert event.data == {
        "id": "n-1",
        "timestamp": "2026-11-23T01:02:03.123450000Z",
        "action": "push",
        "target": {**manifest, "digest": "sha256:" + "a" * 64, "repository": "vision-app"},
        "request": {"id": "r", "host": "127.0.0.1:17010", "method": "PUT", "useragent": "u"},
    }


def test_what_else_the_registry_tells() -> None:
    part = notification("push", {"url": "http://h/v2/vision-app/manifests/sha256:bb"})
    blob = notification("push", {"url": "http://h/v2/vision-app/blobs/sha256:cc"})
    mount, pull = (notification(action, {"url": "http://h/v2/a/blobs/sha256:cc"}) for action in ("mount", "pull"))
    deleted = notification("delete", {})
    untagged = notification("delete", {"digest": "", "tag": "main"})
    events = parse_envelope(envelope(part, blob, mount, pull, deleted, untagged))
    assert [(each.type.rpartition(".")[2], each.subject) for each in events] == [
        ("ImagePushed", "vision-app"),
        ("ImageDeleted", "vision-app"),
    ]
    assert "tag" not in events[0].data["target"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"events": 1}', b'{"events": [{}]}', b"\xff"])
def test_no_envelope(body: bytes) -> None:
    with pytest.raises(BadEnvelope, match="the body is no envelope of registry notifications"):
        parse_envelope(body)


@pytest.mark.parametrize(
    ("timestamp", "written"),
    [
        ("2026-11-23T01:02:03Z", "2026-11-23T01:02:03.000000000Z"),
        ("2026-11-23T01:02:03.1Z", "2026-11-23T01:02:03.100000000Z"),
        ("2026-11-23T01:02:03.123456789Z", "2026-11-23T01:02:03.123456789Z"),
        ("2026-11-23T01:02:03.5+01:00", "2026-11-23T01:02:03.500000000+01:00"),
    ],
)
def test_nine_digits(timestamp: str, written: str) -> None:
    assert nine_digits(timestamp) == written


def test_half_a_surrogate_pair_is_no_json() -> None:
    with pytest.raises(BadEvent, match="the body is no JSON"):
        parse_published(b'[{"id": "\\ud800"}]', "/t")
