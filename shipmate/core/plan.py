"""The decision: from the state of a target to the next step, and why there is none.

`decide` is the only place that knows what comes after what. It is called by `shipmate.pipeline` before each step, with
the state just read, and again when somebody else wrote first. It knows no outside system: a step that needs one is
returned as a value.
"""

from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from shipmate.core.ledger import AppHalf, Hold, ModelHalf, Phase, Publication, Release, Request, State, Trigger
from shipmate.core.refs import Digest, Pair
from shipmate.core.targets import Target

SHIPMATE = "shipmate"
"""The author of what no person asked for."""

EARLY = (Phase.PLANNED, Phase.BUILT, Phase.GATED)
"""Where a release is on its way and did not touch traffic yet."""


class Idle(msgspec.Struct, frozen=True):
    """There is nothing to do until something comes in."""

    reason: str
    message: str


class Wait(msgspec.Struct, frozen=True):
    """There will be something to do at `until`, and nothing before."""

    until: datetime
    reason: str


class Resolve(msgspec.Struct, frozen=True):
    """Read what was published."""

    publication: Publication


class Plan(msgspec.Struct, frozen=True):
    """Start a release."""

    pair: Pair
    trigger: Trigger
    author: str
    reason: str
    request: str | None = None
    to: int | None = None
    undoes: int | None = None
    image: Digest | None = None
    blames: int | None = None


class WaitForPartner(msgspec.Struct, frozen=True):
    """Record that the newest halves do not fit together yet."""

    app: Digest
    model: Digest
    message: str


class Claim(msgspec.Struct, frozen=True):
    """Say that this worker tries a stage again that was in trouble, so that the others who wait for it do not."""

    release: Release
    stage: str


class Build(msgspec.Struct, frozen=True):
    """Bring the release image into the registry, or find it there."""

    release: Release


class Gate(msgspec.Struct, frozen=True):
    """Ask the candidate its golden questions."""

    release: Release


class Park(msgspec.Struct, frozen=True):
    """Keep a ready release from traffic while a hold is in force."""

    release: Release
    hold: Hold


class Intend(msgspec.Struct, frozen=True):
    """Take a fence for the rollout."""

    release: Release


class RollOut(msgspec.Struct, frozen=True):
    """Patch the Deployment and watch it."""

    release: Release


class Verify(msgspec.Struct, frozen=True):
    """Ask through the public door."""

    release: Release


class Supersede(msgspec.Struct, frozen=True):
    """End a release in favour of another."""

    release: Release
    message: str


type Stage = Build | Gate | Intend | RollOut | Verify
type Step = Idle | Wait | Resolve | Plan | WaitForPartner | Supersede | Park | Claim | Stage

STAGES = {Phase.PLANNED: "build", Phase.BUILT: "gate", Phase.ROLLED_OUT: "verify"}
"""What a release comes to next, by its phase; of any other, and of a rollback that is built, the rollout."""


def decide(state: State, target: Target, now: datetime, worker: str, stalled_seconds: float) -> Step:
    """Return the next step for a target.

    A release that another worker moved less than `stalled_seconds` ago is left to that worker. That only saves work: a
    step that two workers take is harmless.
    """
    active = state.active
    if active is not None:
        return _onward(state, active, now, worker, stalled_seconds)
    if state.rollback_request is not None:
        asked = state.rollback_request
        back_to = state.release(asked.to)
        number, image = back_to.number, back_to.image
        return Plan(back_to.pair, "rollback", asked.author, asked.reason, asked.request, number, asked.undoes, image)
    if state.rollback_due not in (None, state.live) and (good := last_good(state)) is not None:
        bad = state.release(state.rollback_due)
        why = f"{bad.name} failed: {bad.message}"
        return Plan(good.pair, "automatic_rollback", SHIPMATE, why, None, good.number, bad.number, good.image)
    if (due := _due(state, now)) is not None:
        return Resolve(due)
    step = _requested(state, state.request) if state.request is not None else _newest(state, target, now)
    if isinstance(step, Idle) and state.rollback_due not in (None, state.live):
        bad = state.release(state.rollback_due)
        words = "users may meet it, and no release that was live before can be brought back: publish a newer half, or"
        step = Idle("NothingToGoBackTo", f"{bad.name} failed, {words} release an earlier pair by hand")
    later = min((item.retry_at for item in state.publications if item.retry_at is not None), default=None)
    return Wait(later, "retry") if isinstance(step, Idle) and later is not None else step


