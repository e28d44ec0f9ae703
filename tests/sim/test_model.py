"""The fold against the slow model of it, over any history and over the golden ones."""

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings

from shipmate.core import pairs
from shipmate.core.fold import fold
from shipmate.core.ledger import Rejected, decode
from shipmate.core.state import State
from tests.core.test_fold import histories
from tests.fakes.histories import Story, digest
from tests.sim import model
from tests.sim.candidates import candidates

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*.jsonl"))


def assert_equal(story: Story) -> None:
    for length in range(1, len(story.entries) + 1):
        entries = story.entries[:length]
        state = fold(entries)
        assert model.differences(entries, state) == []
        newest, _ = pairs.newest_pair(state)
        assert newest is None or newest in candidates(entries)


def test_the_model_answers_for_every_field_of_a_state() -> None:
    assert set(model.QUESTIONS) == set(State.__struct_fields__)


@given(histories)
@settings(max_examples=60, deadline=None)
def test_any_history_folds_as_the_model_says(story: Story) -> None:
    if story.entries:
        assert model.differences(story.entries, story.state) == []


@pytest.mark.parametrize("ledger", GOLDEN, ids=lambda path: path.stem)
def test_a_golden_ledger_folds_as_the_model_says_after_every_entry(ledger: Path) -> None:
    entries = [decode(line) for line in ledger.read_bytes().splitlines()]
    for length in range(1, len(entries) + 1):
        assert model.differences(entries[:length], fold(entries[:length])) == []


def test_a_half_that_was_withdrawn_comes_back_when_it_is_published_again() -> None:
    story = Story().ship_first().model("M2").plan("A1", "M2", "model")
    story.write(Rejected, release=2, reason="MissingFile", message="gone", quarantine=(), withdrawn=digest("M2")).model(
        "M2"
    ).plan("A1", "M2", "model")
    assert_equal(story)


def test_what_does_not_fit_waits_until_a_new_head_or_a_quarantine() -> None:
    story = Story().ship_first().model("M2", contract="2").await_partner("A1", "M2").app("A2")
    story.await_partner("A2", "M2").plan("A2", "M1").build().reject(digest("M2"))
    assert_equal(story)


def test_a_rollback_whose_image_is_gone_leaves_its_work_to_do() -> None:
    story = Story().ship_first().app("A2").ship("A2", "M1").app("A3").plan("A3", "M1").build().gate().intend()
    story.fail().plan_rollback(2, 3, "automatic_rollback").fail(stage="build")
    assert_equal(story)


def test_a_state_that_is_not_what_the_entries_say_is_told_field_by_field() -> None:
    story = Story().ship_first()
    wrong = msgspec.structs.replace(story.state, live=None, fence=7)
    assert model.differences(story.entries, wrong) == [
        "fence should be 1, and is 7",
        "live should be 1, and is None",
    ]


def test_ids_older_than_what_is_remembered_make_no_difference() -> None:
    story = Story()
    for number in range(70):
        story.ignore(f"old-{number}")
    story.wait(timedelta(hours=27).total_seconds()).ignore("new")
    assert len(story.state.seen) == 1
    assert model.differences(story.entries, story.state) == []
