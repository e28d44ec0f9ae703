"""The handshake by which an endpoint says that it wants the events of a subscription.

Without it anybody could have events sent to anybody. Sources: learn.microsoft.com/azure/event-grid, "webhook event
delivery", and the CloudEvents HTTP webhook specification (abuse protection).
"""

import asyncio
import secrets
import uuid

import httpx

from localcloud.eventgrid.events import now_text
from localcloud.eventgrid.subscriptions import Subscription

ORIGIN = "eventgrid.azure.net"
"""Who asks, in the CloudEvents handshake."""

VALIDATION_EVENT = "Microsoft.EventGrid.SubscriptionValidationEvent"


class NotValidated(Exception):
    """The endpoint did not agree, or not yet; the message says what it answered."""


async def validate(
    client: httpx.AsyncClient,
    subscription: Subscription,
    *,
    topic_id: str,
    code: str,
    validation_url: str,
    timeout_seconds: float,
) -> None:
    """Ask the endpoint of a subscription whether it wants the events. Raises NotValidated."""
    try:
        async with asyncio.timeout(timeout_seconds):
            if subscription.event_delivery_schema == "EventGridSchema":
                await _ask_for_code(client, subscription, topic_id, code, validation_url)
            else:
                await _ask_for_origin(client, subscription)
    except TimeoutError as error:
        raise NotValidated(f"{subscription.endpoint_url} did not answer in {timeout_seconds:g} s") from error
    except httpx.TransportError as error:
        raise NotValidated(f"{subscription.endpoint_url} does not answer: {error or type(error).__name__}") from error


async def _ask_for_code(
    client: httpx.AsyncClient, subscription: Subscription, topic_id: str, code: str, validation_url: str
) -> None:
    event = {
        "id": str(uuid.uuid4()),
        "topic": topic_id,
        "subject": "",
        "data": {"validationCode": code, "validationUrl": validation_url},
        "eventType": VALIDATION_EVENT,
        "eventTime": now_text(),
        "metadataVersion": "1",
        "dataVersion": "2",
    }
    headers = {
        "aeg-event-type": "SubscriptionValidation",
        "aeg-subscription-name": subscription.name.upper(),
        "aeg-delivery-count": "0",
    }
    reply = await client.post(subscription.endpoint_url, json=[event], headers=headers)
    if reply.status_code != 200:
        raise NotValidated(f"the validation event was answered {reply.status_code}; it takes a 200")
    try:
        answer = reply.json()["validationResponse"]
    except (ValueError, KeyError, TypeError):
        answer = None
    if not isinstance(answer, str) or not secrets.compare_digest(answer.encode(), code.encode()):
        raise NotValidated('the validation event was not answered {"validationResponse": its data.validationCode}')


async def _ask_for_origin(client: httpx.AsyncClient, subscription: Subscription) -> None:
    headers = {"WebHook-Request-Origin": ORIGIN, "WebHook-Request-Rate": "120"}
    reply = await client.options(subscription.endpoint_url, headers=headers)
    if reply.status_code != 200:
        raise NotValidated(f"OPTIONS was answered {reply.status_code}; it takes a 200")
    if reply.headers.get("WebHook-Allowed-Origin") not in (ORIGIN, "*"):
        raise NotValidated(f"OPTIONS was not answered with WebHook-Allowed-Origin: {ORIGIN} or *")
