"""What people ask of a target: release, roll back, hold, resume. What they are shown is in `shipmate.views`.

Called by the HTTP triggers. Each command is recorded in the target's ledger with its author and reason before it is
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

from shipmate.core import pairs, plan, precedence
from shipmate.core.fence import adopt_patch, raise_fence_patch
from shipmate.core.ledger import (
    AnyEntry,
    AppHalf,
    Hold,
    HoldSet,
    ModelHalf,
    Phase,
    Refused,
    Release,
    Requested,
    Resumed,
    RollbackRequested,
    Scope,
    State,
)
from shipmate.core.refs import Digest, Pair
from shipmate.core.targets import Target
from shipmate.core.views import DeploymentView
from shipmate.errors import Conflict, Invalid, NotFound, Retryable, Reused
from shipmate.pipeline import Pipeline
from shipmate.stages.context import Stamp
from shipmate.stages.record import append
from shipmate.stages.rollout import fence_in_cluster
from shipmate.views import Answer, Shipment, Views, pair_words, release_called, version_words

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
            newest, waiting = pairs.newest_pair(state)
            chosen = _wanted(state, body) or newest
            if chosen is None:
                raise Conflict(f"there is nothing to release: {plan.waiting_reason(state, waiting).message}")
            app, model = state.app(chosen.app), state.model(chosen.model)
            if app is not None and model is not None and app.contract != model.contract:
                raise Conflict(f"{pairs.misfit(app, model)}: name two halves that fit")
            _check_can_be_released(state, chosen, body, seen)
            entries: list[AnyEntry] = []
            hold, lifts = state.hold_on(chosen), ""
            if hold is not None:
                if chosen != newest:
                    raise Conflict(f"{hold.words} is in force: resume first ({hold.reason})")
                below = msgspec.structs.replace(state, hold=hold.under).hold_on(chosen)
                if below is not None:
                    raise Conflict(f"{hold.words} is in force, and {below.words} under it: resume first")
                lifts = f", and lifts {hold.words}: {hold.reason}"
                entries.append(
                    Resumed(**self._stamp(), request=request, author=author, reason=body.reason, hold=hold.id)
                )
            entries.append(
                Requested(
                    **self._stamp(),
                    request=request,
                    author=author,
                    reason=body.reason,
                    pair=chosen,
                    override=body.override,
                )
            )
            words = f"releases {pair_words(state, chosen)}{lifts}"
            barred = [
                what
                for what, key in (
                    (f"app {version_words(app)}", chosen.app),
                    (f"model {version_words(model)}", chosen.model),
                    ("the pair", chosen.key),
                )
                if key in state.quarantine
            ]
            if barred:
                words += f", and lifts the quarantine of {' and '.join(barred)}"
            yields = _yields(state, seen)
            words += _before(state, seen)
            lifted = chosen.names if body.override else frozenset[str]()
            free = msgspec.structs.replace(
                state, quarantine=state.quarantine.difference(lifted), releases=_without(state, yields)
            )
            if (then := pairs.follows(free, chosen)) is not None:
                words += (
                    f"; then comes {pair_words(state, then)}, which was published before: set a hold to keep it back"
                )
            if state.publications:
                words += "; what was published and is not read yet may follow: set a hold to keep it back"
            return entries, words

        return self._command("release", target, request, author, body, decide)

    def rollback(self, name: str, request: str, author: str, body: RollbackBody) -> Answer:
        """Ask to go back to an earlier release. Raises as `release` does."""
        target = self.pipeline.target(name)
        seen = self.views.deployment(target)

        def decide(state: State) -> tuple[list[AnyEntry], str]:
            back_to, undone = _rollback_target(state, body, seen)
            undoes = undone if undone.number != back_to.number else None
            entry = RollbackRequested(
                **self._stamp(),
                request=request,
                author=author,
                reason=body.reason,
                to=back_to.number,
                undoes=undoes.number if undoes is not None else None,
            )
            held, what = state.hold, f" and undoes {_named(undoes)}" if undoes is not None else ""
            stays = "and holds the target there"
            if held is not None and held.scope == "all":
                stays = f"and sets no hold of its own: {held.words} is in force ({held.reason}) until somebody resumes"
            return [entry], f"rolls back to the pair of {_named(back_to)}{what} without a build, {stays}"

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


def _wanted(state: State, body: ReleaseBody) -> Pair | None:
    """Return the pair that a body asks for, None for the newest. Raises Invalid, NotFound."""
    if body.release is not None:
        if body.app is not None or body.model is not None:
            raise Invalid("give either release, or app and model, or none of them for the newest pair")
        return release_called(state, body.release).pair
    if body.app is None and body.model is None:
        return None
    app, model = body.app or _head(state, state.apps, "app"), body.model or _head(state, state.models, "model")
    if state.app(app) is None:
        raise NotFound(f"no app image with digest {app} was published")
    if state.model(model) is None:
        raise NotFound(f"no model with digest {model} was published")
    return Pair(app, model)


def _check_can_be_released(state: State, chosen: Pair, body: ReleaseBody, seen: DeploymentView) -> None:
    if state.is_quarantined(chosen) and not body.override:
        raise Conflict(
            "this pair, or a half of it, is quarantined: publish a newer half, or repeat with "
            '"override": true, which lifts the quarantine and is recorded; the gate asks it all the same'
        )
    live = state.serving
    if live is not None and live.pair == chosen and seen.asks_for(live.name, live.image):
        raise Conflict(f"{live.name} is live with this pair already")
    coming = precedence.brings(state, chosen)
    if coming is not None and not (body.override and coming.phase in precedence.EARLY):
        raise Conflict(f"{coming.name} brings this pair already: wait until it is done")


def _head(state: State, halves: tuple[AppHalf, ...] | tuple[ModelHalf, ...], what: str) -> Digest:
    """Return the newest half that is not quarantined; the newest, where all are."""
    if not halves:
        raise Conflict(f"no {what} was published yet")
    digests = [half.digest for half in halves]
    return next((digest for digest in reversed(digests) if digest not in state.quarantine), digests[-1])


def _named(release: Release) -> str:
    return f"{release.name} (app {release.app_version}, model {release.model_version})"


def _yields(state: State, seen: DeploymentView) -> Release | None:
    """Return what is on its way and gives way to a release by hand: in lasting trouble, and not patched in."""
    active = state.active
    return active if active is not None and precedence.is_lasting(active) and not _is_in(active, seen) else None


def _is_in(release: Release, seen: DeploymentView) -> bool:
    return release.phase is Phase.ROLLED_OUT or seen.asks_for(release.name, release.image)


def _without(state: State, yields: Release | None) -> tuple[Release, ...]:
    """Return the releases as they are once one gave way: its pair had no turn."""
    gone = Phase.SUPERSEDED
    return tuple(msgspec.structs.replace(each, phase=gone) if each is yields else each for each in state.releases)


def _before(state: State, seen: DeploymentView) -> str:
    """Return in words what is done before a release by hand has its turn."""
    active, back, yields = state.active, state.rollback_request, _yields(state, seen)
    if back is not None:
        return f"; {back.author}'s rollback to r-{back.to} goes first, and its hold keeps this until somebody resumes"
    if yields is not None and (yields.is_rollback or yields.phase is Phase.INTENDED):
        was_to = "roll back" if yields.is_rollback else "roll out"
        return f"; {yields.name} was to {was_to}, and is in trouble: this goes first"
    if active is not None and active.is_rollback:
        return f"; {active.name} rolls back first, and its hold keeps this until somebody resumes"
    if active is not None and active.phase in (Phase.INTENDED, Phase.ROLLED_OUT):
        doubt = (
            ", unless its trouble lasts: then it comes after" if active.retry_at and not _is_in(active, seen) else ""
        )
        return f"; {active.name} is rolling out and goes first{doubt}"
    return ""


def _rollback_target(state: State, body: RollbackBody, seen: DeploymentView) -> tuple[Release, Release]:
    """Return the release to go back to, and the one that is undone. Raises NotFound, Conflict."""
    serving, active = state.serving, state.active
    if serving is None:
        raise Conflict("nothing is live yet: there is nothing to roll back")
    if active is not None and active.is_rollback and not precedence.is_lasting(active):
        raise Conflict(f"{active.name} is rolling back to r-{active.to} already: wait until it is done")
    if active is not None and active.is_rollback and body.to is None:
        raise Conflict(
            f"{active.name} is rolling back to r-{active.to} already, and is in trouble: it is tried again; to go to "
            'another release, name it with "to"'
        )
    undone = _undone(state, serving)
    is_as_left = undone is serving and seen.asks_for(serving.name, serving.image)
    if body.to is not None:
        wanted = release_called(state, body.to)
        _check_can_be_brought_back(state, wanted)
        if wanted.pair == serving.pair and is_as_left and active is None:
            raise Conflict(f"{serving.name} is live with this pair already")
        return wanted, undone
    if body.if_live is not None and undone is not serving:
        what = "is rolling out" if undone is active else "is not undone yet, and went out"
        raise Conflict(f'{undone.name} {what} over {serving.name}: say with "to" which release to go back to')
    if is_as_left:
        other = _last_other(state, serving)
        if serving.is_rollback:
            raise Conflict(
                f"{serving.name} rolled back to the pair of r-{serving.to} already: to go back further, name a release "
                f'with "to", {other.name} for instance'
            )
        return other, serving
    wanted = (_of_failed_rollback(state, seen) if undone is serving else None) or serving
    _check_can_be_brought_back(state, wanted)
    return wanted, undone


def _of_failed_rollback(state: State, seen: DeploymentView) -> Release | None:
    """Return what the rollback that failed, and that the Deployment still asks for, was to bring back."""
    failed = next((old for old in state.releases if old.name == seen.release and old.phase is Phase.FAILED), None)
    return next((old for old in state.releases if failed is not None and old.number == failed.to), None)


def _undone(state: State, serving: Release) -> Release:
    """Return what a rollback now undoes: what is rolling out, or what failed and is not undone yet; else the live."""
    active = state.active
    if active is not None and not active.is_rollback and active.phase in (Phase.INTENDED, Phase.ROLLED_OUT):
        return active
    return state.release(state.rollback_due) if state.rollback_due is not None else serving


def _check_can_be_brought_back(state: State, wanted: Release) -> None:
    if not wanted.was_live or wanted.image is None:
        why = "was never live" if not wanted.was_live else "has lost its image for good"
        raise Conflict(f"{wanted.name} {why}: release it instead, so that it passes its gate")
    if state.is_quarantined(wanted.pair):
        raise Conflict(
            f"the pair of {wanted.name}, or a half of it, is quarantined: release it instead, with "
            '"override": true, so that it passes its gate'
        )


def _last_other(state: State, serving: Release) -> Release:
    """Return the last release that was live with another pair and may be brought back. Raises Conflict."""
    for number in reversed(state.verified):
        good = state.release(number)
        if good.pair != serving.pair and good.image is not None and not state.is_quarantined(good.pair):
            return good
    raise Conflict("no other release was live before: there is nothing to go back to")


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
