"""Invariant 4: nothing ships that must not, by gates, quarantines and holds."""

from collections.abc import Iterator

from shipmate.core.ledger import Failed, Gated, HoldSet, Intended, Live, Phase, Rejected, Requested, Resumed, Superseded
from shipmate.core.refs import Pair
from shipmate.core.state import Hold
from tests.sim import model
from tests.sim.history import Patch
from tests.sim.seen import Seen


def nothing_ships_that_must_not(seen: Seen) -> Iterator[str]:
    """What is patched in passed its own gate, is not quarantined, and is not under a hold that is in force.

    That each patch brings a release of the ledger is part of invariant 3, which is asked before this one.
    """
    for place, patch, number in seen.moves:
        yield from _is_what_it_says(seen, patch, number)
        if seen.is_forward(number):
            yield from _passed_its_gate(seen, patch, number)
            yield from _is_held(seen, place, patch, number)
    yield from _intended_under_a_hold(seen)
    yield from _quarantines_what_is_guilty(seen)
    yield from _bars_what_a_person_undid(seen)
    yield from _overrides_are_recorded(seen)
    truth = seen.run.truth
    for _, entry in seen.each(Live):
        pair = seen.planned[entry.release][1].pair
        if pair.app in truth.broken_apps or pair.model in truth.wrong_models:
            yield f"r-{entry.release} was called live, and nobody gets a right answer from it"


def _is_what_it_says(seen: Seen, patch: Patch, number: int) -> Iterator[str]:
    planned, truth = seen.planned[number][1], seen.run.truth
    if patch.after.pair != planned.pair.key:
        yield f"r-{number} was patched in with another pair than its own"
    until = seen.entries[: patch.entries]
    # what a person rolled back after it had its fence may still be patched in, until the rollback takes the Deployment
    others = [entry for entry in until if not (isinstance(entry, Superseded) and entry.release == number)]
    if model.is_barred(planned.pair, model.quarantine(others)):
        yield f"r-{number} was patched in although it is quarantined"
    if model.image(seen.entries[: patch.entries], number) in truth.mixed_up_images:
        yield f"r-{number} was patched in with an image that holds another app than it says"
    lost = truth.lost_images.get(planned.image) if planned.image is not None else None
    if lost is not None and lost <= seen.planned[number][0] and not patch.pullable:
        yield f"r-{number} was patched in with an image that was gone when the rollback was planned"


def _overrides_are_recorded(seen: Seen) -> Iterator[str]:
    for command in seen.run.commands:
        asked = [entry for _, entry in seen.each(Requested) if entry.request == command.key]
        if command.kind == "release" and command.override and not any(entry.override for entry in asked):
            yield f"the override of {command.key} is not on record"
    for place, entry in seen.each(Requested):
        if not entry.override and model.is_barred(entry.pair, model.quarantine(seen.entries[:place])):
            yield f"{entry.request} asks for a quarantined pair without an override"


def _passed_its_gate(seen: Seen, patch: Patch, number: int) -> Iterator[str]:
    verdicts = [e for e in seen.entries[: patch.entries] if isinstance(e, Gated) and e.release == number]
    if not verdicts:
        yield f"r-{number} was patched in without a gate of its own"
    if any(not entry.report.passed for entry in verdicts):
        yield f"r-{number} was patched in although its gate found it wrong"
    pair = seen.planned[number][1].pair
    if pair.model in seen.run.truth.wrong_models:
        yield f"r-{number} was patched in, and its model answers wrongly: its gate cannot have asked it"


def _holds(seen: Seen) -> Iterator[tuple[str, str, int, int]]:
    """Yield each hold's id and scope, its entry's place, and the place of the entry that ended it."""
    changes = sorted(index for kind in (HoldSet, Resumed, Live) for index, _ in seen.each(kind))
    holds = {index: model.hold(seen.entries[: index + 1]) for index in changes}
    for place, hold in holds.items():
        if hold is not None and hold.id == seen.entries[place].id:
            later = [index for index in changes if index > place]
            ended = [index for index in later if hold.id not in _in_force(holds[index])]
            yield hold.id, hold.scope, place, ended[0] if ended else len(seen.entries)


