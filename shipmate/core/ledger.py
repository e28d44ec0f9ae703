"""The entries of a target's ledger, and which may follow where a release stands.

An entry is a fact that happened; the ledger is their sequence. Whoever writes an entry chooses its `id`, so that a
write whose reply was lost can be found again. What they come to is in `shipmate.core.state`; who decides what to write
next is `shipmate.core.plan`.
"""

from datetime import datetime
from enum import StrEnum
from typing import Literal

import msgspec

from shipmate.core.events import Ignored, ImagePushed, ModelPublished
from shipmate.core.gate import GateReport
from shipmate.core.refs import Digest, Pair
from shipmate.errors import ShipmateError


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
