"""What must hold of every finished run, judged from outside: the ledger's entries, the cluster's patches, the truth.

None of Shipmate's own rules is asked here: what a hold, a quarantine, a head or a phase is, the slow model says
(`tests.sim.model`) or this file. `check` raises the first `Violation`, with the story that led to it.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from shipmate.core.events import ImagePushed, ModelPublished
from shipmate.core.fold import fold
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
    State,
    Superseded,
    Waiting,
)
from shipmate.core.refs import Pair
from tests.sim import model
from tests.sim.history import Half, History, Patch, TargetRun

UNDER_WAY = frozenset({Phase.PLANNED, Phase.BUILT, Phase.GATED, Phase.INTENDED, Phase.ROLLED_OUT})
ENDED = frozenset({Phase.REJECTED, Phase.FAILED, Phase.ROLLED_BACK, Phase.RETIRED, Phase.LIVE})
EVERY_ENTRY = 97
"""One seed in so many compares the fold with its model after every entry; each does at the end."""


class Violation(AssertionError):
    """An invariant does not hold: its number and name, what happened, and the story."""

    def __init__(self, number: int, name: str, what: str, story: str) -> None:
        super().__init__(f"invariant {number}, {name}: {what}\n{story}")
        self.number = number
        self.name = name
        self.what = what


def check(history: History) -> None:
    """Raise Violation for the first invariant that does not hold of a finished run."""
    for run in history.targets:
        seen = Seen(history, run)
        for number, (name, complaints) in INVARIANTS.items():
            for what in complaints(seen):
                raise Violation(number, name, f"seed {history.seed}, {run.target.name}: {what}", story(run))


@dataclasses.dataclass(frozen=True)
class Seen:
    """A target's run, indexed for those who judge it."""

    history: History
    run: TargetRun

    @property
    def entries(self) -> tuple[AnyEntry, ...]:
        return self.run.entries

    def each[E](self, kind: type[E]) -> list[tuple[int, E]]:
        """Return the entries of a kind with their places."""
        found: list[tuple[int, Any]] = self._by_kind.get(kind, [])
        return found

    def all(self, *kinds: type) -> list[Any]:
        """Return the entries of some kinds, one kind after the other."""
        return [entry for kind in kinds for _, entry in self._by_kind.get(kind, ())]

    @cached_property
    def _by_kind(self) -> dict[type, list[tuple[int, AnyEntry]]]:
        found: dict[type, list[tuple[int, AnyEntry]]] = {}
        for index, entry in enumerate(self.entries):
            found.setdefault(type(entry), []).append((index, entry))
        return found

    @cached_property
    def planned(self) -> dict[int, tuple[int, Planned]]:
        return {entry.release: (index, entry) for index, entry in self.each(Planned)}

    @cached_property
    def phases(self) -> dict[int, Phase]:
        """Where each release stands at the end."""
        return {number: model.phase(self.entries, number) for number in self.planned}

    @cached_property
    def moves(self) -> list[tuple[int, Patch, int]]:
        """The patches that brought another release, with their places and that release's number."""
        return [
            (place, patch, int((patch.after.release or "r-0").removeprefix("r-")))
            for place, patch in enumerate(self.run.patches)
            if (patch.after.release, patch.after.containers) != (patch.before.release, patch.before.containers)
        ]

    def instant(self, entry: AnyEntry) -> datetime:
        """Return when an entry was made, by the world's clock and not its worker's."""
        host = int(entry.by.removeprefix("worker-").partition(".")[0])
        return entry.at - timedelta(seconds=self.history.skews[host])

    def is_forward(self, number: int) -> bool:
        """Whether a release is no rollback."""
        return self.planned[number][1].to is None

    def intent(self, number: int, fence: int | None) -> int | None:
        """Return the place of the entry that gave a release a fence."""
        return next((i for i, e in self.each(Intended) if (e.release, e.fence) == (number, fence)), None)


# -- 1: nothing that was acknowledged is lost ----------------------------------------------------------------------


