"""The gate's verdict: what is right, what changed against the live pair, and which threshold was crossed."""

import pytest

from shipmate.core.gate import Change, Predictions, Question, Reply, is_as_live, is_right, judge
from shipmate.core.targets import GateThresholds

DAISY = Question("golden/flower.jpg", "daisy", 0.2)


def says(label: str, confidence: float = 0.9) -> Predictions:
    return ((label, confidence), ("other", 0.01))


@pytest.mark.parametrize(
    ("predictions", "right"),
    [
        pytest.param(says("daisy", 0.9), True, id="the expected label"),
        pytest.param(says("daisy", 0.2), True, id="just confident enough"),
        pytest.param(says("daisy", 0.19), False, id="not confident enough"),
        pytest.param(says("honeycomb"), False, id="another label"),
        pytest.param((("honeycomb", 0.5), ("daisy", 0.4)), False, id="second best"),
        pytest.param(says("daisy", float("nan")), False, id="a confidence that is no number"),
        pytest.param((), False, id="no answer"),
    ],
)
def test_what_is_right(predictions: Predictions, right: bool) -> None:
    assert is_right(DAISY, predictions) is right


@pytest.mark.parametrize(
    ("candidate", "live", "change"),
    [
        pytest.param(says("daisy"), None, Change.SAME, id="right, nothing live"),
        pytest.param(says("rose"), None, Change.WRONG, id="wrong, nothing live"),
        pytest.param(says("daisy"), says("daisy"), Change.SAME, id="right as before"),
        pytest.param(says("daisy", 0.6), says("daisy", 0.9), Change.MOVED, id="right, less confident"),
        pytest.param(says("daisy", 0.9), says("daisy", 0.6), Change.MOVED, id="right, more confident"),
        pytest.param(says("daisy", 0.7), says("daisy", 0.9), Change.SAME, id="right, hardly moved"),
        pytest.param(says("daisy"), says("rose"), Change.NEWLY_RIGHT, id="wrong before"),
        pytest.param(says("rose"), says("daisy"), Change.NEWLY_WRONG, id="right before"),
        pytest.param(says("daisy", 0.1), says("daisy", 0.3), Change.NEWLY_WRONG, id="confident enough before"),
        pytest.param((), says("daisy"), Change.NEWLY_WRONG, id="answered before"),
        pytest.param(says("rose"), says("rose"), Change.WRONG, id="wrong as before"),
        pytest.param(says("rose"), says("tulip"), Change.CHANGED, id="wrong in another way"),
        pytest.param((), says("rose"), Change.WRONG, id="wrong before, unanswered now"),
        pytest.param(says("rose"), (), Change.WRONG, id="unanswered before, wrong now"),
    ],
)
def test_how_an_answer_changed(candidate: Predictions, live: Predictions | None, change: Change) -> None:
    replies = {DAISY.file: Reply(candidate, 0.1)}
    before = {} if live is None else {DAISY.file: Reply(live, 0.1)}
    report = judge([DAISY], replies, before, GateThresholds(moved_by=0.21), 7)
    (row,) = report.rows
    assert row.change is change
    assert (row.candidate, row.live) == (candidate, live)
    assert report.count(change) == 1
    assert report.compared_with == 7


QUESTIONS = [Question(f"{name}.jpg", name) for name in ("cat", "cup", "daisy", "palace")]


def replies(*labels: str, confidence: float = 0.9, seconds: float = 0.1) -> dict[str, Reply]:
    return {
        question.file: Reply(says(label, confidence), seconds)
        for question, label in zip(QUESTIONS, labels, strict=False)
    }


ALL_RIGHT = replies("cat", "cup", "daisy", "palace")


