"""The last stage over a whole world in memory: what is heard of it while the door answers slowly."""

import pytest

from shipmate.core.answers import Answer
from shipmate.core.ledger import Phase, Progressed
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
