"""The world of a simulated history: publishers' storage and registry, the cluster, the public doors, and the truth.

Nothing here knows about faults at calls; those are the hub's. What is wrong with halves and pods is.
"""

import json
from collections.abc import Callable, Sequence

from shipmate.core.answers import Answer, Version
from shipmate.core.events import ImagePushed, ModelPublished, normalise_etag
from shipmate.core.fence import Operation
from shipmate.core.refs import Digest, digest_of
from shipmate.core.targets import (
    AppSource,
    DeploymentRef,
    GateThresholds,
    ModelSource,
    ReleaseRepository,
    Target,
    VerifyRules,
)
from shipmate.core.views import DeploymentView, Object, PodView
from shipmate.errors import Conflict, NotAllowed, Retryable
from shipmate.ports import Blob, Manifest
from tests.fakes import application
from tests.fakes.halves import app_image, model_folder
from tests.fakes.models import FakeModels
from tests.fakes.registry import FakeRegistry
from tests.sim.cluster import LightCluster, PodFate, Reply
from tests.sim.history import Half
from tests.sim.hub import Hub
from tests.sim.plans import TROUBLE

RELEASES = "vision"
NAMESPACE = "vision"


def target(number: int) -> Target:
    """Return one of the targets; they share their model, and each has an app of its own."""
    name = f"vision-{number}"
    return Target(
        name=name,
        app=AppSource(f"{name}-app"),
        model=ModelSource("models", "net"),
        release=ReleaseRepository(RELEASES),
        deployment=DeploymentRef(NAMESPACE, name),
        public_url=f"http://{name}.test",
        rollout_within_seconds=60.0,
        gate=GateThresholds(ready_within_seconds=30.0),
        verify=VerifyRules(replies=3, within_seconds=10.0),
    )


class SimModels(FakeModels):
    """A model storage whose blobs have the instant at which they were written."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self._hub = hub
        self._lost: dict[str, tuple[Blob, bytes]] = {}  # by path: what was deleted with its folder

    def put(self, container: str, path: str, data: bytes) -> Blob:
        self._writes += 1
        at = self._hub.instant()
        blob = Blob(path, len(data), f"0x{self._writes:X}", at, at)
        self._containers.setdefault(container, {})[path] = (blob, data)
        return blob

    @property
    def writes(self) -> int:
        return self._writes

    def manifests(self) -> list[tuple[Blob, bytes]]:
        """Return what is in the container and completes a model version."""
        return [found for path, found in self._containers["models"].items() if path.endswith("/manifest.json")]

    def held_by(self, folder: str) -> list[Digest]:
        """Return the model version that a folder holds, if there is one."""
        return [digest_of(data) for blob, data in self.manifests() if blob.path == f"{folder}/manifest.json"]

    def delete_all(self, digest: Digest) -> None:
        """Delete each folder that holds a model version."""
        blobs = self._containers["models"]
        manifests = [path for path, (_, data) in blobs.items() if digest_of(data) == digest]
        folders = tuple(path.removesuffix("manifest.json") for path in manifests)
        self._lost |= {path: found for path, found in blobs.items() if path.startswith(folders)}
        self._containers["models"] = {path: found for path, found in blobs.items() if not path.startswith(folders)}

    def restore_all(self) -> bool:
        """Restore what was deleted so and not uploaded again since, as it was, and return whether there was any."""
        lost, self._lost = self._lost, {}
        self._containers["models"] = {**lost, **self._containers["models"]}
        return bool(lost)


class SimRegistry(FakeRegistry):
    """A registry that knows when a manifest was pushed last."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self._hub = hub
        self.pushed_at: dict[Digest, float] = {}
        self.lost: dict[Digest, dict[str, int]] = {}  # release images that the clean-up took → length of each ledger
        self.refuses: Callable[[bytes], bool] = lambda manifest: False  # whether it takes no such release image

    def put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> Digest:
        if repository == RELEASES and self.refuses(data):
            self._hub.reached.add("the registry refuses a release image for good")
            raise NotAllowed(f"{TROUBLE['refused']} {reference} in {repository}: a policy denies it")
        digest = super().put_manifest(repository, reference, data, media_type)
        if repository == RELEASES and digest in self.lost:
            self._hub.reached.add("an image that was cleaned away is built again")
        self.pushed_at[digest] = self._hub.now
        return digest

    def get_manifest(self, repository: str, reference: str) -> Manifest:
        if reference.startswith("sha256:") and self.tags[repository].get("main", reference) != reference:
            self._hub.reached.add("a tag moves between resolve and pull")
        return super().get_manifest(repository, reference)