def nothing_is_lost(seen: Seen) -> Iterator[str]:
    """An acknowledged event is in the ledger, was read, and what it published came to an end that is on record."""
    received = {entry.event.event_id: entry for _, entry in seen.each(Received)}
    ignored = {entry.event.event_id: entry for _, entry in seen.each(IgnoredEvent)}
    answers = {e.event_id: e for _, e in [*seen.each(Resolved), *seen.each(Skipped)]}
    for each in seen.run.acknowledged:
        event_id = each.event.event_id
        if event_id not in received and event_id not in ignored:
            yield f"{event_id} was acknowledged and is not in the ledger"
        elif event_id in ignored:
            yield from _is_ignored_rightly(ignored[event_id], received, each.event)
        elif event_id not in answers and not _may_be_stuck(seen):
            yield f"{event_id} was acknowledged and never read"
    for _, answer in seen.each(Skipped):
        yield from _is_skipped_rightly(seen, answer, received[answer.event_id].event)
    if not _may_be_stuck(seen):
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
    if _held_request(seen):
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
        )
        if not is_explained:
            yield f"the {kind} {half.version} is the newest and came to no end: {sorted(phases)}"


def _verdicts_without_cause(seen: Seen) -> Iterator[str]:
    """What is rejected for its answers answers wrongly; nobody is blamed who was not there."""
    for _, entry in [*seen.each(Rejected), *seen.each(Failed)]:
        is_wrong = seen.planned[entry.release][1].pair.model in seen.run.truth.wrong_models
        was_slow = "slowest answer" in entry.message  # a worker that slept while it asked cannot tell
        if entry.reason in ("GateFailed", "CandidateAnswerUnusable") and not is_wrong and not was_slow:
            yield f"r-{entry.release} was rejected as {entry.reason}, and answers rightly"
        if entry.reason in ("ChangedByOthers", "GatePodExists"):
            yield f"r-{entry.release} ended as {entry.reason}, and nobody else was there"


def _held_request(seen: Seen) -> bool:
    """Whether a person's wish, which goes first, waits for a resume."""
    held = [number for number, phase in seen.phases.items() if phase is Phase.HELD]
    return any(seen.planned[number][1].trigger == "request" for number in held)


def _may_be_stuck(seen: Seen) -> bool:
    """Whether nobody may be left to go on: a message was poisoned, and no timer wakes the target."""
    return seen.history.poisoned > 0 and seen.history.sweep_off


# -- 2: once ---------------------------------------------------------------------------------------------------------


def each_thing_happens_once(seen: Seen) -> Iterator[str]:
    """One record of each thing; one pair on its way; equal effects; no pod left; a replay that changes nothing."""
    yield from _recorded_once(seen)
    yield from _one_release_an_occasion(seen)
    yield from _one_on_its_way(seen)
    yield from _equal_effects(seen)
    yield from _one_pod_a_gate(seen)
    if seen.run.gate_pods and not seen.history.sweep_off:
        yield f"gate pods were left behind: {', '.join(pod.name for pod in seen.run.gate_pods)}"
    if seen.run.replayed:
        yield f"replaying all events wrote {seen.run.replayed[0]}"
    if seen.run.replayed_effects:
        yield f"replaying all events did {seen.run.replayed_effects[0]}"


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
        "verdict on": [e.release for e in seen.all(Gated, Rejected)],
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
                isinstance(entry, Resolved) and entry.half.digest in (planned.pair.app, planned.pair.model)
                for entry in seen.entries[before:place]
            )
            if not anew and model.phase(seen.entries[:place], earlier.release) is not Phase.SUPERSEDED:
                yield f"r-{planned.release} brings the pair that r-{earlier.release} brought, for no new reason"
    undone: dict[int, int] = {}
    for place, planned in seen.each(Planned):
        if planned.trigger == "automatic_rollback" and planned.undoes is not None:
            first = undone.get(planned.undoes)
            if first is not None and not _missed_its_image(seen, first, place):
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


# -- 3: live never moves back ---------------------------------------------------------------------------------------


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
            known = [half for half in published if _was_read(seen, half, intent)]
            order = {half.digest: place for place, half in enumerate(known)}  # what was published again is newer
            if order.get(new, -1) < order.get(old, -1) and not is_bad and old not in barred:
                yield f"r-{number} was patched in with an older {kind} than r-{before} had"


