"""Dead letters: events that could not be delivered, written to a blob container as Event Grid writes them.

A blob holds a JSON array of one event in the subscription's schema, with why and how often it failed beside it. Source:
learn.microsoft.com/azure/event-grid/manage-event-delivery and delivery-and-retry.
"""

import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec
from azure.core.exceptions import AzureError, ResourceNotFoundError
from azure.storage.blob import BlobServiceClient

from localcloud.eventgrid.events import in_schema, instant_text
from localcloud.eventgrid.store import Delivery
from localcloud.eventgrid.subscriptions import Subscription


class NoContainer(Exception):
    """The container for dead letters is not there; Event Grid drops the event then."""


class NotWritten(Exception):
    """Storage did not take the dead letter; try again."""


def document_of(delivery: Delivery, subscription: Subscription, reason: str) -> dict[str, Any]:
    """Return a dead letter: the event in the subscription's schema and how its delivery went."""
    about = {
        "deadLetterReason": reason,
        "deliveryAttempts": delivery.attempts,
        "lastDeliveryOutcome": delivery.last_outcome,
        "publishTime": _text(delivery.published_at),
        "lastDeliveryAttemptTime": None if delivery.last_at is None else _text(delivery.last_at),
    }
    if delivery.last_status is not None:
        about["lastHttpStatusCode"] = delivery.last_status
    if subscription.event_delivery_schema == "CloudEventSchemaV1_0":  # attribute names have no capitals there
        about = {key.lower(): value for key, value in about.items()}
    return {**in_schema(delivery.event, subscription.event_delivery_schema), **about}


def blob_name(subscription: Subscription, instant: datetime) -> str:
    """Return a new blob's name: NAME/YEAR/MONTH/DAY/HOUR/id.json, in UTC without leading zeros."""
    utc = instant.astimezone(UTC)
    return f"{subscription.name.upper()}/{utc.year}/{utc.month}/{utc.day}/{utc.hour}/{uuid.uuid4()}.json"


def write(storage: BlobServiceClient, delivery: Delivery, subscription: Subscription, reason: str) -> str:
    """Write a dead letter and return the blob's name. Raises NoContainer and NotWritten."""
    container = subscription.dead_letter_container or ""
    name = blob_name(subscription, datetime.now(UTC))
    body = msgspec.json.encode([document_of(delivery, subscription, reason)])
    try:
        storage.get_blob_client(container, name).upload_blob(body, overwrite=True)
    except ResourceNotFoundError as error:
        raise NoContainer(f"there is no container {container!r}") from error
    except AzureError as error:
        raise NotWritten(f"storage did not take the dead letter: {error}") from error
    return name


def _text(unix_seconds: float) -> str:
    return instant_text(datetime.fromtimestamp(unix_seconds, UTC))
