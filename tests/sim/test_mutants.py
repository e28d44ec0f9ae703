"""Every planted fault is found, and found for what it is; `tests.sim.mutants` plants them."""

import pytest

from tests.sim.mutants import CLASSES, MUTANTS, SEEDS, Mutant, first


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_fault_is_found(mutant: Mutant) -> None:
    found = first(mutant)
    assert found is not None, f"no seed of {mutant.seeds} finds it: the simulator or its invariants are too weak"


def test_there_is_a_fault_of_each_class() -> None:
    assert {mutant.bug_class for mutant in MUTANTS} == CLASSES.keys()
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert all(set(mutant.seeds) <= set(range(SEEDS)) for mutant in MUTANTS)
