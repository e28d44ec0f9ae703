"""The entries of a target's ledger, and the state they fold into.

An entry is a fact that happened; the ledger is their sequence; the state is nothing but their fold. Whoever writes an
entry chooses its `id`, so that a write whose reply was lost can be found again. The fold is `shipmate.core.fold`;
who decides what to write next is `shipmate.core.plan`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

import msgspec

from shipmate.core.events import Ignored, ImagePushed, ModelPublished
from shipmate.core.gate import GateReport
from shipmate.core.refs import Digest, Pair
from shipmate.errors import ShipmateError

MEMORY = timedelta(hours=26)
"""How long event ids are remembered: Event Grid repeats an event for 24 hours at most."""
HALVES_KEPT = 50
RELEASES_KEPT = 200
REFUSALS_KEPT = 50


class Phase(StrEnum):
    """Where a release stands."""

    PLANNED = "planned"
    BUILT = "built"
    GATED = "gated"
    HELD = "held"  # passed its gate; a hold keeps it from traffic
    CLEARED = (
        "cleared"  # passed its gate, which was to tell the half at fault from the other; ships if it is the newest
    )
    INTENDED = "intended"  # has its fence; the patch may or may not have been made
    ROLLED_OUT = "rolled_out"
    LIVE = "live"
    RETIRED = "retired"  # was live, another is now
    REJECTED = "rejected"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"  # failed, or was live, and a rollback undid it
    SUPERSEDED = "superseded"


ACTIVE = frozenset({Phase.PLANNED, Phase.BUILT, Phase.GATED, Phase.INTENDED, Phase.ROLLED_OUT})

STEPS: dict[str, frozenset[Phase]] = {
    "built": frozenset({Phase.PLANNED}),
    "gated": frozenset({Phase.BUILT}),
    # PLANNED: it cannot be built; INTENDED: it was lost before it was patched in, and cannot be built again
    "rejected": frozenset({Phase.PLANNED, Phase.BUILT, Phase.INTENDED}),
    "held": frozenset({Phase.GATED, Phase.CLEARED, Phase.INTENDED}),  # INTENDED: the hold's fence outran the patch
    # BUILT: a rollback, whose pair was verified before; INTENDED: a higher fence came first, and is out of the way
    "intended": frozenset({Phase.GATED, Phase.CLEARED, Phase.BUILT, Phase.HELD, Phase.INTENDED}),
    "rolled_out": frozenset({Phase.INTENDED}),
    "live": frozenset({Phase.ROLLED_OUT}),
    # PLANNED, or INTENDED at the stage build: a rollback's image is gone, and nothing was touched
    "failed": frozenset({Phase.PLANNED, Phase.INTENDED, Phase.ROLLED_OUT}),
    "progressed": ACTIVE,
    "errored": ACTIVE | {Phase.HELD, Phase.CLEARED},
    "superseded": ACTIVE | {Phase.HELD, Phase.CLEARED},
}
"""For each entry about one release, the phases it may be in before."""


type Trigger = Literal["model", "app", "request", "rollback", "automatic_rollback", "blame"]
"""Why a release exists. `blame`: to tell which half of a rejected pair is at fault."""

type Scope = Literal["all", "app", "model"]
"""What a hold keeps back: every release, or those that bring another app, or another model, than the live one."""


class IllegalStep(ShipmateError):
    """An entry does not follow from the state before it."""


class AppHalf(msgspec.Struct, frozen=True, tag="app", tag_field="half"):
    """A published app image, resolved."""

    digest: Digest  # of the target platform's manifest
    pushed: Digest  # what the tag pointed to: the same, or an index that lists it
    repository: str
    version: str
    contract: str
    published_at: datetime


class ModelHalf(msgspec.Struct, frozen=True, tag="model", tag_field="half"):
    """A published model, resolved."""

    digest: Digest
    container: str
    path: str  # of the manifest, or of the single file
    version: str
    contract: str
    published_at: datetime
    etag: str | None = None


class Layer(msgspec.Struct, frozen=True):
    """A model layer that is in the release repository, found again by the key of the files in it."""

    key: str
    digest: Digest
    size: int


class CostSheet(msgspec.Struct, frozen=True):
    """What a build moved, in bytes."""

    uploaded: int = 0
    mounted: int = 0
    reused: int = 0


# -- entries -------------------------------------------------------------------------------------------------------


class Entry(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What every entry carries: its id, its instant, and the worker that wrote it."""

    id: str
    at: datetime
    by: str

    @property
    def kind_name(self) -> str:
        """The entry's kind, as the ledger spells it."""
        return str(self.__struct_config__.tag)


class Received(Entry, frozen=True, kw_only=True, tag="received"):
    """Something was published that concerns this target. `repaired`: the sweep found it, no event told us."""

    event: ModelPublished | ImagePushed
    repaired: bool = False


class IgnoredEvent(Entry, frozen=True, kw_only=True, tag="ignored"):
    """An event came in that starts nothing."""

    event: Ignored


class Resolved(Entry, frozen=True, kw_only=True, tag="resolved"):
    """A publication was read: this half exists and may be part of a pair."""

    event_id: str
    half: AppHalf | ModelHalf


class Skipped(Entry, frozen=True, kw_only=True, tag="skipped"):
    """A publication leads to no release of its own. What is quarantined is known where it was published last."""

    event_id: str
    reason: str
    message: str
    half: AppHalf | ModelHalf | None = None


class Requested(Entry, frozen=True, kw_only=True, tag="requested"):
    """A person asked for a release."""

    request: str  # the idempotency key
    author: str
    reason: str
    pair: Pair
    override: bool = False  # the pair, or a half of it, was quarantined, and ships all the same
    fingerprint: str = ""  # of the whole command: a key that comes again with another one is refused


