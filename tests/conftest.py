"""Which tests may run at the same time, and the servers they share: the Azurite and registry of the cloud `test`.

Several test processes (pytest-xdist, or two runs at once) use the same servers: the first starts them with nothing in
them, the last stops them. Tests keep apart by container, queue and repository names of their own.
"""

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from localcloud import registry as registries
from localcloud import storage
from localcloud.config import Cloud, state_root

HERE = Path(__file__).parent
ON_THE_CLUSTER = "cluster"
"""The group of all tests that use the one Kubernetes of the machine."""


@pytest.hookimpl(tryfirst=True)  # before xdist, which reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests stay together in one process (`pytest -n 2 --dist loadgroup`).

    Those of a file do, which share servers. Those on the cluster do, and come first: together they take longest. The
    simulator's searches do, which have processes of their own.
    """
    for item in items:
        if HERE / "sim" in item.path.parents:
            item.add_marker(pytest.mark.sim)
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(key=lambda item: _group(item) != ON_THE_CLUSTER)


def _group(item: pytest.Item) -> str:
    if HERE / "e2e" in item.path.parents or item.get_closest_marker("cluster"):
        return ON_THE_CLUSTER
    return "sim" if item.get_closest_marker("sim") else str(item.path.relative_to(HERE))


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