def _due(state: State, now: datetime) -> Publication | None:
    """Return what is to be read next, None if there is nothing or it is tried again later."""
    return next((item for item in state.publications if item.retry_at is None or item.retry_at <= now), None)


def _onward(state: State, release: Release, now: datetime, worker: str, stalled_seconds: float) -> Step:
    if _is_overtaken(state, release):
        return Supersede(release, _overtaken_by(state))
    if _is_automatic_and_early(release) and (what := _older_than_live(state, release.pair)) is not None:
        return Supersede(release, f"{what} was published again and is live: this pair is older by now")
    if release.phase in EARLY and not release.is_rollback and (due := _due(state, now)) is not None:
        return Resolve(due)  # or nobody would know of what outranks or may pass it
    if _is_stuck(state, release):
        return Supersede(release, f"a newer pair was published while this one was in trouble: {release.message}")
    if release.retry_at is not None:
        return _unless_retried(release, now) or Claim(release, _stage(release))
    if state.last_stage_at is not None and state.last_stage_by != worker:
        free_at = state.last_stage_at + timedelta(seconds=stalled_seconds)
        if free_at > now:
            return Wait(free_at, "another worker has it")
    match release.phase:
        case Phase.PLANNED:
            return Build(release)
        case Phase.BUILT:
            return Intend(release) if release.is_rollback else Gate(release)
        case Phase.GATED:
            return _to_traffic(state, release)
        case Phase.INTENDED:
            return RollOut(release)
        case _:
            return Verify(release)


def _stage(release: Release) -> str:
    return "rollout" if release.is_rollback and release.phase is Phase.BUILT else STAGES.get(release.phase, "rollout")


def _to_traffic(state: State, release: Release) -> Intend | Park:
    """Return the last step before users meet a release: whatever may still stop it is asked here."""
    hold = state.hold_on(release.pair)
    return Park(release, hold) if hold is not None else Intend(release)


def _is_overtaken(state: State, release: Release) -> bool:
    """Whether a person's wish ends a release that has not touched traffic yet, or a rollback one that has."""
    if release.is_rollback:
        return False
    if state.rollback_request is not None:
        return True
    return state.request is not None and release.phase in EARLY


def _is_automatic_and_early(release: Release) -> bool:
    """Whether nobody asked for a release by name, and users did not meet it yet."""
    return release.phase in EARLY and release.trigger in ("model", "app", "blame")


def _older_than_live(state: State, pair: Pair) -> str | None:
    """Return which half of the live pair is newer than its like in `pair`, in words; None if neither is.

    What is live may be published again while another pair is on its way: a tag that is moved back, a model restored.
    """
    if state.serving is None:
        return None
    live = state.serving.pair
    lines: tuple[tuple[str, tuple[AppHalf | ModelHalf, ...], Digest, Digest], ...] = (
        ("app", state.apps, live.app, pair.app),
        ("model", state.models, live.model, pair.model),
    )
    for kind, halves, there, here in lines:
        places = {half.digest: place for place, half in enumerate(halves)}
        if there in places and places.get(here, len(halves)) < places[there] and there not in state.quarantine:
            return f"{kind} {halves[places[there]].version}"
    return None


def _may_be_passed(release: Release) -> bool:
    """Whether an automatic release is in trouble before it met users."""
    return _is_automatic_and_early(release) and release.retry_at is not None


def _is_stuck(state: State, release: Release) -> bool:
    """Whether an automatic release is in trouble before it met users, and something newer could go instead."""
    if not _may_be_passed(release):
        return False
    if release.blames is not None:
        return _newest_halves(state) != state.release(release.blames).pair
    pair, _ = newest_pair(state)
    return pair is not None and pair != release.pair


