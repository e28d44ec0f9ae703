"""Ledgers, the queue and the clock in memory: the ports of the same name, with faults on demand.

The ledgers keep encoded lines, not objects, so that what could not be written to Blob Storage cannot be written here.
"""

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum

from shipmate.core.fold import fold
from shipmate.core.ledger import AnyEntry, decode, encode
from shipmate.core.state import State
from shipmate.errors import Ambiguous, Conflict, Retryable
from shipmate.ports import Reading


class Fault(Enum):
    """What may happen to one append."""

    CONFLICT = "conflict"  # somebody else writes first
    LOST_REPLY = "lost reply"  # it is applied, the reply is lost, and so is the attempt to find out
    LOST_REQUEST = "lost request"  # it is not applied, and nobody can tell
    AWAY = "away"  # storage does not answer


class FakeLedgers:
    """Ledgers in memory."""

    def __init__(self) -> None:
        self._lines: dict[str, list[bytes]] = {}
        self._states: dict[str, list[State]] = {}  # after so many entries, as far as anybody asked
        self._faults: list[Fault] = []
        self.away = False  # while set, storage answers nobody
        self.on_conflict: Callable[[str], None] | None = None  # what the other writer of Fault.CONFLICT does

    def fail_next(self, *faults: Fault) -> None:
        """Have the next appends meet these faults, one each."""
        self._faults.extend(faults)

    def read(self, target: str) -> Reading:
        self._check_there(target)
        count = len(self._lines.get(target, ()))
        return Reading(self._state(target, count), 0, count, count)

    def append(self, target: str, reading: Reading, entries: Sequence[AnyEntry]) -> Reading:
        fold(entries, reading.state)
        lines = [encode(entry) for entry in entries]
        fault = self._faults.pop(0) if self._faults else None
        self._check_there(target, fault)
        if fault is Fault.LOST_REQUEST:
            raise Ambiguous(f"writing to the ledger of {target} may or may not have worked: the request was lost")
        if fault is Fault.CONFLICT and self.on_conflict is not None:
            self.on_conflict(target)
        written = self._lines.setdefault(target, [])
        if written[reading.entries : reading.entries + 1] == lines[:1]:
            return self.read(target)  # a repeat of one's own append
        if fault is Fault.CONFLICT or len(written) != reading.entries:
            raise Conflict(f"somebody else wrote to the ledger of {target} first")
        written.extend(lines)
        if fault is Fault.LOST_REPLY:
            raise Ambiguous(f"writing to the ledger of {target} may or may not have worked: the reply was lost")
        return self.read(target)

    def history(self, target: str, since: datetime | None = None) -> Iterator[AnyEntry]:
        self._check_there(target)
        yield from map(decode, list(self._lines.get(target, ())))

    def _check_there(self, target: str, fault: Fault | None = None) -> None:
        if self.away or fault is Fault.AWAY:
            raise Retryable(f"storage did not serve the ledger of {target}: it is away")

    def _state(self, target: str, count: int) -> State:
        states = self._states.setdefault(target, [State()])
        for line in self._lines.get(target, [])[len(states) - 1 : count]:
            states.append(fold([decode(line)], states[-1]))
        return states[count]


class FakeClock:
    """Virtual time: it passes when somebody sleeps or says so. Ids are numbers."""

    def __init__(self, now: datetime = datetime(2026, 1, 1, 12, tzinfo=UTC)) -> None:
        self._now = now
        self._ids = itertools.count(1)

    def now(self) -> datetime:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += timedelta(seconds=max(0.0, seconds))

    def new_id(self) -> str:
        return f"id-{next(self._ids)}"

    def advance_to(self, instant: datetime) -> None:
        """Let time pass until an instant; it never goes back."""
        self._now = max(self._now, instant)


class FakeQueue:
    """A queue in memory: messages become due, and are taken once."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._messages: list[tuple[datetime, int, str]] = []
        self._order = itertools.count()
        self.away = False  # while set, no message is taken in

    def enqueue(self, target: str, delay_seconds: float = 0) -> None:
        if self.away:
            raise Retryable("the queue took no message: it is away")
        due = self._clock.now() + timedelta(seconds=delay_seconds)
        heapq.heappush(self._messages, (due, next(self._order), target))

    def next_due(self) -> datetime | None:
        """Return when the next message is due, None if there is none."""
        return self._messages[0][0] if self._messages else None

    def take(self) -> str:
        """Take the message that is due first, and return the target's name; IndexError if there is none."""
        return heapq.heappop(self._messages)[2]

    def __len__(self) -> int:
        return len(self._messages)
