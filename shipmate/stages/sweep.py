"""Sweep: what is published now, as the events that perhaps nobody told us. Called by `Pipeline.sweep`."""

from datetime import datetime

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
    nothing. Where the live model is lost, it may be where it was before it was copied, and back although what came
    after it, and is quarantined, is newer.
    """
    container, live = target.model.container, state.live_pair
    is_lost = live is not None and state.model(live.model) is None
    until = _known_until(state)
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
    if unknown is None and state.examined.get(f"{container}/{blob.path}") == LEFT:
        return None  # known from another place
    etag = normalise_etag(blob.etag)
    event_id = f"sweep-{state.length}:{container}/{blob.path}@{etag}"
    return ModelPublished(event_id, sources.account, container, blob.path, etag, None, instant)


def _known_until(state: State) -> datetime | None:
    """Return when the newest model that is known was published, None if none is.

    Where the live one is lost, what is quarantined, or as old as it, does not keep it from being found.
    """
    live, known = state.serving, state.models
    if live is not None and state.model(live.pair.model) is None:
        at = live.halves_at[1]
        known = tuple(half for half in known if half.digest not in state.quarantine and half.published_at != at)
    return max((half.published_at for half in known), default=None)
