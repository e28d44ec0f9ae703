"""What `make sim` prints: a failing seed when it is found, how to replay it, and the tally at the end.

And what a seed's story says, whole and made small.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tests.sim import __main__ as command
from tests.sim.faults import Fault
from tests.sim.mutants import MUTANTS, finds
from tests.sim.scenario import load, simulation
from tests.sim.search import Tally, run_block
from tests.sim.shrink import failure, keep


@pytest.fixture
def search_here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Search in this process, a seed a block; return how many lines had been printed after each."""
    printed: list[int] = []
    lines: list[str] = []

    def echo(message: str, **options: Any) -> None:
        lines.append(message)
        real_echo(message, **options)

    def search(seeds: Iterable[range], *, told: Callable[[Tally], None], **_: Any) -> Tally:
        total = Tally()
        for seed in (seed for block in seeds for seed in block):
            total.add(run_block(range(seed, seed + 1)))
            told(total)
            printed.append(len(lines))
        return total

    real_echo = click.echo
    monkeypatch.setattr(click, "echo", echo)
    monkeypatch.setattr(command, "search", search)
    return printed


def test_a_search_without_a_failure_prints_its_tally(search_here: list[int]) -> None:
    told = CliRunner().invoke(command.main, ["--seeds", "2"])
    assert told.exit_code == 0
    assert told.output.strip().startswith("2 seeds, ")
    assert told.output.endswith("\n0 seeds failed\n")
    assert search_here == [0, 0]


def test_a_seed_that_fails_is_told_at_once_with_how_to_replay_it(
    search_here: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.sim.search.check", lambda history: 1 / 0)
    told = CliRunner().invoke(command.main, ["--first", "7", "--seeds", "2"])
    assert told.exit_code == 1
    for seed in (7, 8):
        assert told.output.count(f"seed {seed} (make sim SEED={seed}): ZeroDivisionError: division by zero\n") == 1
    assert told.output.endswith("\n2 seeds failed\n")
    assert search_here == [1, 2]


def test_a_seeds_story_is_told_and_ends_well() -> None:
    told = CliRunner().invoke(command.main, ["--seed", "1"])
    assert told.exit_code == 0
    assert "the developer of vision-0 pushes app app-0.0" in told.output
    assert told.output.endswith("\nseed 1: all that must hold holds\n")


def test_a_failing_seeds_story_is_made_small_and_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "keep", lambda scenario, name: keep(scenario, name, tmp_path))
    mutant = next(each for each in MUTANTS if each.name == "gate pods have random names")
    with mutant.planted():
        seed = next(seed for seed in mutant.seeds if finds(seed))
        told = CliRunner().invoke(command.main, ["--seed", str(seed), "--shrink"])
        path = tmp_path / f"seed-{seed}.json"
        wrong = failure(simulation(load(path)))
    assert wrong == "2: everything happens once: vision-N: the gate of r-N had N pods in N attempts"
    assert told.exit_code == 1
    lines = told.output.splitlines()
    assert any(line.endswith("the developer of vision-0 pushes app app-0.0") for line in lines)
    assert any(f": {fault}" in line for line in lines for fault in Fault)
    assert f"{path} fails: Violation: invariant 2, everything happens once: " in told.output
    assert lines[-1] == f"written to {path}: say in it why it matters, give it a name, and keep it"


def test_a_seed_that_holds_is_not_made_small() -> None:
    told = CliRunner().invoke(command.main, ["--seed", "1", "--shrink"])
    assert (told.exit_code, told.output[:20]) == (0, "seed 1 does not fail")
