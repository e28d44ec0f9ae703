"""Simulated histories with faults between any two effects; what must hold is in `tests.sim.invariants`.

The searches also count the states that they come by (`tests.sim.reach`): one that is seldom met is hardly searched.
"""

import hashlib
import os
import subprocess
import sys
from random import SystemRandom

import click
import pytest

from tests.sim.invariants import check
from tests.sim.reach import REACH, SEEDS_OF_EACH
from tests.sim.search import search
from tests.sim.simulation import simulation_of

FIXED = range(2_000)
FRESH = 8_000
REPLAYED = (6, 7, 11)
"""Seeds that must come to the same end each time: with two targets, with the fast store, with the real one."""


@pytest.mark.search
@pytest.mark.timeout(1200)
def test_what_must_hold_holds_in_ten_thousand_histories_and_each_state_is_met_often_enough(capsys):
    first = SystemRandom().randrange(10_000, 2**31)
    tally = search([FIXED, range(first, first + FRESH)])
    with capsys.disabled():
        click.echo(f"\nfresh seeds from {first} (make sim SEEDS={FRESH} FIRST={first})\n{tally.closing()}")
    assert tally.failures == []
    rare = {name: tally.states[name] for name in REACH if tally.states[name] < SEEDS_OF_EACH}
    assert rare == {}


@pytest.mark.parametrize("seed", REPLAYED)
def test_a_seed_replays_to_the_same_end(seed):
    first, second = simulation_of(seed, telling=True), simulation_of(seed, telling=True)
    assert first.run() == second.run()
    assert first.hub.story == second.hub.story
    assert first.hub.counts == second.hub.counts


def test_what_is_replayed_has_two_targets_and_each_store():
    settings = [simulation_of(seed).plan.setting for seed in REPLAYED]
    assert any(setting.targets == 2 for setting in settings)
    assert {setting.segment_entries > 0 for setting in settings} == {True, False}


def digest_of_traces() -> str:
    """Return a digest of the stories of a few seeds."""
    digest = hashlib.sha256()
    for seed in REPLAYED:
        simulation = simulation_of(seed, telling=True)
        history = simulation.run()
        digest.update("\n".join(simulation.hub.story or ()).encode())
        digest.update(repr([run.entries for run in history.targets]).encode())
    return digest.hexdigest()


def test_a_trace_is_the_same_whatever_the_hashes_of_strings_are():
    code = "from tests.sim.test_simulator import digest_of_traces; print(digest_of_traces())"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert found == {f"{digest_of_traces()}\n"}


def test_a_history_without_faults_settles_in_few_steps():
    simulation = simulation_of(3)
    simulation.hub.calm()
    history = simulation.run()
    check(history)
    assert history.settled
