"""Which pair is the newest that may ship, what keeps the halves apart, and which half is at fault.

Rules over the state of a target, asked by `shipmate.core.plan` for each step and by people for a preview. A half is
newer than another by its place among its like: apps by the moves of their tag, models by the time of their upload.
"""

import msgspec
from msgspec.structs import replace

from shipmate.core.fold import met_by_users
from shipmate.core.ledger import AppHalf, ModelHalf, Phase
from shipmate.core.refs import Digest, Pair
from shipmate.core.state import Release, State


class WaitForPartner(msgspec.Struct, frozen=True):
    """Record that the newest halves do not fit together yet."""

    app: Digest
    model: Digest
    message: str


def newest_pair(state: State) -> tuple[Pair | None, WaitForPartner | None]:
    """Return the newest pair that may ship, and what waits for a partner.

    Quarantined halves are passed over. Where the newest halves do not fit together, the newest of them that fits a
    partner not older than the live one goes on, and the other waits. Where a hold keeps back one kind of half, the
    other kind ships with the live partner; only if there is nothing to ship so, or it had its turn, what is held is
    made ready.
    """
    live, hold = state.live_pair, state.hold
    if live is not None and hold is not None and hold.scope != "all":
        if hold.scope == "app":
            free = replace(state, apps=tuple(half for half in state.apps if half.digest == live.app))
        else:
            free = replace(state, models=tuple(half for half in state.models if half.digest == live.model))
        pair, waiting = _newest_fitting(free)
        if pair is not None and pair != live and not is_over(tried_by(state, pair)):
            return pair, waiting
    return _newest_fitting(state)


def _newest_fitting(state: State) -> tuple[Pair | None, WaitForPartner | None]:
    halves = _unquarantined(state)
    if halves is None:
        return None, None
    app, model = halves
    waiting = None
    if app.contract != model.contract:
        message = f"{misfit(app, model)}: the release waits until a half is published that fits"
        waiting = WaitForPartner(app.digest, model.digest, message)
        partners = _fitting(state, app, model)
        if partners is None:
            return None, waiting
        app, model = partners
    pair = Pair(app.digest, model.digest)
    return (_with_live_partner(state, app, model) if pair.key in state.quarantine else pair), waiting


def _unquarantined(state: State) -> tuple[AppHalf, ModelHalf] | None:
    apps, models = _not_older_than_lost(state)
    app, model = state.newest_free(apps), state.newest_free(models)
    return (app, model) if app is not None and model is not None else None


def _not_older_than_lost(state: State) -> tuple[tuple[AppHalf, ...], tuple[ModelHalf, ...]]:
    """Return the halves that are known and, where a live one was withdrawn, later than it.

    A live half can be lost where it was published. What was published before it is no way forward, nor what may have
    been: of the same second of storage's clock.
    """
    live = state.serving
    if live is None:
        return state.apps, state.models
    apps, models, (app_at, model_at) = state.apps, state.models, live.halves_at
    if state.app(live.pair.app) is None and live.pair.app not in state.quarantine and app_at is not None:
        apps = tuple(half for half in apps if half.published_at > app_at)
    if state.model(live.pair.model) is None and live.pair.model not in state.quarantine and model_at is not None:
        models = tuple(half for half in models if half.published_at > model_at)
    return apps, models


def lost_from_live(state: State) -> str | None:
    """Return the half of the live pair that was lost and has no newer one in its place, in words; None if there is."""
    live = state.serving
    if live is None:
        return None
    apps, models = _not_older_than_lost(state)
    lines: tuple[tuple[str, tuple[AppHalf | ModelHalf, ...], Digest], ...] = (
        (f"app {live.app_version}", apps, live.pair.app),
        (f"model {live.model_version}", models, live.pair.model),
    )
    for words, halves, digest in lines:
        if digest not in state.quarantine and all(half.digest in state.quarantine for half in halves):
            return words
    return None


def newest_halves(state: State) -> Pair | None:
    """Return the newest app and the newest model that may ship, whether or not they fit or may ship together."""
    halves = _unquarantined(state)
    return Pair(halves[0].digest, halves[1].digest) if halves is not None else None


def _with_live_partner(state: State, app: AppHalf, model: ModelHalf) -> Pair | None:
    """Return the newest pair of one half with the live partner of the other, where the two must not ship together.

    A half that was live and is not had its turn: what a person released since stays.
    """
    live = state.live_pair
    if live is None:
        return None
    choices = [
        (half.published_at, pair, partner)
        for half, pair, partner in (
            (app, Pair(app.digest, live.model), state.model(live.model)),
            (model, Pair(live.app, model.digest), state.app(live.app)),
        )
        if not _was_live(state, half)
    ]
    ranked = sorted(choices, key=lambda choice: choice[0], reverse=True)
    return next(
        (
            pair
            for _, pair, partner in ranked
            if partner is not None and partner.contract == app.contract and not state.is_quarantined(pair)
        ),
        None,
    )


def _was_live(state: State, half: AppHalf | ModelHalf) -> bool:
    """Whether users met a half and do not any more."""
    live = state.live_pair
    met = any(release.was_live and half.digest in (release.pair.app, release.pair.model) for release in state.releases)
    return met and (live is None or half.digest not in (live.app, live.model))


