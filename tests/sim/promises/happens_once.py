"""Invariant 2: everything happens once, however often it is told, tried or replayed."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from shipmate.core.ledger import (
    Built,
    Errored,
    Failed,
    Gated,
    Held,
    HoldSet,
    IgnoredEvent,
    Intended,
    Live,
    ModelHalf,
    Phase,
    Planned,
    Received,
    Rejected,
    Requested,
    Resolved,
    Resumed,
    RollbackRequested,
    Skipped,
    Superseded,
)
from shipmate.core.refs import Digest, Pair
from shipmate.pipeline import UNFORESEEN
from tests.sim import model
from tests.sim.seen import Seen


def each_thing_happens_once(seen: Seen) -> Iterator[str]:
    """One record of each thing; one pair on its way; equal effects; no pod left; a replay that changes nothing."""
    yield from _recorded_once(seen)
    yield from _one_release_an_occasion(seen)
    yield from _one_on_its_way(seen)
    yield from _equal_effects(seen)
    yield from _one_pod_a_gate(seen)
    for _, entry in seen.each(Errored):
        if entry.message.startswith(UNFORESEEN):
            yield f"an error was not foreseen: {entry.message}"
    if seen.run.gate_pods:
        yield f"gate pods were left behind: {', '.join(pod.name for pod in seen.run.gate_pods)}"
    yield from _swept_in_vain(seen)
    if seen.run.replayed:
        yield f"replaying all events wrote {seen.run.replayed[0]}"
    if seen.run.replayed_effects:
        yield f"replaying all events did {seen.run.replayed_effects[0]}"


def _swept_in_vain(seen: Seen) -> Iterator[str]:
    """Where the timer never ran, a sweep at the end may look once more at what is newest, and finds it known.

    What no event told, which is so in some written histories alone, only a sweep can find; and where a model was before
    it was published anew and lost there.
    """
    if seen.run.dropped or _is_elsewhere(seen):
        return
    swept = seen.run.swept
    found = [entry.event.event_id for entry in swept if isinstance(entry, Received)]
    known = [e.event_id for e in swept if isinstance(e, Skipped) and e.reason in ("Duplicate", "Quarantined")]
    if sorted(found) != sorted(known) or len(swept) != len(found) + len(known):
        yield f"a sweep after all was settled wrote {', '.join(entry.kind_name for entry in swept)}"


def _is_elsewhere(seen: Seen) -> bool:
    """Whether a model was withdrawn for what its newest place lacks, and had been published at another before."""
    places: dict[Digest, set[str]] = {}
    for _, entry in seen.each(Resolved):
        if isinstance(entry.half, ModelHalf):
            places.setdefault(entry.half.digest, set()).add(entry.half.path)
    withdrawn = (entry.withdrawn for _, entry in seen.each(Rejected) if entry.withdrawn is not None)
    return any(len(places.get(digest, ())) > 1 for digest in withdrawn)


def _one_pod_a_gate(seen: Seen) -> Iterator[str]:
    """The gate of a release has one pod an attempt: whoever tries at the same time shares it."""
    names: dict[str, set[str]] = {}
    for pod in seen.run.gate_pods_made:
        names.setdefault(pod.release or "", set()).add(pod.name)
    for release, pods in names.items():
        errors = [e for _, e in seen.each(Errored) if f"r-{e.release}" == release]
        if len(pods) > 1 + len(errors):
            yield f"the gate of {release} had {len(pods)} pods in {1 + len(errors)} attempts"


def _recorded_once(seen: Seen) -> Iterator[str]:
    kinds: dict[str, list[Any]] = {
        "entry": [entry.id for entry in seen.entries],
        "event": [e.event.event_id for e in seen.all(Received, IgnoredEvent)],
        "answer to event": [e.event_id for e in seen.all(Resolved, Skipped)],
        "request": [e.request for e in seen.all(Requested, RollbackRequested, HoldSet)],
        "resume": [e.request for e in seen.all(Resumed)],
        "release": [e.release for e in seen.all(Planned)],
        "plan for": [e.request for e in seen.all(Planned) if e.request is not None],
        "verdict on": [e.release for e in seen.all(Gated, Rejected) if getattr(e, "withdrawn", None) is None],
        "withdrawal of": [e.release for e in seen.all(Rejected) if e.withdrawn is not None],
        "live": [e.release for e in seen.all(Live)],
        "fence": [e.fence for e in seen.all(Intended, HoldSet)],
    }
    for what, names in kinds.items():
        if len(set(names)) == len(names):
            continue
        for name, number in Counter(names).items():
            if number > 1:
                yield f"{what} {name} is in the ledger {number} times"


def _one_release_an_occasion(seen: Seen) -> Iterator[str]:
    """A pair goes out by itself once, unless a half of it was published anew, or the first was superseded."""
    for place, planned in seen.each(Planned):
        if planned.trigger not in ("model", "app"):
            continue
        for before, earlier in seen.each(Planned):
            if before >= place or earlier.pair != planned.pair:
                continue
            anew = any(
                isinstance(entry, (Resolved, Skipped))
                and entry.half is not None
                and entry.half.digest in (planned.pair.app, planned.pair.model)
                for entry in seen.entries[before:place]
            )
            if not anew and model.phase(seen.entries[:place], earlier.release) is not Phase.SUPERSEDED:
                yield f"r-{planned.release} brings the pair that r-{earlier.release} brought, for no new reason"
    undone: dict[int, int] = {}
    for place, planned in seen.each(Planned):
        if planned.trigger == "automatic_rollback" and planned.undoes is not None:
            first = undone.get(planned.undoes)
            gave_way = first is not None and model.phase(seen.entries[:place], first) is Phase.SUPERSEDED
            if first is not None and not gave_way and not _missed_its_image(seen, first, place):
                yield f"r-{planned.release} undoes r-{planned.undoes}, which r-{first} undid"
            undone[planned.undoes] = planned.release


def _missed_its_image(seen: Seen, number: int, until: int) -> bool:
    failures = [e for e in seen.entries[:until] if isinstance(e, Failed) and e.release == number]
    return any(entry.stage == "build" for entry in failures)


def _one_on_its_way(seen: Seen) -> Iterator[str]:
    under_way: set[int] = set()
    for entry in seen.entries:
        is_cleared = isinstance(entry, Gated) and seen.planned[entry.release][1].blames is not None
        if isinstance(entry, (Planned, Intended)):
            under_way.add(entry.release)
        elif isinstance(entry, (Rejected, Held, Live, Failed, Superseded)) or is_cleared:
            under_way.discard(entry.release)
        if len(under_way) > 1:
            yield f"after an entry {entry.kind_name!r}, {sorted(under_way)} were on their way"


def _equal_effects(seen: Seen) -> Iterator[str]:
    images: dict[Pair, str] = {}
    lost = seen.run.truth.lost_images
    for _, built in seen.each(Built):
        pair = seen.planned[built.release][1].pair
        if images.setdefault(pair, built.image) != built.image and images[pair] not in lost:
            yield f"r-{built.release} was built into another image than before"
    for number, times in Counter(number for _, _, number in seen.moves).items():
        if times > 1:
            yield f"r-{number} was patched in {times} times"
    for place, patch, number in seen.moves:
        built_image = model.image(seen.entries[: patch.entries], number) if number in seen.planned else None
        if not any(each.image.endswith(f"@{built_image}") for each in patch.after.containers):
            yield f"patch {place} brought r-{number} with an image that is not its own"
