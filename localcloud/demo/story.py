"""The main job, step by step, with users asking throughout: publish a model, publish code, roll back, refuse a model.

Called by `python -m localcloud demo`. Models are uploaded with azure-storage-blob, images are pushed with buildah, and
a person's commands go over HTTP; everything else is Shipmate's doing.
"""

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from azure.storage.blob import BlobServiceClient, ContainerClient

from examples import models
from examples.publish import publish
from localcloud import images
from localcloud.cloud import LocalCloud
from localcloud.demo.api import Api
from localcloud.demo.show import Screen, closing_table
from localcloud.demo.users import Users
from localcloud.eventgrid.publisher import publish_push

MODEL = "efficientnet-lite"
APP_REPOSITORY = "vision-app:main"
WITHIN_SECONDS = 180.0
CONFIG_BYTES = 100_000
"""An image's config is a few kB; the smallest layer of a model here, its photographs and labels, a megabyte."""
_ENDED = frozenset({"live", "rejected", "failed", "superseded", "rolled_back", "retired"})


class DemoError(Exception):
    """A step did not come to its end; the message says which and where to read on."""


class Story:
    """One run of the main job over a local cloud that is up."""

    def __init__(self, *, api: Api, local: LocalCloud, public_url: str, folder: Path, screen: Screen) -> None:
        self._api = api
        self._storage = BlobServiceClient.from_connection_string(local.cloud.connection_string)
        self._local = local
        self._url = public_url
        self._folder = folder
        self._screen = screen
        self._releases: list[dict[str, Any]] = []
        self._run = time.strftime("%m%d%H%M%S", time.gmtime())  # versions never change: each run publishes new ones

    def tell(self) -> dict[str, Any]:
        """Run all steps and return the report. Raises DemoError."""
        screen = self._screen
        if self._api.get()["hold"] is not None:
            self._api.post("/resume", {"reason": "the demo begins again", "author": "demo"})
            screen.note("lifted the hold that an earlier run left")
        screen.step("the first release: the app as its CI pushes it, and the first model")
        old, new = self._app("2.3.0"), self._app("2.3.1")
        self._push(old, "2.3.0")
        first = self._publish_model("lite0", "1.0", "first release", expect="live")

        screen.step("questions through the public door")
        self._ask_and_show()

        users = Users(self._url, _question(models.PHOTOS[0].data), each_kind=1, pause_seconds=0.2)
        users.start()
        screen.note("from here on users keep asking, on new connections and on kept-alive ones")
        try:
            screen.step("model publish: a data scientist uploads a new version")
            temperature = 0.9 + int(self._run) % 997 / 1e5  # other bytes than those of any earlier run
            self._publish_model("lite0", "1.1", "model publish", expect="live", temperature=temperature)

            screen.step("code publish: a developer's CI pushes a changed app")
            self._publish_app(new)

            screen.step("rollback: a person goes back to the earlier pair, over HTTP")
            self._roll_back()

            screen.step("a bad model: EfficientNet-Lite1, which takes the daisy for a honeycomb")
            self._publish_model("lite1", "1.2", "a bad model", expect="rejected")
        finally:
            seen = users.stop()
        met = {each["release"] for each in self._releases if each["phase"] == "rejected"} & seen.by_release.keys()
        if met:
            raise DemoError(f"users were answered by what was rejected: {', '.join(sorted(met))}")
        serving = self._api.get()["serving"]
        pair = f"model {serving['model_version']}, app {serving['app_version']}"
        screen.done(f"users were and are answered by r-{serving['number']}: {pair}")
        screen.step("closing table")
        for line in closing_table(self._releases):
            screen.line("  " + line)
        glyph = screen.fault if seen.failed else screen.note if seen.slow else screen.done
        glyph(
            f"{seen.requests} requests of users: {seen.failed} failed, {seen.slow} slower than 1 s, "
            f"slowest {seen.slowest_seconds:.2f} s"
        )
        return {
            "releases": self._releases,
            "users": {
                "requests": seen.requests,
                "failed": seen.failed,
                "slower_than_1_s": seen.slow,
                "slowest_seconds": round(seen.slowest_seconds, 3),
                "faults": dict(seen.faults),
                "by_release": dict(seen.by_release),
            },
            "first_release": first["release"]["number"],
        }

    # -- the steps

    def _app(self, version: str) -> str:
        """Return the app image of a version, built as CI would build it, before and apart from its push."""
        return images.build_app(version, revision=f"demo-{self._run}")

    def _publish_model(self, which: str, version: str, what: str, *, expect: str, temperature: float = 1.0) -> Any:
        version = f"{version}-{self._run}"
        folder = self._folder / version
        models.write(which, folder, version=version, name=MODEL, temperature=temperature)
        container = self._container()
        publish(folder, container, f"{MODEL}/{version}")
        self._screen.done(f"uploaded {MODEL}/{version}  ({which})")
        return self._follow(lambda release: release["model_version"] == version, what, expect)

    def _container(self) -> ContainerClient:
        container = self._storage.get_container_client("models")
        if not container.exists():
            container.create_container()
        return container

    def _push(self, image: str, version: str) -> None:
        digest = images.push(image, f"{self._local.registry}/{APP_REPOSITORY}")
        self._screen.done(f"pushed   {APP_REPOSITORY}  app {version}")
        if self._local.registry_url is not None:
            repository, _, tag = APP_REPOSITORY.partition(":")
            publish_push(self._local.cloud.eventgrid_url, repository, tag, digest)
            self._screen.note("told Event Grid of the push, as Azure's registry does: yours does not know the relay")

    def _publish_app(self, image: str) -> None:
        newest = self._api.newest()
        self._push(image, "2.3.1")
        history = self._follow(lambda release: release["number"] > newest, "code publish", "live")
        cost = history["cost"]
        if cost["uploaded"] > CONFIG_BYTES:
            raise DemoError(f"the code publish moved bytes of the model again: {cost}")
        moved = (
            f"the image's config of {cost['uploaded']} bytes was sent, and {cost['mounted']} bytes of the app mounted"
        )
        self._screen.done(f"no model byte moved: {cost['reused']} bytes reused; {moved}")

    def _roll_back(self) -> None:
        newest = self._api.newest()
        answer = self._api.post("/rollback", {"reason": "the new code rounds percentages wrongly", "author": "bo"})
        self._screen.done(f"accepted {answer['message']}")
        history = self._follow(lambda release: release["number"] > newest, "rollback", "live")
        if history["cost"]["uploaded"] or history["cost"]["mounted"]:
            raise DemoError(f"the rollback built its image again: {history['cost']}")
        self._screen.done(f"back in {self._releases[-1]['to_live_seconds']:.2f} s, without a build")
        status = self._api.get()
        self._screen.note(f"held by {status['hold']}; lift it with POST …/resume")

    def _follow(self, is_it: Callable[[dict[str, Any]], bool], what: str, expect: str) -> dict[str, Any]:
        """Show a release stage by stage until it ends; raise DemoError if it ends otherwise than expected."""
        shown = 0
        history: dict[str, Any] = {}

        def ended() -> bool:
            nonlocal shown, history
            found = next((release for release in self._api.get("/releases") if is_it(release)), None)
            if found is None:
                return False
            history = self._api.get(f"/releases/r-{found['number']}")
            for stage in history["stages"][shown:]:
                self._screen.stage(stage)
            shown = len(history["stages"])
            return history["release"]["phase"] in _ENDED

        self._until(ended, what)
        number, phase = history["release"]["number"], history["release"]["phase"]
        if history["report"] is not None and phase == "rejected":
            self._screen.fault(f"r-{number} is rejected: {history['release']['message']}")
            self._screen.report(history["report"])
        if phase != expect:
            raise DemoError(f"{what}: r-{number} is {phase}, expected {expect}: {history['release']['message']}")
        self._releases.append(_row(history, what))
        if history["publish_to_live_seconds"] is not None:
            self._screen.done(f"publish to live {history['publish_to_live_seconds']:.2f} s")
        return history

    def _until(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + WITHIN_SECONDS
        while not done():
            if time.monotonic() > deadline:
                raise DemoError(
                    f"{what} did not end within {WITHIN_SECONDS:.0f} s; `make status` names the logs to read"
                )
            time.sleep(0.1)

    def _ask_and_show(self) -> None:
        for photo in models.PHOTOS:
            reply = httpx.post(
                f"{self._url}/score", content=_question(photo.data), headers=_JSON, timeout=30, trust_env=False
            )
            label, percent = reply.json()["result"][0][0][0]
            self._screen.done(
                f"{photo.file:<14}{label:<22}{percent:5.1f} %   model {reply.headers['X-Model-Version']}, "
                f"app {reply.headers['X-App-Version']}, {reply.headers['X-Release']}"
            )


_JSON = {"content-type": "application/json"}


def _question(photo: bytes) -> bytes:
    """Return a request body as the clients of the original app write it: a JSON string that holds a JSON array."""
    return json.dumps({"input": json.dumps([base64.b64encode(photo).decode()])}).encode()


def _row(history: dict[str, Any], what: str) -> dict[str, Any]:
    seconds: dict[str, float] = {}
    for stage in history["stages"]:
        seconds[stage["stage"]] = round(seconds.get(stage["stage"], 0.0) + stage["seconds"], 3)
    cost = history["cost"] or {"uploaded": 0, "mounted": 0, "reused": 0}
    return {
        "release": f"r-{history['release']['number']}",
        "what": what,
        "phase": history["release"]["phase"],
        "stage_seconds": seconds,
        "publish_to_live_seconds": history["publish_to_live_seconds"],
        "to_live_seconds": _to_live(history, seconds),
        "bytes": cost,
        "message": history["release"]["message"],
    }


def _to_live(history: dict[str, Any], stage_seconds: dict[str, float]) -> float | None:
    """Return the seconds from the publish to live, or for what a person asked for, those of its stages."""
    if history["release"]["phase"] != "live":
        return None
    published: float | None = history["publish_to_live_seconds"]
    return published if published is not None else round(sum(stage_seconds.values()), 3)
