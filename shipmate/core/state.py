"""The state of a target: everything that its ledger says, as of the last entry.

It is nothing but the fold of the entries (`shipmate.core.fold`), and forgets what is old enough. Read by everything
that decides and by what people are shown.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from shipmate.core.events import ImagePushed, ModelPublished
from shipmate.core.ledger import (
    ACTIVE,
    AppHalf,
    CostSheet,
    IllegalStep,
    Layer,
    ModelHalf,
    Phase,
    RollbackRequested,
    Scope,
    Waiting,
)
from shipmate.core.refs import Digest, Pair

MEMORY = timedelta(hours=26)
"""How long event ids are remembered: Event Grid repeats an event for 24 hours at most."""
HALVES_KEPT = 50
RELEASES_KEPT = 200
REFUSALS_KEPT = 50


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to bring a pair to the target."""

    number: int
    pair: Pair
    app_version: str
    model_version: str
    trigger: str
    author: str
    reason: str
    phase: Phase
    halves_at: tuple[datetime | None, datetime | None] = (None, None)  # when app and model were published, as known
    planned_at: datetime
    moved_at: datetime  # when the phase last changed
    to: int | None = None
    undoes: int | None = None
    blames: int | None = None
    image: Digest | None = None
    fence: int | None = None
    attempt: int = 1  # rises with every error
    stage_attempt: int = 1  # the same, since the phase last changed
    retry_at: datetime | None = None
    ended_because: str | None = None
    message: str | None = None
    cost: CostSheet | None = None
    was_live: bool = False
    forgiven: tuple[str, ...] = ()  # golden questions that its gate found wrong and the thresholds allow

    @property
    def name(self) -> str:
        """What people call it."""
        return f"r-{self.number}"

    @property
    def is_rollback(self) -> bool:
        """Whether it brings back a pair that was verified before, without build or gate."""
        return self.to is not None


class Hold(msgspec.Struct, frozen=True):
    """Why nothing new in its scope ships."""

    id: str
    author: str
    reason: str
    set_at: datetime
    scope: Scope = "all"
    under: "Hold | None" = None  # a narrower one, in force again when this one is lifted

    @property
    def words(self) -> str:
        """The hold as a sentence begins with it."""
        return f"a hold{'' if self.scope == 'all' else f' on {self.scope}s'} by {self.author}"


class Request(msgspec.Struct, frozen=True):
    """A person's wish that no release answers yet."""

    id: str
    author: str
    reason: str
    pair: Pair
    override: bool = False  # once it is planned, what is quarantined of it no longer is


class Publication(msgspec.Struct, frozen=True):
    """A received event that is not resolved yet."""

    event: ModelPublished | ImagePushed
    received_at: datetime
    attempt: int = 1
    retry_at: datetime | None = None
    message: str | None = None  # why it could not be read the last time


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the ledger says about a target, as of its last entry."""

    length: int = 0  # entries folded
    fence: int = 0  # the highest handed out
    seen: dict[str, datetime] = msgspec.field(default_factory=dict)  # event ids
    requests: dict[str, int | None] = msgspec.field(default_factory=dict)  # idempotency key → release, once planned
    fingerprints: dict[str, str] = msgspec.field(default_factory=dict)  # idempotency key → the command's
    refused: dict[str, datetime] = msgspec.field(default_factory=dict)  # author and command → when that was recorded
    sequencers: dict[str, str] = msgspec.field(default_factory=dict)  # container/path → newest sequencer
    examined: dict[str, str] = msgspec.field(default_factory=dict)  # container/path → ETag, repository:tag → digest
    publications: tuple[Publication, ...] = ()
    apps: tuple[AppHalf, ...] = ()  # oldest first; the last is the head
    models: tuple[ModelHalf, ...] = ()
    halves_changed_at: datetime | None = None  # first new head that no release took up: starts the quiet window
    halves_settled_at: datetime | None = None  # last new head
    releases: tuple[Release, ...] = ()  # oldest first
    live: int | None = None
    verified: tuple[int, ...] = ()  # releases that were live, oldest first
    rollback_due: int | None = None  # a failed release whose damage is to be undone
    rollback_request: RollbackRequested | None = None
    request: Request | None = None
    hold: Hold | None = None
    quarantine: frozenset[str] = frozenset()
    layers: tuple[Layer, ...] = ()
    waiting: Waiting | None = None
    last_stage_at: datetime | None = None  # last entry of a worker about a release, and whose it was
    last_stage_by: str | None = None  # nobody's: that worker handed over

    def release(self, number: int) -> Release:
        """Return a release by its number; raise IllegalStep if the ledger knows none."""
        for release in reversed(self.releases):
            if release.number == number:
                return release
        raise IllegalStep(f"the ledger knows no release r-{number}")

    @property
    def active(self) -> Release | None:
        """The one release that is on its way, if there is one."""
        return next((release for release in reversed(self.releases) if release.phase in ACTIVE), None)

    @property
    def serving(self) -> Release | None:
        """The release that users are answered by, as far as the ledger knows."""
        return self.release(self.live) if self.live is not None else None

    @property
    def live_pair(self) -> Pair | None:
        """The pair that users are answered by, as far as the ledger knows."""
        return self.serving.pair if self.serving is not None else None

    @property
    def next_number(self) -> int:
        """The number that the next release gets."""
        return self.releases[-1].number + 1 if self.releases else 1

    def app(self, digest: Digest) -> AppHalf | None:
        """Return the app half of that digest, if it is known."""
        return next((half for half in self.apps if half.digest == digest), None)

    def model(self, digest: Digest) -> ModelHalf | None:
        """Return the model half of that digest, if it is known."""
        return next((half for half in self.models if half.digest == digest), None)

    def hold_on(self, pair: Pair) -> Hold | None:
        """Return the hold that keeps the pair from traffic, None if none does."""
        if self.hold is None or self.hold.scope == "all" or (live := self.live_pair) is None:
            return self.hold
        held = pair.app != live.app if self.hold.scope == "app" else pair.model != live.model
        return self.hold if held else None

    def is_quarantined(self, pair: Pair) -> bool:
        """Return whether the pair or one of its halves must not ship."""
        return not self.quarantine.isdisjoint(pair.names)

    def newest_free[Half: (AppHalf, ModelHalf)](self, halves: Sequence[Half]) -> Half | None:
        """Return the newest of some halves that is not quarantined, None if all are."""
        return next((half for half in reversed(halves) if half.digest not in self.quarantine), None)
