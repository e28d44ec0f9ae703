"""Invariant 5: when faults stop, the target converges; what is in trouble for good does not keep it from that."""

from collections.abc import Iterator

from shipmate.core.events import ImagePushed
from shipmate.core.ledger import AppHalf, Errored, ModelHalf, Phase, Planned, Received, Rejected, Resolved, Skipped
from shipmate.core.refs import Pair
from tests.sim import model
from tests.sim.candidates import candidates
from tests.sim.plans import TROUBLE
from tests.sim.seen import Seen, number_of

UNDER_WAY = frozenset({Phase.PLANNED, Phase.BUILT, Phase.GATED, Phase.INTENDED, Phase.ROLLED_OUT})


def the_target_converges(seen: Seen) -> Iterator[str]:
    """When faults stop, nothing is left half done, and users get the newest pair that is allowed."""
    if not seen.history.settled:
        yield f"there was still something to do after {seen.history.calm_steps} calm steps"
    if seen.may_be_stuck():
        return
    for number, phase in seen.phases.items():
        if phase in UNDER_WAY or phase is Phase.CLEARED:
            yield f"r-{number} is still {phase}"
    entries = seen.entries
    if model.publications(entries):
        yield f"{model.publications(entries)[0].event.event_id} was never read"
    if model.request(entries) is not None or model.rollback_request(entries) is not None:
        yield "what a person asked for was never done"
    hold = model.hold(entries)
    held = [number for number, phase in seen.phases.items() if phase is Phase.HELD]
    if held and hold is None:
        yield f"r-{held[0]} is held, and nothing holds it"
    yield from _runs_what_is_live(seen)
    yield from _newest_is_live(seen)
    yield from _heads_are_known(seen)
    if seen.run.trouble_until:
        yield from _is_passed_or_named(seen, seen.run.trouble_until)


def _is_passed_or_named(seen: Seen, until: int) -> Iterator[str]:
    """While trouble lasts that nobody mends, nothing is under way but the newest pair that may ship, which names it.

    All else was at rest by then. A person's wish is under way until the person has another one, and goes first: what
    was published since need not be read before.
    """
    entries, wished = seen.entries[:until], False
    if model.request(entries) is not None or model.rollback_request(entries) is not None:
        yield "what a person asked for was not done while something was in trouble"
    for number, (place, planned) in seen.planned.items():
        phase = model.phase(entries, number) if place < until else Phase.SUPERSEDED
        if phase not in UNDER_WAY and phase is not Phase.CLEARED:
            continue
        troubles = seen.troubles(number)
        if not troubles or phase not in (Phase.PLANNED, Phase.BUILT):
            yield f"r-{number} was still {phase} when all but what was in trouble had come to its end"
            continue
        wished = wished or planned.trigger == "request"
        newest = [*_under_hold(seen, entries), *candidates(entries)]
        if planned.trigger != "request" and newest and planned.pair not in newest:
            yield f"r-{number} was in trouble for good, and kept a newer pair from being released"
        errors = [entry for entry in entries[place:] if isinstance(entry, Errored) and entry.release == number]
        told = errors[-1].message if errors else "nothing"
        if not any(TROUBLE[trouble] in told for trouble in troubles):
            yield f"r-{number} was in trouble for good, and what is on record does not name it: {told}"
    if model.publications(entries) and not wished:
        yield f"{model.publications(entries)[0].event.event_id} was not read while something was in trouble"


def _runs_what_is_live(seen: Seen) -> Iterator[str]:
    """The cluster runs what is live; or what failed, where nothing is there to go back to or going back failed too."""
    serving = model.live(seen.entries)
    running = number_of(seen.run.deployment.release)
    if serving in (None, running):
        return
    phase, is_forward = seen.phases.get(running), seen.is_forward(running)
    was_to_be_undone = phase is Phase.FAILED or (phase is Phase.SUPERSEDED and is_forward)
    if not was_to_be_undone or (is_forward and _can_go_back(seen)):
        yield f"r-{serving} is live by the ledger, and the cluster runs {seen.run.deployment.release}"


def _can_go_back(seen: Seen) -> bool:
    barred = model.quarantine(seen.entries)
    return any(
        model.image(seen.entries, number) is not None and not model.is_barred(seen.planned[number][1].pair, barred)
        for number in model.verified(seen.entries)
    )


