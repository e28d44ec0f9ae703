"""A target's finished run, indexed for those who judge it, and what more than one of them asks of it."""

import dataclasses
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from shipmate.core.ledger import AnyEntry, Intended, Phase, Planned
from shipmate.core.refs import Pair
from tests.sim import model
from tests.sim.history import History, Patch, TargetRun


@dataclasses.dataclass(frozen=True)
class Seen:
    """A target's run, indexed for those who judge it."""

    history: History
    run: TargetRun

    @property
    def entries(self) -> tuple[AnyEntry, ...]:
        return self.run.entries

    def each[E](self, kind: type[E]) -> list[tuple[int, E]]:
        """Return the entries of a kind with their places."""
        found: list[tuple[int, Any]] = self._by_kind.get(kind, [])
        return found

    def all(self, *kinds: type) -> list[Any]:
        """Return the entries of some kinds, one kind after the other."""
        return [entry for kind in kinds for _, entry in self._by_kind.get(kind, ())]

    @cached_property
    def _by_kind(self) -> dict[type, list[tuple[int, AnyEntry]]]:
        found: dict[type, list[tuple[int, AnyEntry]]] = {}
        for index, entry in enumerate(self.entries):
            found.setdefault(type(entry), []).append((index, entry))
        return found

    @cached_property
    def planned(self) -> dict[int, tuple[int, Planned]]:
        return {entry.release: (index, entry) for index, entry in self.each(Planned)}

    @cached_property
    def phases(self) -> dict[int, Phase]:
        """Where each release stands at the end."""
        return {number: model.phase(self.entries, number) for number in self.planned}

    @cached_property
    def moves(self) -> list[tuple[int, Patch, int]]:
        """The patches that brought another release, with their places and that release's number."""
        return [
            (place, patch, number_of(patch.after.release))
            for place, patch in enumerate(self.run.patches)
            if (patch.after.release, patch.after.containers) != (patch.before.release, patch.before.containers)
        ]

    def instant(self, entry: AnyEntry) -> datetime:
        """Return when an entry was made, by the world's clock and not its worker's."""
        host = int(entry.by.removeprefix("worker-").partition(".")[0])
        return entry.at - timedelta(seconds=self.history.skews[host])

    def is_forward(self, number: int) -> bool:
        """Whether a release is no rollback."""
        return self.planned[number][1].to is None

    def intent(self, number: int, fence: int | None) -> int | None:
        """Return the place of the entry that gave a release a fence."""
        return next((i for i, e in self.each(Intended) if (e.release, e.fence) == (number, fence)), None)

    def pair_of(self, number: int | None) -> Pair | None:
        """Return the pair of a release, if there is one."""
        return self.planned[number][1].pair if number is not None else None

    def troubles(self, number: int) -> set[str]:
        """Return what a release was in trouble with as long as that lasted: see `tests.sim.plans.TROUBLE`."""
        pair, known = self.planned[number][1].pair, self.run.truth.troubled
        return {known[half] for half in (pair.app, pair.model) if half in known}

    def has_held_request(self) -> bool:
        """Whether a person's wish, which goes first, waits for a resume."""
        held = [number for number, phase in self.phases.items() if phase is Phase.HELD]
        return any(self.planned[number][1].trigger == "request" for number in held)

    def may_be_stuck(self) -> bool:
        """Whether nobody may be left to go on: a message was poisoned, and no timer wakes the target."""
        return self.history.poisoned > 0 and self.history.sweep_off


def number_of(release: str | None) -> int:
    """Return the number of a release's name; 0 for none."""
    return int((release or "r-0").removeprefix("r-"))
