"""Publish to live against `kubectl set image` of the same images on the same cluster, under users who keep asking."""

import base64
import json
import time
from pathlib import Path
from typing import Any

from azure.storage.blob import BlobServiceClient

from bench.figures import Comparison, Figure
from examples import models
from examples.publish import publish
from localcloud import images
from localcloud.cloud import LocalCloud
from localcloud.demo.api import Api
from localcloud.demo.users import Count, Users
from localcloud.targets import DEPLOYMENT, TargetCluster

MODEL = "efficientnet-lite"
OURS, BASELINE = "bench-vision", "bench-baseline"
GOAL = 2.5
WITHIN_SECONDS = 240.0


class Rollouts:
    """Releases on one cloud, by Shipmate and by hand."""

    def __init__(self, local: LocalCloud, api: Api, public_url: str) -> None:
        self._local = local
        self._api = api
        self._url = public_url
        self._run = time.strftime("%m%d%H%M%S", time.gmtime())
        self._storage = BlobServiceClient.from_connection_string(local.cloud.connection_string)

    def measure(self, rounds: int, releases: int) -> tuple[list[Comparison], Count, int]:
        """Return the comparisons, what users saw, and over how many releases."""
        self._push("1.0.0")
        self._publish_model("1.0")
        first = self._follow(1)
        users = Users(self._url, _question())
        users.start()
        cluster = self._local.target_cluster()
        cluster.apply_target(self._local.cloud, BASELINE)
        self._set_image(cluster, first["release"]["image"])
        model, code, by_hand = [], [], []
        for number in range(1, rounds + 1):  # by turns, so that what the machine does besides slows both
            self._publish_model(f"1.{number}", temperature=1 - 0.02 * number)
            model.append(self._live())
            by_hand.append(self._set_image(cluster, self._image()))
            self._push(f"1.0.{number}")
            code.append(self._live())
            by_hand.append(self._set_image(cluster, self._image()))
        cluster.run("delete", "namespace", BASELINE, "--wait=false")
        baseline = Figure("kubectl set image", tuple(by_hand))
        done = 1 + 2 * rounds
        while done < releases:
            number = self._api.newest()
            self._api.post("/releases", {"release": f"r-{number - 1}", "reason": "measuring", "author": "bench"})
            self._follow(number + 1)
            done += 1
        seen = users.stop()
        return (
            [
                Comparison(
                    "model publish to live against kubectl set image",
                    Figure("model publish", tuple(model)),
                    baseline,
                    GOAL,
                ),
                Comparison(
                    "code publish to live against kubectl set image",
                    Figure("code publish", tuple(code)),
                    baseline,
                    GOAL,
                ),
            ],
            seen,
            done,
        )

    def _push(self, version: str) -> None:
        image = images.build_app(version, revision=f"bench-{self._run}")
        images.push(image, f"{self._local.cloud.registry}/vision-app:main")

    def _publish_model(self, version: str, *, temperature: float = 1.0) -> None:
        version = f"{version}-{self._run}"
        folder = Path(self._local.cloud.state) / "models" / version
        models.write("lite0", folder, version=version, name=MODEL, temperature=temperature)
        publish(folder, self._storage.get_container_client("models"), f"{MODEL}/{version}")

    def _live(self) -> float:
        history = self._follow(self._next)
        return float(history["publish_to_live_seconds"])

    @property
    def _next(self) -> int:
        return self._last + 1

    _last = 0

    def _image(self) -> str:
        return str(self._api.get(f"/releases/r-{self._last}")["release"]["image"])

    def _follow(self, number: int) -> dict[str, Any]:
        """Return the history of a release once it is live."""
        deadline = time.monotonic() + WITHIN_SECONDS
        while time.monotonic() < deadline:
            history = self._api.wait_for(number, within_seconds=1.0)
            if history is not None and history["release"]["phase"] == "live":
                self._last = number
                return history
            time.sleep(0.2)
        raise TimeoutError(f"r-{number} was not live within {WITHIN_SECONDS:.0f} s: {self._api.get()['next']}")

    def _set_image(self, cluster: TargetCluster, digest: str) -> float:
        """Return the seconds of `kubectl set image` to a finished rollout of an image that the node has."""
        image = f"{self._local.cloud.registry}/vision@{digest}"
        started = time.perf_counter()
        cluster.run("set", "image", f"deployment/{DEPLOYMENT}", f"app={image}", "-n", BASELINE)
        cluster.run("rollout", "status", f"deployment/{DEPLOYMENT}", "-n", BASELINE, "--timeout=180s")
        return time.perf_counter() - started


def _question() -> bytes:
    photo = base64.b64encode(models.PHOTOS[0].data).decode()
    return json.dumps({"input": [photo]}).encode()
