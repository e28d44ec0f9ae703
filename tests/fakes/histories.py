"""A target's history to be told in a test, step by step: each call writes one ledger entry or a few, and folds them.

Halves are called by short names, `A1` or `M2`; their digests are those of the names.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Self

from shipmate.core.events import Ignored, ImagePushed, ModelPublished
from shipmate.core.fold import fold
from shipmate.core.gate import GateReport
from shipmate.core.ledger import (
    AnyEntry,
    AppHalf,
    Built,
    CostSheet,
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
    Planned,
    Progressed,
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
from shipmate.core.pairs import newest_pair
from shipmate.core.refs import Digest, Pair, digest_of
from shipmate.core.state import Release, State

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PASSED = GateReport(passed=True, faults=(), rows=(), slowest_seconds=0.1, compared_with=None)


def digest(name: str) -> Digest:
    """Return the digest of what is called so."""
    return digest_of(name.encode())


def pair(app: str, model: str) -> Pair:
    """Return the pair of two halves by their names."""
    return Pair(digest(app), digest(model))


def pushed(event_id: str, name: str, at: datetime = NOON) -> ImagePushed:
    """Return the event of an app's push."""
    return ImagePushed(event_id, "registry", "vision-app", "main", digest(name), at)


def published(event_id: str, name: str, at: datetime = NOON, sequencer: int = 1) -> ModelPublished:
    """Return the event of a model's upload."""
    return ModelPublished(
        event_id, "account", "models", f"net/{name}/manifest.json", f"0x{name}", f"{sequencer:064x}", at
    )


