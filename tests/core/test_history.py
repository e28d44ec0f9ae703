"""What the ledger says about one release: its stages with their seconds, and from publish to live."""

from datetime import timedelta

import pytest

from shipmate.core.history import ReleaseHistory, begins_at, release_history
from shipmate.core.ledger import CostSheet
from tests.fakes.histories import NOON, PASSED, Story, digest, model_half, pair, published


def told(story: Story, number: int | None = None) -> ReleaseHistory:
    release = story.newest if number is None else story.state.release(number)
    return release_history(release, story.entries)


def stages(story: Story, number: int | None = None) -> list[tuple[str, str, float]]:
    return [(stage.stage, stage.outcome, stage.seconds) for stage in told(story, number).stages]


def test_a_release_from_publish_to_live() -> None:
    story = Story().ship_first().wait(100)
    event = published("e9", "M2", story.now - timedelta(seconds=3), sequencer=9)
    story.receive(event).resolve("e9", model_half("M2", at=story.now)).ship("A1", "M2", "model")
    history = told(story)
    assert stages(story) == [
        ("intake", "received", 3.0),
        ("plan", "planned", 2.0),
        ("build", "built", 1.0),
        ("gate", "gated", 1.0),
        ("rollout", "rolled_out", 2.0),  # with taking its fence
        ("verify", "live", 1.0),
    ]
    assert history.published_at == event.occurred_at
    assert history.publish_to_live_seconds == 10.0
    assert history.stages[-1].ended_at == story.state.release(2).moved_at
    assert history.report == PASSED
    assert history.cost == CostSheet(uploaded=7)
    assert history.release == story.newest


def test_the_later_of_two_halves_is_what_made_the_release() -> None:
    story = Story().app("A1").wait(30).model("M1").ship("A1", "M1", "model")
    assert told(story).published_at == NOON + timedelta(seconds=31)


def test_what_the_sweep_found_says_so() -> None:
    story = Story().app("A1").receive(published("e9", "M1"), repaired=True).resolve("e9", model_half("M1"))
    assert stages(story.plan("A1", "M1", "model"))[0] == ("intake", "repaired", 1.0)


def test_an_event_from_the_future_took_no_time() -> None:
    story = Story().app("A1").receive(published("e9", "M1", NOON + timedelta(hours=1)))
    assert stages(story.resolve("e9", model_half("M1")).plan("A1", "M1", "model"))[0] == ("intake", "received", 0.0)


def test_a_pair_whose_events_are_not_on_record_has_no_publication() -> None:
    history = told(Story().plan("A1", "M1"))
    assert history.published_at is None
    assert [(stage.stage, stage.seconds) for stage in history.stages] == [("plan", 0.0)]


@pytest.mark.parametrize("trigger", ["request", "rollback"])
def test_a_person_is_no_publication(trigger: str) -> None:
    story = Story().ship_first()
    if trigger == "rollback":
        story.roll_back(1, None)
    else:
        story.ship("A1", "M1", "request", request="k")
    history = told(story)
    assert (history.published_at, history.publish_to_live_seconds) == (None, None)
    assert history.stages[0].stage == "plan"
    assert history.stages[-1].outcome == "live"


@pytest.mark.parametrize(
    ("story", "last", "message"),
    [
        pytest.param(
            Story().app("A1").model("M1").plan("A1", "M1").reject(pair("A1", "M1").key),
            ("build", "rejected"),
            "GateFailed: 1 is wrong",
            id="cannot be built",
        ),
        pytest.param(
            Story().app("A1").model("M1").plan("A1", "M1").build().reject(digest("A1")),
            ("gate", "rejected"),
            "GateFailed: 1 is wrong",
            id="rejected at the gate",
        ),
        pytest.param(
            Story().app("A1").model("M1").plan("A1", "M1").build().gate().intend().reject(),
            ("rollout", "rejected"),
            "GateFailed: 1 is wrong",
            id="lost before it was patched in",
        ),
        pytest.param(
            Story().app("A1").model("M1").plan("A1", "M1").build().gate().intend().fail(stage="rollout"),
            ("rollout", "failed"),
            "VerifyFailed: nobody answered",
            id="failed to roll out",
        ),
        pytest.param(
            Story().app("A1").model("M1").plan("A1", "M1").err(stage="build"),
            ("build", "errored"),
            "the registry is away",
            id="tried again later",
        ),
        pytest.param(
            Story().app("A1").model("M1").plan("A1", "M1").build().supersede(),
            ("plan", "superseded"),
            "another goes first",
            id="superseded",
        ),
        pytest.param(
            Story().app("A1").model("M1").plan("A1", "M1").build().gate().hold().park(),
            ("gate", "gated"),
            None,
            id="held",
        ),
    ],
)
def test_how_a_release_ended(story: Story, last: tuple[str, str], message: str | None) -> None:
    history = told(story)
    assert (history.stages[-1].stage, history.stages[-1].outcome) == last
    assert history.stages[-1].message == message
    assert history.publish_to_live_seconds is None


def test_other_releases_are_left_out() -> None:
    story = Story().ship_first().app("A2").plan("A2", "M1").err().build().reject(digest("A2"))
    assert [stage[:2] for stage in stages(story, 2)] == [
        ("intake", "received"),
        ("plan", "planned"),
        ("build", "errored"),
        ("build", "built"),
        ("gate", "rejected"),
    ]
    assert len(told(story, 1).stages) == 6


def test_a_history_is_read_no_further_than_the_end_of_its_release() -> None:
    story = Story().ship_first().app("A2").ship("A2", "M1").app("A3")
    left = iter(story.entries)
    assert release_history(story.state.release(2), left) == told(story, 2)
    assert [entry.kind_name for entry in left] == ["received", "resolved"]


def test_a_history_begins_before_the_later_half_was_published() -> None:
    story = Story().app("A1").wait(7200).model("M1").wait(3600).plan("A1", "M1")
    assert begins_at(story.newest) == NOON + timedelta(seconds=7201) - timedelta(hours=1)


def test_a_history_begins_before_its_plan_though_a_publishers_clock_is_ahead() -> None:
    story = Story().app("A1").model("M1", uploaded_at=NOON + timedelta(days=1)).plan("A1", "M1")
    assert begins_at(story.newest) == story.newest.planned_at - timedelta(hours=1)
    unknown = Story().plan("A1", "M1").newest
    assert begins_at(unknown) == unknown.planned_at - timedelta(hours=1)


def test_a_release_that_was_lost_after_its_gate_keeps_the_gates_report() -> None:
    assert told(Story().app("A1").model("M1").plan("A1", "M1").build().gate().intend().reject()).report == PASSED
