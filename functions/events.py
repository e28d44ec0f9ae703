"""From what the Functions worker hands to an Event Grid trigger to Shipmate's own raw event."""

from datetime import UTC, datetime

import azure.functions as func

from shipmate.core.events import RawEvent, delivered


def raw_event(event: func.EventGridEvent | func.CloudEvent) -> RawEvent:
    """Return the event in Shipmate's form.

    A CloudEvent arrives as `CloudEvent` even where the parameter says EventGridEvent, with `type`, `source` and `time`
    in place of `event_type`, `topic` and `event_time`. Raises Invalid if a field that each schema needs is missing or
    too long; one without a time, which CloudEvents allows, happened now.
    """
    if isinstance(event, func.CloudEvent):
        fields = {"id": event.id, "type": event.type, "source": event.source, "subject": event.subject}
        occurred_at = event.time
    else:
        fields = {"id": event.id, "eventType": event.event_type, "topic": event.topic, "subject": event.subject}
        occurred_at = event.event_time
    instant: datetime = occurred_at or datetime.now(UTC)
    return delivered(fields, instant if instant.tzinfo else instant.replace(tzinfo=UTC), event.get_json())
