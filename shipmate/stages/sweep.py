"""Sweep: what is published now, as the events that perhaps nobody told us. Called by `Pipeline.sweep`."""

from shipmate.core.events import ImagePushed, ModelPublished, normalise_etag
from shipmate.core.intake import Sources, version_of
from shipmate.core.publications import LEFT, Age, age
from shipmate.core.state import State
from shipmate.core.targets import Target
from shipmate.errors import NotFound
from shipmate.ports import Blob
from shipmate.stages.context import Context
from shipmate.stages.resolve import written_at


def tag_now(target: Target, state: State, sources: Sources, context: Context) -> ImagePushed | None:
    """Return the push of what the followed tag points to, None if there is none."""
    try:
        digest = context.registry.resolve(target.app.repository, target.app.tag).digest
    except NotFound:
        return None
    # with the ledger's length: a tag that moves to and fro is found again each time
    event_id = f"sweep-{state.length}:{target.app.repository}:{target.app.tag}@{digest}"
    return ImagePushed(event_id, sources.registry, target.app.repository, target.app.tag, digest, context.clock.now())


def newest_model(target: Target, state: State, sources: Sources, context: Context) -> ModelPublished | None:
    """Return the newest model that the ledger does not know, or the newest of all; older ones stay what they were.

    Models are as old as their bytes: a change of a blob's metadata gives it another ETag and date, and publishes
    nothing. Where the live model is lost, it may be where it was before it was copied.
    """
    container, live = target.model.container, state.live_pair
    is_lost = live is not None and state.model(live.model) is None
    until = max((half.published_at for half in state.models), default=None)
    newest: tuple[Age, Blob] | None = None
    unknown: tuple[Age, Blob] | None = None
    try:
        for blob in context.models.list(container, f"{target.model.name}/"):
            if version_of(target.model, blob.path) is None:
                continue
            found = age(written_at(blob, target.model), blob.path), blob
            if newest is None or found[0] > newest[0]:
                newest = found
            looked_at = state.examined.get(f"{container}/{blob.path}")
            is_known = looked_at == normalise_etag(blob.etag)
            is_later = until is None or found[0][0] > until or (is_lost and looked_at == LEFT)
            if is_later and not is_known and (unknown is None or found[0] > unknown[0]):
                unknown = found
    except NotFound:
        return None
    if newest is None:
        return None
    (instant, *_), blob = unknown or newest
    etag = normalise_etag(blob.etag)
    event_id = f"sweep-{state.length}:{container}/{blob.path}@{etag}"
    return ModelPublished(event_id, sources.account, container, blob.path, etag, None, instant)
