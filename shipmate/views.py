"""What people are shown of a target: where it stands, what happens next, what became of anything that came in.

Called by the HTTP triggers, and by `shipmate.commands` for the words of its answers. Nothing here writes.
"""

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from itertools import islice

import msgspec

from shipmate.core import pairs, plan
from shipmate.core.history import ReleaseHistory, begins_at, release_history
from shipmate.core.ledger import AppHalf, ModelHalf, Phase
from shipmate.core.plan import Step
from shipmate.core.refs import Pair
from shipmate.core.state import Hold, Release, State
from shipmate.core.targets import Target
from shipmate.core.views import DeploymentView
from shipmate.core.why import UNDERSTOOD, Explanation, explain, parse_name
from shipmate.errors import NotFound, ShipmateError
from shipmate.pipeline import UNCLAIMED, Pipeline


class Shipment(msgspec.Struct, frozen=True, kw_only=True):
    """What goes to traffic next once nothing holds it."""

    pair: Pair
    app: str  # its version
    model: str  # its version
    release: str | None  # None: it is yet to be planned
    gate_passed: bool


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a command came to. `accepted` says that it is on record, never that it is done."""

    accepted: bool
    message: str
    request: str
    target: str
    release: str | None = None  # once one was planned for it
    ships: Shipment | None = None  # a resume: what it lets go


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Where a target stands, in words and in numbers."""

    target: str
    serving: Release | None
    active: Release | None
    hold: str | None
    next: str  # what happens next, or why nothing does
    reason: str | None  # the reason code where nothing happens; docs/operating.md has each
    app_head: str | None
    model_head: str | None
    quarantined: tuple[str, ...]
    public_url: str
    drift: str | None = None  # what else than the live release the Deployment asks for, or why nobody can tell


class PlanView(msgspec.Struct, frozen=True, kw_only=True):
    """What Shipmate would release next if nobody asked for anything: the newest pair that may ship, by versions."""

    target: str
    app: str | None
    model: str | None
    next: str  # what happens next, or why nothing does
    waiting: str | None  # what waits for a partner, and for which


class ResumeView(msgspec.Struct, frozen=True, kw_only=True):
    """The hold of a target, and what a resume would let go."""

    target: str
    hold: Hold | None
    ships: Shipment | None
    message: str


