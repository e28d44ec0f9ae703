"""Verify: ask through the public door, where users ask, until the new release has answered often enough in a row."""

from contextlib import suppress
from datetime import timedelta

from shipmate.core.gate import is_right
from shipmate.core.ledger import Failed, Live
from shipmate.core.pairs import blamed, guilty
from shipmate.core.state import Release, State
from shipmate.core.targets import Target
from shipmate.errors import Busy, Rejected, Retryable, Unreachable
from shipmate.ports import Door
from shipmate.stages.context import Context
from shipmate.stages.questions import Asked, golden_questions

POLL_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 5.0
"""Where a release says that it is busy, and when to come again."""


def verify(release: Release, target: Target, state: State, context: Context) -> Live | Failed:
    """Return whether users are answered by the release, and rightly. Raises NotAllowed, NotFound."""
    half = state.model(release.pair.model)
    asked: tuple[Asked, ...] = ()
    with suppress(Rejected):  # the model's folder is gone: then the door is asked only who answers there
        asked = golden_questions(half, target.model, context.models, is_live=True) if half is not None else ()
    asked = tuple(each for each in asked if each.question.file not in release.forgiven)
    deadline = context.clock.now() + timedelta(seconds=target.verify.within_seconds)
    in_a_row, is_reached = 0, False
    while in_a_row < target.verify.replies:
        wait = POLL_SECONDS
        try:
            fault = _ask_once(context.door, target, release, asked[in_a_row % len(asked)] if asked else None)
            is_reached = True
        except Busy as error:  # the release has many users: that takes nothing back, and says nothing of its pair
            fault, wait = str(error), min(max(wait, error.after_seconds or 0.0), LONGEST_WAIT_SECONDS)
        except Unreachable as error:
            fault, in_a_row = str(error), 0
        else:
            in_a_row = in_a_row + 1 if fault is None else 0
        if fault is None:
            context.progress(f"{in_a_row} of {target.verify.replies} replies in a row are right")
            continue
        if context.clock.now() > deadline:
            is_to_blame = (
                is_reached and not release.is_rollback
            )  # a door that nobody gets through, for whatever reason, says nothing of the pair
            return _failed(release, target, fault, blamed(state, release.pair) if is_to_blame else (), context)
        context.progress(fault)
        context.clock.sleep(wait)
    quarantine: tuple[str, ...] = ()
    undone = state.release(release.undoes) if release.undoes is not None else None
    if undone is not None and undone.ended_because is None:  # a person judged it; what failed said who is guilty
        quarantine = guilty(undone.pair, release.pair)
    return Live(**context.stamp(), release=release.number, replies=in_a_row, quarantine=quarantine)


def _ask_once(door: Door, target: Target, release: Release, asked: Asked | None) -> str | None:
    """Return what is wrong with one reply through the public door, None if nothing is."""
    try:
        if asked is None:
            answered_by = door.version(target.public_url).release
        else:
            answer = door.ask(target.public_url, asked.photo)
            answered_by = answer.release
            if answered_by == release.name and not is_right(asked.question, answer.predictions):
                best = f"{answer.predictions[0][0]} {answer.predictions[0][1]:.2f}" if answer.predictions else "nothing"
                return f"{asked.question.file} should be {asked.question.expected}, and is answered {best}"
    except Unreachable:
        raise
    except Busy as error:
        if error.release == release.name:
            raise
        return str(error)
    except Retryable as error:
        return str(error)
    if answered_by != release.name:
        return f"{answered_by or 'a release without a name'} answers where {release.name} should"
    return None


def _failed(release: Release, target: Target, trouble: str, quarantine: tuple[str, ...], context: Context) -> Failed:
    message = f"not verified at {target.public_url} within {target.verify.within_seconds:.0f} s: {trouble}"
    return Failed(
        **context.stamp(),
        release=release.number,
        stage="verify",
        reason="VerifyFailed",
        message=message,
        quarantine=quarantine,
    )
