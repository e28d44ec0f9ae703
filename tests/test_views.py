"""What people are shown when the cluster differs from the ledger, or cannot be asked."""

import pytest

from shipmate.commands import HoldBody, ReleaseBody, RollbackBody
from shipmate.errors import NotFound, Retryable, ShipmateError
from tests.situations import set_image
from tests.world import World, released


def test_a_status_says_what_cannot_be_read_and_why_nothing_else_happens() -> None:
    world = released()
    world.commands().hold("vision", "key", "ana", HoldBody(reason="a demo"))
    world.ship(world.publish_model("1.1"))
    world.registry.get_blob = lambda *_: (_ for _ in ()).throw(Retryable("the registry is away"))  # type: ignore[method-assign]
    world.tell(world.push_app("2.4.0"))
    world.pipeline().advance("vision")
    seen = world.commands().views.status("vision")
    assert seen.reason == "Held"
    assert seen.next.endswith(
        "UTC: vision-app:main cannot be read yet: the registry is away; until then: r-2 is ready; a hold by ana keeps "
        "it: a demo"
    )


def drift(world: World) -> str | None:
    return world.commands().views.status("vision").drift


def changed_by_hand() -> World:
    """Return a world with r-2 live, in whose Deployment somebody put the image of r-1."""
    world = released()
    first = world.cluster.deployment("vision", "vision").containers[0].image
    world.ship(world.publish_model("1.1"))
    assert drift(world) is None
    set_image(world, first)
    return world


def test_another_image_under_the_same_annotations_is_drift() -> None:
    assert drift(changed_by_hand()) == (
        "the Deployment asks for another image than that of r-2, and r-2 was live last: "
        "somebody changed it, or a rollback failed; roll back to set it right"
    )


def test_a_rollback_sets_another_image_right() -> None:
    world = changed_by_hand()
    world.commands().rollback("vision", "key-1", "bo", RollbackBody(reason="who was that?"))
    world.run()
    assert drift(world) is None
    assert world.version("").model_version == "1.1"
    assert not world.state.quarantine


def test_a_release_of_the_live_pair_sets_another_image_right() -> None:
    world = changed_by_hand()
    world.commands().release("vision", "key-1", "bo", ReleaseBody(reason="who was that?"))
    world.run()
    assert drift(world) is None
    assert world.version("").model_version == "1.1"


@pytest.mark.parametrize(
    "error",
    [Retryable("the API server is away"), NotFound('deployments.apps "vision" not found')],
    ids=["away", "deleted"],
)
def test_a_status_is_shown_although_the_cluster_cannot_be_asked(error: ShipmateError) -> None:
    world = released()
    world.cluster.fail("deployment", error)
    (status,) = world.commands().views.statuses()
    assert status.serving is not None
    assert status.serving.name == "r-1"
    assert status.drift == f"nobody can tell whether the Deployment asks for r-1 still: {error}"
