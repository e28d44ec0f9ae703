"""A target's ledger, open: which entries are about what, and what each says in one line.

Pure; for `history`, `fates` and `why`, which make answers of it. Entries may be many more than the state remembers.
"""

import dataclasses
from collections.abc import Iterator, Sequence

from shipmate.core.fold import fold
from shipmate.core.ledger import AnyEntry, IgnoredEvent, Progressed, Received, Resolved
from shipmate.core.publications import examined
from shipmate.core.state import Release, State


@dataclasses.dataclass(frozen=True)
class Book:
    """A target's ledger, open."""

    target: str
    state: State  # the fold of the entries
    entries: Sequence[AnyEntry]  # oldest first
    upcoming: str  # what happens next to the target, in words

    def of[Entry](self, kind: type[Entry]) -> Iterator[Entry]:
        """Yield the entries of a kind, oldest first."""
        return (entry for entry in self.entries if isinstance(entry, kind))

    def about(self, number: int) -> list[AnyEntry]:
        """Return the entries about a release, oldest first; of signs of life only one that nothing followed yet."""
        own = [entry for entry in self.entries if release_of(entry) == number]
        return [entry for entry in own if not isinstance(entry, Progressed) or entry is own[-1]]

    def release(self, number: int) -> Release:
        """Return a release as it stands, also one that the state has forgotten."""
        if any(release.number == number for release in self.state.releases):
            return self.state.release(number)
        state, known = State(), dict[int, Release]()
        for entry in self.entries:
            state = fold([entry], state)
            known |= {release.number: release for release in state.releases if release.number == number}
        return known[number]

    def half(self, digest: str) -> Resolved:
        """Return the last entry that told of a half."""
        return [entry for entry in self.of(Resolved) if entry.half.digest == digest][-1]

    def command(self, path: str) -> str:
        """Return a command of the API as people write it."""
        return f"POST /api/targets/{self.target}/{path}"


def release_of(entry: AnyEntry) -> int | None:
    """Return the number of the release that an entry is about, None if it is about none."""
    number: int | None = getattr(entry, "release", None)
    return number


def event_of(entry: AnyEntry) -> str | None:
    """Return the id of the event that an entry is about, None if it is about none."""
    event = getattr(entry, "event", None)
    return event.event_id if event is not None else getattr(entry, "event_id", None)


def words_of(entry: AnyEntry) -> str:
    """Return what an entry says, in one line."""
    said = entry.event if isinstance(entry, IgnoredEvent) else entry
    parts = [getattr(said, part, None) for part in ("author", "reason", "message")]
    words = ": ".join(part for part in parts if part)
    if isinstance(entry, Received):
        words = examined(entry.event)[0]
    if isinstance(entry, Resolved):
        words = f"{entry.half.version} is {entry.half.digest}"
    number = release_of(entry)
    return " ".join(part for part in (f"r-{number}" if number else "", words) if part)
