"""A whole small world in memory: a data scientist, a developer, users, and Shipmate's ports."""

import json
from collections.abc import Sequence
from datetime import timedelta

from shipmate.commands import Commands
from shipmate.core.answers import Answer, Version, parse_version
from shipmate.core.events import ImagePushed, ModelPublished, normalise_etag
from shipmate.core.intake import Sources
from shipmate.core.ledger import AnyEntry, Phase, encode
from shipmate.core.state import State
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
from tests.fakes import application
from tests.fakes.cluster import Asked, FakeCluster, Reply
from tests.fakes.halves import GOLDEN, PHOTO, app_image, model_files
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
        self.cluster.add_deployment(application.deployment("vision", "vision"))
        self._events = 0
        self._workers = 0

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
        self,
        version: str,
        says: str = "daisy",
        confidence: float = 0.9,
        *,
        folder: str = "",
        photo: bytes = PHOTO,
        **manifest: object,
    ) -> ModelPublished:
        """Upload a model folder that answers so, perhaps under another name than its version; return its event."""
        self.answers[version] = (says, confidence)
        folder = f"{self.target.model.name}/{folder or version}"
        self.models.publish(folder, model_files(version, photo), **{"version": version, "golden": GOLDEN, **manifest})
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
        image = app_image(version, contract)
        self.registry.blobs["vision-app"].update(image.blobs)
        pushed = self.registry.put_manifest("vision-app", tag, image.manifest, image.media_type)
        self._events += 1
        return ImagePushed(f"event-{self._events}", "registry", "vision-app", tag, pushed, self.clock.now())

    # -- the app in its pods, and the public door

    def _pod_answers(self, asked: Asked) -> Reply:
        image = asked.pod.containers[0].image
        manifest = self.registry.get_manifest("vision", image.partition("@")[2])
        config = json.loads(self.registry.get_blob("vision", json.loads(manifest.data)["config"]["digest"], 1 << 20))
        labels = config["config"]["Labels"]
        headers = application.headers(asked.pod, labels)
        failing = self.failing_models | self.failing_apps
        if not failing.isdisjoint((headers["x-model-version"], headers["x-app-version"])):
            return 500, headers, b"out of memory"
        label, confidence = self.answers[labels["dev.shipmate.model.version"]]
        return 200, headers, application.score(label, confidence)

    def ask(self, url: str, photo: bytes) -> Answer:
        """Answer through the public door: a ready pod of the Deployment does."""
        version = self.version(url)
        label, confidence = self.answers[version.model_version]
        return application.answer(version, label, confidence)

    def version(self, url: str) -> Version:
        """Return which pair answers at the door."""
        view = self.cluster.deployment("vision", "vision")
        pods = [pod for pod in self.cluster.pods("vision", view.selector) if pod.ready]
        if not pods:
            raise Retryable("nobody answers at the door")
        _, headers, _ = self._pod_answers(Asked(pods[-1], 8000, "GET", "/version", b"", {}))
        if headers["x-app-version"] in self.broken_doors:
            raise Retryable("the door answers 502")
        return parse_version(headers)

    # -- turning the handle

    def tell(self, *events: ModelPublished | ImagePushed) -> None:
        """Tell Shipmate of events, one after the other."""
        for event in events:
            self.pipeline().intake(event)

    def ship(self, *events: ModelPublished | ImagePushed) -> None:
        """Tell Shipmate of events, and let it work until there is nothing left to do."""
        self.tell(*events)
        self.run()

    def run(self, within: timedelta = timedelta(minutes=30)) -> None:
        """Deliver queue messages until there are none, with time passing as needed; each invocation is a worker."""
        until = self.clock.now() + within
        while (due := self.queue.next_due()) is not None and due <= until:
            self.clock.advance_to(due)
            self._workers += 1
            self.pipeline(f"worker-{self._workers}").advance(self.queue.take())

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


def released(*models: str, world: World | None = None) -> World:
    """Return a world in which app 2.3.0 went live with model 1.0, and then with each of these model versions."""
    world = world or World()
    world.ship(world.push_app("2.3.0"), world.publish_model("1.0"))
    for version in models:
        world.ship(world.publish_model(version))
    return world
