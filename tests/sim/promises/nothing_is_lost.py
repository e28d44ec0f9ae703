"""Invariant 1: nothing that was acknowledged is lost, and what it published came to an end that is on record."""

from collections.abc import Iterator

from shipmate.core.events import ImagePushed, ModelPublished
from shipmate.core.ledger import Failed, IgnoredEvent, Phase, Received, Rejected, Resolved, Skipped, Waiting
from shipmate.core.refs import Pair
from tests.sim import model
from tests.sim.candidates import lost
from tests.sim.seen import Seen

ENDED = frozenset({Phase.REJECTED, Phase.FAILED, Phase.ROLLED_BACK, Phase.RETIRED, Phase.LIVE})


def nothing_is_lost(seen: Seen) -> Iterator[str]:
    """An acknowledged event is in the ledger, was read, and what it published came to an end that is on record."""
    received = {entry.event.event_id: entry for _, entry in seen.each(Received)}
    ignored = {entry.event.event_id: entry for _, entry in seen.each(IgnoredEvent)}
    answers: dict[str, Resolved | Skipped] = {e.event_id: e for _, e in seen.each(Resolved)}
    answers |= {e.event_id: e for _, e in seen.each(Skipped)}
    for each in seen.run.acknowledged:
        event_id = each.event.event_id
        if event_id not in received and event_id not in ignored:
            yield f"{event_id} was acknowledged and is not in the ledger"
        elif event_id in ignored:
            yield from _is_ignored_rightly(ignored[event_id], received, each.event)
        elif event_id not in answers and not seen.may_be_stuck():
            yield f"{event_id} was acknowledged and never read"
    for _, answer in seen.each(Skipped):
        yield from _is_skipped_rightly(seen, answer, received[answer.event_id].event)
    if not seen.may_be_stuck():
        yield from _halves_without_an_end(seen)
    yield from _verdicts_without_cause(seen)
    for command in seen.run.commands:
        if not any(isinstance(e, model.COMMANDS) and e.request == command.key for e in seen.entries):
            yield f"the {command.kind} {command.key} was answered and is not in the ledger"


def _is_ignored_rightly(
    ignored: IgnoredEvent, received: dict[str, Received], event: ModelPublished | ImagePushed
) -> Iterator[str]:
    if not isinstance(event, ModelPublished) or event.sequencer is None:
        yield f"{event.event_id} was ignored as {ignored.event.reason}, and nothing says that it is old"
        return
    newer = [
        each.event
        for each in received.values()
        if isinstance(each.event, ModelPublished)
        and (each.event.container, each.event.path) == (event.container, event.path)
        and each.event.sequencer is not None
        and each.event.sequencer >= event.sequencer
    ]
    if not newer:
        yield f"{event.event_id} was ignored as {ignored.event.reason}, and is the newest of its blob"


def _is_skipped_rightly(seen: Seen, skipped: Skipped, event: ModelPublished | ImagePushed) -> Iterator[str]:
    truth, place = seen.run.truth, seen.entries.index(skipped)
    if not skipped.reason or not skipped.message:
        yield f"{skipped.event_id} was skipped without a reason"
    if skipped.reason == "Stale" and isinstance(event, ImagePushed) and event.digest == truth.app_head:
        pushed_before = [half for half in truth.apps if half.at <= skipped.at]
        if pushed_before and pushed_before[-1].digest == event.digest and truth.apps[-1].digest == event.digest:
            last = [half.digest for half in truth.apps if half.digest != event.digest]
            if len(last) == len(truth.apps) - 1:  # pushed once, and the tag never moved on
                yield f"{skipped.event_id} was skipped as stale, and the tag points to it"
    if skipped.reason == "Duplicate" and not any(isinstance(e, Resolved) for e in seen.entries[:place]):
        yield f"{skipped.event_id} was skipped as known, and nothing was known"
    if skipped.reason == "Quarantined" and not model.quarantine(seen.entries[:place]):
        yield f"{skipped.event_id} was skipped as quarantined, and nothing was quarantined"


def _halves_without_an_end(seen: Seen) -> Iterator[str]:
    """The newest half of each kind is live, ended with a reason, held, waits for a partner, or is barred."""
    apps, models = model.apps(seen.entries), model.models(seen.entries)
    if not apps or not models:
        return
    barred = model.quarantine(seen.entries)
    if seen.has_held_request():
        return
    waits = [entry for _, entry in seen.each(Waiting)]
    for kind, half in (("app", apps[-1]), ("model", models[-1])):
        own = [n for n, (_, planned) in seen.planned.items() if getattr(planned.pair, kind) == half.digest]
        phases = {seen.phases[number] for number in own}
        is_explained = (
            half.digest in barred
            or phases & (ENDED | {Phase.HELD})
            or any(getattr(entry, kind) == half.digest for entry in waits)
            or any(model.is_barred(pair, barred) for pair in [Pair(apps[-1].digest, models[-1].digest)])
            or lost(seen.entries)  # what is new waits until the half that is live is published again
        )
        if not is_explained:
            yield f"the {kind} {half.version} is the newest and came to no end: {sorted(phases)}"


def _verdicts_without_cause(seen: Seen) -> Iterator[str]:
    """What is rejected for its answers answers wrongly; nobody is blamed who was not there."""
    endings: list[tuple[int, Rejected | Failed]] = [*seen.each(Rejected), *seen.each(Failed)]
    for place, entry in endings:
        if entry.quarantine and place < seen.run.trouble_until and seen.troubles(entry.release):
            yield f"r-{entry.release} was blamed for a trouble that lies outside of it: {entry.message}"
        if isinstance(entry, Rejected) and entry.withdrawn not in {None, *seen.run.truth.gone}:
            yield f"r-{entry.release} ended for {entry.withdrawn}, which was there: {entry.message}"
        is_wrong = seen.planned[entry.release][1].pair.model in seen.run.truth.wrong_models
        was_slow = "slowest answer" in entry.message  # a worker that slept while it asked cannot tell
        if entry.reason in ("GateFailed", "CandidateAnswerUnusable") and not is_wrong and not was_slow:
            yield f"r-{entry.release} was rejected as {entry.reason}, and answers rightly"
        if entry.reason in ("ChangedByOthers", "GatePodExists"):
            yield f"r-{entry.release} ended as {entry.reason}, and nobody else was there"
