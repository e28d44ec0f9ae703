"""What Event Grid tells us, parsed once.

`functions/` hands over a `RawEvent`, whichever schema it came in; `parse_event` makes of it a `ModelPublished`, an
`ImagePushed`, or `Ignored` with a reason. Nothing here knows which targets exist: that is `shipmate.core.intake`.

Sources: Event Grid schema for Blob Storage and for Container Registry (learn.microsoft.com, event-grid/event-schema-*).
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import unquote

import msgspec

from shipmate.core.refs import Digest, parse_digest, parse_repository, parse_tag
from shipmate.errors import Invalid

BLOB_CREATED = "Microsoft.Storage.BlobCreated"
IMAGE_PUSHED = "Microsoft.ContainerRegistry.ImagePushed"

COMPLETE_BLOB_APIS = frozenset({"PutBlob", "PutBlockList", "CopyBlob", "FlushWithClose", "SftpCommit"})
"""The values of `data.api` that say the blob's content is all there."""

_BLOB_SUBJECT = re.compile(r"/blobServices/default/containers/(?P<container>[^/]+)/blobs/(?P<path>.+)")
_CONTAINER = re.compile(r"\$root|(?=.{3,63}$)[a-z0-9](-?[a-z0-9])*")
_SEQUENCER = re.compile(r"[0-9a-fA-F]{1,64}")
_ETAG = re.compile(r"(W/)?\"?[!#-~]{1,128}\"?")  # RFC 9110, section 8.8.3; Event Grid may leave the quotes off

_LONGEST = (256, 256, 1024, 2048)
"""Characters of an event's id, type, topic and subject: a blob's name alone has up to 1,024."""


class RawEvent(msgspec.Struct, frozen=True):
    """One event as delivered: the fields that EventGridSchema and CloudEvents 1.0 share."""

    id: str
    type: str
    topic: str  # the publisher's resource id: `topic` in EventGridSchema, `source` in CloudEvents
    subject: str
    occurred_at: datetime
    data: Any


class ModelPublished(msgspec.Struct, frozen=True, tag="model"):
    """A blob is complete; it may be a model's manifest."""

    event_id: str
    account: str
    container: str
    path: str
    etag: str | None
    sequencer: (
        str | None
    )  # lower case, padded with zeros to 64 digits: compare as text, for one path only; the sweep has none
    occurred_at: datetime


class ImagePushed(msgspec.Struct, frozen=True, tag="app"):
    """A tag was pushed to the registry."""

    event_id: str
    registry: str
    repository: str
    tag: str
    digest: Digest
    occurred_at: datetime


class Ignored(msgspec.Struct, frozen=True, tag="ignored"):
    """A well-formed event that starts nothing, and why."""

    event_id: str
    reason: str
    message: str
    subject: str


type Event = ModelPublished | ImagePushed | Ignored


def delivered(fields: Mapping[str, object], occurred_at: datetime, data: Any) -> RawEvent:
    """Return the event with these fields; raise Invalid if it is no event at all.

    `fields` has id, type, topic and subject, in this order, each by the key that the event's schema has for it.
    """
    texts: list[str] = []
    for (key, value), longest in zip(fields.items(), _LONGEST, strict=True):
        if not isinstance(value, str) or not value:
            raise Invalid(f"the event has no {key!r}: Event Grid always sends it, as a text that is not empty")
        if len(value) > longest:
            raise Invalid(f"the event's {key!r} has {len(value)} characters: Event Grid sends at most {longest}")
        texts.append(value)
    event_id, event_type, topic, subject = texts
    return RawEvent(event_id, event_type, topic, subject, occurred_at, data)


