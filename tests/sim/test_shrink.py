"""The shrinker: what a history needs for its end is kept, and nothing else."""

from tests.sim.reach import reached
from tests.sim.scenario import Scenario, load, simulation
from tests.sim.shrink import keep, shrunk, smallest, written_down
from tests.sim.simulation import simulation_of

WANTED = "a bad release is rolled back by itself"


def comes_by_it(scenario: Scenario) -> bool:
    run = simulation(scenario)
    return WANTED in reached(run.hub, run.run())


def first_seed_that_comes_by_it() -> int:
    for seed in range(200):
        run = simulation_of(seed)
        if WANTED in reached(run.hub, run.run()):
            return seed
    raise AssertionError(WANTED)


def test_a_history_is_written_down_and_made_as_small_as_its_end_needs(tmp_path):
    whole = written_down(first_seed_that_comes_by_it())
    assert comes_by_it(whole)
    small = smallest(whole, comes_by_it)
    # an app and a model that go live, and one of them that fails: by itself, or by its pods
    assert len(small.happenings) + len(small.chances) <= 5
    assert len(small.happenings) < len(whole.happenings)
    path = keep(small, "small", tmp_path)
    assert load(path) == small
    assert comes_by_it(load(path))


def test_there_is_nothing_to_shrink_where_nothing_fails():
    assert shrunk(1) is None
