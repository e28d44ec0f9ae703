"""Resolve: read what was published, once; from here on everything is by digest. The first half of the stage plan."""

import hashlib
from contextlib import suppress
from datetime import datetime, timedelta

from msgspec.structs import replace

from shipmate.core import intake
from shipmate.core.events import ImagePushed, ModelPublished, normalise_etag
from shipmate.core.ledger import AppHalf, ModelHalf, Resolved, Skipped
from shipmate.core.manifest import ModelManifest, parse_manifest, single_file_manifest
from shipmate.core.refs import Digest, hex_of, parse_digest
from shipmate.core.state import State
from shipmate.core.targets import ModelSource, Target
from shipmate.errors import Conflict, NotFound, Rejected
from shipmate.ports import Blob, Models, Registry
from shipmate.stages.context import Context
from shipmate.stages.graft import resolve_app

LOST_AT_ATTEMPT = 7
"""The attempt, after about a minute, at which what an image lacks counts as lost: a registry's copies take a while."""


def resolve(event: ModelPublished | ImagePushed, target: Target, state: State, context: Context) -> Resolved | Skipped:
    """Return the published half, or why the publication leads to no release. Raises Retryable, NotAllowed."""
    try:
        half = (
            _app(event, target, state, context.registry)
            if isinstance(event, ImagePushed)
            else _model(event, target, context.models)
        )
    except Rejected as error:
        return Skipped(**context.stamp(), event_id=event.event_id, reason=error.reason, message=str(error))
    half = _as_new_as_live(half, state)
    known = state.app(half.digest) or state.model(half.digest)
    if half.digest in state.quarantine:
        message = "the same bytes were quarantined; they ship only when a person releases them by hand with an override"
        news = None if known is not None and _says_nothing_new(half, known, state) else half
        return Skipped(**context.stamp(), event_id=event.event_id, reason="Quarantined", message=message, half=news)
    if known is not None and _says_nothing_new(half, known, state):
        message = f"the same bytes are known as {known.version}"
        return Skipped(**context.stamp(), event_id=event.event_id, reason="Duplicate", message=message)
    return Resolved(**context.stamp(), event_id=event.event_id, half=half)


def written_at(blob: Blob, source: ModelSource) -> datetime:
    """Return when a model's marker was written, of which no event tells: its creation, which no metadata changes.

    A single file may be large, and comes in blocks then: it is created with the first and complete when it is modified.
    """
    return blob.created_at if source.file is None else blob.modified_at


def _says_nothing_new(half: AppHalf | ModelHalf, known: AppHalf | ModelHalf, state: State) -> bool:
    """Whether the same bytes are where they were; a model that moved is read from its new place from here on.

    An older upload of them, told of late, is no move back, and one as old, with another ETag, had its metadata changed.
    """
    if isinstance(half, ModelHalf) and isinstance(known, ModelHalf):
        is_in_place = (half.container, half.path) == (known.container, known.path)
        is_as_it_was = half.etag == known.etag or half.published_at == known.published_at
        return (is_in_place and is_as_it_was) or half.published_at < known.published_at
    return state.apps[-1].digest == half.digest


def _as_new_as_live(half: AppHalf | ModelHalf, state: State) -> AppHalf | ModelHalf:
    """Return a half as it is; a model that is live and was withdrawn, as one that is back since it was live.

    It may be found where it was before it was copied. By that date, what came in between would be newer than it. As old
    as it was, it is in its own place among those of its second.
    """
    live = state.serving
    if not isinstance(half, ModelHalf) or live is None or live.pair.model != half.digest or state.model(half.digest):
        return half
    before = live.halves_at[1]
    if before is None or half.published_at >= before:
        return half
    return replace(half, published_at=before + timedelta(microseconds=1))


