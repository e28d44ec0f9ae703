"""The fold: from the entries of a ledger to the state of a target.

Only steps that `ledger.STEPS` allows are folded: anything else is an `IllegalStep`, which changes nothing and means a
fault in Shipmate. Written for the pipeline and the ledger store; pure, so that every build folds a ledger alike.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from shipmate.core.events import ImagePushed, ModelPublished
from shipmate.core.gate import WRONG
from shipmate.core.ledger import (
    STEPS,
    AnyEntry,
    AppHalf,
    Built,
    Errored,
    Failed,
    Gated,
    Held,
    HoldSet,
    IgnoredEvent,
    IllegalStep,
    Intended,
    Live,
    ModelHalf,
    Phase,
    Planned,
    Progressed,
    Received,
    Refused,
    Rejected,
    Requested,
    Resolved,
    Resumed,
    RollbackRequested,
    RolledOut,
    Skipped,
    Superseded,
    Waiting,
)
from shipmate.core.publications import LEFT, Age, age, examined, examined_as
from shipmate.core.refs import Digest, Pair
from shipmate.core.state import (
    HALVES_KEPT,
    MEMORY,
    REFUSALS_KEPT,
    RELEASES_KEPT,
    Hold,
    Publication,
    Release,
    Request,
    State,
)


def fold(entries: Iterable[AnyEntry], state: State | None = None) -> State:
    """Return the state after the entries, from an earlier state or from the beginning.

    Raises IllegalStep if an entry does not follow from the state before it.
    """
    state = State() if state is None else state
    for entry in entries:
        state = replace(_FOLD[type(entry)](state, entry), length=state.length + 1)
    return state


# -- what came in --------------------------------------------------------------------------------------------------


def _received(state: State, entry: Received) -> State:
    event = entry.event
    if event.event_id in state.seen:
        raise IllegalStep(f"event {event.event_id} was taken in before")
    sequencers, what = state.sequencers, examined(event)
    if isinstance(event, ModelPublished) and event.sequencer:
        sequencers = _with(sequencers, what[0], event.sequencer, HALVES_KEPT * 4)
    return replace(
        state,
        seen=_remember(state.seen, event.event_id, entry.at),
        sequencers=sequencers,
        examined=_with(state.examined, *what, HALVES_KEPT * 4),
        publications=(*state.publications, Publication(event, entry.at)),
    )


def _ignored(state: State, entry: IgnoredEvent) -> State:
    return replace(state, seen=_remember(state.seen, entry.event.event_id, entry.at))


def _resolved(state: State, entry: Resolved) -> State:
    half = entry.half
    state = _published_anew(_publication_read(state, entry.event_id), half)
    if not _is_head(state, half):
        return state  # an older model that came late: the head stays where it is
    changed_at = None if _is_live_alone(state) else state.halves_changed_at or entry.at
    return replace(state, halves_changed_at=changed_at, halves_settled_at=entry.at, waiting=None)


def _published_anew(state: State, half: AppHalf | ModelHalf) -> State:
    """Return a state that knows a half where, and as of when, it was published last."""
    live = state.live_pair
    if isinstance(half, AppHalf):
        apps = (*(known for known in state.apps if known.digest != half.digest), half)
        return replace(state, apps=_kept(apps, live))
    models = sorted([*(known for known in state.models if known.digest != half.digest), half], key=_published)
    return replace(state, models=_kept(models, live), examined=_moved_on(state, half))


def _moved_on(state: State, half: ModelHalf) -> dict[str, str]:
    """Return what was examined, where a model was before as not looked at: should its new place go, it is found."""
    known = state.model(half.digest)
    if known is None or (known.container, known.path) == (half.container, half.path):
        return state.examined
    before = examined_as(known)
    return {name: LEFT if (name, what) == before else what for name, what in state.examined.items()}


def _kept[Half: (AppHalf, ModelHalf)](halves: Sequence[Half], live: Pair | None) -> tuple[Half, ...]:
    """Return the newest halves, and the live one however old it is: what is newer may need it for a partner."""
    older = [half for half in halves[:-HALVES_KEPT] if live is not None and half.digest in (live.app, live.model)]
    return tuple(older) + tuple(halves[-HALVES_KEPT:])


def _is_live_alone(state: State) -> bool:
    """Whether the newest halves that may ship are the live ones: then there is nothing new to wait for others of."""
    live = state.live_pair
    heads = (state.newest_free(state.apps), state.newest_free(state.models))
    return live is not None and [half.digest for half in heads if half is not None] == [live.app, live.model]


def _is_head(state: State, half: AppHalf | ModelHalf) -> bool:
    """Whether a half is the newest of its kind that may ship."""
    return half == (state.newest_free(state.apps) if isinstance(half, AppHalf) else state.newest_free(state.models))


def _published(half: ModelHalf) -> Age:
    return age(half.published_at, half.path)


def _skipped(state: State, entry: Skipped) -> State:
    left = _publication_read(state, entry.event_id)
    if entry.half is not None:
        return _published_anew(left, entry.half)  # should a person let it ship, it is as new as that
    event = next(item.event for item in state.publications if item.event.event_id == entry.event_id)
    if entry.reason == "Quarantined" and isinstance(event, ImagePushed):
        # written before such an entry said what was published: the tag moved to it all the same
        tagged = tuple(half for half in left.apps if event.digest in (half.pushed, half.digest))
        return replace(left, apps=(*(half for half in left.apps if half not in tagged), *tagged))
    name, what = examined(event)
    if left.examined.get(name) != what:
        return left
    if entry.reason == "Duplicate" and isinstance(event, ModelPublished) and _is_a_second_place(left, name):
        return replace(left, examined={**left.examined, name: LEFT})  # the model was there before, and may be still
    if entry.reason not in ("Stale", "Gone"):
        return left
    # it was not what its name stood for: should it be so later, the sweep finds it as news
    return replace(left, examined={key: value for key, value in left.examined.items() if key != name})


def _is_a_second_place(state: State, name: str) -> bool:
    """Whether known bytes that were told of at a place are read from another one.

    What is looked at while the live model is lost was looked at for that, and need not be again.
    """
    live = state.live_pair
    is_lost = live is not None and state.model(live.model) is None
    return not is_lost and all(examined_as(half)[0] != name for half in state.models)


def _publication_read(state: State, event_id: str) -> State:
    """Return a state in which a publication no longer waits to be read."""
    _expect_publication(state, event_id)
    left = tuple(item for item in state.publications if item.event.event_id != event_id)
    return replace(state, publications=left)


def _expect_publication(state: State, event_id: str | None) -> None:
    if all(item.event.event_id != event_id for item in state.publications):
        raise IllegalStep(f"event {event_id} is not waiting to be resolved")


# -- what people asked for -----------------------------------------------------------------------------------------


def _requested(state: State, entry: Requested) -> State:
    request = Request(entry.request, entry.author, entry.reason, entry.pair, entry.override)
    return replace(_commanded(state, entry), request=request)


def _rollback_requested(state: State, entry: RollbackRequested) -> State:
    release = state.release(entry.to)
    if not release.was_live:
        raise IllegalStep(f"{release.name} was never live: a rollback to it was asked for")
    return replace(_commanded(state, entry), rollback_request=entry)


def _hold_set(state: State, entry: HoldSet) -> State:
    return replace(
        _commanded(state, entry),
        hold=Hold(entry.id, entry.author, entry.reason, entry.at, entry.scope, under=_narrower(state.hold)),
        fence=_next_fence(state, entry.fence),
    )


def _resumed(state: State, entry: Resumed) -> State:
    hold = state.hold
    lifted = hold is not None and hold.id == entry.hold
    return replace(_commanded(state, entry), hold=hold.under if hold is not None and lifted else hold)


def _narrower(hold: Hold | None) -> Hold | None:
    """Return the hold that stays in force under one on everything, None if there is none."""
    return hold if hold is not None and hold.scope != "all" else None


def _commanded(state: State, entry: Requested | RollbackRequested | HoldSet | Resumed) -> State:
    """Remember a command by its idempotency key."""
    return replace(
        state,
        requests=_with(state.requests, entry.request, None, RELEASES_KEPT),
        fingerprints=_with(state.fingerprints, entry.request, entry.fingerprint, RELEASES_KEPT),
    )


def _refused(state: State, entry: Refused) -> State:
    return replace(state, refused=_with(state.refused, f"{entry.author} {entry.command}", entry.at, REFUSALS_KEPT))


# -- what became of it ---------------------------------------------------------------------------------------------


def _planned(state: State, entry: Planned) -> State:
    if state.active is not None:
        raise IllegalStep(f"r-{entry.release} was planned while {state.active.name} is on its way")
    if entry.release != state.next_number:
        raise IllegalStep(f"r-{entry.release} was planned where r-{state.next_number} is next")
    state = met_by_users(state)
    (app_version, app_at), (model_version, model_at) = _last_known(state, entry.pair)
    release = Release(
        number=entry.release,
        pair=entry.pair,
        app_version=app_version,
        model_version=model_version,
        trigger=entry.trigger,
        author=entry.author,
        reason=entry.reason,
        phase=Phase.PLANNED,
        halves_at=(app_at, model_at),
        planned_at=entry.at,
        moved_at=entry.at,
        to=entry.to,
        undoes=entry.undoes,
        blames=entry.blames,
        image=entry.image,
        forgiven=state.release(entry.to).forgiven if entry.to is not None else (),
    )
    releases = _trimmed(
        (*state.releases, release), state, keep={entry.to, entry.undoes, entry.blames, state.rollback_due}
    )
    known = {release.number for release in releases}
    verified = tuple(number for number in state.verified if number in known)
    bad = state.release(entry.undoes) if entry.undoes is not None else None
    is_met = bad is not None and bad.phase in (Phase.FAILED, Phase.SUPERSEDED)  # perhaps, until something is live
    due = entry.undoes if is_met else state.rollback_due
    state = replace(state, releases=releases, verified=verified, rollback_due=due)
    state = _wish_taken_up(state, entry)
    if entry.to is None and entry.blames is None:
        state = replace(state, halves_changed_at=None)
    return _by_worker(state, entry)


def _last_known(state: State, pair: Pair) -> tuple[tuple[str, datetime | None], tuple[str, datetime | None]]:
    """Return of each half of a pair its version and when it was published.

    A half that was withdrawn, and is released all the same, is as new as it was in its last release.
    """
    app, model = state.app(pair.app), state.model(pair.model)
    with_app = next((old for old in reversed(state.releases) if old.pair.app == pair.app), None)
    with_model = next((old for old in reversed(state.releases) if old.pair.model == pair.model), None)
    of_app = (with_app.app_version, with_app.halves_at[0]) if with_app else ("", None)
    of_model = (with_model.model_version, with_model.halves_at[1]) if with_model else ("", None)
    return (
        (app.version, app.published_at) if app else of_app,
        (model.version, model.published_at) if model else of_model,
    )


def _wish_taken_up(state: State, entry: Planned) -> State:
    """Return a state in which the wish behind a release has it, and its override, if any, lifted the quarantine."""
    if entry.request is None:
        return state
    state = replace(state, requests={**state.requests, entry.request: entry.release})
    if state.request is not None and state.request.id == entry.request:
        lifted = entry.pair.names if state.request.override else frozenset[str]()
        state = replace(state, request=None, quarantine=state.quarantine.difference(lifted))
    if state.rollback_request is not None and state.rollback_request.request == entry.request:
        state = replace(state, rollback_request=None)
    return state


def met_by_users(state: State) -> State:
    """Note that the live release brought its halves as they were published last.

    What was published again while it was live has met users: it undoes no release by hand that comes after.
    """
    live = state.serving
    if live is None:
        return state
    app, model, (app_at, model_at) = state.app(live.pair.app), state.model(live.pair.model), live.halves_at
    halves_at = (app.published_at if app else app_at, model.published_at if model else model_at)
    return _changed(state, live.number, halves_at=halves_at)


def _trimmed(releases: tuple[Release, ...], state: State, keep: set[int | None]) -> tuple[Release, ...]:
    kept = {*state.verified[-10:], state.live, *keep}
    recent = releases[-RELEASES_KEPT:]
    return (*(old for old in releases[:-RELEASES_KEPT] if old.number in kept), *recent)


def _waiting(state: State, entry: Waiting) -> State:
    return replace(state, waiting=entry)


def _built(state: State, entry: Built) -> State:
    state = _moved(state, entry, Phase.BUILT, image=entry.image, cost=entry.cost)
    layers = {layer.key: layer for layer in (*state.layers, *entry.layers)}
    return replace(state, layers=tuple(layers.values())[-HALVES_KEPT * 4 :])


def _gated(state: State, entry: Gated) -> State:
    forgiven = tuple(row.file for row in entry.report.rows if row.change in WRONG)
    cleared = state.release(entry.release).blames is not None
    return _moved(state, entry, Phase.CLEARED if cleared else Phase.GATED, forgiven=forgiven)


def _rejected(state: State, entry: Rejected) -> State:
    state = _moved(state, entry, Phase.REJECTED, ended_because=entry.reason, message=entry.message)
    if entry.withdrawn is not None:
        left = _examined_without(state, entry.withdrawn) if entry.reason == "Gone" else state.examined
        state = _half_withdrawn(replace(state, examined=left), entry.withdrawn)
    return _quarantined(state, entry.quarantine)


def _half_withdrawn(state: State, digest: Digest) -> State:
    """Forget a half; if it is live, keep when it was published last, so that nothing older goes in its place."""
    live = state.serving
    if live is not None:
        app_at, model_at = live.halves_at
        app, model = state.app(digest), state.model(digest)
        if app is not None and live.pair.app == digest:
            app_at = app.published_at
        if model is not None and live.pair.model == digest:
            model_at = model.published_at
        state = _changed(state, live.number, halves_at=(app_at, model_at))
    return replace(
        state,
        apps=tuple(half for half in state.apps if half.digest != digest),
        models=tuple(half for half in state.models if half.digest != digest),
    )


def _examined_without(state: State, gone: Digest) -> dict[str, str]:
    """Return what was examined, without a half that is gone: once it is there again, the sweep finds it as news."""
    app, model = state.app(gone), state.model(gone)
    return {
        name: what
        for name, what in state.examined.items()
        if not (app is not None and what == app.pushed and name.startswith(f"{app.repository}:"))
        and not (model is not None and (name, what) == examined_as(model))
    }


def _held(state: State, entry: Held) -> State:
    return _moved(state, entry, Phase.HELD, message=entry.message)


def _intended(state: State, entry: Intended) -> State:
    release = state.release(entry.release)
    if release.phase in (Phase.HELD, Phase.CLEARED) and state.active is not None:
        raise IllegalStep(f"{release.name} was intended while {state.active.name} is on its way")
    if state.hold_on(release.pair) is not None and not release.is_rollback:
        raise IllegalStep(f"{release.name} was intended while a hold is in force")
    if release.phase is Phase.BUILT and not release.is_rollback:
        raise IllegalStep(f"{release.name} was intended before its gate")
    state = _moved(state, entry, Phase.INTENDED, fence=entry.fence, message=None)
    return replace(state, fence=_next_fence(state, entry.fence))


def _rolled_out(state: State, entry: RolledOut) -> State:
    return _moved(state, entry, Phase.ROLLED_OUT)


def _live(state: State, entry: Live) -> State:
    before = state.live
    state = _moved(state, entry, Phase.LIVE, was_live=True)
    if before is not None:
        state = _changed(state, before, phase=Phase.RETIRED)
    release = state.release(entry.release)
    if release.is_rollback:
        if release.undoes is not None:
            state = _changed(state, release.undoes, phase=Phase.ROLLED_BACK)
        if state.hold is None or state.hold.scope != "all":  # whoever holds one kind of half did not mean the other
            hold = Hold(entry.id, release.author, release.reason, entry.at, under=state.hold)
            state = replace(state, hold=hold)
    verified = (*state.verified, entry.release)[-RELEASES_KEPT:]
    return _quarantined(replace(state, live=entry.release, verified=verified, rollback_due=None), entry.quarantine)


def _failed(state: State, entry: Failed) -> State:
    release = state.release(entry.release)
    touched = release.phase is not Phase.PLANNED and entry.stage != "build"
    state = _moved(state, entry, Phase.FAILED, ended_because=entry.reason, message=entry.message)
    state = _quarantined(state, entry.quarantine)
    if release.is_rollback and not touched:  # its image is gone, and what is to be undone still is
        return _image_lost(state, release.image)
    # there is no rollback of a rollback, and nothing to undo before the first release was live
    undo = not release.is_rollback and state.live is not None
    return replace(state, rollback_due=entry.release if undo else None)


def _image_lost(state: State, image: Digest | None) -> State:
    """Forget an image that is lost: nothing can go back to it. What waits for traffic looks for its image itself."""
    waits = (Phase.HELD, Phase.CLEARED)
    releases = tuple(
        replace(old, image=None) if old.image == image and old.phase not in waits else old for old in state.releases
    )
    return replace(state, releases=releases)


def _progressed(state: State, entry: Progressed) -> State:
    _expect(state, entry.kind_name, entry.release)
    state = _by_worker(_changed(state, entry.release, message=entry.message, retry_at=None), entry)
    return replace(state, last_stage_by=None) if entry.hands_over else state


def _errored(state: State, entry: Errored) -> State:
    if entry.release is None:
        _expect_publication(state, entry.event_id)
        publications = tuple(
            replace(item, attempt=item.attempt + 1, retry_at=entry.retry_at, message=entry.message)
            if item.event.event_id == entry.event_id
            else item
            for item in state.publications
        )
        return replace(state, publications=publications)
    release = _expect(state, entry.kind_name, entry.release)
    return _by_worker(
        _changed(
            state,
            entry.release,
            attempt=release.attempt + 1,
            stage_attempt=release.stage_attempt + 1,
            retry_at=entry.retry_at,
            message=entry.message,
        ),
        entry,
    )


def _superseded(state: State, entry: Superseded) -> State:
    return _quarantined(_moved(state, entry, Phase.SUPERSEDED, message=entry.message), entry.quarantine)


# -- pieces --------------------------------------------------------------------------------------------------------


def _expect(state: State, kind: str, number: int) -> Release:
    release = state.release(number)
    if release.phase not in STEPS[kind]:
        raise IllegalStep(f"{release.name} is {release.phase}: an entry {kind!r} does not follow")
    return release


def _moved(state: State, entry: Any, phase: Phase, **changes: Any) -> State:
    _expect(state, entry.kind_name, entry.release)
    state = _changed(
        state,
        entry.release,
        **{"message": None, **changes},
        phase=phase,
        moved_at=entry.at,
        retry_at=None,
        stage_attempt=1,
    )
    return _by_worker(state, entry)


def _changed(state: State, number: int, **changes: Any) -> State:
    releases = tuple(replace(release, **changes) if release.number == number else release for release in state.releases)
    return replace(state, releases=releases)


def _quarantined(state: State, what: tuple[str, ...]) -> State:
    waiting = state.waiting
    if waiting is not None and not {waiting.app, waiting.model}.isdisjoint(what):
        waiting = None  # what waits for a partner never ships now
    state = replace(state, quarantine=state.quarantine.union(what), waiting=waiting)
    asked, back = state.request, state.rollback_request
    if asked is not None and not asked.pair.names.isdisjoint(what):
        state = replace(state, request=None)  # what was asked for turned out bad before its turn came
    if back is not None and not state.release(back.to).pair.names.isdisjoint(what):
        state = replace(state, rollback_request=None)
    return state


def _by_worker(state: State, entry: Any) -> State:
    return replace(state, last_stage_at=entry.at, last_stage_by=entry.by)


def _next_fence(state: State, fence: int) -> int:
    if fence <= state.fence:
        raise IllegalStep(f"fence {fence} was handed out already: the highest is {state.fence}")
    return fence


def _remember(seen: dict[str, datetime], event_id: str, at: datetime) -> dict[str, datetime]:
    kept = seen
    if len(seen) >= 64 and next(iter(seen.values())) < at - MEMORY:
        kept = {key: when for key, when in seen.items() if when >= at - MEMORY}
    return {**kept, event_id: at}


def _with[Value](items: dict[str, Value], key: str, value: Value, most: int) -> dict[str, Value]:
    """Return the items with one more, which is then the newest, and without the oldest beyond `most`."""
    kept = [item for item in items.items() if item[0] != key]
    return dict([*kept[max(0, len(kept) + 1 - most) :], (key, value)])


_FOLD: dict[type, Callable[[State, Any], State]] = {
    Received: _received,
    IgnoredEvent: _ignored,
    Resolved: _resolved,
    Skipped: _skipped,
    Requested: _requested,
    RollbackRequested: _rollback_requested,
    HoldSet: _hold_set,
    Resumed: _resumed,
    Refused: _refused,
    Planned: _planned,
    Waiting: _waiting,
    Built: _built,
    Gated: _gated,
    Rejected: _rejected,
    Held: _held,
    Intended: _intended,
    RolledOut: _rolled_out,
    Live: _live,
    Failed: _failed,
    Progressed: _progressed,
    Errored: _errored,
    Superseded: _superseded,
}
