"""What may go wrong at an effect, and when: drawn from a seed, or listed one by one in a scenario.

Each seed of a swarm has some kinds of faults on and others off, and each kind stronger or weaker than usual: a fault
that is always there hides what happens without it.
"""

import dataclasses
from collections.abc import Mapping
from enum import StrEnum
from zlib import crc32

from tests.sim.dice import GOLDEN, MASK, Dice


class Fault(StrEnum):
    """What happens to one call of a port."""

    CRASH_BEFORE = "crash before"  # the worker's process dies, nothing was done
    AWAY = "away"  # the other side does not serve
    LOST_REPLY = "lost reply"  # it is done, and the caller cannot know
    CRASH_AFTER = "crash after"  # it is done, and the worker's process dies
    REPEATED = "repeated"  # it is done, and done again by a client that lost the first reply
    PAUSE = "pause"  # the worker sleeps before it, long enough for others to go on


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """A method of a port. `danger`: how much likelier than elsewhere a long pause before it is."""

    name: str
    system: str
    writes: bool = False
    uncertain: bool = False  # a lost reply is reported as Ambiguous; elsewhere as Retryable, and the call is repeated
    danger: float = 1.0
    number: int = 0  # of the name, for the dice


OPERATIONS = {
    found.name: dataclasses.replace(found, number=crc32(found.name.encode()) * 0xD1342543DE82EF95)
    for found in (
        Operation("read", "ledger"),
        Operation("history", "ledger"),
        Operation("append", "ledger", writes=True, uncertain=True, danger=6),
        Operation("enqueue", "queue", writes=True),
        Operation("deployment", "cluster", danger=8),
        Operation("patch_deployment", "cluster", writes=True, uncertain=True, danger=30),
        Operation("pods", "cluster"),
        Operation("pod_logs", "cluster"),
        Operation("create_gate_pod", "cluster", writes=True, uncertain=True, danger=30),
        Operation("gate_pod", "cluster"),
        Operation("list_gate_pods", "cluster", danger=4),
        Operation("delete_gate_pod", "cluster", writes=True, uncertain=True, danger=4),
        Operation("ask_pod", "cluster"),
        Operation("resolve", "registry"),
        Operation("get_manifest", "registry"),
        Operation("put_manifest", "registry", writes=True, danger=4),
        Operation("get_blob", "registry"),
        Operation("has_blob", "registry"),
        Operation("copy_blobs", "registry", writes=True),
        Operation("upload", "registry", writes=True),
        Operation("properties", "models"),
        Operation("read_manifest", "models"),
        Operation("open", "models"),
        Operation("list", "models"),
        Operation("ask", "door"),
        Operation("version", "door"),
        Operation("blob_list", "ledger"),
        Operation("blob_size", "ledger"),
        Operation("blob_read", "ledger"),
        Operation("blob_create", "ledger", writes=True),
        Operation("blob_append", "ledger", writes=True, danger=6),
    )
}
SYSTEMS = ("ledger", "queue", "cluster", "registry", "models", "door")

_RATES = {
    Fault.CRASH_BEFORE: 0.002,
    Fault.AWAY: 0.006,
    Fault.LOST_REPLY: 0.010,
    Fault.CRASH_AFTER: 0.008,
    Fault.REPEATED: 0.010,
    Fault.PAUSE: 0.003,
}
"""Of one call, where a kind is on and of usual strength."""
_NEEDS_WRITE = frozenset({Fault.LOST_REPLY, Fault.CRASH_AFTER, Fault.REPEATED})
OTHERS = (
    "duplicate events", "late events", "dropped events", "duplicate messages", "late messages", "outages",
    "slow pods", "dead pods", "wrong halves", "skew", "clean-up", "people", "meddling", "lasting trouble",
)  # fmt: skip
"""Kinds of trouble that do not belong to one call."""


_SHORT = 0.15 / 0xFFFF

type Fate = tuple[Fault | None, float]
"""What happens to one call: a fault or none, after so many seconds."""


