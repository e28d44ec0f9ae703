"""What end-to-end tests do: publish as people and pipelines do, ask as users do, break parts, read what is on record.

Nothing here calls into Shipmate's own code except to read ledgers: events come from the relay or by HTTP, commands by
HTTP, and what happens is seen through the API, the registry, the cluster and the public door.
"""

import hashlib
import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
from azure.storage.blob import BlobServiceClient, ContainerClient

from examples.publish import publish
from localcloud import images
from localcloud.cloud import LEDGERS, LocalCloud
from localcloud.demo.api import Api
from localcloud.eventgrid.client import RelayClient
from localcloud.eventgrid.subscriptions import TOPICS
from localcloud.functions_host.keys import webhook_url
from shipmate.core.ledger import Entry, IgnoredEvent, Received, Skipped
from shipmate.core.state import State
from shipmate.edge.ledger_store import LedgerStore
from shipmate.pipeline import UNCLAIMED
from tests.e2e.models import Models

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ENDED = frozenset({"live", "retired", "rejected", "failed", "superseded", "rolled_back"})
"""Phases that a release does not leave by itself."""
LONGEST_SECONDS = 240.0


def eventually[T](ask: Callable[[], T | None], what: str, *, within_seconds: float = 120, pause: float = 0.1) -> T:
    """Return the first answer that is true."""
    deadline = time.monotonic() + within_seconds
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {within_seconds:.0f} s: {what}"
        time.sleep(pause)


@dataclass(frozen=True)
class World:
    """The cloud, and what all its targets share."""

    local: LocalCloud
    models: Models
    settings: Mapping[str, str]
    instances: int
    lease_seconds: float

    @cached_property
    def relay(self) -> RelayClient:
        """The Event Grid relay's control API."""
        return RelayClient(self.local.cloud.eventgrid_url)

    @cached_property
    def ledgers(self) -> LedgerStore:
        """The ledgers, to read."""
        return LedgerStore(self._storage, LEDGERS)

    @property
    def container(self) -> ContainerClient:
        """The container that models are published in."""
        return self._storage.get_container_client("models")

    @cached_property
    def http(self) -> httpx.Client:
        """What requests to this machine go through; no proxy is asked."""
        return httpx.Client(trust_env=False, timeout=30)

    @cached_property
    def _storage(self) -> BlobServiceClient:
        return BlobServiceClient.from_connection_string(self.local.cloud.connection_string)

    def close(self) -> None:
        """Close the connections."""
        for part in (self.relay, self.http, self._storage):
            part.close()

    # -- events, delivered by hand

    def deliver(self, function: str, body: Any, *, key: str | None = None) -> httpx.Response:
        """POST to a function's Event Grid webhook, as Event Grid does: bytes as they are, anything else as JSON."""
        url = webhook_url(self.local.cloud.functions_url, function, self.local.keys)
        if key is not None:
            url = url.replace(self.local.keys.event_grid, key)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"aeg-event-type": "Notification", "content-type": "application/json"}
        return self.http.post(url, content=content, headers=headers)

    def why_ignored(self, event_id: str) -> tuple[str, str]:
        """Return the reason and the message that an event was ignored with, once that is on record."""

        def found() -> tuple[str, str] | None:
            for entry in chain.from_iterable(map(self.ledgers.history, UNCLAIMED)):
                if isinstance(entry, IgnoredEvent) and entry.event.event_id == event_id:
                    return entry.event.reason, entry.event.message
            return None

        return eventually(found, f"event {event_id} on record as ignored")

    # -- faults

    @property
    def functions_pid(self) -> int | None:
        """The process id of the Functions host, the parent of its instances."""
        return self.local.status()[-1].pid

    def instance_pids(self) -> list[int]:
        """Return the process ids of the Functions workers."""
        pid = self.functions_pid
        assert pid is not None
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in text.split()]

    def kill_functions(self) -> None:
        """Kill the Functions host as a power cut would, and wait until nothing of it is left."""
        pid = self.functions_pid
        assert pid is not None
        whole = [pid, *self.instance_pids()]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not any(_runs(each) for each in whole), "the Functions host is dead", pause=0.02)

    def start_functions(self) -> None:
        """Start the Functions host with the settings it had."""
        self.local.start_functions(self.settings, self.instances, self.lease_seconds)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@dataclass(frozen=True)