class SimCluster(LightCluster):
    """A cluster that notes what its callers came by."""

    hub: Hub
    refused_images: set[str]  # digests of release images that the API server takes in no patch
    is_built: Callable[[str, str], bool]  # whether a release of a target waits for its gate, by the ledger

    def patch_deployment(self, namespace: str, name: str, operations: Sequence[Operation]) -> DeploymentView:
        actor = self.hub.actor
        if actor is not None and actor.slept and self.entries(name) > actor.slept_at:
            self.hub.reached.add("a worker wakes before its patch and the ledger went on")
        for operation in operations:
            if any(image in str(operation.get("value")) for image in self.refused_images):
                self.hub.reached.add("a policy refuses what was live before")
                raise NotAllowed("admission webhook denied the request: the image is not signed")
        try:
            return super().patch_deployment(namespace, name, operations)
        except Conflict:
            self.hub.reached.add("a patch is refused")
            raise

    def create_gate_pod(self, namespace: str, manifest: Object) -> PodView:
        before = len(self.created_gate_pods)
        pod = super().create_gate_pod(namespace, manifest)
        if len(self.created_gate_pods) == before:
            self.hub.reached.add("a gate pod is there already")
        elif self.hub.actor is not None and not self.is_built(self.hub.actor.target, pod.release or ""):
            self.hub.reached.add("a gate pod is made again after its verdict")
        return pod