class Faults:
    """The faults of one seed."""

    def __init__(self, seed: int) -> None:
        self.dice = Dice(seed)
        self._base = self.dice.bits("calls")
        self._on = {kind: self._strength(str(kind)) for kind in (*_RATES, *OTHERS)}
        self._tables: dict[str, tuple[float, tuple[tuple[float, Fault], ...]]] = {}

    def strength(self, kind: str) -> float:
        """Return how strong a kind of trouble is in this seed: 0 where it is off, 1 as usual."""
        return self._on[kind]

    def _strength(self, kind: str) -> float:
        if self.dice.draw(f"swarm {kind}") < 0.4:
            return 0.0
        return self.dice.pick((0.3, 1.0, 1.0, 3.0), f"strength of {kind}")

    def _table(self, operation: Operation) -> tuple[float, tuple[tuple[float, Fault], ...]]:
        """Return the faults of an operation with the upper ends of their shares of 32 bits, and first their whole."""
        found: list[tuple[float, Fault]] = []
        upto = 0.0
        for kind, rate in _RATES.items():
            if kind in _NEEDS_WRITE and not operation.writes:
                continue
            more = rate * self._on[kind] * (operation.danger if kind is Fault.PAUSE else 1.0)
            if more:
                upto += more
                found.append((upto * 2**32, kind))
        self._tables[operation.name] = whole = (upto * 2**32, tuple(found))
        return whole

    def fate(self, actor: str, number: int, operation: Operation, occurrence: int) -> Fate:
        """Return what happens to the n-th such call of an actor; `number` stands for the actor's name."""
        bits = (self._base + number + operation.number + occurrence * GOLDEN) & MASK
        bits = ((bits ^ (bits >> 32)) * 0xD6E8FEB86659FD93) & MASK  # half of dice.mixed(): what is added is mixed
        bits ^= bits >> 32
        seconds = (bits & 0xFFFF) * _SHORT + 0.001
        share = bits >> 32
        whole, table = self._tables.get(operation.name) or self._table(operation)
        if share >= whole:
            return None, seconds
        kind = next(kind for upto, kind in table if share < upto)
        if kind is Fault.PAUSE:
            seconds = 20 + ((bits >> 16) & 0xFFFF) * (280 / 0xFFFF)
        return kind, seconds

    def chance(self, kind: str, key: str, rate: float) -> float | None:
        """Return a number from 0 to 1 if a trouble that belongs to no call happens here; else None."""
        strength = self._on[kind]
        if strength and self.dice.draw(key) < rate * strength:
            return self.dice.draw(key, 1)
        return None


class NoFaults(Faults):
    """A world in which nothing goes wrong; each call takes the same time."""

    def __init__(self) -> None:
        self.dice = Dice(0)
        self._on = dict.fromkeys((*_RATES, *OTHERS), 0.0)

    def fate(self, actor: str, number: int, operation: Operation, occurrence: int) -> Fate:
        return _PLAIN


_PLAIN = (None, 0.05)


class ListedFaults(NoFaults):
    """Faults that are listed one by one: (actor, operation, occurrence) and what happens there.

    `jitter`: the seed of the times that all other calls take.
    """

    def __init__(
        self,
        listed: Mapping[tuple[str, str, int], Fate],
        chances: Mapping[str, float] | None = None,
        *,
        jitter: int | None = None,
    ) -> None:
        super().__init__()
        self._listed = listed
        self._chances = chances or {}
        self._jitter = Faults(jitter) if jitter is not None else None

    def chance(self, kind: str, key: str, rate: float) -> float | None:
        return self._chances.get(key)

    def fate(self, actor: str, number: int, operation: Operation, occurrence: int) -> Fate:
        listed = self._listed.get((actor, operation.name, occurrence))
        if listed is not None or self._jitter is None:
            return listed or _PLAIN
        seconds = self._jitter.fate(actor, number, operation, occurrence)[1]
        return None, seconds if seconds < 1 else 0.05


class HeardFaults(NoFaults):
    """No faults; it notes each call at which one could be."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, Operation, int]] = []

    def fate(self, actor: str, number: int, operation: Operation, occurrence: int) -> Fate:
        self.calls.append((actor, operation, occurrence))
        return _PLAIN
