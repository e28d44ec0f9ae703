"""Build: the release image of a pair, in the registry. A rollback builds only what the registry's clean-up took."""

from shipmate.core.ledger import Built, CostSheet, Failed
from shipmate.core.state import Release, State
from shipmate.core.targets import Target
from shipmate.errors import NotFound, Rejected, at_fault
from shipmate.stages.context import Context
from shipmate.stages.graft import ModelFolder, graft
from shipmate.stages.resolve import model_manifest


def build(release: Release, target: Target, state: State, context: Context) -> Built | Failed:
    """Return what the build came to. Raises Rejected if a half cannot be released, Retryable, NotAllowed."""
    if release.is_rollback:
        return _found(release, target, state, context)
    return _built(release, target, state, context)


def _built(release: Release, target: Target, state: State, context: Context) -> Built:
    half = state.model(release.pair.model)
    with at_fault("model"):
        if half is None:
            raise Rejected("Gone", "the ledger forgot where this model is; publish it again")
        manifest = model_manifest(half, target.model, context.models, version=_version(release, state))
    folder = half.path.rpartition("/")[0]
    made = graft(
        context.registry,
        context.models,
        pair=release.pair,
        app_repository=target.app.repository,
        release_repository=target.release.repository,
        model=manifest,
        folder=ModelFolder(half.container, folder),
        known_layers=state.layers,
        progress=context.progress,
    )
    return Built(**context.stamp(), release=release.number, image=made.image, layers=made.layers, cost=made.cost)


def _version(release: Release, state: State) -> str:
    """Return the version by which the pair's image has its model: that of the release that it was built for.

    The bytes of a model that is one file may be published again under another version; the image stays the same.
    """
    mine = [old for old in state.releases if old.pair == release.pair and old.image is not None and not old.is_rollback]
    same = [old for old in mine if old.image == release.image]
    return next((old.model_version for old in (*same, *mine)), release.model_version)


def restore(release: Release, target: Target, state: State, context: Context) -> None:
    """Make sure that a built release's image is still in the registry; build the same bytes again if it is not.

    Called before the gate and the rollout, which may come long after the build: a hold may keep a release for weeks,
    trouble a rollback for days, and the registry's clean-up knows nothing of it. Raises Rejected if a half is gone by
    then, or if this version of Shipmate builds other bytes, Retryable, NotAllowed.
    """
    if release.image is None:
        return
    try:
        context.registry.resolve(target.release.repository, release.image)
    except NotFound:
        made = _built(release, target, state, context)
        if made.image != release.image:
            raise Rejected(
                "ImageGone",
                f"{target.release.repository}@{release.image} is gone from the registry, and what is built of the same "
                "halves now is another image: release the pair by hand, with an override",
            ) from None


def _found(release: Release, target: Target, state: State, context: Context) -> Built | Failed:
    """Return the rollback's image as built: found, or built again to the same digest; Failed if it cannot be."""
    if release.image is None:  # it was asked for, and another rollback missed the image before this one had its turn
        return _lost(release, f"the image of r-{release.to} is lost for good", context)
    try:
        size = context.registry.resolve(target.release.repository, release.image).size
    except NotFound:
        try:
            made = _built(release, target, state, context)
        except Rejected as error:
            return lost(release, target, str(error), context)
        if made.image == release.image:
            return made
        return lost(release, target, "what is built of the same halves now is another image", context)
    return Built(**context.stamp(), release=release.number, image=release.image, cost=CostSheet(reused=size))


def lost(release: Release, target: Target, why: str, context: Context) -> Failed:
    """Return the end of a rollback that touched nothing, as its image is gone for good."""
    gone = f"{target.release.repository}@{release.image} is gone from the registry, and cannot be built again"
    return _lost(release, f"{gone}: {why}", context)


def _lost(release: Release, what: str, context: Context) -> Failed:
    message = f"{what}; roll back to another release"
    return Failed(**context.stamp(), release=release.number, stage="build", reason="ImageGone", message=message)
