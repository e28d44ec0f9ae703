"""What people ask of a target: release, roll back, hold, resume. What they are shown is in `shipmate.views`.

Called by the HTTP triggers. Which pair a release or a rollback means, and what stands in its way, is for
`shipmate.by_hand` to say. Each command is recorded in the target's ledger with its author and reason before it is
answered; what becomes of it is the pipeline's work. A command that repeats an idempotency key changes nothing.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Annotated

import msgspec
from msgspec import Meta

from shipmate import by_hand
from shipmate.core.fence import adopt_patch, raise_fence_patch
from shipmate.core.ledger import AnyEntry, HoldSet, Phase, Refused, Requested, Resumed, RollbackRequested, Scope
from shipmate.core.refs import Digest
from shipmate.core.state import Hold, State
from shipmate.core.targets import Target
from shipmate.errors import Conflict, Retryable, Reused
from shipmate.pipeline import Pipeline
from shipmate.stages.context import Stamp
from shipmate.stages.record import append
from shipmate.stages.rollout import fence_in_cluster
from shipmate.views import Answer, Shipment, Views

Reason = Annotated[str, Meta(min_length=1, max_length=500, description="why, in your words; it is on record")]
Author = Annotated[str, Meta(min_length=1, max_length=200)]
ReleaseName = Annotated[str, Meta(pattern=r"^r-[1-9][0-9]{0,9}$")]
HoldId = Annotated[str, Meta(min_length=1, max_length=100)]


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    reason: Reason
    author: Annotated[Author | None, Meta(description="who asks, where no sign-in says so; not taken elsewhere")] = None
    if_live: Annotated[ReleaseName | None, Meta(description="refuse with 409 if another release is live by now")] = None
    dry_run: Annotated[bool, Meta(description="tell what would happen, and do nothing")] = False


class ReleaseBody(_Body, frozen=True, kw_only=True):
    """The body of a manual release: an earlier release's pair, a pair by digests, or neither for the newest pair."""

    release: Annotated[ReleaseName | None, Meta(description="an earlier release, whose pair is released")] = None
    app: Annotated[Digest | None, Meta(description="an app by its digest; without `model`, with the newest")] = None
    model: Annotated[Digest | None, Meta(description="a model by its digest; without `app`, with the newest")] = None
    override: Annotated[bool, Meta(description="release what is quarantined all the same; the gate asks it")] = False


class RollbackBody(_Body, frozen=True, kw_only=True):
    """The body of a rollback: to a release that was live before, or to the last good one before the present."""

    to: Annotated[
        ReleaseName | None, Meta(description="a release that was live; null: the last good one before the present")
    ] = None


class HoldBody(_Body, frozen=True, kw_only=True):
    """The body of a hold."""

    scope: Annotated[Scope, Meta(description="what no longer ships: everything new, new apps or new models")] = "all"


class ResumeBody(_Body, frozen=True, kw_only=True):
    """The body of a resume: of the hold in force, or of the one that was looked at."""

    hold: Annotated[
        HoldId | None,
        Meta(description="the id of the hold that is lifted; refuse with 409 if it is not in force by now"),
    ] = None


type Decide = Callable[[State], tuple[list[AnyEntry], str]]
"""From the state just read: the entries that record a command, and what it will come to, in words."""


REFUSAL_KEPT = timedelta(hours=1)
"""How often the refusal of one command to one person is recorded: nobody fills a ledger by being refused."""


