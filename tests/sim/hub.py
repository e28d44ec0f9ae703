"""The scheduler of the simulator: actors that run until their next effect, in an order that the seed decides.

The pipeline is plain synchronous code. Each actor runs it in a greenlet of its own; every call of a port goes back to
the hub, which lets virtual time pass, lets others go first, and injects faults. The same seed gives the same history.
"""

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import greenlet

from shipmate.errors import Ambiguous, Retryable


class Crash(BaseException):
    """A worker's process dies here; nothing in the pipeline can catch it."""


WRITES = frozenset({"append", "enqueue", "upload", "put_manifest", "copy_blobs", "patch_deployment", "create_gate_pod"})
UNCERTAIN = frozenset({"append", "patch_deployment"})
"""Writes whose lost reply the port reports as Ambiguous; the others are repeated as they are."""
SLOW = frozenset({"patch_deployment", "deployment", "create_gate_pod"})
"""Where a worker that sleeps does most harm: it is put to sleep there more often and longer."""


class Hub:
    """Actors, virtual time, and the faults of one seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = datetime(2026, 1, 1, 12, tzinfo=UTC)
        self.chaos = True
        self.faults: Counter[str] = Counter()
        self.steps = 0
        self._order = itertools.count()
        self._waiting: list[tuple[datetime, float, int, greenlet.greenlet]] = []
        self._main = greenlet.getcurrent()

    def spawn(self, run: Callable[[], None], delay_seconds: float = 0.0) -> None:
        """Start an actor after a delay."""
        self._put(greenlet.greenlet(run, self._main), delay_seconds)

    def pause(self, seconds: float) -> None:
        """Let the present actor sleep; outside an actor, nothing happens."""
        actor = greenlet.getcurrent()
        if actor is not self._main:
            self._put(actor, seconds)
            self._main.switch()

    def _put(self, actor: greenlet.greenlet, seconds: float) -> None:
        at = self.now + timedelta(seconds=seconds)
        heapq.heappush(self._waiting, (at, self.random.random(), next(self._order), actor))

    def run(self, until: datetime, most_steps: int) -> bool:
        """Run actors until an instant, or until there is none; return whether the steps sufficed."""
        for _ in range(most_steps):
            if not self._waiting or self._waiting[0][0] > until:
                self.now = max(self.now, until)
                return True
            at, _, _, actor = heapq.heappop(self._waiting)
            self.now = max(self.now, at)
            self.steps += 1
            actor.switch()
        return False

    def call(self, name: str, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Do one effect of an actor, with whatever the seed has in store for it."""
        if greenlet.getcurrent() is self._main:
            return method(*args, **kwargs)
        dice = self.random.random() if self.chaos else 1.0
        self.pause(self._delay(name))
        if dice < 0.004:
            self._note("crash before", name)
            raise Crash
        if dice < 0.016:
            self._note("away", name)
            raise Retryable(f"{name} was not served")
        result = method(*args, **kwargs)
        if dice < 0.024 and name in WRITES:
            self._note("lost reply", name)
            raise Ambiguous(f"{name}: the reply was lost") if name in UNCERTAIN else Retryable(f"{name} was cut off")
        if dice < 0.030 and name in WRITES:
            self._note("crash after", name)
            raise Crash
        self.pause(0.0)
        return result

    def _delay(self, name: str) -> float:
        if not self.chaos:
            return 0.01
        dice = self.random.random()
        if name in SLOW and dice < 0.08:
            self._note("long sleep", name)
            return self.random.uniform(30, 300)
        return self.random.uniform(0.001, 0.2)

    def _note(self, fault: str, name: str) -> None:
        self.faults[f"{fault} at {name}"] += 1


class Port:
    """A port whose every method is an effect of the simulation."""

    def __init__(self, hub: Hub, real: Any) -> None:
        self._hub = hub
        self._real = real

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if not callable(found):
            return found
        return lambda *args, **kwargs: self._hub.call(name, found, *args, **kwargs)
