"""What a release or a rollback by hand means: which pair, what stands in its way, and what it comes to, in words.

Rules over the state of a target and its Deployment as it is. `shipmate.commands` asks here, and records what is found.
"""

import msgspec

from shipmate.core import pairs, plan, precedence
from shipmate.core.ledger import AppHalf, ModelHalf, Phase
from shipmate.core.refs import Digest, Pair
from shipmate.core.state import Hold, Release, State
from shipmate.core.views import DeploymentView
from shipmate.errors import Conflict, Invalid, NotFound
from shipmate.views import pair_words, release_called, version_words


class Chosen(msgspec.Struct, frozen=True):
    """The pair that a release by hand brings, the hold that it lifts, and what it will come to."""

    pair: Pair
    lifts: Hold | None
    words: str


class WayBack(msgspec.Struct, frozen=True):
    """The release that a rollback goes back to, another that it undoes, and what it will come to."""

    to: Release
    undoes: Release | None
    words: str


# -- release -------------------------------------------------------------------------------------------------------


def choose_pair(
    state: State, seen: DeploymentView, *, named: str | None, app: Digest | None, model: Digest | None, override: bool
) -> Chosen:
    """Return what a release by hand brings: the pair of the release named, or of these halves, or the newest.

    Raises Invalid, NotFound, and Conflict with what stands in the way.
    """
    newest, waiting = pairs.newest_pair(state)
    pair = _wanted(state, named, app, model) or newest
    if pair is None:
        raise Conflict(f"there is nothing to release: {plan.waiting_reason(state, waiting).message}")
    _check_can_be_released(state, pair, seen, override=override)
    _check_stays_free(state, pair, seen)
    lifts = _lifted(state, pair, newest)
    return Chosen(pair, lifts, _release_words(state, pair, lifts, seen, override=override))


def _wanted(state: State, named: str | None, app: Digest | None, model: Digest | None) -> Pair | None:
    """Return the pair that somebody asks for, None for the newest. Raises Invalid, NotFound."""
    if named is not None:
        if app is not None or model is not None:
            raise Invalid("give either release, or app and model, or none of them for the newest pair")
        return release_called(state, named).pair
    if app is None and model is None:
        return None
    app, model = app or _head(state, state.apps, "app"), model or _head(state, state.models, "model")
    if state.app(app) is None:
        raise NotFound(f"no app image with digest {app} was published")
    if state.model(model) is None:
        raise NotFound(f"no model with digest {model} was published")
    return Pair(app, model)


def _head(state: State, halves: tuple[AppHalf, ...] | tuple[ModelHalf, ...], what: str) -> Digest:
    """Return the newest half that is not quarantined; the newest, where all are."""
    if not halves:
        raise Conflict(f"no {what} was published yet")
    digests = [half.digest for half in halves]
    return next((digest for digest in reversed(digests) if digest not in state.quarantine), digests[-1])


def _check_can_be_released(state: State, pair: Pair, seen: DeploymentView, *, override: bool) -> None:
    app, model = state.app(pair.app), state.model(pair.model)
    if app is not None and model is not None and app.contract != model.contract:
        raise Conflict(f"{pairs.misfit(app, model)}: name two halves that fit")
    if state.is_quarantined(pair) and not override:
        raise Conflict(
            "this pair, or a half of it, is quarantined: publish a newer half, or repeat with "
            '"override": true, which lifts the quarantine and is recorded; the gate asks it all the same'
        )
    live = state.serving
    if live is not None and live.pair == pair and seen.asks_for(live.name, live.image):
        raise Conflict(f"{live.name} is live with this pair already")
    coming = precedence.brings(state, pair)
    if coming is not None and not (override and coming.phase in precedence.EARLY):
        raise Conflict(f"{coming.name} brings this pair already: wait until it is done")


