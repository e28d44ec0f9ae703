"""The story: how a publish becomes a release, one line a stage.

Called by the triggers in `functions/`. Each function may be called twice, late, or by two workers at once: the ledger
decides who was first, and every effect is named by the pair, so that a repeat finds it done. Nothing here knows Azure,
Kubernetes or HTTP; what is to be done next is decided in `shipmate.core.plan`.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta

from shipmate.core import intake as rules
from shipmate.core import pairs, plan
from shipmate.core.events import Event, Ignored, ImagePushed, ModelPublished
from shipmate.core.ledger import (
    AnyEntry,
    Errored,
    Failed,
    Held,
    IgnoredEvent,
    Intended,
    Phase,
    Planned,
    Progressed,
    Received,
    Rejected,
    Superseded,
    Waiting,
)
from shipmate.core.publications import examined
from shipmate.core.refs import Digest, digest_of, hex_of
from shipmate.core.retention import Retention, retention
from shipmate.core.state import Release, State
from shipmate.core.targets import Target
from shipmate.errors import Ambiguous, Conflict, Invalid, Misconfigured, NotAllowed, NotFound, Retryable, ShipmateError
from shipmate.errors import Rejected as RejectedError
from shipmate.ports import Ledgers, Queue, Reading
from shipmate.stages.build import build
from shipmate.stages.context import Context
from shipmate.stages.gate import gate, remove_finished_gate_pods
from shipmate.stages.record import SignsOfLife, append, standing
from shipmate.stages.resolve import resolve
from shipmate.stages.rollout import fence_in_cluster, roll_out
from shipmate.stages.sweep import newest_model, tag_now
from shipmate.stages.verify import verify

UNCLAIMED = tuple(f"_unclaimed-{digit}" for digit in "0123456789abcdef")
"""The ledgers of events that concern no target, which may be many at once: each has its own by a hash of its id.
A target's name cannot begin so."""
SHORT_WAIT_SECONDS = 2.0
"""Waits up to this long are waited for in place; a message for them would come later than they end."""
LONGEST_RETRY_SECONDS = 60.0
UNFORESEEN = "a fault of Shipmate's own:"
"""Begins what is on record of an error that no port may raise."""


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """The pipeline over its ports. One worker's; several may run at once."""

    targets: Mapping[str, Target]
    sources: rules.Sources
    ledgers: Ledgers
    queue: Queue
    context: Context
    stalled_seconds: float = 60.0
    turn_seconds: float = 240.0  # how long one call of advance() goes on before it hands over to the next
    kept: dict[str, Retention] = dataclasses.field(default_factory=dict)  # by target: what this process had locked

    # -- event and intake

    def intake(self, event: Event) -> tuple[str, ...]:
        """Take an event in: record it in the ledger of each target that it concerns, then have that target advanced.

        Returns the names of those targets. When this returns, the event is safe and may be acknowledged.
        Raises Retryable and Ambiguous: the event must be delivered again.
        """
        if not isinstance(event, Ignored):
            found = rules.concerned(event, [*self.targets.values()], self.sources)
            if not isinstance(found, Ignored):
                for target in found:
                    self._receive(target.name, event, repaired=False)
                    self.queue.enqueue(target.name)  # also for a duplicate: the first may have died before this line
                return tuple(target.name for target in found)
            event = found
        self._ignore(UNCLAIMED[int(hex_of(digest_of(event.event_id.encode()))[0], 16)], event)
        return ()

    def _receive(self, target: str, event: ModelPublished | ImagePushed, *, repaired: bool) -> bool:
        """Record an event unless it is known; return whether it was news."""

        def entries(state: State) -> list[AnyEntry]:
            if rules.is_duplicate(state, event):
                return []
            stale = rules.stale(state, event)
            if stale is not None:
                return [IgnoredEvent(**self.context.stamp(), event=stale)]
            return [Received(**self.context.stamp(), event=event, repaired=repaired)]

        return any(isinstance(entry, Received) for entry in append(self.ledgers, target, entries).entries)

    def _ignore(self, ledger: str, event: Ignored) -> None:
        def entries(state: State) -> list[AnyEntry]:
            known = rules.is_duplicate(state, event)
            return [] if known else [IgnoredEvent(**self.context.stamp(), event=event)]

        append(self.ledgers, ledger, entries)

    # -- plan, build, gate, roll out, verify

    def advance(self, name: str) -> str:
        """Take a target as far as it goes now; return why it stopped.

        Raises NotFound for a name that the targets file does not have, Retryable and Ambiguous if the ledger or the
        queue is in trouble. Trouble with anything else is recorded and tried again later.
        """
        target = self.target(name)
        until = self.context.clock.now() + timedelta(seconds=self.turn_seconds)
        reading = self.ledgers.read(name)
        while True:
            now = self.context.clock.now()
            step = plan.decide(reading.state, target, now, self.context.worker, self.stalled_seconds)
            if isinstance(step, plan.Idle):
                return f"{step.reason}: {step.message}"
            if isinstance(step, plan.Wait):
                seconds = max(0.0, (step.until - now).total_seconds())
                if seconds > SHORT_WAIT_SECONDS:
                    self.queue.enqueue(name, seconds)
                    return f"waits {seconds:.0f} s: {step.reason}"
                self.context.clock.sleep(seconds)
                reading = self.ledgers.read(name)
            elif now > until:
                self._hand_over(name, reading)
                self.queue.enqueue(name)
                return "goes on in the next turn"
            else:
                reading = self._record(target, reading, step, self._take(step, target, reading.state))
                if isinstance(step, plan.Gate):
                    with suppress(ShipmateError):  # the sweep removes what stays
                        self._remove_gate_pods(target)
                if isinstance(step, plan.Verify):
                    with suppress(ShipmateError):  # the sweep tries again
                        self._keep_images(target)

    def _hand_over(self, name: str, reading: Reading) -> None:
        """Record that this worker leaves what is on its way to the next turn, which then need not wait for it."""

        def entries(state: State) -> list[AnyEntry]:
            left = plan.left_by(state, self.context.worker)
            if left is None:
                return []
            stamp, message = self.context.stamp(), "a turn is over; it goes on in the next one"
            return [
                Progressed(**stamp, release=left.release.number, stage=left.stage, message=message, hands_over=True)
            ]

        append(self.ledgers, name, entries, reading)

    def target(self, name: str) -> Target:
        """Return a target by its name; raise NotFound with the names there are."""
        if name not in self.targets:
            known = ", ".join(sorted(self.targets))
            raise NotFound(f"there is no target {name[:60]!r}; the targets file has: {known}")
        return self.targets[name]

    def _take(self, step: plan.Step, target: Target, state: State) -> AnyEntry:
        """Take one step and return the entry that records its outcome."""
        context = self.context
        match step:
            case plan.Resolve(publication):
                return self._trying(
                    lambda: resolve(publication.event, target, state, context),
                    None,
                    "plan",
                    attempt=publication.attempt,
                    event_id=publication.event.event_id,
                )
            case plan.Plan(pair, trigger, author, reason, request, to, undoes, image, blames):
                return Planned(
                    **context.stamp(),
                    release=state.next_number,
                    pair=pair,
                    trigger=trigger,
                    author=author,
                    reason=reason,
                    request=request,
                    to=to,
                    undoes=undoes,
                    image=image,
                    blames=blames,
                )
            case pairs.WaitForPartner(app, model, message):
                return Waiting(**context.stamp(), app=app, model=model, reason="WaitingForPartner", message=message)
            case plan.Supersede(release, message, quarantine):
                return Superseded(**context.stamp(), release=release.number, message=message, quarantine=quarantine)
            case plan.Park(release, hold):
                message = f"{hold.words} keeps it from traffic: {hold.reason}"
                return Held(**context.stamp(), release=release.number, hold=hold.id, message=message)
            case plan.Claim(release, stage):
                message = f"tries again; the last time: {release.message}"
                if release.retry_at is None:
                    message = "goes on where the turn before was over"
                return Progressed(**context.stamp(), release=release.number, stage=stage, message=message)
            case plan.Build() | plan.Gate() | plan.Intend() | plan.RollOut() | plan.Verify():
                return self._run(step, target, state)
            case _:
                raise AssertionError(step)

    def _run(self, step: plan.Stage, target: Target, state: State) -> AnyEntry:
        """Run one stage of a release and return the entry that records how it ended."""
        release = step.release

        def heard(stage: str) -> Context:
            every = timedelta(seconds=self.stalled_seconds / 3)
            last = state.last_stage_at or self.context.clock.now()
            signs = SignsOfLife(self.ledgers, target.name, release, stage, self.context, every, last)
            return dataclasses.replace(self.context, progress=signs)

        match step:
            case plan.Build():
                return self._trying(lambda: build(release, target, state, heard("build")), release, "build")
            case plan.Gate():
                return self._trying(lambda: gate(release, target, state, heard("gate")), release, "gate")
            case plan.Intend():
                return self._trying(lambda: self._intended(release, target, state), release, "rollout")
            case plan.RollOut():
                return self._trying(lambda: roll_out(release, target, state, heard("rollout")), release, "rollout")
            case plan.Verify():
                return self._trying(lambda: verify(release, target, state, heard("verify")), release, "verify")

    def _intended(self, release: Release, target: Target, state: State) -> Intended:
        fence = max(state.fence, fence_in_cluster(target, self.context.cluster)) + 1
        return Intended(**self.context.stamp(), release=release.number, fence=fence)

    def _trying(
        self,
        stage: Callable[[], AnyEntry],
        release: Release | None,
        name: str,
        *,
        attempt: int = 1,
        event_id: str | None = None,
    ) -> AnyEntry:
        """Return the stage's entry; or one that says why the candidate is rejected, or that and when we try again."""
        try:
            return stage()
        except RejectedError as error:
            if release is None:
                raise
            return self._rejected(release, name, error)
        except (Retryable, Ambiguous, NotAllowed, NotFound, Conflict, Invalid, Misconfigured) as error:
            message, asked = str(error), error.after_seconds if isinstance(error, Retryable) else None
        except Exception as error:
            # On record, so that people see it and what is published later can pass; nobody above would hear of it.
            logging.exception("%s failed", name)  # noqa: LOG015 - the worker follows the root logger
            words = f"{type(error).__name__}: {error}".partition("\n")[0][:300]
            message, asked = f"{UNFORESEEN} {words}; the log of the Function App has the rest", None
        attempt = release.stage_attempt if release is not None else attempt
        seconds = min(LONGEST_RETRY_SECONDS, asked if asked is not None else 0.5 * 2.0 ** min(attempt, 10))
        return Errored(
            **self.context.stamp(),
            release=release.number if release is not None else None,
            stage=name,
            message=message,
            retry_at=self.context.clock.now() + timedelta(seconds=seconds),
            event_id=event_id,
        )

    def _rejected(self, release: Release, stage: str, error: RejectedError) -> Rejected | Failed:
        """Return the entry for a half that cannot be read or built: it is withdrawn, and nothing is quarantined."""
        is_lost = release.phase is Phase.INTENDED  # before users met it: see `roll_out`
        if release.is_rollback or not (is_lost or release.phase in (Phase.PLANNED, Phase.BUILT)):
            return Failed(
                **self.context.stamp(),
                release=release.number,
                stage=stage,
                reason=error.reason,
                message=str(error),
            )
        withdrawn = {"app": release.pair.app, "model": release.pair.model, None: None}[error.half]
        return Rejected(
            **self.context.stamp(),
            release=release.number,
            reason=error.reason,
            message=str(error),
            quarantine=(release.pair.key,) if withdrawn is None else (),
            withdrawn=withdrawn,
        )

    def _record(self, target: Target, reading: Reading, step: plan.Step, entry: AnyEntry) -> Reading:
        """Append the outcome of a step, unless another worker recorded one first; return the ledger as it is then.

        Something else may have been appended meanwhile, an event for instance: then the outcome of an effect still
        holds as long as its release stands where it stood, while a mere decision is made anew: a hold, a new fence.
        """
        withdrawn = entry.withdrawn if isinstance(entry, Rejected) else None
        decided_from = _subject_of(step, reading.state, withdrawn)
        is_effect = isinstance(step, plan.Effect) and not isinstance(entry, Intended | Held)

        def entries(state: State) -> list[AnyEntry]:
            holds = state is reading.state or (is_effect and _subject_of(step, state, withdrawn) == decided_from)
            return [entry] if holds else []

        return append(self.ledgers, target.name, entries, reading).reading

    # -- sweep

    def sweep(self) -> dict[str, int]:
        """Repair what no event told us, for every target; return how many publications were found for each.

        Trouble with one target does not keep the others waiting: all of it is raised when all had their turn.
        """
        repaired: dict[str, int] = {}
        troubles: list[ShipmateError] = []
        for part in (self._wake, self._repair, self._remove_gate_pods, self._keep_images):
            for name, target in self.targets.items():  # all are woken before any of them waits for a silent registry
                try:
                    repaired[name] = repaired.get(name, 0) + part(target)
                except ShipmateError as error:
                    troubles.append(error)
        if len(troubles) > 1:
            words = dict.fromkeys(str(trouble) for trouble in troubles)
            raise ShipmateError("; ".join(words)) from troubles[0]
        if troubles:
            raise troubles[0]
        return repaired

    def _wake(self, target: Target) -> int:
        """Have a target advanced whose message was lost or whose worker died."""
        now = self.context.clock.now()
        state = self.ledgers.read(target.name).state
        step = plan.decide(state, target, now, self.context.worker, self.stalled_seconds)
        if not isinstance(step, plan.Idle | plan.Wait):
            self.queue.enqueue(target.name)
        return 0

    def _repair(self, target: Target) -> int:
        """Record the followed tag and the newest model where the ledger does not know them; return how many."""
        state = self.ledgers.read(target.name).state
        repaired = 0
        found = (
            tag_now(target, state, self.sources, self.context),
            newest_model(target, state, self.sources, self.context),
        )
        for event in found:
            if event is not None and state.examined.get(examined(event)[0]) != examined(event)[1]:
                repaired += self._receive(target.name, event, repaired=True)
        if repaired:
            self.queue.enqueue(target.name)
        return repaired

    def _remove_gate_pods(self, target: Target) -> int:
        """Remove the gate pods whose verdict is on record."""
        pods = self.context.cluster.list_gate_pods(
            target.deployment.namespace
        )  # before the ledger: none is then too new
        state = self.ledgers.read(target.name).state
        remove_finished_gate_pods(pods, target, state, self.context.cluster)
        return 0

    def _keep_images(self, target: Target) -> int:
        """Have the registry keep what is live and what one may go back to, until it did so once for this process."""
        locks = self.context.locks
        if locks is None:
            return 0
        state = self.ledgers.read(target.name).state
        wanted = retention(state)
        if wanted.keep and self.kept.get(target.name) != wanted:
            locks.lock(target.release.repository, wanted.keep, wanted.let_go - self._kept_for_others(target))
            self.kept[target.name] = wanted
        return 0

    def _kept_for_others(self, target: Target) -> frozenset[Digest]:
        """Return the images to keep of the targets that share this one's release repository."""
        others = (other for other in self.targets.values() if other is not target)
        states = (self.ledgers.read(each.name).state for each in others if each.release == target.release)
        return frozenset[Digest]().union(*(retention(state).keep for state in states))


def _subject_of(step: plan.Step, state: State, withdrawn: Digest | None) -> tuple[object, ...]:
    """Return what an effect is about, as it stands: equal before and after means that nobody else moved it.

    What a push turned out to be holds while nothing is heard of another: the tag may have moved since it was asked. A
    half is withdrawn for what it was when it was read: published anew meanwhile, it may be whole.
    """
    if isinstance(step, plan.Resolve):
        event = step.publication.event
        attempts = tuple(item.attempt for item in state.publications if item.event.event_id == event.event_id)
        if isinstance(event, ModelPublished):
            return attempts
        return (*attempts, state.examined.get(examined(event)[0]), *state.apps)
    if isinstance(step, plan.Effect):
        half = (state.app(withdrawn) or state.model(withdrawn)) if withdrawn is not None else None
        return (*standing(state, step.release), half)
    return ()
