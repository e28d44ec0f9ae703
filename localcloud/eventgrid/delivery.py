"""Delivering events to webhooks: one attempt, what its answer means, when to try again, when to give up.

Pure but for `attempt`. Source: learn.microsoft.com/azure/event-grid/delivery-and-retry.
"""

import asyncio
import time
from collections.abc import Mapping
from http import HTTPStatus

import httpx
import msgspec

from localcloud.eventgrid.events import in_schema
from localcloud.eventgrid.store import Attempt, Delivery
from localcloud.eventgrid.subscriptions import Subscription

WAITS_SECONDS = (10, 30, 60, 300, 600, 1800, 3600, 10800, 21600, 43200)
"""How long after the first, second, … failed attempt the next follows; the last holds for all later ones."""

SUCCESS = range(200, 205)

NOT_RETRIED = frozenset({400, 401, 403, 413})
"""Statuses by which an endpoint says that trying again is of no use."""

CONTENT_TYPES: Mapping[str, str] = {
    "EventGridSchema": "application/json; charset=utf-8",
    "CloudEventSchemaV1_0": "application/cloudevents+json; charset=utf-8",
}

_OUTCOMES = {408: "TimedOut", 413: "RequestEntityTooLarge", 503: "Busy"}


def outcome_of(status: int) -> str:
    """Return Event Grid's word for an answer: Delivered, NotFound, Busy and so on."""
    if status in SUCCESS:
        return "Delivered"
    try:
        return _OUTCOMES.get(status) or HTTPStatus(status).phrase.title().replace(" ", "").replace("-", "")
    except ValueError:
        return f"Http{status}"


def wait_after(attempts: int) -> float:
    """Return the seconds between the attempt with this number (1 is the first) and the next."""
    return WAITS_SECONDS[min(attempts, len(WAITS_SECONDS)) - 1]


def reason_to_give_up(delivery: Delivery, subscription: Subscription, *, now: float, time_scale: float) -> str | None:
    """Return why no further attempt is to be made, in Event Grid's words (`deadLetterReason`), None if one is."""
    if delivery.last_status in NOT_RETRIED:
        return f"UndeliverableDueToHttp{outcome_of(delivery.last_status or 0)}"
    if delivery.attempts >= subscription.retry_policy.max_delivery_attempts:
        return "MaxDeliveryAttemptsExceeded"
    lives_seconds = subscription.retry_policy.event_time_to_live_in_minutes * 60 * time_scale
    if delivery.attempts and now - delivery.published_at > lives_seconds:
        return "TimeToLiveExceeded"
    return None


def headers_of(delivery: Delivery, subscription: Subscription) -> dict[str, str]:
    """Return the headers of a delivery; `aeg-delivery-count` is 0 the first time."""
    return {
        "Content-Type": CONTENT_TYPES[subscription.event_delivery_schema],
        "aeg-event-type": "Notification",
        "aeg-subscription-name": subscription.name.upper(),
        "aeg-delivery-count": str(delivery.attempts),
        "aeg-data-version": delivery.event.data_version,
        "aeg-metadata-version": "1",
    }


def body_of(delivery: Delivery, subscription: Subscription) -> bytes:
    """Return the body of a delivery: an array of one event, or one CloudEvent."""
    document = in_schema(delivery.event, subscription.event_delivery_schema)
    return msgspec.json.encode([document] if subscription.event_delivery_schema == "EventGridSchema" else document)


async def attempt(
    client: httpx.AsyncClient, delivery: Delivery, subscription: Subscription, *, timeout_seconds: float
) -> Attempt:
    """Try to deliver once and return how it went."""
    at, began = time.time(), time.monotonic()
    status: int | None = None
    try:
        async with asyncio.timeout(timeout_seconds):
            reply = await client.post(
                subscription.endpoint_url,
                content=body_of(delivery, subscription),
                headers=headers_of(delivery, subscription),
            )
        status, outcome = reply.status_code, outcome_of(reply.status_code)
    except (TimeoutError, httpx.TimeoutException):
        outcome = "TimedOut"
    except httpx.TransportError:
        outcome = "SocketError"
    seconds = time.monotonic() - began
    return Attempt(count=delivery.attempts, at=at, seconds=seconds, status=status, outcome=outcome)
