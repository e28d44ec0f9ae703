"""Events in the relay's own form, and both of Event Grid's schemas: EventGridSchema and CloudEvents 1.0.

Pure. Sources: learn.microsoft.com/azure/event-grid/event-schema and cloud-event-schema.
"""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

type Schema = Literal["EventGridSchema", "CloudEventSchemaV1_0"]

MAX_EVENT_BYTES = 1024 * 1024
"""An event, and a published array of them, is this large at most."""

_EVENT_GRID_KEYS = frozenset(
    {"id", "topic", "subject", "eventType", "eventTime", "data", "dataVersion", "metadataVersion"}
)
_CLOUD_EVENT_KEYS = frozenset({"id", "source", "type", "time", "subject", "data", "specversion"})


class BadEvent(Exception):
    """What was published is no event that Event Grid would take; the message says why."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event, whichever schema it came in."""

    id: str
    type: str
    topic: str
    """The publisher's resource id: `topic` in EventGridSchema, `source` in CloudEvents."""
    subject: str
    time: str
    """RFC 3339, as the publisher wrote it."""
    data: Any = None
    data_version: str = ""
    extensions: dict[str, Any] = {}
    """What a CloudEvent has besides: datacontenttype, data_base64, extension attributes."""


def now_text() -> str:
    """Return the time as Event Grid writes it: UTC, seven digits of a fraction."""
    return instant_text(datetime.now(UTC))


def instant_text(instant: datetime) -> str:
    """Return a time as Event Grid writes it: UTC, seven digits of a fraction."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "0Z"


def new_event(*, event_type: str, topic: str, subject: str, data: Any, time: str, data_version: str = "") -> Event:
    """Return an event with a new id."""
    return Event(
        id=str(uuid.uuid4()),
        type=event_type,
        topic=topic,
        subject=subject,
        time=time,
        data=data,
        data_version=data_version,
    )


def as_event_grid(event: Event) -> dict[str, Any]:
    """Return an event in EventGridSchema."""
    return {
        "id": event.id,
        "topic": event.topic,
        "subject": event.subject,
        "eventType": event.type,
        "eventTime": event.time,
        "data": event.data,
        "dataVersion": event.data_version,
        "metadataVersion": "1",
    }


def as_cloud_event(event: Event) -> dict[str, Any]:
    """Return an event as a CloudEvent 1.0."""
    document: dict[str, Any] = {
        "id": event.id,
        "source": event.topic,
        "specversion": "1.0",
        "type": event.type,
        "subject": event.subject,
        "time": event.time,
        **event.extensions,
    }
    if "data_base64" not in event.extensions:
        document["data"] = event.data
    return document


def in_schema(event: Event, schema: Schema) -> dict[str, Any]:
    """Return an event in a subscription's schema."""
    return as_event_grid(event) if schema == "EventGridSchema" else as_cloud_event(event)


def parse_published(body: bytes, topic_id: str) -> list[Event]:
    """Return the events of a publish request to the topic with this resource id, in either schema. Raises BadEvent."""
    if len(body) > MAX_EVENT_BYTES:
        raise BadEvent(
            f"the request has {len(body)} bytes, and {MAX_EVENT_BYTES} are allowed: send fewer events at once"
        )
    try:
        document = msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise BadEvent(f"the body is no JSON ({error}): send an array of events") from None
    found = document if isinstance(document, list) else [document]
    if not found:
        raise BadEvent("the array is empty: send at least one event")
    return [_parse(each, number, topic_id) for number, each in enumerate(found)]


def _parse(document: Any, number: int, topic_id: str) -> Event:
    if not isinstance(document, dict):
        raise BadEvent(f"events[{number}] is no JSON object")
    if "specversion" in document:
        return _parse_cloud_event(document, number)
    event_type, event_id, subject, time = (
        _text(document, key, number, "EventGridSchema") for key in ("eventType", "id", "subject", "eventTime")
    )
    _check_time(time, "eventTime", number)
    topic = document.get("topic") or topic_id
    if topic != topic_id:
        raise BadEvent(f"events[{number}].topic must be left out or be this topic's id, {topic_id}")
    unknown = sorted(document.keys() - _EVENT_GRID_KEYS)
    if unknown:
        raise BadEvent(f"events[{number}] has properties that EventGridSchema does not know: {', '.join(unknown)}")
    if "data" not in document or not isinstance(document.get("dataVersion", ""), str):
        raise BadEvent(f"events[{number}] needs data, and dataVersion must be a string")
    return Event(
        id=event_id,
        type=event_type,
        topic=topic,
        subject=subject,
        time=time,
        data=document["data"],
        data_version=document.get("dataVersion", ""),
    )


def _parse_cloud_event(document: Mapping[str, Any], number: int) -> Event:
    if document["specversion"] != "1.0":
        raise BadEvent(f"events[{number}].specversion must be '1.0'")
    event_type, event_id, source = (_text(document, key, number, "CloudEvents 1.0") for key in ("type", "id", "source"))
    subject, time = document.get("subject") or "", document.get("time") or now_text()
    if not isinstance(subject, str) or not isinstance(time, str):
        raise BadEvent(f"events[{number}]: subject and time must be strings")
    _check_time(time, "time", number)
    return Event(
        id=event_id,
        type=event_type,
        topic=source,
        subject=subject,
        time=time,
        data=document.get("data"),
        extensions={key: value for key, value in document.items() if key not in _CLOUD_EVENT_KEYS},
    )


def _text(document: Mapping[str, Any], key: str, number: int, schema: str) -> str:
    value = document.get(key)
    if not isinstance(value, str) or not value:
        raise BadEvent(f"events[{number}] has no {key}: {schema} needs it as a non-empty string")
    return value


def _check_time(text: str, key: str, number: int) -> None:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise BadEvent(f"events[{number}].{key} is no RFC 3339 time: {text[:60]!r}") from None