@dataclasses.dataclass(frozen=True)
class Commands:
    """The commands, over the same ports as the pipeline."""

    pipeline: Pipeline

    @property
    def views(self) -> Views:
        """What people are shown, over the same ports."""
        return Views(self.pipeline)

    def release(self, name: str, request: str, author: str, body: ReleaseBody) -> Answer:
        """Ask for a release. Raises NotFound, Invalid, Conflict with what stands in the way, Retryable, Ambiguous."""
        target = self.pipeline.target(name)
        seen = self.views.deployment(target)

        def decide(state: State) -> tuple[list[AnyEntry], str]:
            found = by_hand.choose_pair(
                state, seen, named=body.release, app=body.app, model=body.model, override=body.override
            )
            entries: list[AnyEntry] = []
            if found.lifts is not None:
                entries.append(
                    Resumed(**self._stamp(), request=request, author=author, reason=body.reason, hold=found.lifts.id)
                )
            entries.append(
                Requested(
                    **self._stamp(),
                    request=request,
                    author=author,
                    reason=body.reason,
                    pair=found.pair,
                    override=body.override,
                )
            )
            return entries, found.words

        return self._command("release", target, request, author, body, decide)

    def rollback(self, name: str, request: str, author: str, body: RollbackBody) -> Answer:
        """Ask to go back to an earlier release. Raises as `release` does."""
        target = self.pipeline.target(name)
        seen = self.views.deployment(target)

        def decide(state: State) -> tuple[list[AnyEntry], str]:
            back = by_hand.find_way_back(state, seen, to=body.to, if_live=body.if_live)
            entry = RollbackRequested(
                **self._stamp(),
                request=request,
                author=author,
                reason=body.reason,
                to=back.to.number,
                undoes=back.undoes.number if back.undoes is not None else None,
            )
            return [entry], back.words

        return self._command("rollback", target, request, author, body, decide)

    def hold(self, name: str, request: str, author: str, body: HoldBody) -> Answer:
        """Hold a target. When this returns, no rollout that was intended before can be patched in any more.

        Raises as `release` does. Where it raises Retryable because the cluster is in trouble, the hold is on record: it
        keeps back what was not about to be patched in.
        """
        target = self.pipeline.target(name)
        in_cluster = 0  # while nobody can tell: what was intended before has a lower fence by the ledger alone
        with suppress(Retryable):
            in_cluster = fence_in_cluster(target, self.pipeline.context.cluster)

        def decide(state: State) -> tuple[list[AnyEntry], str]:
            held = state.hold
            if held is not None and (held.scope == "all" or body.scope != "all"):
                if not body.dry_run:
                    self._raise_fence(target)  # who set it may have died before: it is in force when this is said
                wider = "" if held.scope in ("all", body.scope) else '; a hold with "scope": "all" can be set over it'
                scope = "" if held.scope == "all" else f", {held.scope}s only"
                raise Conflict(f"{name} is held already by {held.author}{scope}: {held.reason}{wider}")
            fence = max(state.fence, in_cluster) + 1
            entry = HoldSet(
                **self._stamp(), request=request, author=author, reason=body.reason, fence=fence, scope=body.scope
            )
            what = {"all": "nothing new ships", "app": "no new app ships", "model": "no new model ships"}[body.scope]
            after = f"; {held.words} is in force again then: {held.reason}" if held is not None else ""
            moving = state.active
            if moving is not None and moving.phase is Phase.ROLLED_OUT:
                after += f"; {moving.name} is in the cluster already, and goes on"
            return [entry], f"{what} until somebody resumes{after}"

        answer = self._command("hold", target, request, author, body, decide)
        if answer.accepted:
            self._raise_fence(target)
        return answer

    def resume(self, name: str, request: str, author: str, body: ResumeBody) -> Answer:
        """Lift the hold, and say what it lets go. Raises as `release` does."""
        target = self.pipeline.target(name)
        ships: Shipment | None = None

        def decide(state: State) -> tuple[list[AnyEntry], str]:
            nonlocal ships
            if state.hold is None:
                raise Conflict(f"{name} is not held")
            _check_in_force(state.hold, body)
            ships, message = self.views.after_resume(target, state.hold, state)
            entry = Resumed(**self._stamp(), request=request, author=author, reason=body.reason, hold=state.hold.id)
            return [entry], message

        answer = self._command("resume", target, request, author, body, decide)
        return msgspec.structs.replace(answer, ships=ships)

    def refuse(self, name: str, request: str, author: str, command: str, reason: str) -> None:
        """Record that somebody who signed in asked for what their role does not allow. Raises NotFound, Retryable."""
        self.pipeline.target(name)

        def entries(state: State) -> list[AnyEntry]:
            last = state.refused.get(f"{author} {command}")
            if last is not None and self.pipeline.context.clock.now() - last < REFUSAL_KEPT:
                return []
            return [Refused(**self._stamp(), request=request, author=author, command=command, reason=reason)]

        append(self.pipeline.ledgers, name, entries)

    # -- pieces

    def _command(  # noqa: PLR0917 - what, for whom, by whom
        self, verb: str, target: Target, request: str, author: str, body: _Body, decide: Decide
    ) -> Answer:
        message, fingerprint = "", _fingerprint(verb, author, body)

        def entries(state: State) -> list[AnyEntry]:
            nonlocal message
            message = ""
            if not body.dry_run and request in state.requests:
                _check_repeated(state, request, fingerprint)
                return []
            _check_live(state, body)
            wanted, message = decide(state)
            return [] if body.dry_run else [msgspec.structs.replace(each, fingerprint=fingerprint) for each in wanted]

        if append(self.pipeline.ledgers, target.name, entries).entries:
            self.pipeline.queue.enqueue(target.name)
            return Answer(accepted=True, message=message, request=request, target=target.name)
        if body.dry_run:
            return Answer(accepted=False, message=f"would be taken: {message}", request=request, target=target.name)
        self.pipeline.queue.enqueue(target.name)  # the first attempt may have died before its own
        return self.views.request(target.name, request)

    def _raise_fence(self, target: Target) -> None:
        """Bring the Deployment's fence up to that of the hold. Raises Retryable if the cluster is in trouble.

        A fence that a rollout took since (a rollback, or a release after the hold was lifted) is left to its own patch:
        who finds it on the Deployment takes the patch for made.
        """
        where, cluster = target.deployment, self.pipeline.context.cluster
        for _ in range(5):
            state = self.pipeline.ledgers.read(target.name).state
            intended = state.active is not None and state.active.fence == state.fence
            fence = state.fence - 1 if intended else state.fence
            try:
                view = cluster.deployment(where.namespace, where.name)
                if view.fence is not None and view.fence >= fence:
                    return
                patch = adopt_patch(view)
                if view.fence is not None:
                    patch = raise_fence_patch(view, expected_fence=view.fence, new_fence=fence)
                cluster.patch_deployment(where.namespace, where.name, patch)
            except Conflict:
                continue
            except Retryable as error:
                raise Retryable(
                    "the hold is on record, but the Deployment's fence cannot be raised yet, so what is about to be "
                    f"patched in may still be: {error}; ask again",
                    after_seconds=error.after_seconds,
                ) from error
        raise Retryable(
            "the hold is on record, but the Deployment changes faster than its fence can be raised; ask again"
        )

    def _stamp(self) -> Stamp:
        return self.pipeline.context.stamp()


