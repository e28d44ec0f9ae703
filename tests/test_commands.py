"""Commands that cannot be taken, and what is true once they said so."""

from collections.abc import Callable

import pytest

from shipmate.commands import HoldBody, ReleaseBody, RollbackBody
from shipmate.core.ledger import Phase
from shipmate.core.refs import Digest
from shipmate.errors import Conflict, NotFound, Retryable, ShipmateError
from tests.world import World, released

NOBODYS = Digest(f"sha256:{'0' * 64}")


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


def test_a_release_whose_image_is_lost_for_good_is_nothing_to_go_back_to() -> None:
    world = released()
    world.ship(world.publish_model("1.1"))
    image = world.state.release(1).image
    assert image is not None
    del world.registry.manifests["vision"][image]
    world.models.delete("models", "net/1.0/manifest.json")
    world.commands().rollback("vision", "key-1", "bo", RollbackBody(reason="worse"))
    world.run()
    assert world.state.release(3).ended_because == "ImageGone"
    with pytest.raises(Conflict, match="r-1 has lost its image for good: release it instead"):
        world.commands().rollback("vision", "key-2", "bo", RollbackBody(reason="worse", to="r-1"))


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


def only_an_app(world: World) -> None:
    world.ship(world.push_app("2.3.0"))


def one_release(world: World) -> None:
    world.ship(world.push_app("2.3.0"), world.publish_model("1.0"))


def two_releases(world: World) -> None:
    one_release(world)
    world.ship(world.publish_model("1.1"))


def one_rejected(world: World) -> None:
    one_release(world)
    world.ship(world.publish_model("1.1", says="honeycomb"))


def one_on_its_way_back(world: World) -> None:
    two_releases(world)
    world.commands().rollback("vision", "key-0", "ana", RollbackBody(reason="worse"))
    world.run_until_phase(Phase.INTENDED)


def held_and_an_older_pair_wanted(world: World) -> None:
    two_releases(world)
    world.commands().hold("vision", "key-0", "ana", HoldBody(reason="a demo is on"))


@pytest.mark.parametrize(
    ("before", "body", "error", "message"),
    [
        (only_an_app, ReleaseBody(reason="x"), Conflict, "there is nothing to release: no model was published yet"),
        (only_an_app, ReleaseBody(reason="x", app=NOBODYS), Conflict, "no model was published yet"),
        (
            one_release,
            ReleaseBody(reason="x", model=NOBODYS),
            NotFound,
            "no model with digest sha256:000.* was publish",
        ),
        (
            held_and_an_older_pair_wanted,
            ReleaseBody(reason="x", release="r-1"),
            Conflict,
            r"a hold by ana is in force: resume first \(a demo is on\)",
        ),
        (only_an_app, RollbackBody(reason="x"), Conflict, "nothing is live yet: there is nothing to roll back"),
        (one_release, RollbackBody(reason="x"), Conflict, "no other release was live before: there is nothing to go"),
        (one_release, RollbackBody(reason="x", to="r-1"), Conflict, "r-1 is live with this pair already"),
        (one_rejected, RollbackBody(reason="x", to="r-2"), Conflict, "r-2 was never live: release it instead, so that"),
        (
            one_on_its_way_back,
            RollbackBody(reason="x"),
            Conflict,
            "r-3 is rolling back to r-1 already: wait until it is done",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_asked_for_now_says_why_and_leaves_no_entry(
    before: Callable[[World], None], body: ReleaseBody | RollbackBody, error: type[ShipmateError], message: str
) -> None:
    world = World()
    before(world)
    length = world.state.length
    commands = world.commands()
    ask: Callable[..., object] = commands.release if isinstance(body, ReleaseBody) else commands.rollback
    with pytest.raises(error, match=message):
        ask("vision", "key-1", "bo", body)
    assert world.state.length == length


def test_a_hold_on_a_deployment_that_never_rests_says_that_it_is_on_record() -> None:
    world = released()
    for _ in range(5):
        world.cluster.fail("patch_deployment", Conflict("a test of the patch failed"))
    with pytest.raises(Retryable, match="the hold is on record, but the Deployment changes faster than its fence can"):
        world.commands().hold("vision", "key-1", "ana", HoldBody(reason="stop"))
    assert world.state.hold is not None
