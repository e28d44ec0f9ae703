"""What the pipeline needs of the outside, as Protocols.

The real sides are in `shipmate.edge`, in-memory ones in `tests.fakes`.

Errors are those of `shipmate.errors`; an implementation raises nothing else on purpose.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from shipmate.core.ledger import AnyEntry, State

# -- ledger, queue, clock ------------------------------------------------------------------------------------------


class Reading(msgspec.Struct, frozen=True):
    """A target's state, and the place in its ledger that the state is true of."""

    state: State
    segment: int = 0
    offset: int = 0  # bytes of the segment that were read
    entries: int = 0  # entries in the segment


class Ledgers(Protocol):
    """The ledgers of all targets: append-only, one writer wins."""

    def read(self, target: str) -> Reading:
        """Return the target's state. Raises Retryable."""
        ...

    def append(self, target: str, reading: Reading, entries: Sequence[AnyEntry]) -> Reading:
        """Append all entries at once, if nothing was written since the reading, and return the new reading.

        Raises Conflict if somebody else wrote since, Ambiguous if the outcome is unknown, and Retryable.
        """
        ...

    def history(self, target: str) -> Iterator[AnyEntry]:
        """Yield every entry from the first. Raises Retryable."""
        ...


class Queue(Protocol):
    """Messages that hold a target's name and nothing else; delivered at least once."""

    def enqueue(self, target: str, delay_seconds: float = 0) -> None:
        """Have the target advanced, after a delay. Raises Retryable."""
        ...


class Clock(Protocol):
    """Time, and ids that were never used before."""

    def now(self) -> datetime:
        """Return the present instant, aware, in UTC."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""
        ...

    def new_id(self) -> str:
        """Return an id that nobody else chooses."""
        ...