def _was_read(seen: Seen, half: Half, place: int) -> bool:
    """Whether a publication was resolved by then: a model's upload itself, an app's push by what its tag points to."""
    for index, entry in seen.each(Resolved):
        if index < place and entry.half.digest == half.digest:
            is_app = isinstance(entry.half, AppHalf)
            if seen.instant(entry) >= half.at if is_app else entry.half.published_at == half.at:
                return True
    return False


# -- 4: nothing ships that must not --------------------------------------------------------------------------------


def nothing_ships_that_must_not(seen: Seen) -> Iterator[str]:
    """What is patched in passed its own gate, is not quarantined, and is not under a hold that is in force."""
    for place, patch, number in seen.moves:
        if number not in seen.planned:
            yield f"patch {place} brought r-{number}, which is not in the ledger"
            return
        yield from _is_what_it_says(seen, patch, number)
        if seen.is_forward(number):
            yield from _passed_its_gate(seen, patch, number)
            yield from _is_held(seen, place, patch, number)
    yield from _intended_under_a_hold(seen)
    yield from _quarantines_what_is_guilty(seen)
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
    if model.is_barred(planned.pair, model.quarantine(seen.entries[: patch.entries])):
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
            ended = [index for index in later if (now := holds[index]) is None or now.id != hold.id]
            yield hold.id, hold.scope, place, ended[0] if ended else len(seen.entries)


def _keeps_back(scope: str, pair: Pair, live: Pair | None) -> bool:
    if scope == "all" or live is None:
        return True
    return pair.app != live.app if scope == "app" else pair.model != live.model


def _pair_of(seen: Seen, number: int | None) -> Pair | None:
    return seen.planned[number][1].pair if number is not None else None


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
        live = _pair_of(seen, model.live(seen.entries[: patch.entries]))
        if in_force and (intent is None or intent < lifted) and _keeps_back(scope, seen.planned[number][1].pair, live):
            yield f"r-{number} was patched in after the hold {held} was in force"


def _intended_under_a_hold(seen: Seen) -> Iterator[str]:
    for held, scope, since, lifted in _holds(seen):
        for place, intended in seen.each(Intended):
            live = _pair_of(seen, model.live(seen.entries[:place]))
            pair = seen.planned[intended.release][1].pair
            if since < place < lifted and seen.is_forward(intended.release) and _keeps_back(scope, pair, live):
                yield f"r-{intended.release} was intended while the hold {held} was in force"


def _quarantines_what_is_guilty(seen: Seen) -> Iterator[str]:
    """A verdict bars the half that differs from the live pair, by its digest, or the pair by its key."""
    for place, entry in enumerate(seen.entries):
        if not isinstance(entry, (Rejected, Failed)) or not seen.is_forward(entry.release):
            continue
        pair, live = seen.planned[entry.release][1].pair, _pair_of(seen, model.live(seen.entries[:place]))
        if isinstance(entry, Failed) and not entry.quarantine and entry.stage == "rollout":
            continue  # nodes, pulls, people: nobody's fault
        if isinstance(entry, Rejected) and entry.withdrawn is not None:
            continue
        if live is None or (pair.app != live.app and pair.model != live.model):
            guilty: tuple[str, ...] = (pair.key,)
        elif pair == live:
            guilty = ()
        else:
            guilty = (pair.app,) if pair.app != live.app else (pair.model,)
        if set(entry.quarantine) != set(guilty):
            yield f"r-{entry.release} ended and quarantined {entry.quarantine} instead of {guilty}"


# -- 5: convergence --------------------------------------------------------------------------------------------------


def the_target_converges(seen: Seen) -> Iterator[str]:
    """When faults stop, nothing is left half done, and users get the newest pair that is allowed."""
    if not seen.history.settled:
        yield f"there was still something to do after {seen.history.calm_steps} calm steps"
    if _may_be_stuck(seen):
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


