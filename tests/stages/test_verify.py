"""The last stage over a whole world in memory: what is heard of it meanwhile, and whom it blames."""

import pytest

from shipmate.core.answers import Answer
from shipmate.core.ledger import Phase, Progressed
from shipmate.errors import Busy, Retryable, Unreachable
from tests.world import released


def test_a_door_that_answers_slowly_and_rightly_is_no_silence_of_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    world = released()
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.ROLLED_OUT)
    ask = world.ask

    def slowly(url: str, photo: bytes) -> Answer:
        world.clock.sleep(9)
        return ask(url, photo)

    monkeypatch.setattr(world, "ask", slowly)
    world.run()
    assert world.state.release(2).phase is Phase.LIVE
    signs = [entry for entry in world.ledgers.history("vision") if isinstance(entry, Progressed)]
    assert [entry.message for entry in signs] == [f"{number} of 5 replies in a row are right" for number in (1, 4)]


@pytest.mark.parametrize(
    ("errors", "is_blamed"),
    [
        ([Unreachable("the door could not be reached: connection refused")], False),
        ([Busy("/score answered 503: many are here", after_seconds=2, release="r-2")], False),
        ([Busy("/score answered 503: many are here", after_seconds=2, release="r-1")], True),
        ([Retryable("the door answered 502")], True),
        ([Retryable("the door answered 502"), Unreachable("the door could not be reached: connection refused")], True),
    ],
    ids=[
        "nobody gets through",
        "it is busy throughout",
        "another release is busy there",
        "it answers an error",
        "it answers an error, and then nobody gets through",
    ],
)
def test_a_release_is_blamed_only_if_the_door_was_reached(
    errors: list[Retryable], is_blamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = released()
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.ROLLED_OUT)
    told = iter(errors)
    last = errors[-1]

    def nobody(url: str, photo: bytes) -> Answer:
        raise next(told, last)

    monkeypatch.setattr(world, "ask", nobody)
    world.run()
    bad, back = world.state.release(2), world.state.release(3)
    assert bad.message == f"not verified at http://door.test within 30 s: {last}"
    assert (bad.ended_because, back.phase) == ("VerifyFailed", Phase.FAILED)
    assert world.state.quarantine == ({bad.pair.model} if is_blamed else set())


def test_a_release_that_is_busy_now_and_then_is_verified_by_its_other_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    world = released()
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.ROLLED_OUT)
    began, asked, ask = world.clock.now(), list[str](), world.ask

    def crowded(url: str, photo: bytes) -> Answer:
        asked.append(url)
        if len(asked) % 2:
            raise Busy("/score answered 503: many are here", after_seconds=2, release="r-2")
        return ask(url, photo)

    monkeypatch.setattr(world, "ask", crowded)
    world.run()
    assert world.state.release(2).phase is Phase.LIVE
    assert len(asked) == 2 * world.target.verify.replies
    assert (world.clock.now() - began).total_seconds() >= 600 + 2 * world.target.verify.replies
