"""The scheduler of the simulator: actors that run until their next effect, in virtual time.

The pipeline is plain synchronous code. Each actor runs it in a greenlet (a fiber, which goes on to the next actor when
one is done); every call of a port goes through the hub, which lets virtual time pass, lets others go first, and injects
faults. The same seed gives the same history.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from zlib import crc32

import greenlet
from greenlet import getcurrent

from shipmate.errors import Ambiguous, Retryable
from tests.sim.faults import OPERATIONS, Fate, Fault, Faults, NoFaults, Operation

EPOCH = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()
"""When virtual time begins, in seconds as datetime.fromtimestamp() takes them: a sum of floats costs little."""


class Crash(BaseException):
    """A worker's process dies here; nothing in the pipeline can catch it."""


class Actor:
    """Something that happens over time: a message being worked on, a person, a publisher."""

    __slots__ = (
        "calls", "done", "doomed", "fiber", "host", "name", "number", "run", "skew", "slept", "slept_at", "target",
    )  # fmt: skip

    def __init__(self, name: str, run: Callable[[], None]) -> None:
        self.name = name
        self.run = run
        self.fiber: _Fiber | None = None  # what it runs on, from its beginning to its end
        self.number = crc32(name.encode()) * 0x9FB21C651E98DF25
        self.calls: dict[str, int] = {}
        self.host = ""  # the worker that it runs on, if it does
        self.skew = 0.0  # of that worker's clock, in seconds
        self.target = ""  # what it works for, if it is one target
        self.doomed = False  # its process is dead, and it will find out at its next call
        self.slept = False  # whether its last call came after a long pause
        self.slept_at = 0  # how long its target's ledger was when it fell asleep
        self.done = ""  # its last write that took effect

    def __str__(self) -> str:
        return f"{self.name} on {self.host}" if self.host else self.name


class _Fiber(greenlet.greenlet):
    """What actors run on, one after the other: it costs more to make than to switch to."""

    def __init__(self, main: greenlet.greenlet) -> None:
        super().__init__(self._live, main)
        self.job: tuple[Hub, Actor] | None = None

    def _live(self) -> None:
        while self.job is not None:
            hub, actor = self.job
            actor.run()
            actor.fiber = self.job = None
            del actor
            _IDLE.append(self)
            hub.go_on()  # comes back when there is another job


_IDLE: list[_Fiber] = []


type Watcher = Callable[[Actor, Operation], None]


def _nobody(actor: Actor, operation: Operation) -> None:
    """Watch nothing."""