def _overtaken_by(state: State) -> str:
    if state.rollback_request is not None:
        return f"{state.rollback_request.author} rolled back: {state.rollback_request.reason}"
    author = state.request.author if state.request else SHIPMATE
    return f"{author} asked for another release"


def _requested(state: State, asked: Request) -> Step:
    ready = _in_phase(state, Phase.HELD) or _in_phase(state, Phase.CLEARED)
    if ready is not None:
        return Supersede(ready, _overtaken_by(state))
    return Plan(asked.pair, "request", asked.author, asked.reason, asked.id)


def _newest(state: State, target: Target, now: datetime) -> Step:
    pair, waiting = newest_pair(state)
    if waiting is not None and not _is_recorded(state, waiting):
        return waiting
    step = _cross_pair(state) or _ready(state, pair, now)
    if step is not None:
        return step
    if pair is None:
        return waiting_reason(state, waiting)
    if state.serving is not None and state.serving.pair == pair:
        if waiting is not None:
            return waiting_reason(state, waiting)
        return Idle("UpToDate", f"{state.serving.name} is the newest pair that may ship, and is live")
    tried = _tried(state, pair)
    if tried is not None:
        return Idle("AlreadyReleased", f"the newest pair was {tried.name}, {tried.phase}")
    quiet = _quiet_until(state, target)
    if quiet is not None and quiet > now:
        return Wait(quiet, "quiet window")
    trigger: Trigger = "app"
    serving = state.serving
    if serving is None or serving.pair.model != pair.model:
        trigger = "model"
    return Plan(pair, trigger, SHIPMATE, _what_is_new(state, serving, pair))


def _ready(state: State, newest: Pair | None, now: datetime) -> Step | None:
    """Return what becomes of a release that passed its gate and did not meet users yet, None if there is none."""
    cleared = _in_phase(state, Phase.CLEARED)
    if cleared is not None:
        return _after_blame(state, cleared, newest, now)
    held = _in_phase(state, Phase.HELD)
    if held is None:
        return None
    if state.is_quarantined(held.pair):
        return Supersede(held, "its pair, or a half of it, is quarantined by now")
    if newest not in (None, held.pair) and state.halves_changed_at is not None:
        return Supersede(held, "a newer pair was published")
    if newest not in (None, held.pair) and held.trigger != "request":
        return Supersede(held, "another pair is the newest that may ship by now")
    if held.trigger != "request" and (what := _older_than_live(state, held.pair)) is not None:
        return Supersede(held, f"{what} is live and was published later: this pair is older by now")
    hold = state.hold_on(held.pair)
    if hold is not None:
        return Idle("Held", f"{held.name} is ready; {hold.words} keeps it: {hold.reason}")
    return _unless_retried(held, now) or Intend(held)


def _is_recorded(state: State, waiting: WaitForPartner) -> bool:
    known = state.waiting
    return known is not None and (known.app, known.model) == (waiting.app, waiting.model)


def waiting_reason(state: State, waiting: WaitForPartner | None) -> Idle:
    """Return why there is no pair to release."""
    if waiting is not None:
        return Idle("WaitingForPartner", waiting.message)
    lost = _lost_from_live(state)
    if lost is not None:
        words = "is live and is gone from where it was published, and nothing newer is there to go with what is new"
        return Idle("LiveHalfGone", f"{lost} {words}: publish it again, or a newer one")
    if not state.apps:
        return Idle("NoApp", "no app image was published yet")
    if not state.models:
        return Idle("NoModel", "no model was published yet")
    return Idle("Quarantined", "what was published last is quarantined; publish a newer one, or release it by hand")


def _in_phase(state: State, phase: Phase) -> Release | None:
    return next((release for release in reversed(state.releases) if release.phase is phase), None)


def _unless_retried(release: Release, now: datetime) -> Wait | None:
    return Wait(release.retry_at, "retry") if release.retry_at is not None and release.retry_at > now else None


