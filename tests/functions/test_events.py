"""From the worker's events to Shipmate's, in both schemas, as the worker decodes them."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import azure.functions as func
import pytest
from azure.functions.eventgrid import EventGridEventInConverter
from azure.functions.meta import Datum

from functions.events import raw_event
from shipmate.core.events import RawEvent
from shipmate.errors import Invalid

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
BODY = {
    "id": "831e1650",
    "eventType": "Microsoft.Storage.BlobCreated",
    "topic": "/subscriptions/0/storageAccounts/x",
    "subject": "/blobServices/default/containers/models/blobs/net/1.0/manifest.json",
    "eventTime": "2026-01-01T12:00:00Z",
    "data": {"api": "PutBlob"},
    "dataVersion": "",
}
CLOUD = {
    "specversion": "1.0",
    "id": "831e1650",
    "type": BODY["eventType"],
    "source": BODY["topic"],
    "subject": BODY["subject"],
    "time": "2026-01-01T12:00:00Z",
    "data": {"api": "PutBlob"},
}
RAW = RawEvent(
    "831e1650",
    "Microsoft.Storage.BlobCreated",
    "/subscriptions/0/storageAccounts/x",
    "/blobServices/default/containers/models/blobs/net/1.0/manifest.json",
    NOON,
    {"api": "PutBlob"},
)


def decoded(body: dict[str, Any], **changes: Any) -> func.EventGridEvent | func.CloudEvent:
    """Return the event as the worker hands it to a trigger."""
    data = Datum(json.dumps(body | changes), "json")
    event: func.EventGridEvent | func.CloudEvent = EventGridEventInConverter.decode(data, trigger_metadata=None)
    return event


def test_event_grids_schema() -> None:
    event = decoded(BODY)
    assert isinstance(event, func.EventGridEvent)
    assert raw_event(event) == RAW


def test_cloud_events() -> None:
    event = decoded(CLOUD)
    assert isinstance(event, func.CloudEvent)
    assert raw_event(event) == RAW


def test_a_registrys_nine_digits_of_a_second_are_cut() -> None:
    found = raw_event(decoded(BODY, eventTime="2026-01-01T12:00:00.123456789Z"))
    assert found.occurred_at == NOON + timedelta(microseconds=123456)


def test_a_time_without_a_zone_is_utc() -> None:
    assert raw_event(decoded(BODY, eventTime="2026-01-01T12:00:00")).occurred_at == NOON


def test_an_event_without_a_time_happened_now() -> None:
    before = datetime.now(UTC)
    assert before <= raw_event(decoded(CLOUD, time=None)).occurred_at <= datetime.now(UTC)


@pytest.mark.parametrize("value", [{"a": 1}, '{"api": "PutBlob"}', None, [1]])
def test_data_come_through_as_they_are(value: Any) -> None:
    assert raw_event(decoded(BODY, data=value)).data == value
    assert raw_event(decoded(CLOUD, data=value)).data == value


@pytest.mark.parametrize(
    ("body", "changes", "words"),
    [
        (BODY, {"id": None}, "the event has no 'id': Event Grid always sends it, as a text that is not empty"),
        (BODY, {"eventType": ""}, "no 'eventType'"),
        (BODY, {"topic": 7}, "no 'topic'"),
        (BODY, {"subject": None}, "no 'subject'"),
        (BODY, {"id": "x" * 257}, "'id' has 257 characters: Event Grid sends at most 256"),
        (BODY, {"topic": "x" * 1025}, "'topic' has 1025 characters: Event Grid sends at most 1024"),
        (BODY, {"subject": "x" * 2049}, "'subject' has 2049 characters: Event Grid sends at most 2048"),
        (CLOUD, {"type": None}, "no 'type'"),
        (CLOUD, {"source": ""}, "no 'source'"),
        (CLOUD, {"subject": None}, "no 'subject'"),
        (CLOUD, {"id": "x" * 257}, "'id' has 257 characters"),
    ],
)
def test_what_is_no_event_is_refused(body: dict[str, Any], changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        raw_event(decoded(body, **changes))
