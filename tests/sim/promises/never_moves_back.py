"""Invariant 3: live never moves back to an older head, by the cluster's own history."""

from collections.abc import Iterator

from shipmate.core.ledger import AppHalf, Phase, Rejected, Resolved
from tests.sim import model
from tests.sim.history import Half
from tests.sim.seen import Seen


def live_never_moves_back(seen: Seen) -> Iterator[str]:
    """By the cluster's own history: each release comes under its own fence, which rises, with halves not older."""
    for place, patch, number in seen.moves:
        if number not in seen.planned:
            yield f"patch {place} brought r-{number}, which is not in the ledger"
            return
        intent = seen.intent(number, patch.after.fence)
        if intent is None or intent >= patch.entries:
            yield f"r-{number} was patched in with fence {patch.after.fence}, which it never had"
            return
        if patch.before.fence is not None and (patch.after.fence or 0) <= patch.before.fence:
            yield f"r-{number} was patched in under the fence {patch.after.fence}, not above {patch.before.fence}"
        if seen.planned[number][1].trigger in ("model", "app", "blame"):
            yield from _grew_older(seen, intent, number)


def _grew_older(seen: Seen, intent: int, number: int) -> Iterator[str]:
    """Compare what a release brings with what was live, and what the cluster ran, when it got its fence."""
    until = seen.entries[:intent]
    running = [each for _, patch, each in seen.moves if patch.entries <= intent and each != number]
    serving, barred = model.live(until), model.quarantine(until)
    for before in {serving, *running[-1:]} & seen.planned.keys():
        pair = seen.planned[before][1].pair
        is_bad = before != serving and model.phase(until, before) in (Phase.FAILED, Phase.SUPERSEDED)
        for kind, published in (("app", seen.run.truth.apps), ("model", seen.run.truth.models)):
            old, new = getattr(pair, kind), getattr(seen.planned[number][1].pair, kind)
            planned = {old: seen.planned[before][0], new: seen.planned[number][0]}
            known = [half for half in published if _was_read(seen, half, intent, planned.get(half.digest, intent))]
            order = {half.digest: place for place, half in enumerate(known)}  # what was published again is newer
            if order.get(new, -1) < order.get(old, -1) and not is_bad and old not in barred:
                yield f"r-{number} was patched in with an older {kind} than r-{before} had"


def _was_read(seen: Seen, half: Half, until: int, planned: int) -> bool:
    """Whether a publication was resolved by then: a model's upload itself, an app's push by what its tag points to.

    One that was withdrawn since, before the release that brings this half was planned, is not what it brings.
    """
    withdrawn = [place for place, entry in seen.each(Rejected) if entry.withdrawn == half.digest and place < planned]
    for index, entry in seen.each(Resolved):
        if max(withdrawn, default=-1) < index < until and entry.half.digest == half.digest:
            is_app = isinstance(entry.half, AppHalf)
            if seen.instant(entry) >= half.at if is_app else entry.half.published_at == half.at:
                return True
    return False