def _tried(state: State, pair: Pair) -> Release | None:
    """Return the release that brought the pair already, None if it has to be brought, perhaps again.

    A pair goes out again when a half of it was published anew: a tag that was moved back, a model that was restored.
    Publishers' clocks tell that, each compared with itself: a worker's clock may be wrong.
    """
    found = (old for old in reversed(state.releases) if old.pair == pair and old.phase is not Phase.SUPERSEDED)
    tried = next(found, None)
    app, model = state.app(pair.app), state.model(pair.model)
    if tried is None or app is None or model is None or (app.published_at, model.published_at) == tried.halves_at:
        return tried
    return None


def _is_over(release: Release | None) -> bool:
    return release is not None and release.phase in (Phase.RETIRED, Phase.ROLLED_BACK, Phase.REJECTED, Phase.FAILED)


def follows(state: State, wanted: Pair) -> Pair | None:
    """Return the pair that goes out by itself after a release by hand: it was published before, and had no turn."""
    newest, _ = newest_pair(state)
    live = state.serving.pair if state.serving is not None else None
    if newest is None or newest in (wanted, live) or state.hold_on(newest) is not None:
        return None
    return None if _is_over(_tried(state, newest)) else newest


def _quiet_until(state: State, target: Target) -> datetime | None:
    if state.halves_changed_at is None or state.halves_settled_at is None:
        return None
    settled = state.halves_settled_at + timedelta(seconds=target.quiet_seconds)
    return min(settled, state.halves_changed_at + timedelta(seconds=target.quiet_cap_seconds))


def _what_is_new(state: State, serving: Release | None, pair: Pair) -> str:
    app, model = state.app(pair.app), state.model(pair.model)
    news = []
    if model is not None and (serving is None or serving.pair.model != pair.model):
        news.append(f"model {model.version} was published")
    if app is not None and (serving is None or serving.pair.app != pair.app):
        news.append(f"app {app.version} was published")
    return " and ".join(news)


def newest_pair(state: State) -> tuple[Pair | None, WaitForPartner | None]:
    """Return the newest pair that may ship, and what waits for a partner.

    Quarantined halves are passed over. Where the newest halves do not fit together, the newest of them that fits a
    partner not older than the live one goes on, and the other waits. Where a hold keeps back one kind of half, the
    other kind ships with the live partner; only if there is nothing to ship so, or it had its turn, what is held is
    made ready.
    """
    live, hold = state.serving, state.hold
    if live is not None and hold is not None and hold.scope != "all":
        if hold.scope == "app":
            free = replace(state, apps=tuple(half for half in state.apps if half.digest == live.pair.app))
        else:
            free = replace(state, models=tuple(half for half in state.models if half.digest == live.pair.model))
        pair, waiting = _newest_fitting(free)
        if pair is not None and pair != live.pair and not _is_over(_tried(state, pair)):
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
    app = next((half for half in reversed(apps) if half.digest not in state.quarantine), None)
    model = next((half for half in reversed(models) if half.digest not in state.quarantine), None)
    return (app, model) if app is not None and model is not None else None


def _not_older_than_lost(state: State) -> tuple[tuple[AppHalf, ...], tuple[ModelHalf, ...]]:
    """Return the halves that are known, without those older than a live one that was withdrawn.

    A live half can be lost where it was published. What was published before it is no way forward.
    """
    live = state.serving
    if live is None:
        return state.apps, state.models
    apps, models, (app_at, model_at) = state.apps, state.models, live.halves_at
    if state.app(live.pair.app) is None and live.pair.app not in state.quarantine and app_at is not None:
        apps = tuple(half for half in apps if half.published_at >= app_at)
    if state.model(live.pair.model) is None and live.pair.model not in state.quarantine and model_at is not None:
        models = tuple(half for half in models if half.published_at >= model_at)
    return apps, models


def _lost_from_live(state: State) -> str | None:
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


def _newest_halves(state: State) -> Pair | None:
    halves = _unquarantined(state)
    return Pair(halves[0].digest, halves[1].digest) if halves is not None else None


