"""Every planted fault is found, and found for what it is; `tests.sim.mutants` plants them."""

import pytest

from tests.sim.mutants import MUTANTS, SEEDS, Mutant, first


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_fault_is_found(mutant: Mutant) -> None:
    found = first(mutant)
    assert found is not None, f"no seed of {mutant.seeds} finds it: the simulator or its invariants are too weak"


def test_there_is_a_fault_of_each_class_that_can_be_planted() -> None:
    assert {mutant.bug_class for mutant in MUTANTS} >= {*range(1, 23)} - NOT_PLANTED.keys()
    assert len(MUTANTS) >= 22
    assert all(set(mutant.seeds) <= set(range(SEEDS)) for mutant in MUTANTS)


NOT_PLANTED = {
    12: "reads may be stale: every write is conditional, so that a stale read alone does no harm",
    21: "what expires by a clock is not there yet: no approval, no freeze",
}
"""Classes that are no fault of this core by themselves, and why."""
