"""The fold told slowly: each field of a state is answered by searching the whole ledger for it.

It shares the entries' and the state's classes with the product, and none of its rules: nothing is kept from entry to
entry. It knows no limits either (halves and releases kept, ids remembered), which no test's ledger reaches.
"""

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from shipmate.core.events import ImagePushed, ModelPublished
from shipmate.core.ledger import (
    AnyEntry,
    AppHalf,
    Built,
    Errored,
    Failed,
    Gated,
    Held,
    HoldSet,
    IgnoredEvent,
    Intended,
    Layer,
    Live,
    ModelHalf,
    Phase,
    Planned,
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
from shipmate.core.refs import Digest, Pair
from shipmate.core.state import Hold, Publication, Release, Request, State

type Entries = Sequence[AnyEntry]

MOVES = {
    Planned: Phase.PLANNED,
    Built: Phase.BUILT,
    Gated: Phase.GATED,
    Rejected: Phase.REJECTED,
    Held: Phase.HELD,
    Intended: Phase.INTENDED,
    RolledOut: Phase.ROLLED_OUT,
    Live: Phase.LIVE,
    Failed: Phase.FAILED,
    Superseded: Phase.SUPERSEDED,
}
"""The phase that an entry brings its release to; what a gate comes to depends on why it was asked."""
COMMANDS = (Requested, RollbackRequested, HoldSet, Resumed)
REMEMBERED = timedelta(hours=26)


def differences(entries: Entries, state: State) -> list[str]:
    """Return a sentence for each field of the state that the entries, searched slowly, say otherwise about."""
    found = []
    for field, question in QUESTIONS.items():
        expected, folded = question(entries), getattr(state, field)
        if field == "seen":  # what is older may be forgotten, and need not be
            folded = {key: at for key, at in folded.items() if at >= entries[-1].at - REMEMBERED}
        if folded != expected:
            found.append(f"{field} should be {expected!r}, and is {folded!r}")
    return found


def _of(entries: Entries, *kinds: type) -> list[Any]:
    """Return the entries of some kinds."""
    return [entry for entry in entries if type(entry) in kinds]


def _last[E](entries: Entries, kind: type[E]) -> tuple[int, E] | None:
    """Return the last entry of a kind, after its place."""
    for place in range(len(entries) - 1, -1, -1):
        entry = entries[place]
        if isinstance(entry, kind):
            return place, entry
    return None


# -- what came in --------------------------------------------------------------------------------------------------


def fence(entries: Entries) -> int:
    """Return the highest fence that was handed out."""
    return max((entry.fence for entry in entries if isinstance(entry, (HoldSet, Intended))), default=0)


def seen(entries: Entries) -> dict[str, datetime]:
    """Return the events of the last 26 hours, and when they came in."""
    return {
        entry.event.event_id: entry.at
        for entry in entries
        if isinstance(entry, (Received, IgnoredEvent)) and entry.at >= entries[-1].at - REMEMBERED
    }


def requests(entries: Entries) -> dict[str, int | None]:
    """Return each idempotency key with the release that was planned for it, None until there is one."""
    keys = {entry.request for entry in entries if isinstance(entry, COMMANDS)}
    keys |= {entry.request for entry in entries if isinstance(entry, Planned) and entry.request is not None}
    found = {}
    for key in keys:
        last = [e for e in entries if isinstance(e, (*COMMANDS, Planned)) and e.request == key][-1]
        found[key] = last.release if isinstance(last, Planned) else None
    return found


def fingerprints(entries: Entries) -> dict[str, str]:
    """Return the fingerprint of the last command of each idempotency key."""
    return {entry.request: entry.fingerprint for entry in entries if isinstance(entry, COMMANDS)}


def refused(entries: Entries) -> dict[str, datetime]:
    """Return when each author was last refused each command."""
    return {f"{entry.author} {entry.command}": entry.at for entry in entries if isinstance(entry, Refused)}


def sequencers(entries: Entries) -> dict[str, str]:
    """Return the sequencer of the last event of each blob."""
    events = [entry.event for entry in entries if isinstance(entry, Received)]
    return {
        f"{event.container}/{event.path}": event.sequencer
        for event in events
        if isinstance(event, ModelPublished) and event.sequencer
    }


def examined(entries: Entries) -> dict[str, str]:
    """Return what was last under each blob's and each tag's name, unless it turned out that it was not there.

    Of a model that is at two places, the earlier counts as not looked at.
    """
    found: dict[str, str] = {}
    told: dict[str, tuple[str, str]] = {}
    copies = _second_places(entries)
    resolved: list[Resolved] = []
    places: dict[Digest | None, tuple[str, str]] = {}
    for entry in entries:
        if isinstance(entry, Received):
            event = entry.event
            if isinstance(event, ModelPublished):
                told[event.event_id] = f"{event.container}/{event.path}", event.etag or ""
            else:
                told[event.event_id] = f"{event.repository}:{event.tag}", event.digest
            found[told[event.event_id][0]] = told[event.event_id][1]
        if isinstance(entry, Skipped) and (entry.reason in ("Stale", "Gone") or entry.event_id in copies):
            name, what = told[entry.event_id]
            if found.get(name) == what:
                del found[name]
                found |= copies.get(entry.event_id, {})
        if isinstance(entry, Rejected) and entry.reason == "Gone":
            for half in [each.half for each in resolved if each.half.digest == entry.withdrawn][-1:]:
                place = f"{half.container}/{half.path}" if isinstance(half, ModelHalf) else f"{half.repository}:"
                what = (half.etag or "") if isinstance(half, ModelHalf) else half.pushed
                found = {n: w for n, w in found.items() if w != what or not n.startswith(place)}
        if isinstance(entry, Rejected):
            resolved = [each for each in resolved if each.half.digest != entry.withdrawn]
            places.pop(entry.withdrawn, None)
        if isinstance(entry, (Resolved, Skipped)) and isinstance(entry.half, ModelHalf):
            place = f"{entry.half.container}/{entry.half.path}"
            name, what = places.get(entry.half.digest, (place, ""))
            if name != place and found.get(name) == what:
                found[name] = ""
            places[entry.half.digest] = place, entry.half.etag or ""
        if isinstance(entry, Resolved):
            resolved.append(entry)
    return found


def _second_places(entries: Entries) -> dict[str, dict[str, str]]:
    """Return the events of known bytes at a blob where no model is known, while the live one is there, with that."""
    told = [entry.event for entry in _of(entries, Received)]
    blobs = {each.event_id: f"{each.container}/{each.path}" for each in told if isinstance(each, ModelPublished)}
    found = {}
    for index, entry in enumerate(entries):
        if isinstance(entry, Skipped) and entry.reason == "Duplicate" and entry.event_id in blobs:
            known, serving, name = models(entries[:index]), live(entries[:index]), blobs[entry.event_id]
            is_there = serving is None or plan_of(entries, serving).pair.model in {half.digest for half in known}
            if is_there and all(f"{half.container}/{half.path}" != name for half in known):
                found[entry.event_id] = {name: ""}
    return found


def publications(entries: Entries) -> tuple[Publication, ...]:
    """Return what was received and neither resolved nor skipped."""
    done = {entry.event_id for entry in entries if isinstance(entry, (Resolved, Skipped))}
    found = []
    for entry in entries:
        if isinstance(entry, Received) and entry.event.event_id not in done:
            errors = [e for e in entries if isinstance(e, Errored) and e.event_id == entry.event.event_id]
            retry_at, message = (errors[-1].retry_at, errors[-1].message) if errors else (None, None)
            found.append(Publication(entry.event, entry.at, 1 + len(errors), retry_at, message))
    return tuple(found)


def halves(entries: Entries) -> list[AppHalf | ModelHalf]:
    """Return each half once, as it was read last, in the order of that, without those withdrawn since."""
    found: list[AppHalf | ModelHalf] = []
    said_later: set[Digest | None] = set()
    for entry in reversed(_of(entries, Resolved, Skipped, Rejected)):
        if type(entry) is Rejected:
            said_later.add(entry.withdrawn)
        elif entry.half is not None and entry.half.digest not in said_later:
            said_later.add(entry.half.digest)
            found.append(entry.half)
    return found[::-1]


def apps(entries: Entries) -> tuple[AppHalf, ...]:
    """Return the app halves in the order in which a tag moved to them: to a quarantined one, too."""
    found = [half for half in halves(entries) if isinstance(half, AppHalf)]
    if all(entry.reason != "Quarantined" for entry in _of(entries, Skipped)):
        return tuple(found)
    told = {entry.event.event_id: entry.event for entry in _of(entries, Received)}
    moved: dict[Digest, int] = {}
    for place, entry in enumerate(entries):
        event = told.get(entry.event_id) if isinstance(entry, (Resolved, Skipped)) else None
        if isinstance(entry, (Resolved, Skipped)) and isinstance(entry.half, AppHalf):
            moved[entry.half.digest] = place
        elif isinstance(entry, Skipped) and entry.reason == "Quarantined" and isinstance(event, ImagePushed):
            moved.update({half.digest: place for half in found if event.digest in (half.pushed, half.digest)})
    return tuple(sorted(found, key=lambda half: moved[half.digest]))


def models(entries: Entries) -> tuple[ModelHalf, ...]:
    """Return the model halves in the order in which they were uploaded."""
    found = [half for half in halves(entries) if isinstance(half, ModelHalf)]
    in_words = sorted(found, key=lambda half: half.path)
    by_number = sorted(in_words, key=lambda half: re.sub("[0-9]+", lambda digits: digits[0].zfill(99), half.path))
    return tuple(sorted(by_number, key=lambda half: half.published_at))


def _new_heads(entries: Entries) -> list[tuple[int, Resolved]]:
    """Return the entries, with their places, that brought the newest app or model that might ship by then."""
    found = []
    for index, entry in enumerate(entries):
        if isinstance(entry, Resolved):
            until_then = entries[: index + 1]
            barred = quarantine(until_then)
            known = apps(until_then) if isinstance(entry.half, AppHalf) else models(until_then)
            if [half for half in known if half.digest not in barred][-1:] == [entry.half]:
                found.append((index, entry))
    return found


def halves_changed_at(entries: Entries) -> datetime | None:
    """Return the instant of the first new head since a release of new halves was planned."""
    plans = [(index, entry) for index, entry in enumerate(entries) if isinstance(entry, Planned)]
    last = max((index for index, entry in plans if entry.to is None and entry.blames is None), default=-1)
    found = None
    for index, entry in _new_heads(entries):
        if index > last:
            found = None if _are_live(entries[: index + 1]) else found or entry.at
    return found


def _are_live(entries: Entries) -> bool:
    """Whether the newest app and model that may ship are the live ones."""
    barred, serving = quarantine(entries), live(entries)
    pair = plan_of(entries, serving).pair if serving is not None else None
    newest = [[half.digest for half in kind(entries) if half.digest not in barred][-1:] for kind in (apps, models)]
    return pair is not None and newest == [[pair.app], [pair.model]]


def halves_settled_at(entries: Entries) -> datetime | None:
    """Return the instant of the last new head."""
    heads = _new_heads(entries)
    return heads[-1][1].at if heads else None


def waiting(entries: Entries) -> Waiting | None:
    """Return what waits for a partner, unless a new head or a quarantine overtook it."""
    last = _last(entries, Waiting)
    if last is None or any(place > last[0] for place, _ in _new_heads(entries)):
        return None
    place, entry = last
    since = _quarantines(entries[place:])
    return None if entry.app in since or entry.model in since else entry


# -- what became of it ---------------------------------------------------------------------------------------------


def plan_of(entries: Entries, number: int) -> Planned:
    """Return the entry that planned a release."""
    return next(entry for entry in entries if type(entry) is Planned and entry.release == number)


def _about(entries: Entries, number: int) -> list[Any]:
    return [entry for entry in entries if getattr(entry, "release", None) == number]


def phase(entries: Entries, number: int) -> Phase:
    """Return where a release stands: what its own last entry says, unless another one that went live ended it."""
    found = Phase.PLANNED
    for entry in (each for each in entries if type(each) in MOVES):
        if entry.release == number:
            found = MOVES[type(entry)]
            if found is Phase.GATED and plan_of(entries, number).blames is not None:
                found = Phase.CLEARED
        elif isinstance(entry, Live):
            undone = plan_of(entries, entry.release)
            if found is Phase.LIVE:
                found = Phase.RETIRED
            if undone.to is not None and undone.undoes == number:
                found = Phase.ROLLED_BACK
    return found


def image(entries: Entries, number: int) -> Digest | None:
    """Return a release's image: the one built, or a rollback's given one; None since a rollback missed it.

    One that waits for traffic by then keeps the name of its image.
    """
    found = None
    for index, entry in enumerate(entries):
        if type(entry) in (Planned, Built) and entry.release == number:
            found = entry.image
        elif type(entry) is Failed and _missed_its_image(entries, index):
            lost, waits = plan_of(entries, entry.release).image, (Phase.HELD, Phase.CLEARED)
            is_planned = any(isinstance(each, Planned) and each.release == number for each in entries[:index])
            found = None if found == lost and not (is_planned and phase(entries[:index], number) in waits) else found
    return found


def _missed_its_image(entries: Entries, index: int) -> bool:
    """Whether the failure at this place is that of a rollback before it touched anything."""
    failed: Any = entries[index]
    is_early = failed.stage == "build" or phase(entries[:index], failed.release) is Phase.PLANNED
    return plan_of(entries, failed.release).to is not None and is_early


def releases(entries: Entries) -> tuple[Release, ...]:
    """Return every release with all that is on record about it."""
    return tuple(_release(entries, entry) for entry in entries if isinstance(entry, Planned))


def release_of(entries: Entries, number: int) -> Release:
    """Return one release with all that is on record about it."""
    return _release(entries, plan_of(entries, number))


def _release(entries: Entries, planned: Planned) -> Release:
    number, place = planned.release, entries.index(planned)
    own = _about(entries, number)
    moves = [entry for entry in own if type(entry) in MOVES]
    errors = [entry for entry in own if isinstance(entry, Errored)]
    since = own[own.index(moves[-1]) :]
    errors_since = [entry for entry in since if isinstance(entry, Errored)]
    known = {half.digest: half for half in halves(entries[:place])}
    app, model = known.get(planned.pair.app), known.get(planned.pair.model)
    endings = [entry for entry in own if isinstance(entry, (Rejected, Failed))]
    return Release(
        number=number,
        pair=planned.pair,
        app_version=app.version if app else _version_before(entries, planned, 0),
        model_version=model.version if model else _version_before(entries, planned, 1),
        trigger=planned.trigger,
        author=planned.author,
        reason=planned.reason,
        phase=phase(entries, number),
        halves_at=_brought(entries, number, place),
        planned_at=planned.at,
        moved_at=moves[-1].at,
        to=planned.to,
        undoes=planned.undoes,
        blames=planned.blames,
        image=image(entries, number),
        fence=next((entry.fence for entry in reversed(own) if isinstance(entry, Intended)), None),
        attempt=1 + len(errors),
        stage_attempt=1 + len(errors_since),
        retry_at=getattr(own[-1], "retry_at", None),
        ended_because=endings[-1].reason if endings else None,
        message=getattr(own[-1], "message", None),
        cost=next((entry.cost for entry in own if isinstance(entry, Built)), None),
        was_live=any(isinstance(entry, Live) for entry in own),
        forgiven=_forgiven(entries, planned),
    )


def _forgiven(entries: Entries, planned: Planned) -> tuple[str, ...]:
    """Return what a release's gate found wrong and let pass; what a rollback brings back was let pass before."""
    if planned.to is not None:
        until_then = entries[: entries.index(planned)]
        return _forgiven(until_then, plan_of(until_then, planned.to))
    gates = [entry.report for entry in _about(entries, planned.release) if isinstance(entry, Gated)]
    rows = gates[-1].rows if gates else ()
    return tuple(row.file for row in rows if row.change in ("newly wrong", "wrong", "changed"))


def _version_before(entries: Entries, planned: Planned, which: int) -> str:
    """Return the version that a half, which is not known any more, had in the release before that had it."""
    until_then = entries[: entries.index(planned)]
    place = _had(until_then, (planned.pair.app, planned.pair.model)[which])
    if place is None:
        return ""
    before = _release(until_then, until_then[place])
    return (before.app_version, before.model_version)[which]


def _had(entries: Entries, half: Digest) -> int | None:
    """Return the place of the last plan with a half."""
    places = [p for p, each in enumerate(entries) if type(each) is Planned and half in (each.pair.app, each.pair.model)]
    return places[-1] if places else None


def _brought(entries: Entries, number: int, planned: int) -> tuple[datetime | None, datetime | None]:
    """Return when a release's halves were published, as it was known at its plan, or to the release before with each.

    While it is live, that is told anew by each plan, and by what withdraws a half of it.
    """
    plan = plan_of(entries, number)
    pair, found, until = plan.pair, dict[Digest, datetime | None](), entries[:planned]
    at_hand = _published(until)
    for which, half in enumerate((pair.app, pair.model)):
        before = _had(until, half) if half not in at_hand else None
        if before is not None:
            found[half] = _brought(until, until[before].release, before)[which]
    for place in range(planned, len(entries)):
        entry, until_then = entries[place], entries[:place]
        if type(entry) not in (Planned, Rejected) or (place > planned and live(until_then) != number):
            continue
        known = _published(until_then)
        told = (pair.app, pair.model) if isinstance(entry, Planned) else (entry.withdrawn,)
        found |= {half: known[half] for half in told if half in known}
    return found.get(pair.app), found.get(pair.model)


def _published(entries: Entries) -> dict[Digest, datetime]:
    return {half.digest: half.published_at for half in halves(entries)}


def live(entries: Entries) -> int | None:
    """Return the release that went live last."""
    return next((entry.release for entry in reversed(entries) if isinstance(entry, Live)), None)


def verified(entries: Entries) -> tuple[int, ...]:
    """Return every release that went live, in order."""
    return tuple(entry.release for entry in entries if isinstance(entry, Live))


def rollback_due(entries: Entries) -> int | None:
    """Return what users may meet although it failed, or although a person rolled it back before it was live."""
    for place in range(len(entries) - 1, -1, -1):
        entry, until_then = entries[place], entries[:place]
        if isinstance(entry, Live):
            return None
        bad = entry.undoes if isinstance(entry, Planned) else None
        if bad is not None and phase(until_then, bad) in (Phase.FAILED, Phase.SUPERSEDED):
            return bad
        if isinstance(entry, Failed) and not _missed_its_image(entries, place):
            is_forward = plan_of(entries, entry.release).to is None
            return entry.release if is_forward and live(until_then) is not None else None
    return None


def layers(entries: Entries) -> tuple[Layer, ...]:
    """Return each layer once, as it was built last, in the order of its first build."""
    built = [layer for entry in entries if isinstance(entry, Built) for layer in entry.layers]
    last = {layer.key: layer for layer in built}
    return tuple(last.values())


def _last_stage(entries: Entries) -> AnyEntry | None:
    stages = [e for e in entries if getattr(e, "release", None) is not None]
    return stages[-1] if stages else None


# -- what people asked for, and what must not ship -----------------------------------------------------------------


def hold(entries: Entries) -> Hold | None:
    """Return the hold in force: a person's, or that of a rollback that found none on everything."""
    found = None
    for entry in _of(entries, HoldSet, Resumed, Live):
        if isinstance(entry, HoldSet):
            under = found if found is not None and found.scope != "all" else None
            found = Hold(entry.id, entry.author, entry.reason, entry.at, entry.scope, under)
        elif isinstance(entry, Resumed) and found is not None and entry.hold == found.id:
            found = found.under
        elif isinstance(entry, Live) and (found is None or found.scope != "all"):
            planned = plan_of(entries, entry.release)
            if planned.to is not None:
                found = Hold(entry.id, planned.author, planned.reason, entry.at, under=found)
    return found


def quarantine(entries: Entries) -> frozenset[str]:
    """Return what must not ship: what was found guilty, without what a person released all the same since."""
    found: set[str] = set()
    overrides: set[str] = set()
    for entry in _of(entries, Rejected, Failed, Live, Superseded, Requested, Planned):
        if isinstance(entry, Requested):
            overrides.update([entry.request] if entry.override else [])
        elif not isinstance(entry, Planned):
            found.update(entry.quarantine)
        elif entry.request in overrides:
            found -= {entry.pair.app, entry.pair.model, entry.pair.key}
    return frozenset(found)


def _quarantines(entries: Entries) -> set[str]:
    return {
        what
        for entry in entries
        if isinstance(entry, (Rejected, Failed, Live, Superseded))
        for what in entry.quarantine
    }


def is_barred(pair: Pair, barred: frozenset[str]) -> bool:
    """Return whether a pair or a half of it is among what must not ship."""
    return pair.app in barred or pair.model in barred or pair.key in barred


def request(entries: Entries) -> Request | None:
    """Return the last wish for a release, unless one was planned for it or a verdict barred its pair since."""
    last = _last(entries, Requested)
    if last is None:
        return None
    place, asked = last
    for index in range(place, len(entries)):
        entry = entries[index]
        if isinstance(entry, Planned) and entry.request == asked.request:
            return None
        if isinstance(entry, (Rejected, Failed, Live, Superseded)) and is_barred(
            asked.pair, frozenset(entry.quarantine)
        ):
            return None
    return Request(asked.request, asked.author, asked.reason, asked.pair, asked.override)


def rollback_request(entries: Entries) -> RollbackRequested | None:
    """Return the last wish to go back, unless a release was planned for it or a verdict barred its pair since."""
    last = _last(entries, RollbackRequested)
    if last is None:
        return None
    place, asked = last
    pair = plan_of(entries, asked.to).pair
    for entry in entries[place:]:
        if isinstance(entry, Planned) and entry.request == asked.request:
            return None
        if isinstance(entry, (Rejected, Failed, Live, Superseded)) and is_barred(pair, frozenset(entry.quarantine)):
            return None
    return asked


def last_stage_by(entries: Entries) -> str | None:
    last = _last_stage(entries)
    return None if last is None or getattr(last, "hands_over", False) else str(last.by)


QUESTIONS: dict[str, Callable[[Entries], Any]] = {
    "length": len,
    "fence": fence,
    "seen": seen,
    "requests": requests,
    "fingerprints": fingerprints,
    "refused": refused,
    "sequencers": sequencers,
    "examined": examined,
    "publications": publications,
    "apps": apps,
    "models": models,
    "halves_changed_at": halves_changed_at,
    "halves_settled_at": halves_settled_at,
    "releases": releases,
    "live": live,
    "verified": verified,
    "rollback_due": rollback_due,
    "rollback_request": rollback_request,
    "request": request,
    "hold": hold,
    "quarantine": quarantine,
    "layers": layers,
    "waiting": waiting,
    "last_stage_at": lambda entries: getattr(_last_stage(entries), "at", None),
    "last_stage_by": last_stage_by,
}
"""Who answers for each field of a state."""
