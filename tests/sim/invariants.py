"""What must hold of every finished run, judged from outside: the ledger's entries, the cluster's patches, the truth.

None of Shipmate's own rules is asked here: what a hold, a quarantine, a head or a phase is, the slow model says
(`tests.sim.model`) or the promise that is judged (`tests.sim.promises`, a file each). `check` raises the first
`Violation`, with the story that led to it.
"""

from collections.abc import Callable, Iterator

from shipmate.core.fold import fold
from shipmate.core.state import State
from tests.sim import model
from tests.sim.history import History
from tests.sim.promises.converges import the_target_converges
from tests.sim.promises.happens_once import each_thing_happens_once
from tests.sim.promises.never_moves_back import live_never_moves_back
from tests.sim.promises.nothing_is_lost import nothing_is_lost
from tests.sim.promises.ships_what_may import nothing_ships_that_must_not
from tests.sim.seen import Seen
from tests.sim.story import story

EVERY_ENTRY = 193
"""One seed in so many compares the fold with its model after every entry; each does at the end."""


class Violation(AssertionError):
    """An invariant does not hold: its number and name, what happened, and the story."""

    def __init__(self, number: int, name: str, what: str, story: str) -> None:
        super().__init__(f"invariant {number}, {name}: {what}\n{story}")
        self.number = number
        self.name = name
        self.what = what


def check(history: History) -> None:
    """Raise Violation for the first invariant that does not hold of a finished run."""
    for run in history.targets:
        seen = Seen(history, run)
        for number, (name, complaints) in INVARIANTS.items():
            for what in complaints(seen):
                raise Violation(number, name, f"seed {history.seed}, {run.target.name}: {what}", story(run))


def the_fold_equals_its_model(seen: Seen) -> Iterator[str]:
    """The state is what the whole ledger, searched slowly, says; for some seeds after every entry."""
    yield from model.differences(seen.entries, seen.run.state)
    if seen.history.seed % EVERY_ENTRY == 0:
        state = State()
        for index, entry in enumerate(seen.entries):
            state = fold([entry], state)
            for what in model.differences(seen.entries[: index + 1], state):
                yield f"after {index + 1} entries {what}"


INVARIANTS: dict[int, tuple[str, Callable[[Seen], Iterator[str]]]] = {
    1: ("an acknowledged publish is never lost", nothing_is_lost),
    2: ("everything happens once", each_thing_happens_once),
    3: ("live never moves to an older head", live_never_moves_back),
    4: ("nothing ships that must not", nothing_ships_that_must_not),
    5: ("the target converges", the_target_converges),
    6: ("the fold equals its model", the_fold_equals_its_model),
}
"""In the order of the promises in docs/semantics.md."""
