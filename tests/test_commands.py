"""Commands that cannot be taken, and what is true once they said so."""

import pytest

from shipmate.commands import ReleaseBody
from shipmate.errors import Conflict
from tests.world import released


def test_halves_that_do_not_fit_are_not_released_by_hand_and_not_blamed_for_it() -> None:
    world = released()
    world.ship(world.publish_model("2.0", contract="2"))
    body = ReleaseBody(reason="try it", model=world.state.models[-1].digest)
    with pytest.raises(
        Conflict, match=r"model 2\.0 needs app contract 2, app 2\.3\.0 speaks 1: name two halves that fit"
    ):
        world.commands().release("vision", "key-1", "bo", body)
    world.ship(world.push_app("3.0.0", contract="2"))
    seen = world.version("")
    assert (seen.app_version, seen.model_version) == ("3.0.0", "2.0")
