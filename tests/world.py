"""A whole small world in memory: a data scientist, a developer, users, and Shipmate's ports."""

import hashlib
import json
from collections.abc import Sequence
from datetime import timedelta

from shipmate.commands import Commands
from shipmate.core.answers import Answer, Version
from shipmate.core.events import ImagePushed, ModelPublished, normalise_etag
from shipmate.core.intake import Sources
from shipmate.core.ledger import AnyEntry, Phase, State, encode
from shipmate.core.targets import (
    AppSource,
    DeploymentRef,
    ModelSource,
    ReleaseRepository,
    Target,
)
from shipmate.errors import Retryable
from shipmate.pipeline import Pipeline
from shipmate.ports import Reading
from shipmate.stages.context import Context
from tests.fakes.cluster import Asked, FakeCluster, Reply
from tests.fakes.ledgers import FakeClock, FakeLedgers, FakeQueue
from tests.fakes.models import FakeModels
from tests.fakes.registry import FakeRegistry

TARGET = Target(
    name="vision",
    app=AppSource("vision-app"),
    model=ModelSource("models", "net"),
    release=ReleaseRepository("vision"),
    deployment=DeploymentRef("vision", "vision"),
    public_url="http://door.test",
)

DAISY = b"a photograph of a daisy"


class World:
    """Everything Shipmate meets, in memory, with virtual time."""

    def __init__(self, target: Target = TARGET) -> None:
        self.target = target
        self.clock = FakeClock()
        self.ledgers = FakeLedgers()
        self.queue = FakeQueue(self.clock)
        self.registry = FakeRegistry()
        self.models = FakeModels()
        self.cluster = FakeCluster(registry=self.registry.name, answering=self._pod_answers)
        self.answers: dict[str, tuple[str, float]] = {}  # model version: what it says of the daisy
        self.failing_models: set[str] = set()  # versions whose candidate answers 500
        self.failing_apps: set[str] = set()  # the same, by the app's version
        self.broken_doors: set[str] = set()  # app versions that nobody reaches through the public door
        self.cluster.add_deployment(_deployment())
        self._events = 0

    def pipeline(self, worker: str = "worker-1") -> Pipeline:
        """Return the pipeline as one worker has it."""
        return Pipeline(
            targets={self.target.name: self.target},
            sources=Sources("account", "registry"),
            ledgers=self.ledgers,
            queue=self.queue,
            context=Context(self.registry, self.models, self.cluster, self, self.clock, worker),
        )

    def commands(self) -> Commands:
        """Return the commands over the same ports."""
        return Commands(self.pipeline())

    @property
    def state(self) -> State:
        """What the target's ledger says."""
        return self.ledgers.read(self.target.name).state

    def story(self) -> str:
        """Return the target's ledger as text."""
        return "".join(encode(entry).decode() for entry in self.ledgers.history(self.target.name))

    # -- the two publishers

    def publish_model(
        self, version: str, says: str = "daisy", confidence: float = 0.9, *, folder: str = "", **manifest: object
    ) -> ModelPublished:
        """Upload a model folder that answers so, perhaps under another name than its version; return its event."""
        self.answers[version] = (says, confidence)
        golden = [{"file": "golden/flower.jpg", "expected": "daisy", "min_confidence": 0.2}]
        files = {"model.onnx": f"weights {version}".encode(), "golden/flower.jpg": DAISY}
        folder = f"{self.target.model.name}/{folder or version}"
        self.models.publish(folder, files, **{"version": version, "golden": golden, **manifest})
        blob = self.models.properties("models", f"{folder}/manifest.json")
        self._events += 1
        return ModelPublished(
            f"event-{self._events}",
            "account",
            "models",
            blob.path,
            normalise_etag(blob.etag),
            f"{self._events:064x}",
            self.clock.now(),
        )

    def push_app(self, version: str, contract: str | None = "1", tag: str = "main") -> ImagePushed:
        """Push an app image, and return its event."""
        labels = {"org.opencontainers.image.version": version}
        if contract is not None:
            labels["dev.shipmate.contract"] = contract
        layer = b"layer of app " + version.encode()
        digest = self._blob("vision-app", layer)
        config = {
            "architecture": "amd64",
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": {"Labels": labels},
            "rootfs": {"type": "layers", "diff_ids": [digest]},
            "history": [{"created_by": "COPY app"}],
        }
        data = json.dumps(config).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": self._blob("vision-app", data),
                "size": len(data),
            },
            "layers": [
                {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": len(layer)},
            ],
        }
        pushed = self.registry.put_manifest(
            "vision-app", tag, json.dumps(manifest).encode(), str(manifest["mediaType"])
        )
        self._events += 1
        return ImagePushed(f"event-{self._events}", "registry", "vision-app", tag, pushed, self.clock.now())

    def _blob(self, repository: str, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.registry.blobs[repository][digest] = data  # type: ignore[index] # a digest by construction
        return digest

    # -- the app in its pods, and the public door

    def _pod_answers(self, asked: Asked) -> Reply:
        image = asked.pod.containers[0].image
        manifest = self.registry.get_manifest("vision", image.partition("@")[2])
        config = json.loads(self.registry.get_blob("vision", json.loads(manifest.data)["config"]["digest"], 1 << 20))
        labels = config["config"]["Labels"]
        headers = {
            "x-model-version": labels["dev.shipmate.model.version"],
            "x-model-digest": labels["dev.shipmate.model.digest"],
            "x-app-version": labels["org.opencontainers.image.version"],
            "x-release": asked.pod.annotations.get("shipmate.dev/release", ""),
        }
        failing = self.failing_models | self.failing_apps
        if not failing.isdisjoint((headers["x-model-version"], headers["x-app-version"])):
            return 500, headers, b"out of memory"
        label, confidence = self.answers[labels["dev.shipmate.model.version"]]
        body = {"result": [[[[label, confidence * 100]]], "Computed in 1 ms"]}
        return 200, headers, json.dumps(body).encode()

    def ask(self, url: str, photo: bytes) -> Answer:
        """Answer through the public door: a ready pod of the Deployment does."""
        version = self.version(url)
        label, confidence = self.answers[version.model_version]
        return Answer(
            version.model_digest,
            version.model_version,
            version.app_version,
            version.release,
            ((label, confidence),),
            0.01,
        )

    def version(self, url: str) -> Version:
        """Return which pair answers at the door."""
        view = self.cluster.deployment("vision", "vision")
        pods = [pod for pod in self.cluster.pods("vision", view.selector) if pod.ready]
        if not pods:
            raise Retryable("nobody answers at the door")
        _, headers, _ = self._pod_answers(Asked(pods[-1], 8000, "GET", "/version", b"", {}))
        if headers["x-app-version"] in self.broken_doors:
            raise Retryable("the door answers 502")
        return Version(*(headers[key] for key in ("x-model-digest", "x-model-version", "x-app-version", "x-release")))

    # -- turning the handle

    def run(self, worker: str = "worker-1", within: timedelta = timedelta(minutes=30)) -> None:
        """Deliver queue messages until there are none, with time passing as needed."""
        until = self.clock.now() + within
        while (due := self.queue.next_due()) is not None and due <= until:
            self.clock.advance_to(due)
            self.pipeline(worker).advance(self.queue.take())

    def run_until_phase(self, phase: Phase) -> None:
        """Deliver messages until the active release reaches a phase; the worker then dies before its next step."""
        append = self.ledgers.append

        def stop_there(target: str, reading: Reading, entries: Sequence[AnyEntry]) -> Reading:
            after = append(target, reading, entries)
            if after.state.active is not None and after.state.active.phase is phase:
                raise _Died
            return after

        self.ledgers.append = stop_there  # type: ignore[method-assign] # for the time being
        try:
            self.run()
        except _Died:
            self.queue.enqueue(self.target.name, 600)  # the host died: its message comes back
        finally:
            self.ledgers.append = append  # type: ignore[method-assign]


class _Died(BaseException):
    """A worker's process ends."""


def _deployment() -> dict[str, object]:
    labels = {"app": "vision"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "vision", "namespace": "vision"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": {}},
                "spec": {"containers": [{"name": "app", "image": "none:none"}]},
            },
        },
    }
