"""One local cloud as a whole: start all its parts, know whether they run, stop them.

Called by `python -m localcloud`, the demo, the benchmarks and the end-to-end tests. Kubernetes is shared by all clouds
of a machine: starting a cloud starts it, stopping a cloud leaves it.
"""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient

from localcloud import eventgrid, registry, storage
from localcloud.access import controller_kubeconfig
from localcloud.config import Cloud
from localcloud.eventgrid.client import RelayClient
from localcloud.functions_host.keys import Keys, ensure_keys, webhook_url
from localcloud.functions_host.program import keys_file
from localcloud.functions_host.program import program as functions_host
from localcloud.kubernetes import cluster
from localcloud.kubernetes.layout import CONTEXT, default_layout
from localcloud.processes import Program, answers
from localcloud.targets import TargetCluster, of_context, require_deployments_of_base
from shipmate.core.events import BLOB_CREATED, COMPLETE_BLOB_APIS, IMAGE_PUSHED
from shipmate.core.targets import Target
from shipmate.settings import parse_targets

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE_TARGETS = ROOT / "examples" / "targets.yaml"
DEADLETTERS, LEDGERS = "deadletters", "shipmate-ledger"
QUEUE = "shipmate-advance"
REGISTRY_NAME = "local"
"""As the topic of the registry's events ends."""


@dataclass(frozen=True)
class PartStatus:
    """One part of a local cloud: its process id if it runs, where it answers, and its log."""

    name: str
    pid: int | None
    address: str
    log: Path


