"""Situations that several tests of the pipeline begin in, and what they look at."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from datetime import timedelta

from shipmate.commands import ResumeBody, RollbackBody
from shipmate.core.fence import Operation
from shipmate.core.refs import Digest
from shipmate.core.views import DeploymentView
from shipmate.errors import NotAllowed
from tests.fakes.ledgers import FakeClock
from tests.world import World


def phases(world: World) -> list[tuple[str, str]]:
    return [(release.name, release.phase) for release in world.state.releases]


def outcomes(world: World) -> list[tuple[str, str, str]]:
    return [(release.app_version, release.model_version, release.phase) for release in world.state.releases[1:]]


def clean_up(world: World, number: int = -1) -> Digest:
    """Delete a release's image, the newest one's unless told, as a retention policy does; return its digest."""
    image = world.state.releases[number].image
    assert image is not None
    del world.registry.manifests["vision"][image]
    tags = world.registry.tags["vision"]
    for tag in [tag for tag, digest in tags.items() if digest == image]:
        del tags[tag]
    return image


class SlowClock(FakeClock):
    """The clock of a worker whose machine is a minute behind."""

    def __init__(self, right: FakeClock) -> None:
        super().__init__(right.now() - timedelta(minutes=1))
        self.new_id = right.new_id  # type: ignore[method-assign]


type Patching = Callable[[str, str, Sequence[Operation]], DeploymentView]


def refusing(world: World, what: Callable[[str], bool]) -> Patching:
    """Let the API server refuse the patches that hold what is told; return how it patched before."""
    patch = world.cluster.patch_deployment

    def refused(namespace: str, name: str, operations: Sequence[Operation]) -> DeploymentView:
        if what(json.dumps(operations)):
            raise NotAllowed("admission webhook denied the request: the image is not signed")
        return patch(namespace, name, operations)

    world.cluster.patch_deployment = refused  # type: ignore[method-assign] # until somebody sets it right
    return patch


def later(world: World) -> None:
    """Let time pass, longer than any window."""
    world.clock.advance_to(world.clock.now() + timedelta(seconds=100))


def another_reads(world: World) -> None:
    """Let another worker read what was published, for which nothing else is due."""
    other = world.pipeline("worker-2")
    slow = dataclasses.replace(other.context, clock=SlowClock(world.clock))
    dataclasses.replace(other, context=slow, stalled_seconds=3600.0).advance("vision")


def shipped(world: World) -> list[str]:
    """Return each release with its versions and its phase."""
    return [f"{each.name} {each.app_version}+{each.model_version} {each.phase}" for each in world.state.releases]


def users_meet(world: World) -> tuple[str, str]:
    """Return the versions of the app and the model that answer."""
    seen = world.version("")
    return seen.app_version, seen.model_version


def rolled_back(world: World, *, reason: str) -> None:
    """Roll back to the last good release, and resume."""
    world.commands().rollback("vision", f"rollback-{world.state.length}", "bo", RollbackBody(reason=reason))
    world.run()
    world.commands().resume("vision", f"resume-{world.state.length}", "bo", ResumeBody(reason="seen"))
    world.run()


def set_image(world: World, image: str) -> None:
    """Put another image into the Deployment by hand, and leave its annotations as they are."""
    view = world.cluster.deployment("vision", "vision")
    fence = {"op": "replace", "path": "/metadata/annotations/shipmate.dev~1fence", "value": str((view.fence or 0) + 1)}
    spot = "/spec/template/spec/containers/0/image"
    world.cluster.patch_deployment("vision", "vision", [fence, {"op": "replace", "path": spot, "value": image}])