def _check_live(state: State, body: _Body) -> None:
    if body.if_live is None:
        return
    live = state.serving.name if state.serving is not None else "nothing"
    if live != body.if_live:
        raise Conflict(f"you asked for this while {body.if_live} is live, and {live} is; look again, then decide")


def _check_in_force(hold: Hold, body: ResumeBody) -> None:
    if body.hold is not None and body.hold != hold.id:
        raise Conflict(
            f"the hold {body.hold!r} is not in force, {hold.words} is ({hold.reason}), whose id is {hold.id!r}; look "
            "again, then decide"
        )


def _fingerprint(verb: str, author: str, body: _Body) -> str:
    """Return what tells one command from another under the same idempotency key.

    A key that came to the bodies later counts only where it is given: a repeat of what an earlier build took is one.
    """
    fields = msgspec.structs.asdict(msgspec.structs.replace(body, author=author))
    if isinstance(body, ResumeBody) and body.hold is None:
        del fields["hold"]
    canonical = msgspec.json.encode([verb, fields])
    return hashlib.sha256(canonical).hexdigest()[:32]


def _check_repeated(state: State, request: str, fingerprint: str) -> None:
    known = state.fingerprints.get(request, "")
    if known not in ("", fingerprint):  # a ledger that began before fingerprints has none
        raise Reused(
            f"the Idempotency-Key {request!r} was used before for another command, body or author: what it asked for "
            "is on record; choose a new key for a new command"
        )
