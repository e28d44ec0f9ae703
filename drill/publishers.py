"""The burst: models uploaded and app images pushed, by several publishers at once, each publish noted with its digest.

A publish counts once storage or the registry acknowledged it. A publisher goes on where a part was away: it publishes
the same version again, as people and pipelines do.
"""

import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
from azure.core.exceptions import AzureError
from azure.storage.blob import BlobServiceClient

from drill import models
from drill.app_image import AppImage, Pusher
from drill.world import CONTAINER, app_repository, model_name
from examples.publish import AlreadyPublished, publish
from localcloud.config import Cloud
from shipmate.core.refs import Digest

type Half = Literal["app", "model"]

PUBLISHERS = 4
AGAIN_SECONDS = 0.3


@dataclass(frozen=True)
class Publish:
    """One publish. Serials rise with each publish of a target's half; instants are Unix time."""

    target: str
    half: Half
    serial: int
    digest: Digest
    version: str
    at: float
    acknowledged: bool = True
    """False if it may be there all the same: the reply was lost, and a newer version was published instead."""


class Publishers:
    """Publishes to one cloud and keeps what was published."""

    def __init__(self, cloud: Cloud, image: AppImage, folder: Path) -> None:
        self._cloud = cloud
        self._image = image
        self._folder = folder
        self._lock = threading.Lock()
        self._serials: defaultdict[tuple[str, Half], int] = defaultdict(int)
        self._done: list[Publish] = []
        self._again = 0

    @property
    def done(self) -> tuple[Publish, ...]:
        """What was published so far."""
        with self._lock:
            return tuple(self._done)

    @property
    def again(self) -> int:
        """How often a publish was tried again because a part was away."""
        return self._again

    def publish(self, plan: Sequence[tuple[str, Half]]) -> None:
        """Publish everything in a plan; the publishes of one target happen one after the other, in the plan's order."""
        shares: list[list[tuple[str, Half]]] = [[] for _ in range(PUBLISHERS)]
        places = {name: place for place, name in enumerate(dict.fromkeys(target for target, _ in plan))}
        for target, half in plan:
            shares[places[target] % PUBLISHERS].append((target, half))
        with ThreadPoolExecutor(PUBLISHERS) as pool:
            for done in [pool.submit(self._publish_all, share) for share in shares]:
                done.result()

    def _publish_all(self, share: Sequence[tuple[str, Half]]) -> None:
        with (
            closing(Pusher(self._cloud.registry, self._image)) as pusher,
            BlobServiceClient.from_connection_string(self._cloud.connection_string, retry_total=0) as storage,
        ):
            for target, half in share:
                self._note(self._model(storage, target) if half == "model" else self._app(pusher, target))

    def _note(self, publish: Publish) -> None:
        with self._lock:
            self._done.append(publish)

    def _next(self, target: str, half: Half) -> int:
        self._serials[target, half] += 1
        return self._serials[target, half]

    def _model(self, storage: BlobServiceClient, target: str) -> Publish:
        """Publish a model; one whose acknowledgement was lost is noted as such, and the next version published."""
        while True:
            serial, name = self._next(target, "model"), model_name(target)
            version = f"1.{serial:04d}"
            folder = self._folder / name / version
            digest = models.write(folder, name=name, version=version)
            acknowledged = self._upload(storage, folder, f"{name}/{version}")
            made = Publish(target, "model", serial, digest, version, time.time(), acknowledged)
            if acknowledged:
                return made
            self._note(made)

    def _upload(self, storage: BlobServiceClient, folder: Path, prefix: str) -> bool:
        """Upload a model until it is acknowledged; False if an earlier try, whose reply was lost, did it."""
        for _ in self._tries():
            try:
                publish(folder, storage.get_container_client(CONTAINER), prefix)
            except AzureError:
                continue
            except AlreadyPublished:
                return False
            return True
        raise AssertionError(prefix)

    def _app(self, pusher: Pusher, target: str) -> Publish:
        serial = self._next(target, "app")
        version = f"1.0.{serial}"
        for _ in self._tries():
            try:
                digest = pusher.push(app_repository(target), version, revision=f"{target}-{serial}")
            except httpx.TransportError:
                continue
            return Publish(target, "app", serial, digest, version, time.time())
        raise AssertionError(version)

    def _tries(self) -> Iterator[None]:
        """Yield for ever, with a pause before each try but the first."""
        yield
        while True:
            self._again += 1
            time.sleep(AGAIN_SECONDS)
            yield


def burst(targets: Sequence[str], events: int, seed: int) -> list[tuple[str, Half]]:
    """Return what is published in a burst: round after round each target once, in an order and of halves by chance."""
    chance = random.Random(seed)  # noqa: S311 - a plan to repeat, no secret
    plan: list[tuple[str, Half]] = []
    while len(plan) < events:
        order = chance.sample(targets, len(targets))
        plan += [(target, "model" if chance.random() < 0.5 else "app") for target in order]
    return plan[:events]