def _app(event: ImagePushed, target: Target, state: State, registry: Registry) -> AppHalf:
    try:
        tagged = registry.resolve(event.repository, event.tag).digest
    except NotFound:
        raise Rejected(
            "Gone", f"{event.repository}:{event.tag} is not in the registry any more; push it again"
        ) from None
    if tagged != event.digest:
        raise Rejected("Stale", f"the tag {event.tag} points to a newer image by now")
    incomplete = f"what {event.repository}:{event.tag} points to is not whole"
    try:
        digest, facts = resolve_app(registry, event.repository, tagged, target.platform)
    except NotFound as error:
        mine = [item for item in state.publications if item.event.event_id == event.event_id]
        # where the last attempt met other trouble, the registry may just be back, and its copies are given time
        if any(item.attempt < LOST_AT_ATTEMPT or not (item.message or "").startswith(incomplete) for item in mine):
            raise NotFound(f"{incomplete}: {error}") from error
        raise Rejected("ImageIncomplete", f"{incomplete}: {error}; push it again") from error
    return AppHalf(
        digest=digest,
        pushed=tagged,
        repository=event.repository,
        version=facts.version,
        contract=facts.contract,
        published_at=_pushed_at(event, state),
    )


def _pushed_at(event: ImagePushed, state: State) -> datetime:
    """Return when an app was pushed: as its event says, but after all that the tag pointed to before.

    The tag's moves are the order of apps. An event that comes late, or a clock that is behind, would tell another.
    """
    before = [half.published_at for half in state.apps]
    if state.serving is not None and state.serving.halves_at[0] is not None:
        before.append(state.serving.halves_at[0])
    return max([event.occurred_at, *(instant + timedelta(microseconds=1) for instant in before)])


def _model(event: ModelPublished, target: Target, models: Models) -> ModelHalf:
    try:
        found = models.properties(event.container, event.path)
        if event.etag is not None and event.etag != normalise_etag(found.etag):
            raise Rejected("Stale", f"{event.path} was overwritten since; versions are immutable, publish a new one")
        if target.model.file is not None:
            digest, version = _hashed(event, found.etag, models), intake.version_of(target.model, event.path) or ""
            contract = target.model.contract
        else:
            manifest = parse_manifest(models.read_manifest(event.container, event.path, found.etag))
            digest, version, contract = manifest.digest, manifest.version, manifest.contract
    except (NotFound, Conflict):
        raise Rejected("Gone", f"{event.path} is not there any more; publish the model again") from None
    return ModelHalf(
        digest=digest,
        container=event.container,
        path=event.path,
        version=version,
        contract=contract,
        published_at=found.modified_at if event.sequencer is not None else written_at(found, target.model),
        etag=normalise_etag(found.etag),
    )


def _hashed(event: ModelPublished, etag: str, models: Models) -> Digest:
    """Return the digest of a model that was published as a single file: that of its bytes."""
    sha256 = hashlib.sha256()
    for chunk in models.open(event.container, event.path, etag=etag):
        sha256.update(chunk)
    return parse_digest(f"sha256:{sha256.hexdigest()}")


def model_manifest(
    half: ModelHalf, source: ModelSource, models: Models, *, version: str | None = None
) -> ModelManifest:
    """Return the manifest of a resolved model; a single file gets one made for it, always the same for a version.

    With `version`, that of the same bytes as they were published under it: where a model is no more than one file, they
    may have been published again under another. Raises Rejected if the blob is gone or was overwritten since,
    Retryable, NotAllowed.
    """
    try:
        if source.file is None:
            manifest = parse_manifest(models.read_manifest(half.container, half.path))
            found = manifest.digest
        else:
            size = models.properties(half.container, half.path).size
            sha256 = hex_of(half.digest)
            return single_file_manifest(
                source.name, version or half.version, file=source.file, size=size, sha256=sha256, contract=half.contract
            )
    except NotFound:
        raise Rejected("Gone", f"{half.path} is not there any more; publish the model again") from None
    if found != half.digest:
        raise Rejected("Overwritten", f"{half.path} was overwritten since; versions are immutable, publish a new one")
    if version not in (None, manifest.version):
        with suppress(NotFound, Rejected):
            earlier = parse_manifest(models.read_manifest(half.container, f"{source.name}/{version}/{source.marker}"))
            return earlier if (earlier.digest, earlier.version) == (half.digest, version) else manifest
    return manifest