def _check_stays_free(state: State, pair: Pair, seen: DeploymentView) -> None:
    """Raise Conflict if a rollback that goes first bars the pair, or a half of it: the wish would end with that."""
    active = state.active
    rolls_back = active is not None and active.is_rollback and _yielding(state, seen) is not active
    back = state.rollback_request or (active if rolls_back else None)
    if back is None or back.to is None or back.undoes is None:
        return
    undone = state.release(back.undoes)
    if undone.ended_because is not None:
        return
    if not pair.names.isdisjoint(pairs.guilty(undone.pair, state.release(back.to).pair)):
        raise Conflict(
            f"{back.author}'s rollback to r-{back.to} goes first, undoes {undone.name}, and quarantines this pair or a "
            'half of it: wait until it is done, then release the pair with "override": true if it is meant'
        )


def _lifted(state: State, pair: Pair, newest: Pair | None) -> Hold | None:
    """Return the hold that a release by hand lifts: of the newest pair, the one that keeps it back. Raises Conflict."""
    hold = state.hold_on(pair)
    if hold is None:
        return None
    if pair != newest:
        raise Conflict(f"{hold.words} is in force: resume first ({hold.reason})")
    below = msgspec.structs.replace(state, hold=hold.under).hold_on(pair)
    if below is not None:
        raise Conflict(f"{hold.words} is in force, and {below.words} under it: resume first")
    return hold


def _release_words(state: State, pair: Pair, lifts: Hold | None, seen: DeploymentView, *, override: bool) -> str:
    words = f"releases {pair_words(state, pair)}"
    if lifts is not None:
        words += f", and lifts {lifts.words}: {lifts.reason}"
    if barred := _barred(state, pair):
        words += f", and lifts the quarantine of {' and '.join(barred)}"
    words += _before(state, seen)
    then = pairs.follows(_at_its_turn(state, pair, seen, override=override), pair)
    if then is not None:
        words += f"; then comes {pair_words(state, then)}, which was published before: set a hold to keep it back"
    if state.publications:
        words += "; what was published and is not read yet may follow: set a hold to keep it back"
    return words


def _barred(state: State, pair: Pair) -> list[str]:
    """Return in words what of a pair is quarantined."""
    names = {
        f"app {version_words(state.app(pair.app))}": pair.app,
        f"model {version_words(state.model(pair.model))}": pair.model,
        "the pair": pair.key,
    }
    return [words for words, name in names.items() if name in state.quarantine]


def _before(state: State, seen: DeploymentView) -> str:
    """Return in words what is done before a release by hand has its turn."""
    active, back, yielding = state.active, state.rollback_request, _yielding(state, seen)
    if back is not None:
        return f"; {back.author}'s rollback to r-{back.to} goes first, and its hold keeps this until somebody resumes"
    if yielding is not None and (yielding.is_rollback or yielding.phase is Phase.INTENDED):
        was_to = "roll back" if yielding.is_rollback else "roll out"
        return f"; {yielding.name} was to {was_to}, and is in trouble: this goes first"
    if active is not None and active.is_rollback:
        return f"; {active.name} rolls back first, and its hold keeps this until somebody resumes"
    if active is not None and active.phase in (Phase.INTENDED, Phase.ROLLED_OUT):
        doubt = (
            ", unless its trouble lasts: then it comes after" if active.retry_at and not _is_in(active, seen) else ""
        )
        return f"; {active.name} is rolling out and goes first{doubt}"
    return ""


def _at_its_turn(state: State, pair: Pair, seen: DeploymentView, *, override: bool) -> State:
    """Return the state as it is when a release by hand has its turn: what yielded to it had none."""
    yielding, lifted = _yielding(state, seen), pair.names if override else frozenset[str]()
    releases = tuple(
        msgspec.structs.replace(each, phase=Phase.SUPERSEDED) if each is yielding else each for each in state.releases
    )
    return msgspec.structs.replace(state, quarantine=state.quarantine.difference(lifted), releases=releases)


def _yielding(state: State, seen: DeploymentView) -> Release | None:
    """Return what is on its way and yields to a release by hand: in lasting trouble, and not patched in."""
    active = state.active
    return active if active is not None and precedence.is_lasting(active) and not _is_in(active, seen) else None


def _is_in(release: Release, seen: DeploymentView) -> bool:
    return release.phase is Phase.ROLLED_OUT or seen.asks_for(release.name, release.image)


# -- rollback ------------------------------------------------------------------------------------------------------