def _newest_is_live(seen: Seen) -> Iterator[str]:
    """One of the candidates for the newest pair is live, or was tried since its halves came; none is newer than live.

    Where two halves do not fit each other, one goes on with a partner and the other waits: which one is left open here.
    """
    entries, live = seen.entries, seen.pair_of(model.live(seen.entries))
    complaints = []
    for pair in _under_hold(seen, entries):
        if pair == live or (live is not None and _is_older(seen, pair, live)):
            return
        published = max(_first_told(seen, half) for half in _halves(entries, pair))
        tried = [
            number
            for number, (_, planned) in seen.planned.items()
            if planned.pair == pair and seen.phases[number] is not Phase.SUPERSEDED
        ]
        if seen.has_held_request():
            return
        if not tried:
            complaints.append(f"the newest pair (app {pair.app[:14]}, model {pair.model[:14]}) was never released")
        elif _since(seen, tried[-1]) < published and seen.phases[tried[-1]] is not Phase.HELD:
            complaints.append(f"a half of r-{tried[-1]} was published anew, and the pair was not released again")
        else:
            return
    yield from complaints[:1]


def _under_hold(seen: Seen, entries: model.Entries) -> list[Pair]:
    """Return the candidates for the newest pair, where a hold may keep one kind of half as it is live."""
    live, hold = seen.pair_of(model.live(entries)), model.hold(entries)
    only_app = live.app if live is not None and hold is not None and hold.scope == "app" else None
    only_model = live.model if live is not None and hold is not None and hold.scope == "model" else None
    return candidates(entries, only_app=only_app, only_model=only_model)


def _since(seen: Seen, number: int) -> int:
    """Return the place up to which a release brought what was published: its plan, or the last one made over it.

    A release whose half could not be read looked at that half as it was published by then.
    """
    plans = [place for place, _ in seen.each(Planned) if model.live(seen.entries[:place]) == number]
    unread = [place for place, entry in seen.each(Rejected) if entry.release == number and entry.withdrawn is not None]
    return max([seen.planned[number][0], *plans, *unread])


def _halves(entries: model.Entries, pair: Pair) -> list[AppHalf | ModelHalf]:
    """Return the halves of a pair as they are known last."""
    return [half for half in model.halves(entries) if half.digest in (pair.app, pair.model)]


def _first_told(seen: Seen, half: AppHalf | ModelHalf) -> int:
    """Return the place at which this publication of a half was resolved first; a late repeat tells nothing new.

    But what was gone and is there again is news, as old as it may be.
    """
    same = (half.digest, half.published_at)
    lost = [place for place, entry in seen.each(Rejected) if (entry.withdrawn, entry.reason) == (half.digest, "Gone")]
    told = (place for place, entry in seen.each(Resolved) if (entry.half.digest, entry.half.published_at) == same)
    return min((place for place in told if place > max(lost, default=-1)), default=-1)


def _is_older(seen: Seen, pair: Pair, live: Pair) -> bool:
    apps = [half.digest for half in model.apps(seen.entries)]
    models = [half.digest for half in model.models(seen.entries)]
    if live.app not in apps or live.model not in models:
        return False
    return apps.index(pair.app) < apps.index(live.app) or models.index(pair.model) < models.index(live.model)


def _heads_are_known(seen: Seen) -> Iterator[str]:
    """What the tag and the container hold last is the head, if anybody told of it or the timer looked."""
    truth, barred = seen.run.truth, model.quarantine(seen.entries)
    told = {each.event.digest for each in seen.run.acknowledged if isinstance(each.event, ImagePushed)}
    apps = [half.digest for half in model.apps(seen.entries)]
    withdrawn = {entry.withdrawn for _, entry in seen.each(Rejected)}
    skipped = {entry.event_id for _, entry in seen.each(Skipped) if entry.reason not in ("Stale", "Duplicate")}
    refused = {
        entry.event.digest
        for _, entry in seen.each(Received)
        if isinstance(entry.event, ImagePushed) and entry.event.event_id in skipped
    }
    head, newest = truth.app_head, truth.model_head
    looked = not seen.history.sweep_off
    if head not in {None, *barred, *withdrawn, *refused, *apps[-1:]} and (head in told or looked):
        yield f"the tag points to {head}, and the newest app known is {apps[-1:]}"
    models = [half.digest for half in model.models(seen.entries)]
    if newest not in {None, *barred, *withdrawn, *models[-1:]} and looked:
        yield f"the newest model is {newest}, and the newest model known is {models[-1:]}"