def _with_live_partner(state: State, app: AppHalf, model: ModelHalf) -> Pair | None:
    """Return the newest pair of one half with the live partner of the other, where the two must not ship together."""
    if state.serving is None:
        return None
    live = state.serving.pair
    choices = [
        (app.published_at, Pair(app.digest, live.model), state.model(live.model)),
        (model.published_at, Pair(live.app, model.digest), state.app(live.app)),
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


# -- blame: which half of a rejected pair is at fault ----------------------------------------------------------------


def _cross_pair(state: State) -> Plan | None:
    """Return the next cross pair to ask, None if there is no doubt or both were asked.

    Where both halves of a rejected pair differ from the live one, its gate cannot tell which is at fault. Each half is
    asked with the live partner of the other: a half that fails so is quarantined by its own gate, and the good half
    ships. The first that fails ends it: the other half then goes its ordinary way with the live partner.
    """
    pair, live = _newest_halves(state), state.serving
    if pair is None or live is None or pair.key not in state.quarantine:
        return None
    if pair.app == live.pair.app or pair.model == live.pair.model:
        return None
    bad = next((release for release in reversed(state.releases) if release.pair == pair), None)
    if bad is None or bad.phase is not Phase.REJECTED:
        return None
    asked = {release.pair for release in state.releases if release.blames == bad.number}
    for half, cross in (("model", Pair(live.pair.app, pair.model)), ("app", Pair(pair.app, live.pair.model))):
        if cross not in asked and not state.is_quarantined(cross) and _fits(state, cross):
            why = f"{bad.name} was rejected, and both its halves are new: is the {half} at fault?"
            return Plan(cross, "blame", SHIPMATE, why, blames=bad.number)
    return None


def _fits(state: State, pair: Pair) -> bool:
    app, model = state.app(pair.app), state.model(pair.model)
    return app is not None and model is not None and app.contract == model.contract


def _after_blame(state: State, cleared: Release, newest: Pair | None, now: datetime) -> Step:
    """Return what becomes of a cross pair that passed its gate, once it is known which half is at fault."""
    if cleared.pair != newest or (state.serving is not None and state.serving.pair == newest):
        return Supersede(cleared, "it passed its gate, and another pair ships")
    return _unless_retried(cleared, now) or _to_traffic(state, cleared)


def misfit(app: AppHalf, model: ModelHalf) -> str:
    """Return in words why two halves do not fit together."""
    return f"model {model.version} needs app contract {model.contract}, app {app.version} speaks {app.contract}"


def _fitting(state: State, app: AppHalf, model: ModelHalf) -> tuple[AppHalf, ModelHalf] | None:
    """Return the newest pair with one of the two newest halves, with a partner that is not older than the live one."""
    serving, (known_apps, known_models) = state.serving, _not_older_than_lost(state)
    apps = _since(known_apps, serving.pair.app if serving else None)
    models = _since(known_models, serving.pair.model if serving else None)

    def may_ship(app: AppHalf, model: ModelHalf) -> bool:
        return app.contract == model.contract and not state.is_quarantined(Pair(app.digest, model.digest))

    old_model = next((each for each in reversed(models) if may_ship(app, each)), None)
    old_app = next((each for each in reversed(apps) if may_ship(each, model)), None)
    choices = [(app, old_model)] if old_model else []
    if old_app is not None:
        choices.append((old_app, model))
    return max(choices, key=lambda pair: min(pair[0].published_at, pair[1].published_at), default=None)


def _since[Half: (AppHalf, ModelHalf)](halves: tuple[Half, ...], digest: Digest | None) -> tuple[Half, ...]:
    for index, half in enumerate(halves):
        if half.digest == digest:
            return halves[index:]
    return halves


def last_good(state: State) -> Release | None:
    """Return the release to go back to: the last that was verified live and is not quarantined since."""
    for release in map(state.release, reversed(state.verified)):
        if release.image is not None and not state.is_quarantined(release.pair):
            return release
    return None


def guilty(bad: Pair, good: Pair | None) -> tuple[str, ...]:
    """Return what to quarantine when `bad` was worse than `good`: the half that differs, or the pair if both do."""
    if good is None or (bad.app != good.app and bad.model != good.model):
        return (bad.key,)
    if bad.app != good.app:
        return (bad.app,)
    return (bad.model,) if bad.model != good.model else ()