def find_way_back(state: State, seen: DeploymentView, *, to: str | None, if_live: str | None) -> WayBack:
    """Return where a rollback goes: to the release named, or to the last good one before the present.

    Raises NotFound, and Conflict with what stands in the way.
    """
    back_to, undone = _rollback_target(state, seen, to, if_live)
    undoes = undone if undone.number != back_to.number else None
    held, what = state.hold, f" and undoes {_named(undoes)}" if undoes is not None else ""
    stays = "and holds the target there"
    if held is not None and held.scope == "all":
        stays = f"and sets no hold of its own: {held.words} is in force ({held.reason}) until somebody resumes"
    words = f"rolls back to the pair of {_named(back_to)}{what} without a build, {stays}"
    return WayBack(back_to, undoes, words)


def _named(release: Release) -> str:
    return f"{release.name} (app {release.app_version}, model {release.model_version})"


def _rollback_target(
    state: State, seen: DeploymentView, to: str | None, if_live: str | None
) -> tuple[Release, Release]:
    """Return the release to go back to, and the one that is undone. Raises NotFound, Conflict."""
    serving, active = state.serving, state.active
    if serving is None:
        raise Conflict("nothing is live yet: there is nothing to roll back")
    if active is not None and active.is_rollback and not precedence.is_lasting(active):
        raise Conflict(f"{active.name} is rolling back to r-{active.to} already: wait until it is done")
    if active is not None and active.is_rollback and to is None:
        raise Conflict(
            f"{active.name} is rolling back to r-{active.to} already, and is in trouble: it is tried again; to go to "
            'another release, name it with "to"'
        )
    undone = _undone(state, serving)
    is_as_left = undone is serving and seen.asks_for(serving.name, serving.image)
    if to is not None:
        wanted = release_called(state, to)
        _check_can_be_brought_back(state, wanted)
        if wanted.pair == serving.pair and is_as_left and active is None:
            raise Conflict(f"{serving.name} is live with this pair already")
        return wanted, undone
    if if_live is not None and undone is not serving:
        what = "is rolling out" if undone is active else "is not undone yet, and went out"
        raise Conflict(f'{undone.name} {what} over {serving.name}: say with "to" which release to go back to')
    if is_as_left:
        other = _last_other(state, serving)
        if serving.is_rollback:
            raise Conflict(
                f"{serving.name} rolled back to the pair of r-{serving.to} already: to go back further, name a release "
                f'with "to", {other.name} for instance'
            )
        return other, serving
    wanted = (_of_failed_rollback(state, seen) if undone is serving else None) or serving
    _check_can_be_brought_back(state, wanted)
    return wanted, undone


def _of_failed_rollback(state: State, seen: DeploymentView) -> Release | None:
    """Return what the rollback that failed, and that the Deployment still asks for, was to bring back."""
    failed = next((old for old in state.releases if old.name == seen.release and old.phase is Phase.FAILED), None)
    return next((old for old in state.releases if failed is not None and old.number == failed.to), None)


def _undone(state: State, serving: Release) -> Release:
    """Return what a rollback now undoes: what is rolling out, or what failed and is not undone yet; else the live."""
    active = state.active
    if active is not None and not active.is_rollback and active.phase in (Phase.INTENDED, Phase.ROLLED_OUT):
        return active
    return state.release(state.rollback_due) if state.rollback_due is not None else serving


def _check_can_be_brought_back(state: State, wanted: Release) -> None:
    if not wanted.was_live or wanted.image is None:
        why = "was never live" if not wanted.was_live else "has lost its image for good"
        raise Conflict(f"{wanted.name} {why}: release it instead, so that it passes its gate")
    if state.is_quarantined(wanted.pair):
        raise Conflict(
            f"the pair of {wanted.name}, or a half of it, is quarantined: release it instead, with "
            '"override": true, so that it passes its gate'
        )


def _last_other(state: State, serving: Release) -> Release:
    """Return the last release that was live with another pair and may be brought back. Raises Conflict."""
    for number in reversed(state.verified):
        good = state.release(number)
        if good.pair != serving.pair and good.image is not None and not state.is_quarantined(good.pair):
            return good
    raise Conflict("no other release was live before: there is nothing to go back to")
