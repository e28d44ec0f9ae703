"""Event Grid: Microsoft.Storage.BlobCreated. A model was published, perhaps."""

import azure.functions as func

from functions.events import raw_event
from shipmate import wiring
from shipmate.core.events import parse_event

blueprint = func.Blueprint()


@blueprint.function_name("model_published")
@blueprint.event_grid_trigger(arg_name="event")
def model_published(event: func.EventGridEvent) -> None:
    """Take the event in; an error makes Event Grid deliver it again."""
    wiring.pipeline().intake(parse_event(raw_event(event)))