class Hub:
    """Actors, virtual time in seconds, and the faults of one seed."""

    def __init__(self, faults: Faults, *, telling: bool = False) -> None:
        self.now = 0.0
        self.in_chaos = True
        self.steps = 0
        self.faults = faults
        self.counts: Counter[str] = Counter()  # faults that happened, by kind and operation
        self.reached: set[str] = set()  # names of tests.sim.reach that this run came by
        self.story: list[str] | None = [] if telling else None
        self.fired: list[tuple[str, str, int, Fate]] = []  # each fault at a call, to be listed in a scenario
        self.chances: dict[str, float] = {}  # trouble that belongs to no call, by its key
        self.outages: list[tuple[str, float, float]] = []  # system, from, until
        self.on_sleep: Watcher = _nobody
        self.on_crash: Watcher = _nobody
        self.on_failure: Watcher = _nobody
        self.on_outage: Callable[[str], None] = str
        self.sleepers: dict[Actor, str] = {}  # who sleeps long, and before what
        self.actor: Actor | None = None  # who acts now, None between actors
        self._main = getcurrent()
        self._until = 0.0
        self._steps_left = 0
        self._order = 0
        self._waiting: list[tuple[float, int, Actor]] = []

    # -- actors and time

    def instant(self, skew_seconds: float = 0.0) -> datetime:
        """Return the present instant, as a clock that is wrong by so much has it."""
        return datetime.fromtimestamp(EPOCH + self.now + skew_seconds, UTC)

    def spawn(self, name: str, run: Callable[[], None], delay_seconds: float = 0.0) -> Actor:
        """Start an actor after a delay."""
        actor = Actor(name, run)
        self._order += 1
        heapq.heappush(self._waiting, (self.now + delay_seconds, self._order, actor))
        return actor

    def pause(self, seconds: float) -> None:
        """Let the present actor sleep; outside an actor, nothing happens."""
        actor = self.actor
        if actor is None:
            return
        at = self.now + seconds
        if at <= self._until and self._steps_left and (not self._waiting or self._waiting[0][0] > at):
            self.now = at  # nobody else is due before
            self.steps += 1
            self._steps_left -= 1
            return
        self._order += 1
        heapq.heappush(self._waiting, (at, self._order, actor))
        self.go_on()

    def go_on(self) -> None:
        """Go on with the actor that is due next, or in run() if none is; return when it is the caller's turn again.

        run() also makes a fiber that an actor needs: one counts its calls from where it is made, and fibers that were
        made one out of another, and are kept from seed to seed, came to Python's limit.
        """
        waiting = self._waiting
        if not waiting or self._steps_left <= 0 or waiting[0][0] > self._until or self._begins_in_run(waiting[0][2]):
            self.actor = None
            self._main.switch()
            return
        at, _, actor = heapq.heappop(waiting)
        self.now = max(self.now, at)
        self.steps += 1
        self._steps_left -= 1
        self.actor = actor
        fiber = actor.fiber
        if fiber is None:
            fiber = actor.fiber = _IDLE.pop() if self._has_idle() else _Fiber(self._main)
            fiber.job = (self, actor)
        fiber.switch()

    def _begins_in_run(self, actor: Actor) -> bool:
        return actor.fiber is None and not self._has_idle() and getcurrent() is not self._main

    def _has_idle(self) -> bool:
        return bool(_IDLE) and _IDLE[-1].parent is self._main

    def run(self, most_steps: int, until: float = 1e12) -> bool:
        """Run actors until an instant, or until there is none; return whether the steps sufficed."""
        self._until, self._steps_left = until, most_steps
        try:
            while self._waiting and self._waiting[0][0] <= until:
                if self._steps_left <= 0:
                    return False
                self.go_on()
        finally:
            self.actor = None
        if until < 1e12:
            self.now = max(self.now, until)
        return True

    def calm(self) -> None:
        """End all faults."""
        self.in_chaos = False
        self.faults = NoFaults()
        self.outages = []

    # -- effects

    def call(self, operation: Operation, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Do one effect of an actor, with whatever the seed has in store for it."""
        return self.effect(operation, method)(*args, **kwargs)

    def effect(self, operation: Operation, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return a method as actors call it: each call is an effect."""
        name, writes = operation.name, operation.writes

        def done(*args: Any, **kwargs: Any) -> Any:
            actor = self.actor
            if actor is None:
                return method(*args, **kwargs)
            calls = actor.calls
            calls[name] = occurrence = calls.get(name, -1) + 1
            fault, seconds = self.faults.fate(actor.name, actor.number, operation, occurrence)
            if fault is not None:
                return self._struck(actor, operation, (fault, seconds), method, args, kwargs)
            at = self.now + seconds  # as in pause(), without a call
            waiting = self._waiting
            if at <= self._until and self._steps_left and (not waiting or waiting[0][0] > at):
                self.now = at
                self.steps += 1
                self._steps_left -= 1
            else:
                self._order += 1
                heapq.heappush(waiting, (at, self._order, actor))
                self.go_on()
            if actor.doomed:
                raise Crash
            if self.outages:
                self._check_there(operation)
            result = method(*args, **kwargs)
            if writes:
                actor.done, actor.slept = name, False
                if self.story is not None:
                    self.tell(f"{actor}: {name}{_of(args)}")
            return result

        return done

    def _struck(
        self,
        actor: Actor,
        operation: Operation,
        fate: Fate,
        method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Do a call that a fault strikes."""
        (fault, seconds), name = fate, operation.name
        actor.slept = fault is Fault.PAUSE
        self._note(actor, operation, actor.calls[name], fate)
        if actor.slept:
            self.on_sleep(actor, operation)
            self.sleepers[actor] = name
        self.pause(seconds)
        self.sleepers.pop(actor, None)
        if actor.doomed:
            raise Crash
        if self.outages:
            self._check_there(operation)
        if fault is Fault.CRASH_BEFORE:
            self._crash(actor, operation)
        if fault is Fault.AWAY:
            self.on_failure(actor, operation)
            raise Retryable(f"{name} was not served")
        try:
            result = method(*args, **kwargs)
            if fault is Fault.REPEATED:
                result = method(*args, **kwargs)
        finally:
            if self.story is not None and operation.writes:
                self.tell(f"{actor}: {name}{_of(args)}")
        if operation.writes:
            actor.done = name
            if fault is Fault.LOST_REPLY:
                self.on_failure(actor, operation)
                raise (Ambiguous if operation.uncertain else Retryable)(f"{name}: the reply was lost")
            if fault is Fault.CRASH_AFTER:
                self._crash(actor, operation)
        return result

    def chance(self, kind: str, key: str, rate: float) -> float | None:
        """Return a number from 0 to 1 if this trouble, which belongs to no call, happens here; else None."""
        found = self.faults.chance(kind, key, rate)
        if found is not None:
            self.counts[kind] += 1
            if self.story is not None:
                self.chances[key] = found
                self.tell(f"{kind}: {key}")
        return found

    def _check_there(self, operation: Operation) -> None:
        for system, start, end in self.outages:
            if system == operation.system and start <= self.now < end:
                self.counts[f"outage of {system}"] += 1
                self.on_outage(system)
                raise Retryable(f"{operation.name} was not served: {system} is away")

    def _crash(self, actor: Actor, operation: Operation) -> None:
        self.on_crash(actor, operation)
        raise Crash

    def _note(self, actor: Actor, operation: Operation, occurrence: int, fate: Fate) -> None:
        fault, seconds = fate
        self.counts[f"{fault} at {operation.name}"] += 1
        if self.story is not None:
            self.fired.append((actor.name, operation.name, occurrence, fate))
            words = f" for {seconds:.0f} s" if fault is Fault.PAUSE else ""
            self.tell(f"{actor}: {operation.name} #{occurrence}: {fault}{words}")

    def tell(self, what: str) -> None:
        """Add a line to the story, if anybody listens."""
        if self.story is not None:
            self.story.append(f"{self.now:9.3f}  {what}")


def _of(args: tuple[Any, ...]) -> str:
    """Return the arguments of a call that a reader of the story wants to see."""
    words = [arg for arg in args if isinstance(arg, str)]
    kinds = [each.kind_name for arg in args if isinstance(arg, list) for each in arg if hasattr(each, "kind_name")]
    return f" {' '.join((*words, *kinds))}"[:120]


class Port:
    """A port whose every method is an effect of the simulation."""

    def __init__(self, hub: Hub, real: object, *operations: str) -> None:
        self.real = real
        for name in operations:
            setattr(self, name, hub.effect(OPERATIONS[name], getattr(real, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)