class RollbackRequested(Entry, frozen=True, kw_only=True, tag="rollback_requested"):
    """A person asked to go back. Once the rollback is live it holds the target."""

    request: str
    author: str
    reason: str
    to: int  # a release that was live before
    undoes: int | None = None  # the release that was worse
    fingerprint: str = ""  # as in `Requested`


class HoldSet(Entry, frozen=True, kw_only=True, tag="hold_set"):
    """Nothing new in its scope ships until the hold is lifted. `fence` outranks every rollout intended before."""

    request: str
    author: str
    reason: str
    fence: int
    scope: Scope = "all"
    fingerprint: str = ""  # as in `Requested`


class Resumed(Entry, frozen=True, kw_only=True, tag="resumed"):
    """The hold was lifted. `hold` is the id of the entry that set it, so that a late repeat lifts no newer hold."""

    request: str
    author: str
    reason: str
    hold: str
    fingerprint: str = ""  # as in `Requested`


class Refused(Entry, frozen=True, kw_only=True, tag="refused"):
    """Somebody who signed in asked for what their role does not allow. Nothing follows from it."""

    request: str
    author: str
    command: str  # release, rollback, hold or resume
    reason: str  # what the author gave as theirs


class Planned(Entry, frozen=True, kw_only=True, tag="planned"):
    """A release exists from here on."""

    release: int
    pair: Pair
    trigger: Trigger
    author: str
    reason: str
    request: str | None = None
    to: int | None = None  # a rollback: the release whose pair comes back
    undoes: int | None = None  # a rollback: the release that was worse
    image: Digest | None = None  # a rollback: that release's image
    blames: int | None = None  # a cross pair: the rejected release whose halves it tells apart


class Waiting(Entry, frozen=True, kw_only=True, tag="waiting"):
    """The newest halves do not fit together yet."""

    app: Digest
    model: Digest
    reason: str
    message: str


class Built(Entry, frozen=True, kw_only=True, tag="built"):
    """The release image is in the registry."""

    release: int
    image: Digest
    layers: tuple[Layer, ...] = ()
    cost: CostSheet = CostSheet()


class Gated(Entry, frozen=True, kw_only=True, tag="gated"):
    """The candidate answered well enough."""

    release: int
    report: GateReport


class Rejected(Entry, frozen=True, kw_only=True, tag="rejected"):
    """The candidate must not meet users. `quarantine` lists the digests, or the pair's key, that ship no more.

    `withdrawn` is a half that cannot be read or built: it is forgotten until it is published again.
    """

    release: int
    reason: str
    message: str
    quarantine: tuple[str, ...]
    withdrawn: Digest | None = None
    report: GateReport | None = None


class Held(Entry, frozen=True, kw_only=True, tag="held"):
    """The release is ready, and a hold keeps it from traffic."""

    release: int
    hold: str
    message: str


class Intended(Entry, frozen=True, kw_only=True, tag="intended"):
    """The release may be rolled out, with this fence."""

    release: int
    fence: int


class RolledOut(Entry, frozen=True, kw_only=True, tag="rolled_out"):
    """All pods run the release's image."""

    release: int


class Live(Entry, frozen=True, kw_only=True, tag="live"):
    """Users are answered by the release; it was verified through the public door."""

    release: int
    replies: int
    quarantine: tuple[str, ...] = ()  # a rollback: what it undid ships no more, and the target is held


class Failed(Entry, frozen=True, kw_only=True, tag="failed"):
    """The release was wrong at roll out or verify. `quarantine` as in `Rejected`."""

    release: int
    stage: str
    reason: str
    message: str
    quarantine: tuple[str, ...] = ()


class Progressed(Entry, frozen=True, kw_only=True, tag="progressed"):
    """A stage takes long, and its worker is alive: others leave the release to it, unless it hands over."""

    release: int
    stage: str
    message: str
    hands_over: bool = False  # its turn is over and it does nothing more: whoever claims the release goes on


class Errored(Entry, frozen=True, kw_only=True, tag="errored"):
    """We could not tell: something outside is in trouble. The stage is tried again at `retry_at`."""

    release: int | None
    stage: str
    message: str
    retry_at: datetime
    event_id: str | None = None


class Superseded(Entry, frozen=True, kw_only=True, tag="superseded"):
    """Another release goes first; this one ends. What a person rolled back before it was live is quarantined."""

    release: int
    message: str
    quarantine: tuple[str, ...] = ()


type AnyEntry = (
    Received
    | IgnoredEvent
    | Resolved
    | Skipped
    | Requested
    | RollbackRequested
    | HoldSet
    | Resumed
    | Refused
    | Planned
    | Waiting
    | Built
    | Gated
    | Rejected
    | Held
    | Intended
    | RolledOut
    | Live
    | Failed
    | Progressed
    | Errored
    | Superseded
)


# -- state ---------------------------------------------------------------------------------------------------------


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


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(AnyEntry)


def encode(entry: AnyEntry) -> bytes:
    """Return an entry as one JSON line; raise IllegalStep for what could not be read again.

    A line that nobody can read would shut its ledger for good: a confidence that is no number, half a surrogate pair.
    """
    try:
        line = _encoder.encode(entry)
        _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise IllegalStep(f"the entry {entry.kind_name!r} cannot be written: {error}") from error
    return line + b"\n"


def decode(line: bytes) -> AnyEntry:
    """Return the entry of one JSON line; raise IllegalStep if this version of Shipmate does not know it."""
    try:
        entry: AnyEntry = _decoder.decode(line)
    except msgspec.DecodeError as error:
        raise IllegalStep(f"the ledger holds an entry that cannot be read: {error}") from error
    return entry
