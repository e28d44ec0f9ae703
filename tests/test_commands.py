"""Commands that cannot be taken, and what is true once they said so."""

import pytest

from shipmate.commands import HoldBody, ReleaseBody
from shipmate.core.ledger import Phase
from shipmate.errors import Conflict, Retryable
from tests.world import World, released


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


def test_a_hold_is_in_force_when_somebody_else_is_told_of_it() -> None:
    world = intended()
    hold = HoldBody(reason="stop")
    world.cluster.fail("patch_deployment", Retryable("the API server is away"))
    with pytest.raises(Retryable):
        world.commands().hold("vision", "key-1", "ana", hold)
    assert fence(world) < world.state.fence
    with pytest.raises(Conflict, match="vision is held already by ana: stop"):
        world.commands().hold("vision", "key-2", "bo", HoldBody(reason="is it held?", dry_run=True))
    assert fence(world) < world.state.fence, "a dry run changes nothing"
    with pytest.raises(Conflict, match="vision is held already by ana: stop"):
        world.commands().hold("vision", "key-2", "ana", hold)
    assert fence(world) == world.state.fence


def intended() -> World:
    """Return a world with r-1 live, and r-2 about to be patched in."""
    world = released()
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.INTENDED)
    return world


def fence(world: World) -> int:
    return world.cluster.deployment("vision", "vision").fence or 0
