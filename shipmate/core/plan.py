"""The decision: from the state of a target to the next step, and why there is none.

`decide` is the only place that knows what comes after what. It is called by `shipmate.pipeline` before each step, with
the state just read, and again when somebody else wrote first. It knows no outside system: a step that needs one is
returned as a value.
"""

from datetime import datetime, timedelta

import msgspec

from shipmate.core import pairs, precedence
from shipmate.core.ledger import Phase, Trigger, Waiting
from shipmate.core.publications import examined
from shipmate.core.refs import Digest, Pair
from shipmate.core.state import Hold, Publication, Release, Request, State
from shipmate.core.targets import Target

SHIPMATE = "shipmate"
"""The author of what no person asked for."""


class Idle(msgspec.Struct, frozen=True):
    """There is nothing to do until something comes in."""

    reason: str
    message: str


class Wait(msgspec.Struct, frozen=True):
    """There will be something to do at `until`, and nothing before."""

    until: datetime
    reason: str
    idle: Idle | None = None  # why there is nothing to do but that


class Effect(msgspec.Struct, frozen=True):
    """A step that does or asks something outside: its outcome holds although something else was recorded meanwhile."""


class Resolve(Effect, frozen=True):
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


class Claim(msgspec.Struct, frozen=True):
    """Say that this worker has a stage that was in trouble or handed over; the others who wait for it then do not."""

    release: Release
    stage: str


class Build(Effect, frozen=True):
    """Bring the release image into the registry, or find it there."""

    release: Release


class Gate(Effect, frozen=True):
    """Ask the candidate its golden questions."""

    release: Release


class Park(msgspec.Struct, frozen=True):
    """Keep a ready release from traffic while a hold is in force."""

    release: Release
    hold: Hold


class Intend(msgspec.Struct, frozen=True):
    """Take a fence for the rollout."""

    release: Release


class RollOut(Effect, frozen=True):
    """Patch the Deployment and watch it."""

    release: Release


class Verify(Effect, frozen=True):
    """Ask through the public door."""

    release: Release


class Supersede(msgspec.Struct, frozen=True):
    """End a release in favour of another; with what a person barred by it."""

    release: Release
    message: str
    quarantine: tuple[str, ...] = ()


type Stage = Build | Gate | Intend | RollOut | Verify
type Step = Idle | Wait | Resolve | Plan | pairs.WaitForPartner | Supersede | Park | Claim | Stage

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
    bad = state.release(state.rollback_due) if state.rollback_due is not None else None
    if bad is not None and not precedence.rollback_yielded(state, bad) and (good := last_good(state)) is not None:
        why = f"{_what_became(bad)}: {bad.message}"
        return Plan(good.pair, "automatic_rollback", SHIPMATE, why, None, good.number, bad.number, good.image)
    if (due := _due(state, now)) is not None:
        return Resolve(due)
    step = _requested(state, state.request) if state.request is not None else _newest(state, target, now)
    if isinstance(step, Idle) and bad is not None:
        words = "users may meet it, and no release that was live before can be brought back: publish a newer half, or"
        step = Idle("NothingToGoBackTo", f"{_what_became(bad)}, {words} release an earlier pair by hand")
    return (_next_reading(state, step) or step) if isinstance(step, Idle) else step


def _next_reading(state: State, idle: Idle) -> Wait | None:
    """Return until when to wait for what could not be read, None if there is no such thing."""
    later = [(item.retry_at, item) for item in state.publications if item.retry_at is not None]
    if not later:
        return None
    until, item = min(later, key=lambda each: each[0])
    why = f": {item.message}" if item.message is not None else ""  # the build before kept no message
    return Wait(until, f"{examined(item.event)[0]} cannot be read yet{why}", idle)


def _what_became(bad: Release) -> str:
    return f"{bad.name} failed" if bad.phase is Phase.FAILED else f"{bad.name} is to be undone"


def _due(state: State, now: datetime) -> Publication | None:
    """Return what is to be read next, None if there is nothing or it is tried again later."""
    return next((item for item in state.publications if item.retry_at is None or item.retry_at <= now), None)


def _onward(state: State, release: Release, now: datetime, worker: str, stalled_seconds: float) -> Step:
    if (wish := precedence.yields_to_wish(state, release)) is not None:
        return Supersede(release, wish, _judged(state, release))
    if (live := precedence.yields_to_live(state, release)) is not None:
        return Supersede(release, live)
    reads_on = release.retry_at is not None if release.is_rollback else release.phase in precedence.EARLY
    if reads_on and (due := _due(state, now)) is not None:
        return Resolve(due)  # or nobody would know of what outranks or may pass it
    if (newer := precedence.yields_to_newer(state, release)) is not None:
        return Supersede(release, newer)
    if release.retry_at is not None or state.last_stage_by is None:
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


def left_by(state: State, worker: str) -> Claim | None:
    """Return what others would leave to this worker for a while, were its turn to end without a word; None if nothing.

    What is in trouble is claimed when its retry is due, whoever had it.
    """
    active = state.active
    if active is None or active.retry_at is not None or state.last_stage_by != worker:
        return None
    return Claim(active, _stage(active))


def _to_traffic(state: State, release: Release) -> Intend | Park:
    """Return the last step before users meet a release: whatever may still stop it is asked here."""
    hold = state.hold_on(release.pair)
    return Park(release, hold) if hold is not None else Intend(release)