def _fitting(state: State, app: AppHalf, model: ModelHalf) -> tuple[AppHalf, ModelHalf] | None:
    """Return the newest pair with one of the two newest halves, with a partner that is not older than the live one.

    One that had its turn gives way to one that had none.
    """
    live, (known_apps, known_models) = state.live_pair, _not_older_than_lost(state)
    apps = _since(known_apps, live.app if live else None)
    models = _since(known_models, live.model if live else None)

    def may_ship(app: AppHalf, model: ModelHalf) -> bool:
        return app.contract == model.contract and not state.is_quarantined(Pair(app.digest, model.digest))

    old_model = next((each for each in reversed(models) if may_ship(app, each)), None)
    old_app = next((each for each in reversed(apps) if may_ship(each, model)), None)
    choices = [(app, old_model)] if old_model else []
    if old_app is not None:
        choices.append((old_app, model))
    waiting = [(app, model) for app, model in choices if not is_over(tried_by(state, Pair(app.digest, model.digest)))]
    return max(waiting or choices, key=lambda pair: min(half.published_at for half in pair), default=None)


def _since[Half: (AppHalf, ModelHalf)](halves: tuple[Half, ...], digest: Digest | None) -> tuple[Half, ...]:
    for index, half in enumerate(halves):
        if half.digest == digest:
            return halves[index:]
    return halves


def fits(state: State, pair: Pair) -> bool:
    """Whether both halves of a pair are known and speak the same app contract."""
    app, model = state.app(pair.app), state.model(pair.model)
    return app is not None and model is not None and app.contract == model.contract


def misfit(app: AppHalf, model: ModelHalf) -> str:
    """Return in words why two halves do not fit together."""
    return f"model {model.version} needs app contract {model.contract}, app {app.version} speaks {app.contract}"


def older_than_live(state: State, pair: Pair) -> str | None:
    """Return which half of the live pair is newer than its like in `pair`, in words; None if neither is.

    What is live may be published again while another pair is on its way: a tag that is moved back, a model restored.
    """
    live = state.live_pair
    if live is None:
        return None
    lines: tuple[tuple[str, tuple[AppHalf | ModelHalf, ...], Digest, Digest], ...] = (
        ("app", state.apps, live.app, pair.app),
        ("model", state.models, live.model, pair.model),
    )
    for kind, halves, there, here in lines:
        places = {half.digest: place for place, half in enumerate(halves)}
        if there in places and places.get(here, len(halves)) < places[there] and there not in state.quarantine:
            return f"{kind} {halves[places[there]].version}"
    return None


def tried_by(state: State, pair: Pair) -> Release | None:
    """Return the release that brought the pair already, None if it has to be brought, perhaps again.

    A pair goes out again when a half of it was published anew: a tag that was moved back, a model that was restored.
    Publishers' clocks tell that, each compared with itself: a worker's clock may be wrong. A release that ended because
    a half was gone judged nothing, and what is there again may be as old as before.
    """
    tried = next((old for old in reversed(state.releases) if old.pair == pair and not _had_no_turn(old)), None)
    app, model = state.app(pair.app), state.model(pair.model)
    if tried is None or app is None or model is None or (app.published_at, model.published_at) == tried.halves_at:
        return tried
    return None


def _had_no_turn(release: Release) -> bool:
    """Whether a release ended in favour of another, or because a half of it was gone where it was published."""
    was_gone = release.phase is Phase.REJECTED and release.ended_because == "Gone"
    return was_gone or release.phase is Phase.SUPERSEDED


def is_over(release: Release | None) -> bool:
    """Whether there is a release, and it has come to its end."""
    return release is not None and release.phase in (Phase.RETIRED, Phase.ROLLED_BACK, Phase.REJECTED, Phase.FAILED)


def follows(state: State, wanted: Pair) -> Pair | None:
    """Return the pair that goes out by itself after a release by hand: it was published before, and had no turn."""
    after = _with_live(state, wanted)
    newest, _ = newest_pair(after)
    if newest in (None, wanted) or state.hold_on(newest) is not None or is_over(tried_by(after, newest)):
        return None
    active = state.active
    goes_first = active is not None and active.pair == newest and active.phase in (Phase.INTENDED, Phase.ROLLED_OUT)
    return None if goes_first else newest


def _with_live(state: State, pair: Pair) -> State:
    """Return the state as it will be once a release by hand of this pair is live."""
    state = met_by_users(state)
    if state.serving is None:
        return state
    number = state.next_number
    release = replace(state.serving, number=number, pair=pair, halves_at=(None, None))
    retired = tuple(replace(old, phase=Phase.RETIRED) if old.number == state.live else old for old in state.releases)
    return replace(state, releases=(*retired, release), live=number)


def guilty(bad: Pair, good: Pair | None) -> tuple[str, ...]:
    """Return what to quarantine when `bad` was worse than `good`: the half that differs, or the pair if both do."""
    if good is None or (bad.app != good.app and bad.model != good.model):
        return (bad.key,)
    if bad.app != good.app:
        return (bad.app,)
    return (bad.model,) if bad.model != good.model else ()


def blamed(state: State, bad: Pair) -> tuple[str, ...]:
    """Return what to quarantine of a pair that its gate, its rollout or the door found bad beside the live one.

    A half that was live and that nobody undid passed with another partner: then the pair alone is barred, and the way
    back to where that half was good stays open.
    """
    found = guilty(bad, state.live_pair)
    return (bad.key,) if any(_did_well(state, half) for half in found) else found


def _did_well(state: State, half: str) -> bool:
    """Whether a half was live, and no rollback undid that."""
    good = (release for release in state.releases if release.was_live and release.phase is not Phase.ROLLED_BACK)
    return any(half in (release.pair.app, release.pair.model) for release in good)
