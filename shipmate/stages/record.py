"""Writing to a ledger that others write to as well: decide, append, and decide anew if somebody was first."""

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import NamedTuple

from shipmate.core.ledger import AnyEntry, Phase, Progressed
from shipmate.core.state import Release, State
from shipmate.errors import Ambiguous, Conflict, Retryable
from shipmate.ports import Ledgers, Reading
from shipmate.stages.context import Context


class Appended(NamedTuple):
    """What was written to a ledger, nothing if nothing was wanted; and the ledger as it was known then."""

    entries: list[AnyEntry]
    reading: Reading


def append(
    ledgers: Ledgers, name: str, entries: Callable[[State], list[AnyEntry]], reading: Reading | None = None
) -> Appended:
    """Append what `entries` makes of a ledger's state, made anew each time that somebody else wrote first.

    The state of `reading` is tried first, if given. Raises what `entries` raises, Retryable, Ambiguous.
    """
    while True:
        reading = reading or ledgers.read(name)
        wanted = entries(reading.state)
        if not wanted:
            return Appended([], reading)
        try:
            return Appended(wanted, ledgers.append(name, reading, wanted))
        except Conflict:
            reading = None


def standing(state: State, release: Release) -> tuple[Phase, int]:
    """Return where a release stands: equal before and after means that nobody else moved it."""
    now = state.release(release.number)
    return now.phase, now.attempt


@dataclasses.dataclass
class SignsOfLife:
    """Records now and then that a worker is at a release, so that nobody takes over what only takes long.

    A stage calls it as often as it likes, with words on how far it came. Raises Conflict once another worker moved the
    release, which ends the stage.
    """

    ledgers: Ledgers
    target: str
    release: Release
    stage: str
    context: Context
    every: timedelta
    last: datetime  # when the ledger last heard of the release

    def __call__(self, words: str) -> None:
        """Record the words, if the last sign is long enough ago."""
        now = self.context.clock.now()
        if now - self.last < self.every:
            return
        self.last = now
        with suppress(Retryable, Ambiguous):  # the stage has better things to do than to see to its signs
            append(self.ledgers, self.target, lambda state: [self._sign(state, words)])

    def _sign(self, state: State, words: str) -> AnyEntry:
        if standing(state, self.release) != (self.release.phase, self.release.attempt):
            raise Conflict(f"another worker took {self.release.name} over")
        number = self.release.number
        return Progressed(**self.context.stamp(), release=number, stage=self.stage, message=words)
