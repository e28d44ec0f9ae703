"""Where this process stands: loading, ready, or unable to be, and whether it is about to stop.

One `Lifecycle` a worker. The model is loaded in a thread of its own, so that liveness is answered meanwhile; a model
that cannot be used leaves the process up and not ready, with the reason for whoever asks.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app import manifest, model
from app.cpu import usable_cpus
from app.manifest import BrokenModel, Manifest, NoModel
from app.model import Model
from app.places import Places
from app.problems import Problem, ProblemError
from app.settings import Settings

QUIET_SECONDS = 2.0
"""So long nobody asked: the endpoints have forgotten this pod."""

DRAIN_ENDS_AFTER_SECONDS = 90.0
"""A drain that no SIGTERM follows ends by itself: kubelet sends it within seconds, so this call was a mistake."""


@dataclass
class Lifecycle:
    """The state of one worker; every method may be called from any thread."""

    settings: Settings
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.cpus = usable_cpus()
        self.manifest: Manifest | None = None
        self._model: Model | None = None
        self._problem: Problem | None = Problem(
            503,
            "not-ready",
            "The model is being loaded and tested. Ask again in a moment.",
            headers={"Retry-After": "1"},
        )
        self._draining_since: float | None = None
        self._asked_at = self.clock() - QUIET_SECONDS
        self.places = Places(self.cpus)

    def start_loading(self) -> threading.Thread:
        """Load the model in the background and return the thread that does it."""
        thread = threading.Thread(target=self.load, name="load-model", daemon=True)
        thread.start()
        return thread

    def load(self) -> None:
        """Load the model; afterwards the process is ready, or says why not."""
        try:
            self.manifest = manifest.read(self.settings.model_dir)
            self._model = model.load(self.settings.model_dir, self.manifest, self.cpus)
            self._problem = None
        except NoModel as absent:
            self._problem = Problem(503, "no-model", f"{absent}. A release image has one in it.")
        except BrokenModel as broken:
            self._problem = Problem(503, "broken-model", f"{broken}.")
        except Exception as error:
            self._problem = Problem(503, "broken-model", f"Loading the model failed: {error!r}.")
            raise  # a fault of this code: its trace belongs into the log

    @property
    def draining(self) -> bool:
        """Whether this process was told that it is about to stop."""
        since = self._draining_since
        return since is not None and self.clock() - since < DRAIN_ENDS_AFTER_SECONDS

    def drain(self) -> None:
        """Be not ready from now on, and let every connection end with its next answer."""
        self._draining_since = self.clock()

    def hold(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Return when the endpoints had time to forget this pod: `drain_seconds`, longer while questions still come.

        Whoever still comes then was sent by a node that has not heard of it, of a starved cluster for instance.
        """
        started = self.clock()
        sleep(self.settings.drain_seconds)
        while self.clock() - self._asked_at < QUIET_SECONDS:
            if self.clock() - started >= self.settings.drain_at_most_seconds:
                return
            sleep(0.1)

    def asked(self) -> None:
        """Note that a user asked."""
        self._asked_at = self.clock()

    @property
    def problem(self) -> Problem | None:
        """Why the process is not ready, None if it is."""
        if self._problem is not None:
            return self._problem
        if self.draining:
            return Problem(503, "draining", "This instance is about to stop and still answers what reaches it.")
        return None

    @property
    def model(self) -> Model:
        """The model, also while draining; raises ProblemError where there is none to ask."""
        if self._model is None or self._problem is not None:
            raise ProblemError(self._problem or Problem(503, "not-ready", "The model is being loaded."))
        return self._model

    def identity(self) -> dict[str, Any]:
        """Return what /version and /readyz say: which model, which code, which release."""
        known = self.manifest
        return {
            "model": {"name": known.name, "version": known.version, "digest": known.digest} if known else None,
            "app": {"version": self.settings.app_version, "revision": self.settings.app_revision},
            "release": self.settings.release,
            "pair": self.settings.pair,
        }

    def headers(self) -> dict[str, str]:
        """Return the headers that every reply carries."""
        known = self.manifest
        return {
            "X-Model-Digest": known.digest if known else "none",
            "X-Model-Version": known.version if known else "none",
            "X-App-Version": self.settings.app_version,
            "X-Release": self.settings.release or "none",
            **({"Connection": "close"} if self.draining else {}),
        }
