"""Settings in, real ports out: nothing is asked for before it is needed."""

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from azure.core.exceptions import ServiceResponseError

from localcloud.config import Cloud, connection_string
from shipmate import wiring
from shipmate.core.intake import Sources
from shipmate.edge import storage as edge_storage
from shipmate.edge.api_server import CONNECTIONS
from shipmate.edge.blobs import BlobModels
from shipmate.edge.clock import SystemClock
from shipmate.edge.cluster import Cluster
from shipmate.edge.ledger_store import LedgerStore
from shipmate.edge.probe import Door
from shipmate.edge.queue import StorageQueue
from shipmate.edge.registry import Registry
from shipmate.edge.registry_locks import AzureImageLocks
from shipmate.errors import Misconfigured
from shipmate.settings import read_settings
from shipmate.wiring import compose
from tests.fakes.http_servers import Answer, Seen, answering

EXAMPLE = Path(__file__).parents[1] / "examples" / "targets.yaml"
CLOUD = Cloud("test")


def local(folder: Path) -> dict[str, str]:
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )
    return {
        "SHIPMATE_STORAGE": CLOUD.connection_string,
        "SHIPMATE_REGISTRY": f"http://{CLOUD.registry}",
        "SHIPMATE_CLUSTER": f"kubeconfig:{kubeconfig}#here",
        "SHIPMATE_TARGETS": str(EXAMPLE),
    }


def azure(_: Path) -> dict[str, str]:
    return {
        "SHIPMATE_STORAGE": "https://modelstore.blob.core.windows.net",
        "SHIPMATE_REGISTRY": "teamreg.azurecr.io",
        "SHIPMATE_CLUSTER": "aks:/subscriptions/0/resourceGroups/g/providers/x/managedClusters/c",
        "SHIPMATE_TARGETS": str(EXAMPLE),
        "AzureWebJobsStorage__accountName": "funcstore",
    }


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(real: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(*arguments: Any, **options: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():  # users that other tests left asking
                return real(*arguments, **options)
            raise AssertionError(f"the network was used at composition: {arguments}")

        return refuse

    monkeypatch.setattr(socket.socket, "connect", refused(socket.socket.connect))
    monkeypatch.setattr(socket, "getaddrinfo", refused(socket.getaddrinfo))


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("settings", "sources", "registry"),
    [
        pytest.param(local, Sources("devstoreaccount1", "local"), CLOUD.registry, id="local"),
        pytest.param(azure, Sources("modelstore", "teamreg"), "teamreg.azurecr.io", id="Azure"),
    ],
)
def test_a_pipeline_is_composed_without_asking_anybody(
    settings: Any, sources: Sources, registry: str, tmp_path: Path
) -> None:
    pipeline = compose(read_settings(settings(tmp_path)))
    assert list(pipeline.targets) == ["vision"]
    assert pipeline.sources == sources
    assert isinstance(pipeline.ledgers, LedgerStore)
    assert isinstance(pipeline.queue, StorageQueue)
    context = pipeline.context
    assert isinstance(context.registry, Registry)
    assert isinstance(context.models, BlobModels)
    assert isinstance(context.cluster, Cluster)
    assert isinstance(context.door, Door)
    assert isinstance(context.clock, SystemClock)
    assert (context.registry.name, context.cluster.registry) == (registry, registry)
    assert isinstance(context.locks, AzureImageLocks) is registry.endswith(".azurecr.io")
    context.cluster.close()
    context.registry.close()


def test_invocations_are_workers_of_their_own_and_remember_together_which_images_are_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed = compose(read_settings(local(tmp_path)))
    monkeypatch.setattr(wiring, "_shared", lambda: composed)
    one, other = wiring.pipeline(), wiring.pipeline()
    assert one.context.worker != other.context.worker
    assert one.kept is other.kept


def test_each_thread_keeps_its_connection_to_the_storage() -> None:
    everybody = threading.Barrier(CONNECTIONS, timeout=30)

    def answer(_: Seen) -> Answer:
        everybody.wait()  # so that no connection is free for another thread
        return Answer(200, b"", {"x-ms-sku-name": "Standard_LRS"})

    with answering(answer) as (url, seen), ThreadPoolExecutor(CONNECTIONS) as threads:
        port = int(url.rpartition(":")[2])
        storage = wiring.blob_service(connection_string(port, port))
        for _ in range(2):
            asked = [threads.submit(storage.get_account_information) for _ in range(CONNECTIONS)]
            assert {one.result()["sku_name"] for one in asked} == {"Standard_LRS"}
        storage.close()
    assert len(seen) == 2 * CONNECTIONS
    assert len({one.port for one in seen}) == CONNECTIONS


@pytest.mark.parametrize(("max_seconds", "patience"), [(5, 10.0), (25, 25.0)])
def test_the_door_is_as_patient_as_the_gate(tmp_path: Path, max_seconds: int, patience: float) -> None:
    """Otherwise an answer that the gate lets pass fails the verification."""
    targets = tmp_path / "targets.yaml"
    document = yaml.safe_load(EXAMPLE.read_text())
    document["targets"][0]["gate"] = {"max_seconds": max_seconds}
    targets.write_text(yaml.safe_dump(document))
    door = compose(read_settings({**local(tmp_path), "SHIPMATE_TARGETS": str(targets)})).context.door
    assert isinstance(door, Door)
    assert door._timeout_seconds == patience


def test_a_storage_that_falls_silent_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_storage, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(wiring, "RETRIES", 0)
    awake = threading.Event()

    def answer(_: Seen) -> Answer:
        awake.wait(30)
        return Answer(200, b"")

    with answering(answer) as (url, seen):
        port = int(url.rpartition(":")[2])
        storage = wiring.blob_service(connection_string(port, port))
        with pytest.raises(ServiceResponseError, match=r"Read timed out\. \(read timeout=0\.2\)"):
            storage.get_account_information()
        awake.set()
        storage.close()
    assert len(seen) == 1


def test_a_cluster_setting_that_names_none_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="names no cluster: expected kubeconfig:"):
        compose(read_settings({**local(tmp_path), "SHIPMATE_CLUSTER": "aks:"}))