def _runs_what_is_live(seen: Seen) -> Iterator[str]:
    """The cluster runs what is live; or what failed, where nothing is there to go back to or going back failed too."""
    serving = model.live(seen.entries)
    running = int((seen.run.deployment.release or "r-0").removeprefix("r-"))
    if serving in (None, running):
        return
    has_failed = seen.phases.get(running) is Phase.FAILED
    if not has_failed or (seen.is_forward(running) and _can_go_back(seen)):
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
    entries, live = seen.entries, _pair_of(seen, model.live(seen.entries))
    hold = model.hold(entries)
    only_app = live.app if live is not None and hold is not None and hold.scope == "app" else None
    only_model = live.model if live is not None and hold is not None and hold.scope == "model" else None
    complaints = []
    for pair in model.candidates(entries, only_app=only_app, only_model=only_model):
        if pair == live or (live is not None and _is_older(seen, pair, live)):
            return
        published = max(place for place, half in _first_told(seen) if half.digest in (pair.app, pair.model))
        tried = [
            number
            for number, (_, planned) in seen.planned.items()
            if planned.pair == pair and seen.phases[number] is not Phase.SUPERSEDED
        ]
        if _held_request(seen):
            return
        if not tried:
            complaints.append(f"the newest pair (app {pair.app[:14]}, model {pair.model[:14]}) was never released")
        elif seen.planned[tried[-1]][0] < published and seen.phases[tried[-1]] is not Phase.HELD:
            complaints.append(f"a half of r-{tried[-1]} was published anew, and the pair was not released again")
        else:
            return
    yield from complaints[:1]


def _first_told(seen: Seen) -> list[tuple[int, AppHalf | ModelHalf]]:
    """Return each publication once, at the place where it was resolved first; a late repeat tells nothing new."""
    first: dict[tuple[str, datetime], tuple[int, AppHalf | ModelHalf]] = {}
    for place, entry in seen.each(Resolved):
        first.setdefault((entry.half.digest, entry.half.published_at), (place, entry.half))
    return list(first.values())


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


# -- 6: the fold ------------------------------------------------------------------------------------------------------


def the_fold_equals_its_model(seen: Seen) -> Iterator[str]:
    """The state is what the whole ledger, searched slowly, says; for some seeds after every entry."""
    yield from model.differences(seen.entries, seen.run.state)
    if seen.history.seed % EVERY_ENTRY == 0:
        state = State()
        for index, entry in enumerate(seen.entries):
            state = fold([entry], state)
            for what in model.differences(seen.entries[: index + 1], state):
                yield f"after {index + 1} entries {what}"


INVARIANTS: dict[int, tuple[str, Callable[[Seen], Iterator[str]]]] = {
    1: ("an acknowledged publish is never lost", nothing_is_lost),
    2: ("everything happens once", each_thing_happens_once),
    3: ("live never moves to an older head", live_never_moves_back),
    4: ("nothing ships that must not", nothing_ships_that_must_not),
    5: ("the target converges", the_target_converges),
    6: ("the fold equals its model", the_fold_equals_its_model),
}
"""In the order of the promises in docs/semantics.md."""


def story(run: TargetRun) -> str:
    """Return the ledger and the cluster's patches in one order, a line each, for people."""
    lines = []
    patches = [patch for patch in run.patches if patch.operations]
    for index, entry in enumerate(run.entries):
        lines += [_patch_line(patch) for patch in patches if patch.entries == index]
        lines.append(_entry_line(index, entry))
    lines += [_patch_line(patch) for patch in patches if patch.entries >= len(run.entries)]
    return "\n".join(lines)


def _entry_line(index: int, entry: AnyEntry) -> str:
    told = {field: getattr(entry, field) for field in entry.__struct_fields__ if field not in ("id", "at", "by")}
    told.pop("report", None)
    words = ", ".join(f"{field} {_short(value)}" for field, value in told.items() if value not in (None, (), ""))
    return f"{index:3} {entry.at:%H:%M:%S.%f} {entry.by:>10} {entry.kind_name:18} {words}"


def _patch_line(patch: Patch) -> str:
    return (
        f"    {patch.at:%H:%M:%S.%f} {patch.worker:>10} patched            {patch.before.release} → "
        f"{patch.after.release}, fence {patch.before.fence} → {patch.after.fence}"
    )


def _short(value: object) -> str:
    text = str(value)
    if isinstance(value, Pair):
        text = f"({value.app[7:15]}, {value.model[7:15]})"
    return text if len(text) <= 160 else text[:157] + "..."