def _judged(state: State, release: Release) -> tuple[str, ...]:
    """Return what a person's rollback of a release that is rolling out bars, whatever becomes of that rollback."""
    asked = state.rollback_request
    if asked is None or asked.undoes != release.number:
        return ()
    return pairs.guilty(release.pair, state.release(asked.to).pair)


def _requested(state: State, asked: Request) -> Step:
    ready = _in_phase(state, Phase.HELD) or _in_phase(state, Phase.CLEARED)
    if ready is not None:
        return Supersede(ready, precedence.request_words(asked))
    return Plan(asked.pair, "request", asked.author, asked.reason, asked.id)


def _newest(state: State, target: Target, now: datetime) -> Step:
    pair, waiting = pairs.newest_pair(state)
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
    tried = pairs.tried_by(state, pair)
    if tried is not None:
        return Idle("AlreadyReleased", f"the newest pair was {tried.name}, {tried.phase}")
    quiet = _quiet_until(state, target)
    if quiet is not None and quiet > now:
        return Wait(quiet, "quiet window")
    live = state.live_pair
    trigger: Trigger = "model" if live is None or live.model != pair.model else "app"
    return Plan(pair, trigger, SHIPMATE, _what_is_new(state, live, pair))


def _ready(state: State, newest: Pair | None, now: datetime) -> Step | None:
    """Return what becomes of a release that passed its gate and did not meet users yet, None if there is none."""
    cleared = _in_phase(state, Phase.CLEARED)
    if cleared is not None:
        return _after_blame(state, cleared, newest, now)
    held = _in_phase(state, Phase.HELD)
    if held is None:
        return None
    if (why := precedence.yields_while_held(state, held, newest)) is not None:
        return Supersede(held, why)
    hold = state.hold_on(held.pair)
    if hold is not None:
        return Idle("Held", f"{held.name} is ready; {hold.words} keeps it: {hold.reason}")
    return _unless_retried(held, now) or Intend(held)


def _is_recorded(state: State, waiting: pairs.WaitForPartner) -> bool:
    known = state.waiting
    return known is not None and (known.app, known.model) == (waiting.app, waiting.model)


def as_recorded(state: State, now: datetime) -> State:
    """Return the state once it says what waits for a partner, which comes before any release: to see what follows."""
    _, waiting = pairs.newest_pair(state)
    if waiting is None:
        return state
    reason = "WaitingForPartner"
    entry = Waiting(
        id="", at=now, by=SHIPMATE, app=waiting.app, model=waiting.model, reason=reason, message=waiting.message
    )
    return msgspec.structs.replace(state, waiting=entry)


def waiting_reason(state: State, waiting: pairs.WaitForPartner | None) -> Idle:
    """Return why there is no pair to release."""
    if waiting is not None:
        return Idle("WaitingForPartner", waiting.message)
    lost = pairs.lost_from_live(state)
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


def _quiet_until(state: State, target: Target) -> datetime | None:
    if state.halves_changed_at is None or state.halves_settled_at is None:
        return None
    settled = state.halves_settled_at + timedelta(seconds=target.quiet_seconds)
    return min(settled, state.halves_changed_at + timedelta(seconds=target.quiet_cap_seconds))


def _what_is_new(state: State, live: Pair | None, pair: Pair) -> str:
    app, model = state.app(pair.app), state.model(pair.model)
    news = []
    if model is not None and (live is None or live.model != pair.model):
        news.append(f"model {model.version} was published")
    if app is not None and (live is None or live.app != pair.app):
        news.append(f"app {app.version} was published")
    return " and ".join(news)


# -- blame: which half of a rejected pair is at fault ----------------------------------------------------------------


def _cross_pair(state: State) -> Plan | None:
    """Return the next cross pair to ask, None if there is no doubt or both were asked.

    Where both halves of a rejected pair differ from the live one, its gate cannot tell which is at fault. Each half is
    asked with the live partner of the other: a half that fails so is quarantined by its own gate, and the good half
    ships. The first that fails ends it: the other half then goes its ordinary way with the live partner.
    """
    pair, live = pairs.newest_halves(state), state.live_pair
    if pair is None or live is None or pair.key not in state.quarantine:
        return None
    if pair.app == live.app or pair.model == live.model:
        return None
    bad = next((release for release in reversed(state.releases) if release.pair == pair), None)
    if bad is None or bad.phase is not Phase.REJECTED:
        return None
    asked = [release.pair for release in state.releases if release.blames == bad.number]
    news = {"model": pair.model, "app": pair.app}
    for half, cross in (("model", Pair(live.app, pair.model)), ("app", Pair(pair.app, live.model))):
        was_asked = any(news[half] in (each.app, each.model) for each in asked)  # perhaps with another live partner
        if not was_asked and not state.is_quarantined(cross) and pairs.fits(state, cross):
            why = f"{bad.name} was rejected, and both its halves are new: is the {half} at fault?"
            return Plan(cross, "blame", SHIPMATE, why, blames=bad.number)
    return None


def _after_blame(state: State, cleared: Release, newest: Pair | None, now: datetime) -> Step:
    """Return what becomes of a cross pair that passed its gate, once it is known which half is at fault."""
    if cleared.pair != newest or cleared.pair == state.live_pair:
        return Supersede(cleared, "it passed its gate, and another pair ships")
    return _unless_retried(cleared, now) or _to_traffic(state, cleared)


def last_good(state: State) -> Release | None:
    """Return the release to go back to: the last that was verified live and is not quarantined since."""
    for release in map(state.release, reversed(state.verified)):
        if release.image is not None and not state.is_quarantined(release.pair):
            return release
    return None