def parse_event(raw: RawEvent) -> Event:
    """Return what the event says, or why it starts nothing. Never raises for a well-formed event."""
    if raw.type not in (BLOB_CREATED, IMAGE_PUSHED):
        message = f"events of type {raw.type[:100]!r} start nothing here: only {BLOB_CREATED} and {IMAGE_PUSHED} do"
        return _ignored(raw, "UnknownEventType", message)
    data = raw.data
    if isinstance(data, str):  # seen in both schemas: the data as a JSON string
        try:
            data = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            return _ignored(raw, "UnreadableData", "the event's data is a string that holds no JSON")
    if not isinstance(data, Mapping):
        return _ignored(raw, "UnreadableData", "the event's data is no JSON object")
    try:
        for text in (raw.id, raw.topic, raw.subject):
            _check_text(text)
        return _model_published(raw, data) if raw.type == BLOB_CREATED else _image_pushed(raw, data)
    except Invalid as error:
        return _ignored(raw, "UnreadableData", str(error))


def _model_published(raw: RawEvent, data: Mapping[str, Any]) -> Event:
    match = _BLOB_SUBJECT.fullmatch(raw.subject)
    if not match or not _CONTAINER.fullmatch(match["container"]):
        raise Invalid(f"the subject {raw.subject[:200]!r} does not name a blob")
    api = data.get("api")
    if not isinstance(api, str) or api not in COMPLETE_BLOB_APIS:
        return _ignored(raw, "BlobNotComplete", f"{str(api)[:50]!r} says that writing began, not that it is done")
    path = match["path"]
    if unquote(path) != path or not {".", ".."}.isdisjoint(path.split("/")):
        raise Invalid(f"the blob's path {path[:200]!r} holds an escape, '.' or '..', which no model folder has")
    sequencer = data.get("sequencer")
    if sequencer is not None and not (isinstance(sequencer, str) and _SEQUENCER.fullmatch(sequencer)):
        raise Invalid("the sequencer is no hexadecimal number")
    etag = data.get("eTag") or None
    if etag is not None and not (isinstance(etag, str) and _ETAG.fullmatch(etag)):
        raise Invalid("the eTag is no entity tag")
    return ModelPublished(
        event_id=raw.id,
        account=raw.topic.rpartition("/")[2],
        container=match["container"],
        path=path,
        etag=normalise_etag(etag) if etag else None,
        sequencer=normalise_sequencer(sequencer) if sequencer else None,
        occurred_at=raw.occurred_at,
    )


def _image_pushed(raw: RawEvent, data: Mapping[str, Any]) -> Event:
    if "/connectedregistries/" in raw.topic.lower():
        return _ignored(raw, "ConnectedRegistry", "a connected registry repeated a push; its parent told us already")
    target = data.get("target")
    if not isinstance(target, Mapping):
        raise Invalid("the push names no target")
    repository, tag, digest = (target.get(key) for key in ("repository", "tag", "digest"))
    if not isinstance(repository, str) or not isinstance(digest, str):
        raise Invalid("the push names no repository and digest")
    if tag is None or tag == "":
        return _ignored(raw, "NoTag", "a manifest without a tag was pushed: a part of an image index, or by digest")
    if not isinstance(tag, str):
        raise Invalid("the push's tag is no text")
    return ImagePushed(
        event_id=raw.id,
        registry=raw.topic.rpartition("/")[2],
        repository=parse_repository(repository),
        tag=parse_tag(tag),
        digest=parse_digest(digest),
        occurred_at=raw.occurred_at,
    )


def normalise_etag(etag: str) -> str:
    """Return an ETag without quotes: Event Grid sends both spellings."""
    return etag.removeprefix("W/").strip('"')


def normalise_sequencer(sequencer: str) -> str:
    """Return a sequencer that compares as text: lower case, padded with zeros (Event Grid sends 32 or 48 digits)."""
    return sequencer.lower().rjust(64, "0")


def _check_text(text: str) -> None:
    """Raise Invalid for a text that JSON can spell and UTF-8 cannot: half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Invalid(f"{text[:60]!r} is no Unicode text") from None


def _ignored(raw: RawEvent, reason: str, message: str) -> Ignored:
    return Ignored(_spelled_out(raw.id), reason, message, _spelled_out(raw.subject[:500]))


def _spelled_out(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
