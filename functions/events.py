"""From what the Functions worker hands to an Event Grid trigger to Shipmate's own raw event."""

from datetime import UTC, datetime

import azure.functions as func

from shipmate.core.events import RawEvent
from shipmate.errors import Invalid


def raw_event(event: func.EventGridEvent | func.CloudEvent) -> RawEvent:
    """Return the event in Shipmate's form.

    A CloudEvent arrives as `CloudEvent` even where the parameter says EventGridEvent, with `type`, `source` and `time`
    in place of `event_type`, `topic` and `event_time`. Raises Invalid if a field that each schema needs is missing.
    """
    if isinstance(event, func.CloudEvent):
        kind, topic, occurred_at = event.type, event.source, event.time
    else:
        kind, topic, occurred_at = event.event_type, event.topic, event.event_time
    fields = {"id": event.id, "type": kind, "topic": topic, "subject": event.subject}
    missing = [name for name, value in fields.items() if not value]
    if missing:
        raise Invalid(f"the event has no {' and no '.join(missing)}: Event Grid always sends it")
    instant: datetime = occurred_at or datetime.now(UTC)
    return RawEvent(
        event.id,
        kind,
        topic,
        event.subject,
        instant if instant.tzinfo else instant.replace(tzinfo=UTC),
        event.get_json(),
    )
