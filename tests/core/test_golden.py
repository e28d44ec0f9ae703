"""Golden ledgers: histories that were recorded once, which every build must go on folding to the same states.

A ledger in tests/golden is never edited: real ones of its time look like it. A state may change with the fold; then
`python -m tests.core.test_golden` writes the states anew, and the difference is for the reviewer to judge. Most were
recorded by `python -m tests.golden.record`.
"""

from pathlib import Path

import msgspec
import pytest

from shipmate.core.fold import fold
from shipmate.core.ledger import Entry, decode
from shipmate.core.state import State

GOLDEN = Path(__file__).parents[1] / "golden"
LEDGERS = sorted(GOLDEN.glob("*.jsonl"))


def state_of(ledger: Path) -> State:
    return fold(decode(line) for line in ledger.read_bytes().splitlines())


def state_file(ledger: Path) -> Path:
    return ledger.with_suffix(".state.json")


def as_text(state: State) -> str:
    return msgspec.json.format(msgspec.json.encode(state, order="deterministic"), indent=2).decode() + "\n"


@pytest.mark.parametrize("ledger", LEDGERS, ids=lambda path: path.stem)
def test_a_golden_ledger_folds_to_its_state(ledger: Path) -> None:
    expected = state_file(ledger).read_text()
    assert state_of(ledger) == msgspec.json.decode(expected, type=State)
    assert as_text(state_of(ledger)) == expected


def test_the_golden_ledgers_hold_every_kind_of_entry() -> None:
    kinds = {decode(line).kind_name for ledger in LEDGERS for line in ledger.read_bytes().splitlines()}
    assert kinds == {kind.__struct_config__.tag for kind in Entry.__subclasses__()}


if __name__ == "__main__":
    for each in LEDGERS:
        state_file(each).write_text(as_text(state_of(each)))
