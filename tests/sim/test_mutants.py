"""Every planted fault is found, and found for what it is; `tests.sim.mutants` plants them."""

import re

import pytest
from click.testing import CliRunner

from tests.sim.mutants import CLASSES, MUTANTS, SEEDS, Mutant, first, main


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_fault_is_found(mutant: Mutant) -> None:
    found = first(mutant)
    assert found is not None, f"no seed of {mutant.seeds} finds it: the simulator or its invariants are too weak"


def test_there_is_a_fault_of_each_class() -> None:
    assert {mutant.bug_class for mutant in MUTANTS} == CLASSES.keys()
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert all(set(mutant.seeds) <= set(range(SEEDS)) for mutant in MUTANTS)


def test_the_table_says_where_a_planted_fault_is_found_first() -> None:
    names = ["two releases are on their way at once", "events are recorded as often as they come"]
    told = CliRunner().invoke(main, ["--seeds", "5", "--only", names[0], "--only", names[1]])
    heading, *rows = told.output.splitlines()
    assert (told.exit_code, heading.split()) == (0, ["class", "planted", "fault", "first", "found", "as"])
    assert [row[7:62].strip() for row in rows] == names
    assert all(re.fullmatch(r" +[0-4]  [1-6]: .+", row[62:]) for row in rows)


def test_a_planted_fault_that_is_not_found_fails() -> None:
    told = CliRunner().invoke(main, ["--seeds", "1", "--only", "patches have no fence"])
    assert told.exit_code == 1
    assert "NOT FOUND" in told.output


@pytest.mark.parametrize("arguments", [["--only", "no such fault"], ["--seeds", "none"], ["--seeds", "0"]])
def test_arguments_that_make_no_sense_are_refused(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, arguments).exit_code == 2
