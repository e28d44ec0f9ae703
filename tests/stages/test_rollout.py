"""The rollout over a whole world in memory: who is to blame when it does not come to its end."""

from collections.abc import Callable, Sequence

import msgspec
import pytest

from shipmate.core.fence import Operation, fence_patch
from shipmate.core.ledger import Intended, Phase
from shipmate.core.views import DeploymentView, PodView
from shipmate.errors import Ambiguous, Conflict, Rejected
from shipmate.stages.rollout import roll_out
from tests.world import World, released


def intended() -> World:
    """Return a world with r-1 live, and r-2, with a new model, about to be patched in."""
    world = released()
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.INTENDED)
    return world


def image(world: World, number: int) -> str:
    return f"{world.registry.name}/vision@{world.state.release(number).image}"


def without_words(pod: PodView) -> PodView:
    return msgspec.structs.replace(pod, statuses=())


@pytest.mark.parametrize(
    ("change", "is_blamed"),
    [
        (lambda pod: msgspec.structs.replace(without_words(pod), unschedulable="0/3 nodes: Insufficient cpu"), False),
        (lambda pod: msgspec.structs.replace(without_words(pod), phase="Running"), True),
    ],
    ids=["no node has room", "it runs and is never ready"],
)
def test_a_release_that_is_late_is_blamed_only_if_a_pod_of_it_ran(
    change: Callable[[PodView], PodView], is_blamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = intended()
    pods = world.cluster.pods

    def seen(namespace: str, selector: str) -> tuple[PodView, ...]:
        return tuple(pod if pod.ready else change(pod) for pod in pods(namespace, selector))

    world.cluster.missing_images = {image(world, 2)}  # its pods never get ready
    monkeypatch.setattr(world.cluster, "pods", seen)
    world.run()
    bad = world.state.release(2)
    assert (bad.phase, bad.ended_because) == (Phase.ROLLED_BACK, "RolloutDeadline")
    assert world.state.quarantine == ({bad.pair.model} if is_blamed else set())
    assert world.version("").model_version == "1.0"


def test_a_deployment_that_is_scaled_to_nothing_is_waited_for_and_nobody_is_blamed() -> None:
    world = intended()
    scale = {"op": "replace", "path": "/spec/replicas", "value": 0}
    world.cluster.patch_deployment("vision", "vision", [scale])
    world.run()
    waiting = world.state.release(2)
    assert waiting.phase is Phase.INTENDED
    assert waiting.message is not None
    assert waiting.message.startswith("Deployment vision/vision is scaled to 0, so nobody can be answered by r-2: ")
    assert "kubectl scale deployment/vision -n vision --replicas=" in waiting.message
    world.cluster.patch_deployment("vision", "vision", [{**scale, "value": 2}])
    world.run()
    assert world.state.release(2).phase is Phase.LIVE
    assert not world.state.quarantine


def test_an_image_that_somebody_put_in_the_place_of_a_releases_is_not_taken_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = intended()
    patch = world.cluster.patch_deployment

    def patched_twice(namespace: str, name: str, operations: Sequence[Operation]) -> DeploymentView:
        view = patch(namespace, name, operations)
        monkeypatch.undo()
        value = str((view.fence or 0) + 1)
        fence = {"op": "replace", "path": "/metadata/annotations/shipmate.dev~1fence", "value": value}
        spot = "/spec/template/spec/containers/0/image"
        return patch(namespace, name, [fence, {"op": "replace", "path": spot, "value": image(world, 1)}])

    monkeypatch.setattr(world.cluster, "patch_deployment", patched_twice)
    world.run()
    assert world.version("").model_version == "1.1"
    assert world.cluster.deployment("vision", "vision").containers[0].image == image(world, 2)


def test_a_release_that_somebody_takes_back_while_it_rolls_out_fails_and_nobody_is_blamed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = intended()
    pods = world.cluster.pods

    def taken_back(namespace: str, selector: str) -> tuple[PodView, ...]:
        if world.cluster.deployment("vision", "vision").release == "r-2":
            place = "/spec/template/metadata/annotations/shipmate.dev~1release"
            world.cluster.patch_deployment("vision", "vision", [{"op": "replace", "path": place, "value": "r-1"}])
        return pods(namespace, selector)

    monkeypatch.setattr(world.cluster, "pods", taken_back)
    world.run()
    bad = world.state.release(2)
    assert (bad.phase, bad.ended_because) == (Phase.ROLLED_BACK, "ChangedByOthers")
    assert bad.message == "somebody changed the Deployment back while r-2 rolled out"
    assert "somebody else changed the Deployment while r-2 rolled out" in world.story()
    assert not world.state.quarantine


def test_a_deployment_that_never_rests_is_patched_later() -> None:
    world = intended()
    for _ in range(5):
        world.cluster.fail("patch_deployment", Conflict("a test of the patch failed"))
    world.run()
    assert world.state.release(2).phase is Phase.LIVE
    assert "the Deployment changes faster than it can be patched" in world.story()


def lose(world: World) -> None:
    """Let the registry lose the image of r-2, and the container its model: it cannot be built again."""
    lost = world.state.release(2).image
    assert lost is not None
    del world.registry.manifests["vision"][lost]
    world.models.delete("models", "net/1.1/manifest.json")


def test_a_release_that_is_lost_before_it_is_patched_in_is_withdrawn_and_nothing_is_undone() -> None:
    world = intended()
    lose(world)
    before = world.cluster.deployment("vision", "vision")
    late = fence_patch(  # of a worker that sleeps now
        before,
        expected_fence=before.fence or 0,
        new_fence=world.state.fence,
        container="app",
        image=image(world, 2),
        pair=world.state.release(2).pair.key,
        release="r-2",
    )
    world.run()
    assert [release.phase for release in world.state.releases] == [Phase.LIVE, Phase.REJECTED]
    assert world.state.release(2).ended_because == "Gone"
    assert (world.state.hold, world.state.rollback_due, world.state.quarantine) == (None, None, frozenset())
    with pytest.raises(Conflict):
        world.cluster.patch_deployment("vision", "vision", late)
    assert world.version("").model_version == "1.0"
    world.ship(world.publish_model("1.2"))
    assert world.version("").model_version == "1.2"


def test_a_worker_whose_patch_comes_after_another_found_the_release_lost_blames_nobody() -> None:
    world = intended()
    arguments = (world.state.release(2), world.target, world.state, world.pipeline().context)
    patch = world.cluster.patch_deployment

    def after_another(namespace: str, name: str, operations: Sequence[Operation]) -> DeploymentView:
        world.cluster.patch_deployment = patch  # type: ignore[method-assign] # as it was
        lose(world)
        with pytest.raises(Rejected, match="not there any more"):
            roll_out(*arguments)
        return patch(namespace, name, operations)

    world.cluster.patch_deployment = after_another  # type: ignore[method-assign] # for the time being
    again = roll_out(*arguments)
    assert isinstance(again, Intended)
    assert again.fence > world.state.fence
    world.run()
    assert [release.phase for release in world.state.releases] == [Phase.LIVE, Phase.REJECTED]
    assert (world.state.hold, world.state.rollback_due, world.state.quarantine) == (None, None, frozenset())


def test_a_release_that_is_lost_after_it_was_patched_in_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    world = intended()
    world.cluster.fail("patch_deployment", Ambiguous("the reply was lost"), after=True)
    patch = world.cluster.patch_deployment

    def lost_by_then(namespace: str, name: str, operations: Sequence[Operation]) -> DeploymentView:
        lose(world)
        monkeypatch.undo()
        return patch(namespace, name, operations)

    monkeypatch.setattr(world.cluster, "patch_deployment", lost_by_then)
    world.run()
    bad = world.state.release(2)
    assert (bad.phase, bad.ended_because) == (Phase.ROLLED_BACK, "Gone")
    assert world.version("").model_version == "1.0"
    assert world.state.hold is not None
    assert not world.state.quarantine