@dataclasses.dataclass(frozen=True)
class Views:
    """The views, over the same ports as the pipeline."""

    pipeline: Pipeline

    def status(self, name: str) -> Status:
        """Return where a target stands. Raises NotFound, Retryable."""
        target = self.pipeline.target(name)
        state = self.pipeline.ledgers.read(name).state
        return Status(
            target=name,
            serving=state.serving,
            active=state.active,
            hold=_held_by(state.hold) if state.hold is not None else None,
            next=self._next(target, state),
            reason=self._reason(target, state),
            app_head=state.apps[-1].version if state.apps else None,
            model_head=state.models[-1].version if state.models else None,
            quarantined=tuple(sorted(state.quarantine)),
            public_url=target.public_url,
            drift=self._drift(target, state),
        )

    def plan(self, name: str) -> PlanView:
        """Return what a target would release next. Raises NotFound, Retryable."""
        target = self.pipeline.target(name)
        state = self.pipeline.ledgers.read(name).state
        pair, waiting = pairs.newest_pair(state)
        return PlanView(
            target=name,
            app=version_words(state.app(pair.app)) if pair is not None else None,
            model=version_words(state.model(pair.model)) if pair is not None else None,
            next=self._next(target, state),
            waiting=waiting.message if waiting is not None else None,
        )

    def before_resume(self, name: str) -> ResumeView:
        """Return what a resume would let go. Raises NotFound, Retryable."""
        target = self.pipeline.target(name)
        state = self.pipeline.ledgers.read(name).state
        if state.hold is None:
            message = f"{name} is not held: {self._next(target, state)}"
            return ResumeView(target=name, hold=None, ships=None, message=message)
        ships, message = self.after_resume(target, state.hold, state)
        return ResumeView(target=name, hold=state.hold, ships=ships, message=message)

    def why(self, name: str, of: str) -> Explanation:
        """Return what became of what goes by a name in a target's ledger. Raises NotFound, Invalid, Retryable."""
        target = self.pipeline.target(name)
        return self._explained(name, of, lambda state: self._next(target, state))

    def why_anywhere(self, of: str) -> tuple[Explanation, ...]:
        """Return the same from each ledger that knows the name, also of events that concern no target."""
        found: list[Explanation] = []
        for name in self.pipeline.targets:
            with suppress(NotFound):
                found.append(self.why(name, of))
        for ledger in UNCLAIMED:
            with suppress(NotFound):
                found.append(self._explained(ledger, of, lambda _: ""))
        if not found:
            looked = ", ".join(sorted(self.pipeline.targets))
            raise NotFound(
                f"nothing is called {of[:100]!r} in any ledger: looked in {looked} and among the events that concern "
                f"no target; understood are: {UNDERSTOOD}"
            )
        return tuple(found)

    def statuses(self) -> tuple[Status, ...]:
        """Return where every target stands."""
        return tuple(self.status(name) for name in self.pipeline.targets)

    def releases(self, name: str) -> tuple[Release, ...]:
        """Return a target's releases, newest first."""
        self.pipeline.target(name)
        return self.pipeline.ledgers.read(name).state.releases[::-1]

    def history(self, name: str, release: str) -> ReleaseHistory:
        """Return all that is on record about a release. Raises NotFound."""
        self.pipeline.target(name)
        found = release_called(self.pipeline.ledgers.read(name).state, release)
        return release_history(found, self.pipeline.ledgers.history(name, begins_at(found)))

    def request(self, name: str, request: str) -> Answer:
        """Return what became of a command. Raises NotFound."""
        self.pipeline.target(name)
        state = self.pipeline.ledgers.read(name).state
        if request not in state.requests:
            raise NotFound(f"{name} knows no request {request[:60]!r}")
        number = state.requests[request]
        planned = next((release for release in state.releases if release.number == number), None)
        message, release = "recorded; no release was planned for it", None
        if number is not None:
            release = f"r-{number}"
            message = f"{release} is {planned.phase}" if planned is not None else f"{release} is over long since"
        return Answer(accepted=True, message=message, request=request, target=name, release=release)

    def after_resume(self, target: Target, hold: Hold, state: State) -> tuple[Shipment | None, str]:
        """Return what ships once the hold in force is lifted, and that in words."""
        below = hold.under
        ships, message = self._shipment(target, msgspec.structs.replace(state, hold=below))
        message = f"lifts {hold.words} ({hold.reason}): {message}"
        return ships, message if below is None else f"{message}; {below.words} is in force again: {below.reason}"

    def _shipment(self, target: Target, after: State) -> tuple[Shipment | None, str]:
        after = plan.as_recorded(after, self.pipeline.context.clock.now())
        ready, following = after.active, self._next(target, after)
        if ready is not None and ready.is_rollback:
            words = f"{ready.name} rolls back first, and its hold keeps what comes after it"
            return None, f"nothing is ready to ship: {words}; {following}"
        pair = ready.pair if ready is not None else None
        match self._step(target, after):
            case plan.Intend(release):
                ready, pair = release, release.pair
            case plan.Plan(wanted, trigger) if trigger not in ("blame", "rollback", "automatic_rollback"):
                pair = wanted
            case plan.Wait(idle=None) | plan.Supersede() if ready is None:  # a quiet window, or newer than the held one
                newest, _ = pairs.newest_pair(after)
                had_its_turn = newest is not None and pairs.is_over(pairs.tried_by(after, newest))
                pair = None if had_its_turn else newest
            case _:
                pass
        if pair is None or (ready is None and pair == after.live_pair):
            return None, f"nothing is ready to ship: {following}"
        ships = Shipment(
            pair=pair,
            app=version_words(after.app(pair.app)),
            model=version_words(after.model(pair.model)),
            release=ready.name if ready is not None else None,
            gate_passed=ready is not None and ready.phase not in (Phase.PLANNED, Phase.BUILT),
        )
        what = f"{ships.release or 'a new release'} (app {ships.app}, model {ships.model})"
        gate = "it passed its gate" if ships.gate_passed else "it is yet to pass its gate"
        return ships, f"{what} ships: {gate}{_doubt(after, pair)}; {following}"

    def _explained(self, ledger: str, of: str, upcoming: Callable[[State], str]) -> Explanation:
        parse_name(of)  # before anything is read for it
        state = self.pipeline.ledgers.read(ledger).state
        entries = list(islice(self.pipeline.ledgers.history(ledger), state.length))
        return explain(of, ledger, state, entries, upcoming(state))

    def deployment(self, target: Target) -> DeploymentView:
        """Return the target's Deployment as it is now. Raises NotFound, NotAllowed, Retryable."""
        return self.pipeline.context.cluster.deployment(target.deployment.namespace, target.deployment.name)

    def _drift(self, target: Target, state: State) -> str | None:
        serving = state.serving
        if serving is None or state.active is not None:
            return None
        try:
            seen = self.deployment(target)
        except ShipmateError as error:  # what is on record is shown all the same, and that of other targets
            return f"nobody can tell whether the Deployment asks for {serving.name} still: {error}"
        if seen.asks_for(serving.name, serving.image):
            return None
        asked = seen.release or "no release"
        if seen.release == serving.name:
            asked = f"another image than that of {serving.name}"
        return (
            f"the Deployment asks for {asked}, and {serving.name} was live last: "
            "somebody changed it, or a rollback failed; roll back to set it right"
        )

    def _next(self, target: Target, state: State) -> str:
        """Return in words what happens next to a target in this state."""
        step = self._step(target, state)
        match step:
            case plan.Idle(_, message):
                return message
            case plan.Wait(until, reason, idle):
                besides = f"; until then: {idle.message}" if idle is not None else ""
                return f"waits until {until:%H:%M:%S} UTC: {reason}{besides}"
            case plan.Plan(pair, _, _, reason):
                return f"releases {pair_words(state, pair)}: {reason}"
            case pairs.WaitForPartner(_, _, message) | plan.Supersede(_, message):
                return message
            case plan.Resolve():
                return "reads what was published"
            case plan.Claim(release, stage):
                return f"{stage}: {release.name}, which {'is tried again' if release.retry_at else 'goes on'}"
            case _:
                return f"{type(step).__name__.lower()}: {step.release.name}"

    def _reason(self, target: Target, state: State) -> str | None:
        """Return why nothing happens to a target in this state, as a code."""
        step = self._step(target, state)
        idle = step.idle if isinstance(step, plan.Wait) else step
        return idle.reason if isinstance(idle, plan.Idle) else None

    def _step(self, target: Target, state: State) -> Step:
        context = self.pipeline.context
        return plan.decide(state, target, context.clock.now(), context.worker, self.pipeline.stalled_seconds)


