"""Image events from the registry's notifications.

Pure. The registry sends an envelope of events (distribution.github.io/distribution/about/notifications); Event Grid's
data has the same shape by descent (learn.microsoft.com/azure/event-grid/event-schema-container-registry).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from localcloud.eventgrid.events import Event, new_event
from localcloud.eventgrid.subscriptions import REGISTRY_TOPIC, TOPICS

IMAGE_PUSHED = "Microsoft.ContainerRegistry.ImagePushed"
IMAGE_DELETED = "Microsoft.ContainerRegistry.ImageDeleted"

_FRACTION = re.compile(r"(\.\d*)?(?=Z|[+-]\d\d:\d\d$)")


class BadEnvelope(Exception):
    """The body is no envelope of notifications."""


def parse_envelope(body: bytes) -> list[Event]:
    """Return the events that the notifications of a request raise. Raises BadEnvelope.

    Only manifests raise events: a pushed one, with its tag or without (the parts of an index), and a deleted one.
    """
    try:
        document = msgspec.json.decode(body)
        notifications = document["events"]
        return [event for each in notifications for event in _events(each)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadEnvelope(f"the body is no envelope of registry notifications: {error!r}") from error


def _events(notification: Mapping[str, Any]) -> Iterator[Event]:
    action, target = notification["action"], notification["target"]
    time = nine_digits(notification["timestamp"])
    data: dict[str, Any] = {"id": notification["id"], "timestamp": time, "action": action}
    if action == "push" and "/manifests/" in target.get("url", ""):
        data["target"] = _kept(target, ("mediaType", "size", "digest", "length", "repository", "tag"))
        event_type, tag = IMAGE_PUSHED, target.get("tag")
    elif action == "delete" and target.get("digest"):
        data["target"] = _kept(target, ("mediaType", "digest", "repository"))
        event_type, tag = IMAGE_DELETED, None
    else:
        return
    data["request"] = _kept(notification.get("request", {}), ("id", "host", "method", "useragent"))
    repository = target["repository"]
    yield new_event(
        event_type=event_type,
        topic=TOPICS[REGISTRY_TOPIC],
        subject=f"{repository}:{tag}" if tag else repository,
        time=time,
        data=data,
        data_version="1.0",
    )


def nine_digits(timestamp: str) -> str:
    """Return a timestamp with nine digits of a fraction, as Azure's registry writes them."""
    return _FRACTION.sub(lambda found: f".{(found[0] or '.')[1:]:0<9.9}", timestamp, count=1)


def _kept(document: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: document[key] for key in keys if document.get(key)}
