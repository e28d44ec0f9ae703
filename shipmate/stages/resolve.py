"""Resolve: read what was published, once; from here on everything is by digest. The first half of the stage plan."""

from shipmate.core import intake
from shipmate.core.events import ImagePushed, ModelPublished
from shipmate.core.ledger import AppHalf, ModelHalf, Resolved, Skipped, State
from shipmate.core.manifest import parse_manifest
from shipmate.core.targets import Target
from shipmate.errors import Conflict, NotFound, Rejected
from shipmate.ports import Models, Registry
from shipmate.stages.graft import resolve_app
from shipmate.stages.stamp import Stamp


def resolve(
    event: ModelPublished | ImagePushed, target: Target, state: State, registry: Registry, models: Models, stamp: Stamp
) -> Resolved | Skipped:
    """Return the published half, or why the publication leads to no release. Raises Retryable, NotAllowed."""
    try:
        half = _app(event, target, registry) if isinstance(event, ImagePushed) else _model(event, target, models)
    except Rejected as error:
        return Skipped(**stamp(), event_id=event.event_id, reason=error.reason, message=str(error))
    known = state.app(half.digest) or state.model(half.digest)
    if half.digest in state.quarantine:
        message = "the same bytes were quarantined; they ship only when a person releases them by hand with an override"
        return Skipped(**stamp(), event_id=event.event_id, reason="Quarantined", message=message)
    if known is not None and (isinstance(half, ModelHalf) or state.apps[-1].digest == half.digest):
        message = f"the same bytes are known as {known.version}"
        return Skipped(**stamp(), event_id=event.event_id, reason="Duplicate", message=message)
    return Resolved(**stamp(), event_id=event.event_id, half=half)


def _app(event: ImagePushed, target: Target, registry: Registry) -> AppHalf:
    try:
        tagged = registry.resolve(event.repository, event.tag).digest
    except NotFound:
        raise Rejected(
            "Gone", f"{event.repository}:{event.tag} is not in the registry any more; push it again"
        ) from None
    if tagged != event.digest:
        raise Rejected("Stale", f"the tag {event.tag} points to a newer image by now")
    digest, facts = resolve_app(registry, event.repository, tagged, target.platform)
    return AppHalf(
        digest=digest,
        pushed=tagged,
        repository=event.repository,
        version=facts.version,
        contract=facts.contract,
        published_at=event.occurred_at,
    )


def _model(event: ModelPublished, target: Target, models: Models) -> ModelHalf:
    try:
        found = models.properties(event.container, event.path)
        if event.etag is not None and event.etag != found.etag:
            raise Rejected("Stale", f"{event.path} was overwritten since; versions are immutable, publish a new one")
        version = intake.version_of(target.model, event.path) or ""
        data = models.manifest(target.model, version, found.etag)
    except (NotFound, Conflict):
        raise Rejected("Gone", f"{event.path} is not there any more; publish the model again") from None
    manifest = parse_manifest(data)
    return ModelHalf(
        digest=manifest.digest,
        container=event.container,
        path=event.path,
        version=manifest.version,
        contract=manifest.contract,
        published_at=found.modified_at,
        etag=found.etag,
    )
