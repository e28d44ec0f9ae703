"""Simulated histories with faults between any two effects; what must hold is in `tests.sim.invariants`."""

import pytest

from tests.sim.memory import many_runs
from tests.sim.simulation import checked, simulation_of

SEEDS = 50


@pytest.mark.parametrize("block", range(2))
def test_what_must_hold_holds_in_every_history(block):
    with many_runs():
        for seed in range(block * SEEDS, (block + 1) * SEEDS):
            checked(seed)


def test_a_seed_replays_to_the_same_end():
    first, second = simulation_of(7, telling=True), simulation_of(7, telling=True)
    assert first.run() == second.run()
    assert first.hub.story == second.hub.story
    assert first.hub.counts == second.hub.counts
