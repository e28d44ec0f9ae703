"""The cluster's own history: every change of a target's Deployment, as the API server tells it to a watch."""

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config, watch

from drill.world import NAMESPACE
from shipmate.core.views import view_deployment

GONE = 410


@dataclass(frozen=True)
class Patch:
    """A Deployment's template or fence became this. `at` is Unix time."""

    target: str
    fence: int
    pair: str
    release: str
    at: float


class Watching:
    """Follows the Deployments of the drill's namespace in a thread, from `start` to `stop`."""

    def __init__(self, kubeconfig: Path, context: str) -> None:
        self._api = config.new_client_from_config(str(kubeconfig), context, persist_config=False)
        self._apps = client.AppsV1Api(self._api)
        self._patches: list[Patch] = []
        self._last: dict[str, tuple[int, str, str]] = {}
        self._gaps = 0
        self._stopping = threading.Event()
        self._seen = threading.Condition()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def start(self) -> None:
        """Note how the Deployments are, and follow them from there."""
        listed: Any = self._apps.list_namespaced_deployment(NAMESPACE, _preload_content=False)
        document = json.loads(listed.data)
        for each in document["items"]:
            self._note(each)
        self._version = str(document["metadata"]["resourceVersion"])
        self._thread.start()

    def stop(self) -> None:
        """Follow no longer."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        self._api.close()

    @property
    def patches(self) -> tuple[Patch, ...]:
        """Every change seen so far, in the API server's order."""
        with self._seen:
            return tuple(self._patches)

    @property
    def gaps(self) -> int:
        """How often the API server could not say any more what happened since: then the history has a hole."""
        return self._gaps

    def wait_for_patch(self, within_seconds: float) -> bool:
        """Return when the next release is patched in, False if none is in time."""
        with self._seen:
            before = len(self._patches)
            return self._seen.wait_for(lambda: len(self._patches) > before, timeout=within_seconds)

    def _follow(self) -> None:
        while not self._stopping.is_set():
            following = watch.Watch()
            try:
                for event in following.stream(
                    self._apps.list_namespaced_deployment,
                    NAMESPACE,
                    resource_version=self._version,
                    timeout_seconds=5,
                    allow_watch_bookmarks=True,
                ):
                    self._take(event)
            except client.ApiException as error:
                if error.status == GONE:
                    self._gaps += 1
                    self._version = "0"
                time.sleep(0.2)
            except urllib3.exceptions.HTTPError:
                time.sleep(0.2)

    def _take(self, event: Mapping[str, Any]) -> None:
        found = event["raw_object"]
        self._version = str(found["metadata"]["resourceVersion"])
        if event["type"] in ("ADDED", "MODIFIED"):
            self._note(found)

    def _note(self, found: dict[str, Any]) -> None:
        view = view_deployment(found)
        now = (view.fence or 0, view.pair or "", view.release or "")
        if self._last.get(view.name) == now:
            return
        self._last[view.name] = now
        with self._seen:
            self._patches.append(Patch(view.name, *now, time.time()))
            self._seen.notify_all()
