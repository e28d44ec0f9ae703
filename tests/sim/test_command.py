"""What `make sim` prints: a failing seed when it is found, how to replay it, and the tally at the end."""

from collections.abc import Callable, Iterable
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tests.sim import __main__ as command
from tests.sim.search import Tally, run_block


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