class Target:
    """One target: where it is fed from, and where users ask."""

    world: World
    name: str
    namespace: str
    url: str

    @property
    def app_repository(self) -> str:
        """Where its app images are pushed."""
        return f"{self.name}-app"

    @property
    def model(self) -> str:
        """The name of its model: versions are folders of `models/<model>/`."""
        return f"{self.name}-lite"

    @property
    def registry_url(self) -> str:
        """The registry's API."""
        return f"http://{self.world.local.cloud.registry}/v2"

    @cached_property
    def api(self) -> Api:
        """The HTTP API of this target."""
        return Api(self.world.local.cloud.functions_url, self.world.local.api_key, self.name)

    # -- publishing

    def publish(self, folder: Path) -> str:
        """Upload a model folder as a data scientist does, and return the manifest's blob name."""
        return publish(folder, self.world.container, f"{self.model}/{folder.name}")

    def push(self, image: str, tag: str = "main") -> str:
        """Push an image that buildah built, as CI does, and return its digest."""
        return images.push(image, f"{self.world.local.cloud.registry}/{self.app_repository}:{tag}")

    def push_changed(
        self, labels: Mapping[str, str | None], *, entrypoint: Sequence[str] = (), tag: str = "main", of: str = "main"
    ) -> str:
        """Push a tag's image with other labels (None takes one away) or another entrypoint; return its digest."""
        where, http = f"{self.registry_url}/{self.app_repository}", self.world.http
        manifest = self._get(f"{where}/manifests/{of}").json()
        config = self._get(f"{where}/blobs/{manifest['config']['digest']}").json()
        kept = {**config["config"]["Labels"], **labels}
        config["config"]["Labels"] = {key: value for key, value in kept.items() if value is not None}
        if entrypoint:
            config["config"]["Entrypoint"] = list(entrypoint)
        data = json.dumps(config).encode()
        digest = f"sha256:{_sha256(data)}"
        location = http.post(f"{where}/blobs/uploads/").headers["Location"]
        stored = http.put(location, params={**httpx.URL(location).params, "digest": digest}, content=data)
        assert stored.status_code == 201, stored.text
        manifest["config"] |= {"digest": digest, "size": len(data)}
        put = http.put(f"{where}/manifests/{tag}", content=json.dumps(manifest), headers={"Content-Type": MANIFEST})
        assert put.status_code == 201, put.text
        return put.headers["Docker-Content-Digest"]

    def tag(self, digest: str, tag: str = "main") -> None:
        """Let a tag of the app repository point to a manifest that is there."""
        where = f"{self.registry_url}/{self.app_repository}/manifests"
        manifest = self._get(f"{where}/{digest}").content
        put = self.world.http.put(f"{where}/{tag}", content=manifest, headers={"Content-Type": MANIFEST})
        assert put.status_code == 201, put.text

    def tag_digest(self, tag: str = "main") -> str:
        """Return what a tag of the app repository points to."""
        reply = self._get(f"{self.registry_url}/{self.app_repository}/manifests/{tag}")
        return reply.headers["Docker-Content-Digest"]

    def release_tags(self) -> set[str]:
        """Return the tags of the release repository."""
        return set(self._get(f"{self.registry_url}/{self.name}/tags/list").json()["tags"])

    def upload_sessions(self) -> list[Path]:
        """Return what the registry's storage keeps of unfinished uploads to the release repository.

        Distribution writes the state of its hash once more when it has deleted a session: 108 bytes stay, no data.
        """
        storage = self.world.local.cloud.state / "registry" / "docker" / "registry" / "v2" / "repositories"
        return list((storage / self.name / "_uploads").glob("*/data"))

    def _get(self, url: str) -> httpx.Response:
        reply = self.world.http.get(url, headers={"Accept": MANIFEST})
        assert reply.status_code == 200, reply.text
        return reply

    # -- asking

    def ask(self, photo: bytes) -> httpx.Response:
        """Ask about a photo through the public door, on a new connection."""
        reply = httpx.post(f"{self.url}/score", files={"image": ("photo", photo)}, timeout=30, trust_env=False)
        assert reply.status_code == 200, reply.text
        return reply

    def answered_by(self) -> str:
        """Return which release answers users."""
        return httpx.get(f"{self.url}/version", timeout=30, trust_env=False).headers["X-Release"]

    # -- what is on record

    def state(self) -> State:
        """Return what the ledger says now."""
        return self.world.ledgers.read(self.name).state

    def entries[Kind: Entry](self, kind: type[Kind], *, release: int | None = None) -> list[Kind]:
        """Return the ledger's entries of a kind from the first, about one release if named."""
        return [
            entry
            for entry in self.world.ledgers.history(self.name)
            if isinstance(entry, kind) and release in (None, getattr(entry, "release", None))
        ]

    def next_release(self) -> int:
        """Return the number that the next release gets."""
        return self.state().next_number

    def until(self, number: int, *phases: str, within_seconds: float = LONGEST_SECONDS) -> dict[str, Any]:
        """Return the history of a release once it stands at one of the phases."""
        last: dict[str, Any] = {}

        def arrived() -> dict[str, Any] | None:
            nonlocal last
            try:
                found = self.api.wait_for(number, within_seconds=0.2)
            except httpx.TransportError:  # the instance that had the question was killed
                found = None
            if found is None:
                return None
            last = found
            phase, message = found["release"]["phase"], found["release"]["message"]
            assert phase in phases or phase not in ENDED, f"r-{number} is {phase}: {message}"
            return found if phase in phases else None

        what = f"{self.name} r-{number} is {' or '.join(phases)}"
        try:
            return eventually(arrived, what, within_seconds=within_seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\nlast seen: {json.dumps(last.get('release'), indent=1)}") from error

    def skipped(self, event_of: str) -> tuple[str, str]:
        """Return the reason and the message that the publication of a blob or a digest was skipped with."""

        def found() -> tuple[str, str] | None:
            ids = {
                entry.event.event_id
                for entry in self.entries(Received)
                if event_of in (getattr(entry.event, "path", ""), getattr(entry.event, "digest", ""))
            }
            for entry in self.entries(Skipped):
                if entry.event_id in ids and entry.reason != "Duplicate":
                    return entry.reason, entry.message
            return None

        return eventually(found, f"{event_of} is on record as skipped")

    # -- what is in the cluster

    def kubectl(self, *arguments: str) -> Any:
        """Return what kubectl shows of the target's namespace, decoded."""
        return json.loads(self.world.local.target_cluster().run("-n", self.namespace, *arguments, "-o", "json"))

    def fence(self) -> int:
        """Return the fence that the Deployment carries."""
        found = self.kubectl("get", "deployment", "vision")
        return int(found["metadata"]["annotations"]["shipmate.dev/fence"])

    def gate_pods(self) -> list[str]:
        """Return the names of the gate's pods."""
        found = self.kubectl("get", "pods", "-l", "app.kubernetes.io/component=gate")
        return [pod["metadata"]["name"] for pod in found["items"]]

    # -- events

    def blob_event(self, path: str, **data: Any) -> dict[str, Any]:
        """Return an event of a blob of the container `models`, in EventGridSchema."""
        return event(
            "Microsoft.Storage.BlobCreated",
            TOPICS["storage"],
            f"/blobServices/default/containers/models/blobs/{path}",
            {"api": "PutBlob", "eTag": "0x8D4BCC2E4835CD0", "contentLength": 1, "url": "http://x/", **data},
        )

    def push_event(self, digest: str, *, repository: str | None = None, tag: str = "main") -> dict[str, Any]:
        """Return an event of a push, in EventGridSchema."""
        repository = repository or self.app_repository
        target = {"mediaType": MANIFEST, "digest": digest, "repository": repository, "tag": tag}
        data = {"id": uuid.uuid4().hex, "action": "push", "target": target}
        return event("Microsoft.ContainerRegistry.ImagePushed", TOPICS["registry"], f"{repository}:{tag}", data)


def event(kind: str, topic: str, subject: str, data: Any) -> dict[str, Any]:
    """Return an event in EventGridSchema, with an id of its own."""
    return {
        "id": str(uuid.uuid4()),
        "topic": topic,
        "subject": subject,
        "eventType": kind,
        "eventTime": datetime.now(UTC).isoformat(),
        "data": data,
        "dataVersion": "1",
        "metadataVersion": "1",
    }


def as_cloud_event(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event of EventGridSchema as a CloudEvent 1.0."""
    return {
        "specversion": "1.0",
        "id": document["id"],
        "source": document["topic"],
        "subject": document["subject"],
        "type": document["eventType"],
        "time": document["eventTime"],
        "data": document["data"],
    }


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
