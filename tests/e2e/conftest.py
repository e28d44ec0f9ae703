"""The whole local cloud `e2e`, with two targets in namespaces of their own on the Kubernetes of this machine.

The cloud is for these tests alone: they restart its parts. It starts with nothing in it, and what is in it when the
tests end stays to be looked at until the next run. Kubernetes is shared with other clouds and goes on.
"""

import fcntl
import json
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from localcloud import images
from localcloud.cloud import LocalCloud
from localcloud.config import Cloud, state_root
from localcloud.demo.users import Count, Users
from localcloud.kubernetes import cluster
from localcloud.targets import TargetCluster
from shipmate.core.answers import question
from tests.e2e.models import FLOWER, Models
from tests.e2e.world import Target, World, eventually

NAMESPACES = {"vision": "e2e-vision", "steady": "e2e-steady"}
INSTANCES = 2
LEASE_SECONDS = 2.0
SETTINGS = {"SHIPMATE_SWEEP_SCHEDULE": "*/4 * * * * *", "SHIPMATE_STALLED_SECONDS": "4"}
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is below this folder."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="package")
def making() -> Iterator[Executor]:
    """Yield who makes what is published while the cloud starts."""
    with ThreadPoolExecutor() as pool:
        yield pool


@pytest.fixture(scope="package")
def app_images(making: Executor) -> Future[tuple[str, str]]:
    """Return two versions of the app image, built as CI builds them."""
    return making.submit(lambda: (images.build_app("8.0.0", "e2e"), images.build_app("8.0.1", "e2e")))


@pytest.fixture(scope="package")
def models(making: Executor, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Return who makes model folders; the one that most are derived from is on its way."""
    models = Models(tmp_path_factory.mktemp("models"))
    making.submit(models.real, "lite0", "base")
    return models


@pytest.fixture(scope="package")
def world(models: Models, app_images: Future[tuple[str, str]]) -> Iterator[World]:
    """Yield the cloud, up, with nothing published yet."""
    local = LocalCloud(Cloud("e2e"))
    with _alone():
        local.wipe()
        cluster.up()
        admin = local.target_cluster()
        _delete_namespaces(admin, wait=True)
        try:
            targets = [_described(name, _door(local, admin, space)) for name, space in NAMESPACES.items()]
            local.start(
                targets_yaml=json.dumps({"version": 1, "targets": targets}),
                instances=INSTANCES,
                settings=SETTINGS,
                lease_seconds=LEASE_SECONDS,
                time_scale=0.1,
            )
            started_with = json.loads((local.cloud.state / "functions" / "started-with.json").read_text())
            world = World(local, models, started_with[0], INSTANCES, LEASE_SECONDS)
            yield world
            world.close()
        finally:
            local.stop()
            _delete_namespaces(admin, wait=False)


@contextmanager
def _alone() -> Iterator[None]:
    """Let one test process at a time have the cloud."""
    path = state_root() / "test-users" / "e2e.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _delete_namespaces(admin: TargetCluster, *, wait: bool) -> None:
    wait_or_not = f"--wait={str(wait).lower()}"
    admin.run("delete", "namespace", "--ignore-not-found", "--timeout=180s", wait_or_not, *NAMESPACES.values())


def _door(local: LocalCloud, admin: TargetCluster, namespace: str) -> str:
    """Make a target's namespace with what k8s/ puts there, and return the address that its users get."""
    admin.apply_target(local.cloud, namespace)
    return eventually(lambda: admin.public_url(namespace), f"a public address for {namespace}")


def _described(name: str, url: str) -> dict[str, object]:
    return {
        "name": name,
        "app": {"repository": f"{name}-app"},
        "model": {"container": "models", "name": f"{name}-lite"},
        "release": {"repository": name},
        "deployment": {"namespace": NAMESPACES[name], "name": "vision"},
        "public_url": url,
        "quiet_seconds": 0.3,
        "rollout_within_seconds": 120,
        "gate": {"ready_within_seconds": 60},
        "verify": {"replies": 10, "within_seconds": 15},
    }


def _target(world: World, name: str) -> Target:
    url = world.local.target_cluster().public_url(NAMESPACES[name])
    assert url is not None
    return Target(world, name, NAMESPACES[name], url)


@pytest.fixture(scope="package")
def vision(world: World) -> Iterator[Target]:
    """Yield the target of the main job; nothing is published for it yet."""
    target = _target(world, "vision")
    yield target
    target.api.close()


@pytest.fixture(scope="package")
def released(world: World, app_images: Future[tuple[str, str]]) -> Iterator[Target]:
    """Yield the target of all other tests, with its first release live. Each event for that was delivered twice."""
    target = _target(world, "steady")
    fault = world.relay.add_fault("duplicate", probability=1.0)
    target.push(app_images.result()[0])
    target.publish(world.models.derived("1.0"))
    target.until(1, "live")
    world.relay.wait_until_idle()
    world.relay.remove_faults(fault)
    yield target
    target.api.close()


@pytest.fixture(scope="package")
def users(released: Target) -> Iterator[Users]:
    """Yield users who ask from the first release on, on new connections and on kept-alive ones."""
    asking = Users(released.url, question([FLOWER]), each_kind=1, pause_seconds=0.25, patience_seconds=30)
    asking.start()
    yield asking
    seen = asking.stop()
    assert seen.by_release["r-1"] > 0


@pytest.fixture
def steady(released: Target, users: Users) -> Iterator[Target]:
    """Yield the released target, whose users lose nothing during the test."""
    before = users.count()
    yield released
    after = users.count()
    assert after.failed == before.failed, _lost(before, after)


def _lost(before: Count, after: Count) -> str:
    return f"users lost {after.failed - before.failed} of {after.requests - before.requests}: {dict(after.faults)}"
