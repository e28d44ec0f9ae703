"""Which targets an event concerns, and whether it is news to them. Called by `shipmate.pipeline.intake`."""

from collections.abc import Sequence

import msgspec

from shipmate.core.events import Event, Ignored, ImagePushed, ModelPublished
from shipmate.core.publications import examined
from shipmate.core.state import State
from shipmate.core.targets import ModelSource, Target


class Sources(msgspec.Struct, frozen=True):
    """Whose events we take: the storage account and the registry, by the last part of their resource ids."""

    account: str
    registry: str


def concerned(
    event: ModelPublished | ImagePushed, targets: Sequence[Target], ours: Sources
) -> tuple[Target, ...] | Ignored:
    """Return the targets that an event concerns, or why it concerns none."""
    if isinstance(event, ModelPublished):
        return _concerned_by_model(event, targets, ours)
    return _concerned_by_image(event, targets, ours)


def _concerned_by_model(
    event: ModelPublished, targets: Sequence[Target], ours: Sources
) -> tuple[Target, ...] | Ignored:
    subject = f"{event.container}/{event.path}"
    if event.account.lower() != ours.account.lower():
        return Ignored(event.event_id, "ForeignAccount", f"storage account {event.account!r} is not ours", subject)
    near = [t for t in targets if t.model.container == event.container and event.path.startswith(t.model.name + "/")]
    if not near:
        return Ignored(event.event_id, "NoTarget", "no target takes its model from there", subject)
    found = tuple(target for target in near if version_of(target.model, event.path) is not None)
    if not found:
        marker = near[0].model.marker
        message = f"a model is complete when <name>/<version>/{marker} is uploaded; this is another file"
        return Ignored(event.event_id, "NotTheManifest", message, subject)
    return found


def _concerned_by_image(event: ImagePushed, targets: Sequence[Target], ours: Sources) -> tuple[Target, ...] | Ignored:
    subject = f"{event.repository}:{event.tag}"
    if event.registry.lower() != ours.registry.lower():
        return Ignored(event.event_id, "ForeignRegistry", f"registry {event.registry!r} is not ours", subject)
    if any(target.release.repository == event.repository for target in targets):
        return Ignored(event.event_id, "OwnPush", "Shipmate itself pushes release images there", subject)
    near = [target for target in targets if target.app.repository == event.repository]
    if not near:
        return Ignored(event.event_id, "NoTarget", "no target takes its app from there", subject)
    found = tuple(target for target in near if target.app.tag == event.tag)
    if not found:
        followed = ", ".join(sorted({target.app.tag for target in near}))
        return Ignored(event.event_id, "TagNotFollowed", f"the followed tag is {followed}", subject)
    return found


def version_of(source: ModelSource, path: str) -> str | None:
    """Return the model version that a blob's path publishes, None if it publishes none."""
    parts = path.split("/")
    if len(parts) != 3 or parts[0] != source.name or parts[2] != source.marker or not parts[1]:
        return None
    return parts[1]


def is_duplicate(state: State, event: Event) -> bool:
    """Return whether this very event was taken in before."""
    return event.event_id in state.seen


def stale(state: State, event: ModelPublished | ImagePushed) -> Ignored | None:
    """Return why an event is older than what is known, or None if it is news.

    Sequencers order the events of one blob name and are never compared across names (Event Grid, Blob Storage schema).
    """
    if isinstance(event, ModelPublished) and event.sequencer is not None:
        blob, _ = examined(event)
        known = state.sequencers.get(blob)
        if known is not None and event.sequencer <= known:
            return Ignored(event.event_id, "Stale", "a newer event of the same blob was taken in before", blob)
    return None
