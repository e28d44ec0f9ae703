"""The gate's verdict: did the candidate answer the golden questions well enough, and how does it differ from live.

Asking is the work of `shipmate.stages.gate`; here answers become a report. A question is *right* when the top label is
the expected one with at least its minimum confidence.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from shipmate.core.targets import GateThresholds

type Predictions = tuple[tuple[str, float], ...]
"""Labels with confidences from 0 to 1, best first."""


class Change(StrEnum):
    """How the candidate's answer to one question compares with the live pair's, worst first."""

    NEWLY_WRONG = "newly wrong"
    WRONG = "wrong"
    CHANGED = "changed"  # wrong before and now, with another label
    MOVED = "moved"
    NEWLY_RIGHT = "newly right"
    SAME = "same"


WRONG = frozenset({Change.NEWLY_WRONG, Change.WRONG, Change.CHANGED})


class Question(msgspec.Struct, frozen=True):
    """A golden question: a photograph and the truth about it."""

    file: str
    expected: str
    min_confidence: float = 0.0


class Reply(msgspec.Struct, frozen=True):
    """What one pair answered to one question, and in how many seconds."""

    predictions: Predictions
    seconds: float


class Row(msgspec.Struct, frozen=True):
    """One question of a report."""

    file: str
    expected: str
    min_confidence: float
    candidate: Predictions
    live: Predictions | None
    change: Change


class GateReport(msgspec.Struct, frozen=True):
    """The verdict and what it rests on; kept with the release."""

    passed: bool
    faults: tuple[str, ...]  # sentences, one for each threshold that was crossed
    rows: tuple[Row, ...]  # worst first
    slowest_seconds: float
    compared_with: int | None  # the live release at the time

    def count(self, *changes: Change) -> int:
        """Return how many questions changed in one of these ways."""
        return sum(row.change in changes for row in self.rows)


def is_right(question: Question, predictions: Predictions) -> bool:
    """Return whether the top answer is the expected one, with enough confidence."""
    if not predictions:
        return False
    label, confidence = predictions[0]
    return label == question.expected and confidence >= question.min_confidence


def judge(
    questions: Sequence[Question],
    candidate: Mapping[str, Reply],
    live: Mapping[str, Reply],
    thresholds: GateThresholds,
    compared_with: int | None,
) -> GateReport:
    """Return the report over all questions; `candidate` and `live` map a question's file to its reply.

    A question that the candidate left without a reply counts as wrong. `live` may lack any of them.
    """
    rows = [_row(question, candidate.get(question.file), live.get(question.file), thresholds) for question in questions]
    rows.sort(key=lambda row: (list(Change).index(row.change), row.file))
    slowest = round(max((reply.seconds for reply in candidate.values()), default=0.0), 4)
    faults = _faults(rows, slowest, thresholds)
    return GateReport(not faults, tuple(faults), tuple(rows), slowest, compared_with)


def is_as_live(report: GateReport, thresholds: GateThresholds) -> bool:
    """Whether a candidate was rejected for nothing but what the live pair answers wrongly as well.

    So it is where thresholds were tightened since: code that came with the live model does not answer for it.
    """
    lenient = msgspec.structs.replace(thresholds, max_wrong=len(report.rows))
    wrong = [row for row in report.rows if row.change in WRONG]
    is_worse = any(row.change is Change.NEWLY_WRONG or row.live is None for row in wrong)
    return bool(wrong) and not is_worse and not _faults(report.rows, report.slowest_seconds, lenient)


def _faults(rows: Sequence[Row], slowest: float, thresholds: GateThresholds) -> list[str]:
    """Return a sentence for each threshold that was crossed."""
    newly_wrong = sum(row.change is Change.NEWLY_WRONG for row in rows)
    wrong = sum(row.change in WRONG for row in rows)
    moved = sum(row.change is Change.MOVED for row in rows)
    limits = [
        (newly_wrong, thresholds.max_newly_wrong, "newly wrong"),
        (wrong, thresholds.max_wrong, "wrong"),
        (moved, thresholds.max_moved, f"moved by more than {thresholds.moved_by:.2f}"),
    ]
    faults = [
        f"{number} of {len(rows)} golden photos {'is' if number == 1 else 'are'} {what}, allowed {allowed}"
        for number, allowed, what in limits
        if allowed is not None and number > allowed
    ]
    if slowest > thresholds.max_seconds:
        faults.append(f"the slowest answer took {slowest:.2f} s, allowed {thresholds.max_seconds:.2f} s")
    return faults


def _row(question: Question, candidate: Reply | None, live: Reply | None, thresholds: GateThresholds) -> Row:
    new = candidate.predictions if candidate else ()
    old = live.predictions if live else None
    return Row(
        question.file, question.expected, question.min_confidence, new, old, _change(question, new, old, thresholds)
    )


def _change(question: Question, new: Predictions, old: Predictions | None, thresholds: GateThresholds) -> Change:
    right = is_right(question, new)
    if old is None:
        return Change.SAME if right else Change.WRONG
    was_right = is_right(question, old)
    if not right and not was_right:
        return Change.WRONG if not new or not old or new[0][0] == old[0][0] else Change.CHANGED
    if not right:
        return Change.NEWLY_WRONG
    if not was_right:
        return Change.NEWLY_RIGHT
    return Change.MOVED if abs(new[0][1] - old[0][1]) > thresholds.moved_by else Change.SAME
