"""The light cluster treats patches and gate pods as the fake cluster does, which the contract suite holds."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from shipmate.core.fence import adopt_patch, fence_patch, raise_fence_patch
from shipmate.core.gate_pod import gate_pod
from shipmate.core.views import DeploymentView
from shipmate.errors import Conflict, NotAllowed, NotFound
from tests.fakes.application import deployment
from tests.fakes.cluster import FakeCluster
from tests.sim.cluster import LightCluster, PodFate

IMAGE = f"registry.sim/vision@sha256:{'a' * 64}"
PAIR = "b" * 64
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def light() -> LightCluster:
    cluster = LightCluster(
        now=lambda: 0.0,
        instant=lambda: NOW,
        fate=lambda name, image: PodFate(0.0),
        is_there=lambda image: True,
        answering=lambda pod, path: (200, {}, b""),
        guarded=True,
    )
    cluster.add_deployment("vision", "app")
    return cluster


def fake() -> FakeCluster:
    cluster = FakeCluster(registry="registry.sim")
    cluster.add_deployment(deployment("vision", "app"))
    return cluster


def release(view: DeploymentView, expected: int, fence: int, number: int) -> list[dict[str, Any]]:
    return fence_patch(
        view, expected_fence=expected, new_fence=fence, container="app", image=IMAGE, pair=PAIR, release=f"r-{number}"
    )


def unfenced(view: DeploymentView) -> list[dict[str, Any]]:
    return [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": f"{IMAGE[:-1]}c"}]


PATCHES: list[Callable[[DeploymentView], list[dict[str, Any]]]] = [
    lambda view: release(view, 0, 1, 1),  # before it was adopted
    adopt_patch,
    adopt_patch,  # the second finds the fence there
    lambda view: release(view, 0, 1, 1),
    lambda view: release(view, 0, 2, 2),  # another fence is there
    lambda view: raise_fence_patch(view, expected_fence=1, new_fence=5),
    lambda view: release(view, 1, 3, 2),  # a zombie's
    lambda view: release(view, 5, 6, 3),
    unfenced,  # the policy forbids it
    lambda view: [{"op": "test", "path": "/metadata/uid", "value": "another"}],
]


def outcomes(cluster: Any) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for patch in PATCHES:
        view = cluster.deployment("vision", "app")
        try:
            view = cluster.patch_deployment("vision", "app", patch(view))
            said = "taken"
        except (Conflict, NotAllowed) as error:
            said = type(error).__name__
        view = cluster.deployment("vision", "app")
        found.append((said, view.fence, view.release, view.pair, view.containers, view.generation, view.annotations))
    return found


def test_patches_come_to_the_same():
    assert outcomes(light()) == outcomes(fake())


@pytest.mark.parametrize("make", [light, fake])
def test_a_gate_pod_is_made_once_and_only_for_its_pair(make):
    cluster = make()
    view = cluster.deployment("vision", "app")
    manifest = gate_pod(view, name="gate-app-1", container="app", image=IMAGE, pair=PAIR, release="r-1")
    made = cluster.create_gate_pod("vision", manifest)
    assert cluster.create_gate_pod("vision", manifest).uid == made.uid
    other = gate_pod(view, name="gate-app-1", container="app", image=IMAGE, pair="c" * 64, release="r-1")
    with pytest.raises(Conflict, match="is there for pair"):
        cluster.create_gate_pod("vision", other)
    assert cluster.gate_pod("vision", "gate-app-1").ready
    assert [pod.name for pod in cluster.list_gate_pods("vision")] == ["gate-app-1"]
    with pytest.raises(Conflict, match="is another one by now"):
        cluster.delete_gate_pod("vision", "gate-app-1", "another")
    cluster.delete_gate_pod("vision", "gate-app-1", made.uid)
    cluster.delete_gate_pod("vision", "gate-app-1", made.uid)
    with pytest.raises(NotFound):
        cluster.gate_pod("vision", "gate-app-1")
    with pytest.raises(NotFound):
        cluster.deployment("vision", "another")
