"""Many seeds, on all cores: what was found, how often each state was reached, and what it cost.

Called by `python -m tests.sim` (`make sim`) and by the tests. Blocks of seeds go to processes, and only their tallies
come back, so that a million seeds need no more memory than a thousand.
"""

import dataclasses
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from tests.sim.invariants import check
from tests.sim.memory import many_runs, tidy
from tests.sim.reach import REACH, reached
from tests.sim.simulation import simulation_of

BLOCK = 50
MOST_FAILURES = 5
PROCESSES = 2


@dataclasses.dataclass(slots=True)
class Tally:
    """What some seeds came to."""

    seeds: int = 0
    steps: int = 0
    cpu_seconds: float = 0.0
    faults: Counter[str] = dataclasses.field(default_factory=Counter)  # by kind, and by operation where there is one
    states: Counter[str] = dataclasses.field(default_factory=Counter)  # how many seeds reached each
    failures: list[tuple[int, str]] = dataclasses.field(default_factory=list)  # seed, and what does not hold

    def add(self, other: "Tally") -> None:
        """Add another tally to this one."""
        self.seeds += other.seeds
        self.steps += other.steps
        self.cpu_seconds += other.cpu_seconds
        self.faults.update(other.faults)
        self.states.update(other.states)
        self.failures.extend(other.failures)

    @property
    def kinds(self) -> Counter[str]:
        """Return the faults by kind alone."""
        found: Counter[str] = Counter()
        for name, count in self.faults.items():
            found[name.partition(" at ")[0].partition(" of ")[0].partition(":")[0]] += count
        return found

    def closing(self) -> str:
        """Return the closing lines: seeds, steps, faults by kind, states reached, and the cost of a seed."""
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.kinds.most_common())
        rare = sorted(REACH, key=lambda name: self.states[name])
        states = ", ".join(f"{self.states[name]:,} {name}" for name in rare)
        cost = self.cpu_seconds / max(1, self.seeds) * 1000
        return (
            f"{self.seeds:,} seeds, {self.steps:,} steps, {cost:.1f} ms of CPU a seed; "
            f"{sum(self.kinds.values()):,} faults: {kinds}\n"
            f"{sum(self.states[name] > 0 for name in REACH)} of {len(REACH)} states reached: {states}\n"
            f"{len(self.failures)} seeds failed"
        )


def run_block(seeds: range) -> Tally:
    """Run and judge some seeds, one after the other."""
    tally = Tally()
    started = time.process_time()
    with many_runs():
        for seed in seeds:
            _run(seed, tally)
        tidy()
    tally.cpu_seconds = time.process_time() - started
    return tally


def _run(seed: int, tally: Tally) -> None:
    simulation = simulation_of(seed)
    try:
        history = simulation.run()
        check(history)
    except Exception as error:  # noqa: BLE001 - whatever a seed brings to light is told with its number
        tally.failures.append((seed, f"{type(error).__name__}: {error}"))
    else:
        tally.steps += history.chaos_steps + history.calm_steps
        tally.states.update(reached(simulation.hub, history))
    tally.seeds += 1
    tally.faults.update(simulation.hub.counts)
    simulation.dissolve()


def search(
    seeds: Iterable[range], *, processes: int = PROCESSES, told: Callable[[Tally], None] = lambda tally: None
) -> Tally:
    """Run all seeds and return their tally; stop early where some fail. `told` hears the tally after each block."""
    total = Tally()
    blocks = (block for each in seeds for block in _blocks(each))
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for tally in pool.imap_unordered(run_block, blocks):
            total.add(tally)
            told(total)
            if len(total.failures) >= MOST_FAILURES:
                break
    return total


def _blocks(seeds: range) -> Iterator[range]:
    for start in range(seeds.start, seeds.stop, BLOCK):
        yield range(start, min(start + BLOCK, seeds.stop))
