"""The shrinker: what a history needs for its end is kept, and nothing else."""

from tests.sim.mutants import MUTANTS, finds
from tests.sim.plans import Happening, Setting
from tests.sim.reach import reached
from tests.sim.scenario import Scenario, load, simulation
from tests.sim.shrink import failure, keep, shrunk, smallest, written_down
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


SPECIAL = Scenario(
    why="what is special",
    setting=Setting(targets=2, segment_entries=3, guarded=True, most_deliveries=5, skews=(1.0, 2.0, 3.0)),
    happenings=(
        Happening(at=1, what="model", version="model-1", folder="other", quality="wrong", deliveries=(3.0, 9.0)),
        Happening(at=2, what="release", key="key-1", target="vision-1", to="r-1", override=True, again=(5.0,)),
    ),
)


def test_what_is_special_is_made_plain():
    small = smallest(SPECIAL, lambda each: len(each.happenings) == 2)
    assert small.setting == Setting()
    assert small.happenings == (
        Happening(at=1, what="model", version="model-1"),
        Happening(at=2, what="release", key="key-1"),
    )


def test_what_is_special_stays_where_the_failure_needs_it():
    small = smallest(
        SPECIAL, lambda each: each.setting.skews[1] > 0 and any(len(h.deliveries) > 1 for h in each.happenings)
    )
    assert small.setting == Setting(skews=(0.0, 2.0, 0.0))
    assert small.happenings == (Happening(at=1, what="model", version="model-1", deliveries=(3.0, 9.0)),)


def test_a_seed_that_fails_is_made_small_and_fails_alike():
    mutant = next(each for each in MUTANTS if each.name == "gate pods have random names")
    with mutant.planted():
        found = next(seed for seed in mutant.seeds if finds(seed))
        small = shrunk(found)
        assert small is not None
        assert failure(simulation(small)) == failure(simulation_of(found))
    assert failure(simulation(small)) is None, "it fails for another reason than what was planted"
    assert small.setting == Setting()
    assert [(each.what, each.version) for each in small.happenings] == [("app", "app-0.0"), ("model", "model-0")]
    assert len(small.faults) + len(small.chances) == 1


def test_there_is_nothing_to_shrink_where_nothing_fails():
    assert shrunk(1) is None