def _in_force(hold: Hold | None) -> list[str]:
    """Return the ids of a hold and of the one under it."""
    return [] if hold is None else [hold.id, *_in_force(hold.under)]


def _keeps_back(scope: str, pair: Pair, live: Pair | None) -> bool:
    if scope == "all" or live is None:
        return True
    return pair.app != live.app if scope == "app" else pair.model != live.model


def _is_held(seen: Seen, place: int, patch: Patch, number: int) -> Iterator[str]:
    """Whether a patch was accepted after a hold was reported, by a release that was intended before it was lifted."""
    intent = seen.intent(number, patch.after.fence)
    reported = {c.key: c.patches for c in reversed(seen.run.commands) if c.kind == "hold" and c.answer.accepted}
    for held, scope, since, lifted in _holds(seen):
        entry = seen.entries[since]
        if isinstance(entry, HoldSet):
            in_force = place >= reported.get(entry.request, len(seen.run.patches))
        else:
            in_force = patch.entries > since
        live = seen.pair_of(model.live(seen.entries[: patch.entries]))
        if in_force and (intent is None or intent < lifted) and _keeps_back(scope, seen.planned[number][1].pair, live):
            yield f"r-{number} was patched in after the hold {held} was in force"


def _intended_under_a_hold(seen: Seen) -> Iterator[str]:
    for held, scope, since, lifted in _holds(seen):
        for place, intended in seen.each(Intended):
            live = seen.pair_of(model.live(seen.entries[:place]))
            pair = seen.planned[intended.release][1].pair
            if since < place < lifted and seen.is_forward(intended.release) and _keeps_back(scope, pair, live):
                yield f"r-{intended.release} was intended while the hold {held} was in force"


def _quarantines_what_is_guilty(seen: Seen) -> Iterator[str]:
    """A verdict bars the half that differs from the live pair, by its digest, or the pair by its key.

    One that was live, and that no rollback undid, is not barred by itself.
    """
    for place, entry in enumerate(seen.entries):
        if not isinstance(entry, (Rejected, Failed)) or not seen.is_forward(entry.release):
            continue
        pair, live = seen.planned[entry.release][1].pair, seen.pair_of(model.live(seen.entries[:place]))
        if isinstance(entry, Failed) and not entry.quarantine and entry.stage == "rollout":
            continue  # nodes, pulls, people: nobody's fault
        if isinstance(entry, Rejected) and entry.withdrawn is not None:
            continue
        guilty = _differs(pair, live)
        if any(_did_well(seen, place, half) for half in guilty):
            guilty = (pair.key,)
        if set(entry.quarantine) != set(guilty):
            yield f"r-{entry.release} ended and quarantined {entry.quarantine} instead of {guilty}"


def _differs(pair: Pair, good: Pair | None) -> tuple[str, ...]:
    """Return the half in which a pair differs from another, or the pair itself if both do."""
    if good is None or (pair.app != good.app and pair.model != good.model):
        return (pair.key,)
    if pair == good:
        return ()
    return (pair.app,) if pair.app != good.app else (pair.model,)


def _bars_what_a_person_undid(seen: Seen) -> Iterator[str]:
    """A rollback by hand bars the half that it took back; one that undoes what failed bars nothing more."""
    for place, entry in seen.each(Live):
        planned = seen.planned[entry.release][1]
        undone = seen.planned[planned.undoes][1] if planned.undoes is not None else None
        ended = [e.release for e in seen.entries[:place] if isinstance(e, (Rejected, Failed))]
        is_judged = undone is not None and planned.undoes not in ended
        guilty = _differs(undone.pair, planned.pair) if undone is not None and is_judged else ()
        if set(entry.quarantine) != set(guilty):
            yield f"r-{entry.release} went live and quarantined {entry.quarantine} instead of {guilty}"


def _did_well(seen: Seen, until: int, half: str) -> bool:
    """Whether a half was live before a place in the ledger, and was not undone by then."""
    entries = seen.entries[:until]
    good = [number for number in model.verified(entries) if model.phase(entries, number) is not Phase.ROLLED_BACK]
    return any(half in (seen.planned[number][1].pair.app, seen.planned[number][1].pair.model) for number in good)
