"""`make sim`: search many seeds, or replay one and tell its story."""

import sys
import time
from collections.abc import Sequence

import click

from tests.sim.invariants import check
from tests.sim.scenario import simulation
from tests.sim.search import PROCESSES, Tally, search
from tests.sim.shrink import keep, shrunk
from tests.sim.simulation import Simulation, simulation_of


@click.command()
@click.option("--seeds", default=10_000, show_default=True, help="How many histories to search.")
@click.option("--first", default=0, show_default=True, help="The first seed.")
@click.option("--seed", type=int, help="Replay this one and tell its story.")
@click.option("--shrink", is_flag=True, help="Make the seed's history as small as it fails, and write it down.")
@click.option("--processes", default=PROCESSES, show_default=True)
def main(seeds: int, first: int, seed: int | None, processes: int, *, shrink: bool) -> None:
    """Search simulated histories for one in which something does not hold."""
    if seed is not None:
        sys.exit(_shrink(seed) if shrink else replay(seed))
    tally = search([range(first, first + seeds)], processes=processes, told=_Progress(seeds))
    click.echo(f"\r{tally.closing()}")
    sys.exit(1 if tally.failures else 0)


def replay(seed: int) -> int:
    """Print the story of a seed and how it ends; return the exit code."""
    return _tell(simulation_of(seed, telling=True), f"seed {seed}")


def _tell(run: Simulation, name: str) -> int:
    try:
        history = run.run()
        check(history)
    except Exception as error:  # noqa: BLE001 - that is what one replays a seed for
        ending = f"{name} fails: {type(error).__name__}: {error}"
    else:
        ending = ""
    lines: Sequence[str] = run.hub.story or ()
    click.echo("\n".join(lines))
    click.echo(ending or f"{name}: all that must hold holds")
    return 1 if ending else 0


def _shrink(seed: int) -> int:
    """Print the smallest story found that ends as a seed's, and write it down; return the exit code."""
    scenario = shrunk(seed)
    if scenario is None:
        click.echo(f"seed {seed} does not fail, or only by the chance of its times: see make sim SEED={seed}")
        return 0
    path = keep(scenario, f"seed-{seed}")
    code = _tell(simulation(scenario, telling=True), str(path))
    click.echo(f"written to {path}: say in it why it matters, give it a name, and keep it")
    return code


class _Progress:
    """Each failure when it is found, and on a terminal one line that says how far the search is."""

    def __init__(self, seeds: int) -> None:
        self._seeds = seeds
        self._started = time.monotonic()
        self._told = 0

    def __call__(self, tally: Tally) -> None:
        for failed, what in tally.failures[self._told :]:
            click.echo(f"\rseed {failed} (make sim SEED={failed}): {what}\n")
        self._told = len(tally.failures)
        if sys.stdout.isatty():
            rate = tally.seeds / max(0.001, time.monotonic() - self._started)
            failed = f", {len(tally.failures)} failed" if tally.failures else ""
            click.echo(f"\r{tally.seeds:,} of {self._seeds:,} seeds, {rate:.0f} a second{failed} ", nl=False)


if __name__ == "__main__":
    main()
