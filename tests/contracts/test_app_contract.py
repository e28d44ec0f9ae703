"""Where the app and the controller must agree without knowing each other (docs/architecture.md)."""

from app.images import MAX_REQUEST_BYTES
from shipmate.core.answers import question
from shipmate.stages.questions import MAX_PHOTO_BYTES


def test_the_app_takes_a_question_with_the_largest_golden_photo() -> None:
    assert len(question([bytes(MAX_PHOTO_BYTES)])) <= MAX_REQUEST_BYTES