class World:
    """Everything Shipmate meets, in memory."""

    def __init__(self, hub: Hub, targets: int, pod_fate: Callable[[str, str], PodFate], *, guarded: bool) -> None:
        self.hub = hub
        self.targets = {found.name: found for found in map(target, range(targets))}
        self.registry = SimRegistry(hub)
        self.models = SimModels(hub)
        self.cluster = SimCluster(
            now=lambda: hub.now,
            instant=hub.instant,
            fate=pod_fate,
            is_there=self._has_image,
            answering=self._pod_answers,
            guarded=guarded,
        )
        self.cluster.hub = hub
        self.cluster.refused_images = set()
        for found in self.targets.values():
            self.cluster.add_deployment(NAMESPACE, found.deployment.name)
        self.says: dict[Digest, tuple[str, float]] = {}  # a model's answer to the daisy, where it is not daisy
        self.failing_models: set[Digest] = set()  # their candidate answers 500
        self.broken_apps: set[Digest] = set()  # nobody reaches them through the door
        self.gone: set[Digest] = set()  # halves that were, at some time, deleted or overwritten in whole or part
        self.in_trouble: dict[Digest, str] = {}  # half → its quality, one of TROUBLE, as long as the trouble lasts
        self.registry.refuses = lambda data: "refused" in self._troubles(data)
        self.apps: dict[str, list[Half]] = {name: [] for name in self.targets}
        self.published_models: list[Half] = []
        self._asked = 0

    # -- the publishers

    def push_app(self, name: str, version: str, event_id: str, contract: str = "1") -> ImagePushed:
        """Push an app image with its target's followed tag, and return the event."""
        image, source = app_image(version, contract), self.targets[name].app
        self.registry.blobs[source.repository].update(image.blobs)
        self.registry.put_manifest(source.repository, source.tag, image.manifest, image.media_type)
        now = self.hub.instant()
        self.apps[name].append(Half(version, image.digest, contract, now))
        self.hub.tell(f"the developer of {name} pushes app {version}")
        return ImagePushed(event_id, "registry", source.repository, source.tag, image.digest, now)

    def publish_model(
        self, version: str, event_id: str, contract: str = "1", folder: str | None = None
    ) -> ModelPublished:
        """Upload a model version, perhaps under another name, and return the event of its manifest."""
        model = model_folder(version, contract)
        where = f"net/{folder or version}"
        self.gone.update(self.models.held_by(where))
        for path, data in model.files.items():
            self.models.put("models", f"{where}/{path}", data)
        blob = self.models.put("models", f"{where}/manifest.json", model.manifest)
        self.published_models.append(Half(version, model.digest, contract, blob.modified_at))
        self.hub.tell(f"the data scientist uploads model {version} to {where}")
        sequencer = f"{self.models.writes:064x}"
        return ModelPublished(
            event_id, "account", "models", blob.path, normalise_etag(blob.etag), sequencer, blob.modified_at
        )

    def lose_model_file(self, folder: str, digest: Digest) -> None:
        """Delete a file that a published manifest lists."""
        self.models.delete("models", f"net/{folder}/model.onnx")
        self.gone.add(digest)

    def restore_models(self) -> None:
        """Restore the models that somebody deleted: they have the dates that they had, and no event tells of them."""
        if self.models.restore_all():
            self.hub.tell("somebody restores the models that were deleted")
            self.hub.reached.add("a model that was deleted is restored")

    def touch_model(self, which: str) -> None:
        """Change the metadata of the oldest or the newest manifest: another ETag, another date, and no event."""
        found = sorted((blob for blob, _ in self.models.manifests()), key=lambda blob: blob.created_at)
        if found:
            blob = found[0 if which == "oldest" else -1]
            self.models.touch("models", blob.path)
            self.hub.tell(f"somebody changes the metadata of {blob.path}")
            if blob is not found[-1]:
                self.hub.reached.add("an older model's metadata is changed")

    def lose_model(self, digest: Digest) -> None:
        """Delete a published model wherever it lies."""
        self.models.delete_all(digest)
        self.hub.tell(f"somebody deletes model {digest[:19]}")
        self.gone.add(digest)

    def lose_app(self, name: str, digest: Digest) -> None:
        """Delete a pushed app image, and the tag if it points to it."""
        repository = self.targets[name].app.repository
        manifests, tags = self.registry.manifests[repository], self.registry.tags[repository]
        manifests.pop(digest, None)
        for tag in [tag for tag, image in tags.items() if image == digest]:
            del tags[tag]
        self.hub.tell(f"somebody deletes the app image {digest[:19]}")
        self.gone.add(digest)

    # -- the registry's clean-up

    def clean_up(self, grace_seconds: float) -> int:
        """Delete release images that no Deployment asks for and no pod runs, unless they were pushed just now."""
        used = {image.rpartition("@")[2] for image in self.cluster.images()}
        manifests, tags = self.registry.manifests[RELEASES], self.registry.tags[RELEASES]
        old = self.hub.now - grace_seconds
        gone = {digest for digest in manifests if self.registry.pushed_at[digest] < old} - used
        for digest in sorted(gone):
            _labels_of(digest, self._config)  # a gate's pod that runs it already goes on
            del manifests[digest]
            self.hub.tell(f"the registry's clean-up deletes release image {digest[:19]}")
        for tag in [tag for tag, digest in tags.items() if digest in gone]:
            del tags[tag]
        if gone:
            self.hub.reached.add("the clean-up takes a release image")
        lengths = {name: self.cluster.entries(found.deployment.name) for name, found in self.targets.items()}
        self.registry.lost |= dict.fromkeys(gone, lengths)
        return len(gone)

    def mixed_up(self) -> frozenset[Digest]:
        """Return the release images that hold another app than their labels say."""
        named = {half.digest: half.name for halves in self.apps.values() for half in halves}
        labels = {image: _labels_of(image, self._config) for image in self.registry.manifests[RELEASES]}
        return frozenset(
            image
            for image, found in labels.items()
            if named[Digest(found["dev.shipmate.app.digest"])] != found["org.opencontainers.image.version"]
        )

    def is_pullable(self, image: str) -> bool:
        """Return whether nodes could pull an image if it is there."""
        found = self.registry.manifests[RELEASES].get(Digest(image.partition("@")[2]))
        return found is None or "unpullable" not in self._troubles(found.data)

    def _troubles(self, manifest: bytes) -> set[str]:
        """Return what the halves of a release image are in trouble with."""
        if not self.in_trouble:
            return set()
        config = self.registry.blobs[RELEASES][json.loads(manifest)["config"]["digest"]]
        labels = json.loads(config)["config"]["Labels"]
        halves = (Digest(labels[f"dev.shipmate.{kind}.digest"]) for kind in ("app", "model"))
        return {self.in_trouble[half] for half in halves if half in self.in_trouble}

    def _has_image(self, image: str) -> bool:
        return image.partition("@")[2] in self.registry.manifests[RELEASES]

    # -- the app in its pods, and the public door

    def _labels(self, image: str) -> dict[str, str]:
        digest = Digest(image.partition("@")[2])
        return _labels_of(digest, self._config)

    def _config(self, digest: Digest) -> bytes:
        manifest = json.loads(self.registry.manifests[RELEASES][digest].data)
        return self.registry.blobs[RELEASES][manifest["config"]["digest"]]

    def _pod_answers(self, pod: PodView, path: str) -> Reply:
        labels = self._labels(pod.containers[0].image)
        model = Digest(labels["dev.shipmate.model.digest"])
        headers = application.headers(pod, labels)
        if path == "/readyz":
            return (200, headers, b"{}") if pod.ready else (503, headers, b'{"title": "not ready"}')
        if model in self.failing_models:
            return 500, headers, b"out of memory"
        label, confidence = self.says.get(model, ("daisy", 0.9))
        return 200, headers, application.score(label, confidence)

    def ask(self, url: str, photo: bytes) -> Answer:
        """Answer through the public door: a ready pod of the Deployment does."""
        version = self.version(url)
        label, confidence = self.says.get(Digest(version.model_digest), ("daisy", 0.9))
        if version.model_digest in self.failing_models:
            raise Retryable("the door answers 500")
        return application.answer(version, label, confidence)

    def version(self, url: str) -> Version:
        """Return which pair answers at the door: each ready pod in turn does."""
        name = url.removeprefix("http://").removesuffix(".test")
        pods = self.cluster.serving(NAMESPACE, name)
        if not pods:
            raise Retryable("nobody answers at the door")
        self._asked += 1
        pod = pods[self._asked % len(pods)]
        labels = self._labels(pod.containers[0].image)
        if labels["dev.shipmate.app.digest"] in self.broken_apps:
            raise Retryable("the door answers 502")
        return Version(
            Digest(labels["dev.shipmate.model.digest"]),
            labels["dev.shipmate.model.version"],
            labels["org.opencontainers.image.version"],
            pod.annotations.get("shipmate.dev/release", ""),
        )


_LABELS: dict[Digest, dict[str, str]] = {}


def _labels_of(digest: Digest, config: Callable[[Digest], bytes]) -> dict[str, str]:
    """Return the labels of an image, which its digest tells."""
    found = _LABELS.get(digest)
    if found is None:
        found = _LABELS[digest] = json.loads(config(digest))["config"]["Labels"]
    return found