@dataclass(frozen=True)
class LocalCloud:
    """A local cloud.

    With `context`, a context of the user's own kubeconfig takes the place of the local Kubernetes; with `registry_url`
    (`http://localhost:5001`, `https://name.azurecr.io`), a registry of theirs that of the cloud's registry.
    """

    cloud: Cloud
    context: str | None = None
    registry_url: str | None = None

    # -- what others need to know of it

    @property
    def keys_file(self) -> Path:
        """Where the keys of the Functions host are."""
        return keys_file(self.cloud)

    @property
    def keys(self) -> Keys:
        """The keys of the Functions host."""
        return ensure_keys(self.keys_file)

    @property
    def api_key(self) -> str:
        """The key that opens the HTTP API, for the header x-functions-key."""
        return self.keys.host["default"]

    @property
    def targets_file(self) -> Path:
        """The targets file that the Functions host reads."""
        return self.cloud.state / "targets.yaml"

    @property
    def registry(self) -> str:
        """The registry as image references spell it."""
        return self.cloud.registry if self.registry_url is None else self.registry_url.partition("://")[2]

    def target_cluster(self) -> TargetCluster:
        """Return the cluster as its administrator reaches it. The local one must be up."""
        if self.context is not None:
            return of_context(self.context)
        return TargetCluster(cluster.kubectl()[0], default_layout().kubeconfig, CONTEXT)

    def app_settings(self, access: str) -> dict[str, str]:
        """Return the app settings of the Functions host; `access` is how SHIPMATE_CLUSTER spells the cluster."""
        return {
            "FUNCTIONS_WORKER_RUNTIME": "python",
            "PYTHON_THREADPOOL_THREAD_COUNT": "32",
            "AzureWebJobsStorage": self.cloud.connection_string,
            "SHIPMATE_STORAGE": self.cloud.connection_string,
            "SHIPMATE_REGISTRY": self.registry_url or f"http://{self.cloud.registry}",
            "SHIPMATE_REGISTRY_NAME": REGISTRY_NAME,
            "SHIPMATE_CLUSTER": access,
            "SHIPMATE_TARGETS": str(self.targets_file),
            "SHIPMATE_QUEUE": QUEUE,
            "SHIPMATE_LEDGER_CONTAINER": LEDGERS,
            "SHIPMATE_SWEEP_SCHEDULE": "0 * * * * *",
            "SHIPMATE_STALLED_SECONDS": "60",
        }

    # -- start

    def start(
        self,
        *,
        targets_yaml: str | None = None,
        instances: int = 1,
        settings: Mapping[str, str] | None = None,
        lease_seconds: float = 600,
        time_scale: float = 1.0,
        apply_targets: bool = True,
    ) -> None:
        """Start what does not run, and return when an event would be delivered.

        `targets_yaml` is the text of the targets file (None: examples/targets.yaml), `instances` the number of
        Functions workers; `settings` go on top of `app_settings`; `lease_seconds` is how long the queue hides what a
        killed worker held; `time_scale` shortens the waits of a relay that is started now. Every namespace in the
        targets gets what k8s/ says, unless `apply_targets` is false because the caller made what targets run on; the
        controller's account is that of the first namespace. Raises StartError, SetupError,
        AccessError and RelayError with what to do, and Invalid for the targets.
        """
        text = EXAMPLE_TARGETS.read_text() if targets_yaml is None else targets_yaml
        targets = self._write_targets(text, apply_targets=apply_targets)
        namespaces = _each_once(target.deployment.namespace for target in targets)
        containers = _each_once(target.model.container for target in targets)
        with ThreadPoolExecutor() as pool:
            access = pool.submit(self._start_cluster, namespaces, apply_targets=apply_targets)
            stored = pool.submit(self._start_storage, containers)
            pushed = pool.submit(registry.start, self.cloud)
            stored.result()
            pushed.result()
            eventgrid.start(self.cloud, time_scale=time_scale)
            settings = {**self.app_settings(access.result()), **(settings or {})}
        self.start_functions(settings, instances, lease_seconds)
        self._subscribe(targets)

    def start_functions(self, settings: Mapping[str, str], instances: int = 1, lease_seconds: float = 600) -> None:
        """Start the Functions host, anew if it runs with other settings. Raises StartError."""
        host = functions_host(self.cloud, ROOT, settings, instances, lease_seconds=lease_seconds)
        remembered = self.cloud.state / "functions" / "started-with.json"
        wanted = json.dumps([dict(settings), instances, lease_seconds], sort_keys=True)
        if not remembered.exists() or remembered.read_text() != wanted:
            host.stop()
        host.start(answers(self.cloud.functions_url), within_seconds=120)
        remembered.write_text(wanted)

    def _write_targets(self, text: str, *, apply_targets: bool = True) -> Sequence[Target]:
        """Write the targets file if it is right, and return its targets. A Functions host that read another stops."""
        targets = parse_targets(text.encode(), "the targets file")
        if apply_targets:
            require_deployments_of_base(targets.values())
        self.targets_file.parent.mkdir(parents=True, exist_ok=True)
        if self.targets_file.exists() and self.targets_file.read_text() != text:
            functions_host(self.cloud, ROOT, {}).stop()
        self.targets_file.write_text(text)
        return tuple(targets.values())

    def _start_storage(self, containers: Sequence[str]) -> None:
        storage.start(self.cloud)
        blobs = BlobServiceClient.from_connection_string(self.cloud.connection_string)
        queues = QueueServiceClient.from_connection_string(self.cloud.connection_string)
        for name in (*containers, DEADLETTERS, LEDGERS):
            with suppress(ResourceExistsError):
                blobs.create_container(name)
        with suppress(ResourceExistsError):
            queues.create_queue(QUEUE)

    def _start_cluster(self, namespaces: Sequence[str], *, apply_targets: bool) -> str:
        """Start Kubernetes, apply what targets run on, and return SHIPMATE_CLUSTER."""
        if self.context is None:
            cluster.up()
            cluster.add_registry_mirror(self.cloud.registry)
        found = self.target_cluster()
        for namespace in namespaces if apply_targets else ():
            found.apply_target(self.cloud, namespace, registry=self.registry)
        out = self.cloud.state / "controller.kubeconfig"
        return controller_kubeconfig(found.kubeconfig, namespaces[0], out, context=found.context, also=namespaces[1:])

    def _subscribe(self, targets: Sequence[Target]) -> None:
        """Have the relay deliver to the Function App what it needs: what completes a model, and pushes."""
        with RelayClient(self.cloud.eventgrid_url) as relay:
            for container, ending in completing_blobs(targets).items():
                relay.subscribe(
                    f"model-published-{container}",
                    topic="storage",
                    endpoint=webhook_url(self.cloud.functions_url, "model_published", self.keys),
                    event_types=[BLOB_CREATED],
                    subject_begins_with=f"/blobServices/default/containers/{container}/",
                    subject_ends_with=ending,
                    api_in=sorted(COMPLETE_BLOB_APIS),
                    dead_letter_container=DEADLETTERS,
                )
            relay.subscribe(
                "image-pushed",
                topic="registry",
                endpoint=webhook_url(self.cloud.functions_url, "image_pushed", self.keys),
                event_types=[IMAGE_PUSHED],
                dead_letter_container=DEADLETTERS,
            )

    # -- stop and look

    def stop(self) -> None:
        """Stop what runs, the Functions host first, so that no work begins that cannot end. Kubernetes goes on."""
        for part in reversed(self._programs()):
            part.stop()

    def wipe(self) -> None:
        """Stop the cloud and forget its blobs, queues, images, keys and ledgers."""
        self.stop()
        if self.cloud.state.exists():
            shutil.rmtree(self.cloud.state)

    def status(self) -> tuple[PartStatus, ...]:
        """Return every part in the order they start."""
        addresses = (
            self.cloud.blob_url,
            f"http://{self.cloud.registry}",
            self.cloud.eventgrid_url,
            self.cloud.functions_url,
        )
        return tuple(
            PartStatus(part.name, part.pid(), address, part.log)
            for part, address in zip(self._programs(), addresses, strict=True)
        )

    def is_running(self) -> bool:
        """Return whether any part runs."""
        return any(part.pid() is not None for part in self._programs())

    def _programs(self) -> tuple[Program, ...]:
        """Return the programs in the order they start."""
        host = functions_host(self.cloud, ROOT, {})
        return storage.program(self.cloud), registry.program(self.cloud), eventgrid.program(self.cloud), host


def completing_blobs(targets: Iterable[Target]) -> dict[str, str]:
    """Return for each container the end of the names of blobs that complete a model, empty where targets disagree.

    The other files of a model start nothing: with this filter on a subscription they are not even told.
    """
    markers: dict[str, set[str]] = {}
    for target in targets:
        markers.setdefault(target.model.container, set()).add(target.model.marker)
    return {container: f"/{names.pop()}" if len(names) == 1 else "" for container, names in markers.items()}


def _each_once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
