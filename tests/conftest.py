"""Which tests may run at the same time, and the servers they share: the Azurite and registry of the cloud `test`.

Several test processes (pytest-xdist, or two runs at once) use the same servers: the first starts them with nothing in
them, the last stops them. Tests keep apart by container, queue and repository names of their own.
"""

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from localcloud import registry as registries
from localcloud import storage
from localcloud.config import Cloud, state_root
from localcloud.processes import talk_directly

HERE = Path(__file__).parent
ON_THE_CLUSTER = (
    HERE / "contracts" / "test_cluster_contract.py",
    HERE / "localcloud" / "test_kubernetes.py",
    HERE / "localcloud" / "test_preflight.py",
)
"""Where tests run pods on the one Kubernetes of the machine, beside those of tests/e2e. The rest of what is marked
`cluster` needs its programs alone."""

ON_THE_CLUSTER_SECONDS = 600
LONGEST = ("e2e", "cluster")
"""The groups that begin first."""


class Together(LoadScopeScheduling):  # type: ignore[misc] # xdist has no types
    """Which tests stay in one process, told from their node ids: xdist's marks for it do nothing with pytest 9.2."""

    def _split_scope(self, nodeid: str) -> str:
        return _group(HERE.parent / nodeid.partition("::")[0])


def pytest_configure() -> None:
    """Ask no proxy for what is on this machine, and let no example of a property fail because the machine was busy.

    Hypothesis gives each 200 ms by itself. Its examples are the same in each run: what fails, fails by the change.
    """
    talk_directly()
    settings.register_profile("patient", deadline=None, derandomize=True)
    settings.load_profile("patient")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together | None:
    """Keep together, for `pytest -n 3 --dist loadfile`, more than the tests of one file."""
    return Together(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests on the cluster first, which take longest together, and give them time to start it."""
    for item in items:
        if HERE / "sim" in item.path.parents:
            item.add_marker(pytest.mark.sim)
        if _group(item.path) in LONGEST and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(ON_THE_CLUSTER_SECONDS))
    items.sort(key=lambda item: LONGEST.index(group) if (group := _group(item.path)) in LONGEST else len(LONGEST))


@cache
def _group(file: Path) -> str:
    """Return what the tests of a file share with others: a local cloud, the cluster, processes, or just the file."""
    if file in ON_THE_CLUSTER:
        return "cluster"
    return next((name for name in ("e2e", "sim") if HERE / name in file.parents), str(file))


@pytest.fixture(autouse=True)
def _beside_others(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let no test stop the API server while this one runs pods."""
    if request.path in ON_THE_CLUSTER and request.node.get_closest_marker("cluster"):
        with _cluster(fcntl.LOCK_SH):
            yield
    else:
        yield


@pytest.fixture
def cluster_alone() -> Iterator[None]:
    """Have the cluster for a test that stops the API server."""
    with _cluster(fcntl.LOCK_EX):
        yield


@contextmanager
def _cluster(lock: int) -> Iterator[None]:
    folder = state_root() / "test-users"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "cluster.lock").open("w") as file:
        fcntl.flock(file, lock)
        yield


@pytest.fixture(scope="session")
def azurite() -> Iterator[Cloud]:
    """Yield the cloud whose Azurite runs: `connection_string`, `blob_url`."""
    cloud = Cloud("test")
    server = storage.Azurite.of(cloud)
    with _shared("azurite", start=server.start, stop=server.program().stop, data=server.data):
        yield cloud


@pytest.fixture(scope="session")
def registry() -> Iterator[Cloud]:
    """Yield the cloud whose registry runs: `registry` is its host and port."""
    cloud = Cloud("test")
    server = registries.Registry.of(cloud)
    with _shared("registry", start=server.start, stop=server.program().stop, data=server.data):
        yield cloud


@contextmanager
def _shared(name: str, *, start: Callable[[], object], stop: Callable[[], None], data: Path) -> Iterator[None]:
    """Hold a server together with other test processes: those who use it hold a shared lock."""
    folder = state_root() / "test-users"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.users").open("w") as users:
        with _alone(folder / f"{name}.lock"):
            if _is_only(users.fileno()):
                stop()
                shutil.rmtree(data, ignore_errors=True)
            start()
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield
        finally:
            with _alone(folder / f"{name}.lock"):
                if _is_only(users.fileno()):
                    stop()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_only(descriptor: int) -> bool:
    """Return whether no other process holds the shared lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