@pytest.mark.parametrize(
    ("candidate", "live", "thresholds", "faults"),
    [
        pytest.param(ALL_RIGHT, ALL_RIGHT, GateThresholds(), (), id="all right"),
        pytest.param(ALL_RIGHT, {}, GateThresholds(), (), id="all right, nothing live"),
        pytest.param(
            replies("cat", "cup", "honeycomb", "palace"),
            ALL_RIGHT,
            GateThresholds(max_wrong=1),
            ("1 of 4 golden photos is newly wrong, allowed 0",),
            id="one newly wrong",
        ),
        pytest.param(
            replies("dog", "cup", "honeycomb", "palace"),
            ALL_RIGHT,
            GateThresholds(max_newly_wrong=1),
            ("2 of 4 golden photos are newly wrong, allowed 1", "2 of 4 golden photos are wrong, allowed 0"),
            id="two newly wrong, each threshold speaks",
        ),
        pytest.param(
            replies("dog", "cup", "daisy", "palace"),
            {},
            GateThresholds(),
            ("1 of 4 golden photos is wrong, allowed 0",),
            id="wrong without anything live",
        ),
        pytest.param(
            replies("dog", "cup", "daisy", "palace"),
            replies("wolf", "cup", "daisy", "palace"),
            GateThresholds(max_wrong=1),
            (),
            id="wrong in another way is wrong, and allowed",
        ),
        pytest.param(
            replies("cat", "cup", "daisy"),
            {},
            GateThresholds(),
            ("1 of 4 golden photos is wrong, allowed 0",),
            id="left without a reply",
        ),
        pytest.param(
            replies("cat", "cup", "daisy", "palace", confidence=0.5),
            ALL_RIGHT,
            GateThresholds(max_moved=3),
            ("4 of 4 golden photos are moved by more than 0.20, allowed 3",),
            id="moved too much",
        ),
        pytest.param(
            replies("cat", "cup", "daisy", "palace", confidence=0.5),
            ALL_RIGHT,
            GateThresholds(),
            (),
            id="moved: told only",
        ),
        pytest.param(
            replies("cat", "cup", "daisy", "palace", seconds=5.004),
            {},
            GateThresholds(max_seconds=5),
            ("the slowest answer took 5.00 s, allowed 5.00 s",),
            id="too slow",
        ),
        pytest.param({}, {}, GateThresholds(max_wrong=4), (), id="no reply at all, all allowed"),
    ],
)
def test_the_verdict(
    candidate: dict[str, Reply], live: dict[str, Reply], thresholds: GateThresholds, faults: tuple[str, ...]
) -> None:
    report = judge(QUESTIONS, candidate, live, thresholds, None)
    assert report.faults == faults
    assert report.passed == (not faults)


@pytest.mark.parametrize(
    ("candidate", "live", "thresholds", "expected"),
    [
        pytest.param(replies("dog", "cup"), replies("dog", "cup"), GateThresholds(), True, id="wrong as before"),
        pytest.param(replies("dog", "cup"), replies("wolf", "cup"), GateThresholds(), True, id="in another way"),
        pytest.param(replies("dog", "cup"), replies("cat", "cup"), GateThresholds(), False, id="newly wrong"),
        pytest.param(replies("dog", "mug"), replies("dog", "cup"), GateThresholds(max_newly_wrong=1), False, id="more"),
        pytest.param(replies("dog", "cup"), {}, GateThresholds(), False, id="nobody knows what live says"),
        pytest.param(
            replies("dog", "cup", seconds=6), replies("dog", "cup"), GateThresholds(), False, id="and it is too slow"
        ),
        pytest.param(replies("cat", "cup", seconds=6), {}, GateThresholds(), False, id="too slow, and right"),
    ],
)
def test_a_candidate_that_is_as_wrong_as_live(
    candidate: dict[str, Reply], live: dict[str, Reply], thresholds: GateThresholds, expected: bool
) -> None:
    report = judge(QUESTIONS[:2], candidate, live, thresholds, 1)
    assert not report.passed
    assert is_as_live(report, thresholds) is expected


def test_rows_come_worst_first() -> None:
    live = replies("cat", "mug", "daisy", "palace")
    report = judge(QUESTIONS, replies("dog", "cup", "daisy", "castle"), live, GateThresholds(), 1)
    assert [(row.file, row.change) for row in report.rows] == [
        ("cat.jpg", Change.NEWLY_WRONG),
        ("palace.jpg", Change.NEWLY_WRONG),
        ("cup.jpg", Change.NEWLY_RIGHT),
        ("daisy.jpg", Change.SAME),
    ]
    assert report.count(Change.NEWLY_WRONG, Change.SAME) == 3


def test_a_model_without_questions_passes() -> None:
    report = judge([], {}, {}, GateThresholds(), None)
    assert (report.passed, report.rows, report.slowest_seconds) == (True, (), 0.0)


def test_the_slowest_answer_is_kept() -> None:
    candidate = {**replies("cat"), "cup.jpg": Reply(says("cup"), 1.23456)}
    assert judge(QUESTIONS[:2], candidate, {}, GateThresholds(), None).slowest_seconds == 1.2346