class Story:
    """A history. One second passes from entry to entry unless `wait` says how much."""

    def __init__(self, state: State | None = None, now: datetime = NOON) -> None:
        self.state = State() if state is None else state
        self.entries: list[AnyEntry] = []
        self.now = now
        self.worker = "worker-1"

    def write(self, kind: type, **fields: Any) -> Self:
        """Write one entry of that kind."""
        entry = kind(id=f"entry-{self.state.length + 1}", at=self.now, by=self.worker, **fields)
        self.state = fold([entry], self.state)
        self.entries.append(entry)
        self.now += timedelta(seconds=1)
        return self

    def wait(self, seconds: float) -> Self:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)
        return self

    def taken_over_by(self, worker: str) -> Self:
        """Have another worker write from here on."""
        self.worker = worker
        return self

    @property
    def newest(self) -> Release:
        """The release planned last."""
        return self.state.releases[-1]

    # -- what came in

    def receive(self, event: ImagePushed | ModelPublished, *, repaired: bool = False) -> Self:
        return self.write(Received, event=event, repaired=repaired)

    def ignore(self, event_id: str, reason: str = "Stale") -> Self:
        return self.write(IgnoredEvent, event=Ignored(event_id, reason, "for a reason", "subject"))

    def skip(self, event_id: str, reason: str = "Duplicate") -> Self:
        return self.write(Skipped, event_id=event_id, reason=reason, message="for a reason")

    def resolve(self, event_id: str, half: AppHalf | ModelHalf) -> Self:
        return self.write(Resolved, event_id=event_id, half=half)

    def app(self, name: str, contract: str = "1", event_id: str | None = None) -> Self:
        """Publish an app image: received and resolved at one instant."""
        event_id, at = event_id or f"event-{self.state.length + 1}", self.now
        self.receive(pushed(event_id, name, at))
        self.now = at
        return self.resolve(event_id, app_half(name, contract, at))

    def model(self, name: str, contract: str = "1", *, uploaded_at: datetime | None = None) -> Self:
        """Publish a model: received and resolved at one instant."""
        event_id, at = f"event-{self.state.length + 1}", self.now
        self.receive(published(event_id, name, at, sequencer=self.state.length))
        self.now = at
        return self.resolve(event_id, model_half(name, contract, uploaded_at or at))

    def restore(self, name: str) -> Self:
        """Publish a model that was gone: it is as old as the newest release of it says."""
        (_, at) = next(old for old in reversed(self.state.releases) if old.pair.model == digest(name)).halves_at
        return self.model(name, uploaded_at=at)

    # -- what people asked for

    def request(self, key: str, wanted: Pair | None = None) -> Self:
        wanted = wanted or newest_pair(self.state)[0]
        return self.write(Requested, request=key, author="ana", reason="it is meant", pair=wanted)

    def ask_rollback(self, key: str, to: int, undoes: int | None = None) -> Self:
        undoes = undoes or (self.state.live if self.state.live != to else None)
        return self.write(
            RollbackRequested, request=key, author="bo", reason="daisies come back wrong", to=to, undoes=undoes
        )

    def hold(self, key: str = "hold", scope: str = "all") -> Self:
        fence = self.state.fence + 1
        return self.write(HoldSet, request=key, author="bo", reason="a demo is on", fence=fence, scope=scope)

    def resume(self, hold: str | None = None, key: str = "resume") -> Self:
        if hold is None:
            assert self.state.hold is not None
            hold = self.state.hold.id
        return self.write(Resumed, request=key, author="bo", reason="the demo is over", hold=hold)

    def refuse(self, key: str, author: str = "cy") -> Self:
        return self.write(Refused, request=key, author=author, command="hold", reason="may I?")

    # -- what became of it

    def plan(self, app: str, model: str, trigger: str = "app", **fields: Any) -> Self:
        fields = {"author": "shipmate", "reason": "news", **fields}
        return self.write(Planned, release=self.state.next_number, pair=pair(app, model), trigger=trigger, **fields)

    def plan_rollback(self, to: int, undoes: int | None, trigger: str = "rollback", request: str | None = None) -> Self:
        back = self.state.release(to)
        return self.write(
            Planned,
            release=self.state.next_number,
            pair=back.pair,
            trigger=trigger,
            author="bo",
            reason="daisies come back wrong",
            request=request,
            to=to,
            undoes=undoes,
            image=back.image,
        )

    def await_partner(self, app: str, model: str) -> Self:
        message = "they speak different contracts"
        return self.write(Waiting, app=digest(app), model=digest(model), reason="WaitingForPartner", message=message)

    def build(self) -> Self:
        key = self.newest.pair.key
        return self.write(
            Built,
            release=self.newest.number,
            image=digest(f"image {key}"),
            layers=(Layer(self.newest.pair.model, digest(f"layer {key}"), 7),),
            cost=CostSheet(uploaded=7),
        )

    def gate(self, report: GateReport = PASSED) -> Self:
        return self.write(Gated, release=self.newest.number, report=report)

    def reject(self, *quarantine: str) -> Self:
        return self.write(
            Rejected, release=self.newest.number, reason="GateFailed", message="1 is wrong", quarantine=quarantine
        )

    def lose(self, half: str) -> Self:
        """What is gone where it was published: the newest release is rejected, and nobody is blamed."""
        return self.write(
            Rejected,
            release=self.newest.number,
            reason="Gone",
            message="it is not there any more",
            quarantine=(),
            withdrawn=half,
        )

    def park(self, number: int | None = None) -> Self:
        assert self.state.hold is not None
        number = number or self.newest.number
        return self.write(Held, release=number, hold=self.state.hold.id, message="a hold keeps it")

    def intend(self, number: int | None = None) -> Self:
        return self.write(Intended, release=number or self.newest.number, fence=self.state.fence + 1)

    def roll_out(self, number: int | None = None) -> Self:
        return self.write(RolledOut, release=number or self.newest.number)

    def go_live(self, *quarantine: str, number: int | None = None) -> Self:
        return self.write(Live, release=number or self.newest.number, replies=5, quarantine=quarantine)

    def fail(self, *quarantine: str, stage: str = "verify") -> Self:
        return self.write(
            Failed,
            release=self.newest.number,
            stage=stage,
            reason="VerifyFailed",
            message="nobody answered",
            quarantine=quarantine,
        )

    def progress(self, words: str = "half of it is there") -> Self:
        return self.write(Progressed, release=self.newest.number, stage="build", message=words)

    def hand_over(self) -> Self:
        return self.write(
            Progressed, release=self.newest.number, stage="build", message="a turn is over", hands_over=True
        )

    def err(self, retry_seconds: float = 5, stage: str = "build") -> Self:
        return self.write(
            Errored,
            release=self.newest.number,
            stage=stage,
            message="the registry is away",
            retry_at=self.now + timedelta(seconds=retry_seconds),
        )

    def err_reading(self, event_id: str, retry_seconds: float = 5) -> Self:
        return self.write(
            Errored,
            release=None,
            stage="plan",
            message="the registry is away",
            retry_at=self.now + timedelta(seconds=retry_seconds),
            event_id=event_id,
        )

    def supersede(self, number: int | None = None) -> Self:
        return self.write(Superseded, release=number or self.newest.number, message="another goes first")

    # -- longer ways

    def ship(self, app: str, model: str, trigger: str = "app", **fields: Any) -> Self:
        """Bring a pair live, all the way."""
        return self.plan(app, model, trigger, **fields).build().gate().intend().roll_out().go_live()

    def ship_first(self) -> Self:
        """Publish A1 and M1, and bring them live as r-1."""
        return self.app("A1").model("M1").ship("A1", "M1", "model")

    def reject_both_new(self) -> Self:
        """After A1 and M1 are live, publish A2 and M2 together; r-2, their pair, is rejected."""
        return self.ship_first().app("A2").model("M2").plan("A2", "M2").build().reject(pair("A2", "M2").key)

    def blame(self, app: str, model: str) -> Self:
        """Build a cross pair that tells the halves of r-2 apart."""
        return self.plan(app, model, "blame", blames=2).build()

    def roll_back(self, to: int, undoes: int | None, *quarantine: str) -> Self:
        """Go back to an earlier release, all the way."""
        self.ask_rollback(f"back-{to}", to).plan_rollback(to, undoes, request=f"back-{to}")
        return self.build().intend().roll_out().go_live(*quarantine)

    def undo(self, to: int, undoes: int) -> Self:
        """Go back to an earlier release without being asked, all the way."""
        return self.plan_rollback(to, undoes, "automatic_rollback").build().intend().roll_out().go_live()


def app_half(name: str, contract: str = "1", at: datetime = NOON) -> AppHalf:
    """Return an app half of that name."""
    return AppHalf(digest(name), digest(name), "vision-app", name, contract, at)


def model_half(name: str, contract: str = "1", at: datetime = NOON) -> ModelHalf:
    """Return a model half of that name."""
    return ModelHalf(digest(name), "models", f"net/{name}/manifest.json", name, contract, at, f"0x{name}")