def release_called(state: State, name: str) -> Release:
    """Return the release of that name. Raises NotFound."""
    for release in state.releases:
        if release.name == name:
            return release
    raise NotFound(f"there is no release {name[:20]!r}; see the list of releases")


def version_words(half: AppHalf | ModelHalf | None) -> str:
    """Return a half's version in words, also of a half that the ledger forgot."""
    return half.version if half is not None else "unknown"


def pair_words(state: State, pair: Pair) -> str:
    """Return a pair by the versions of its halves."""
    return f"app {version_words(state.app(pair.app))} with model {version_words(state.model(pair.model))}"


def _held_by(hold: Hold) -> str:
    scope = "" if hold.scope == "all" else f", {hold.scope}s only"
    under = f"; under it {hold.under.words}: {hold.under.reason}" if hold.under is not None else ""
    return f"{hold.author}{scope}: {hold.reason}{under}"


def _doubt(state: State, pair: Pair) -> str:
    """Say which new half of a pair failed in front of users together with another, so that nobody knows which did."""
    live = state.live_pair or pair
    for bad in reversed(state.releases):
        again = {bad.pair.app, bad.pair.model} & {pair.app, pair.model} - {live.app, live.model}
        if again and bad.pair.key in state.quarantine and bad.phase in (Phase.FAILED, Phase.ROLLED_BACK):
            half = "app" if pair.app in again else "model"
            return f", and its {half} may be what was at fault in {bad.name}, which users met"
    return ""
