"""The hosts that Shipmate runs on in a simulated history, and the queue that feeds them.

A host is a process: it has a clock of its own, a worker's name and a ledger store's cache. When one of its calls
crashes, everything that runs on it dies, and it comes back as a new process.
"""

import itertools
from collections.abc import Callable
from datetime import datetime
from typing import Any

from shipmate.core.intake import Sources
from shipmate.core.ledger import AnyEntry, IllegalStep
from shipmate.errors import ShipmateError
from shipmate.pipeline import Pipeline
from shipmate.ports import Reading
from shipmate.stages.context import Context
from tests.sim.faults import Operation
from tests.sim.hub import Actor, Crash, Hub, Port
from tests.sim.invariants import Violation
from tests.sim.ledgers import Blobs, FastLedgers, real_store
from tests.sim.plans import Setting
from tests.sim.world import World

_BUSY = "all hosts are busy at once"
VISIBILITY_SECONDS = 5.0
LEASE_SECONDS = 30.0  # how long a message stays with a worker that sleeps

CLUSTER = (
    "deployment", "patch_deployment", "pods", "pod_logs", "create_gate_pod", "gate_pod", "list_gate_pods",
    "delete_gate_pod", "ask_pod",
)  # fmt: skip
REGISTRY = ("resolve", "get_manifest", "put_manifest", "get_blob", "has_blob", "copy_blobs", "upload")
MODELS = ("properties", "read_manifest", "open", "list")


class Clock:
    """Virtual time as one host sees it. Who sleeps may sleep longer than asked, as on a busy machine."""

    def __init__(self, hub: Hub, skew_seconds: float, ids: "itertools.count[int]") -> None:
        self._hub = hub
        self._skew = skew_seconds
        self._at = -1.0
        self._now = hub.instant(skew_seconds)
        self._ids = ids

    def now(self) -> datetime:
        if self._at != self._hub.now:
            self._at = self._hub.now
            self._now = self._hub.instant(self._skew)
        return self._now

    def sleep(self, seconds: float) -> None:
        self._hub.pause(max(seconds, 1.5))

    def new_id(self) -> str:
        return f"id-{next(self._ids)}"


class Host:
    """One process after another on one machine."""

    def __init__(self, number: int, start: Callable[[str, int], Pipeline]) -> None:
        self.number = number
        self._start = start
        self._starts = 0
        self.actors: set[Actor] = set()
        self.restart()

    def restart(self) -> None:
        """Begin as a new process; whatever ran on the old one dies at its next call."""
        self._starts += 1
        for actor in self.actors:
            actor.doomed = True
        self.actors = set()
        self.worker = f"worker-{self.number}.{self._starts}"
        self.pipeline = self._start(self.worker, self.number)


class Hosts:
    """All hosts, over one world."""

    def __init__(self, hub: Hub, world: World, setting: Setting, enqueue: Callable[..., None]) -> None:
        self.hub = hub
        self.world = world
        self.setting = setting
        self.blobs = Blobs(hub)
        self.fast = FastLedgers(hub)
        self._ids = itertools.count(1)
        self._ports = {
            "registry": Port(hub, world.registry, *REGISTRY),
            "models": Port(hub, world.models, *MODELS),
            "cluster": Port(hub, world.cluster, *CLUSTER),
            "door": Port(hub, world, "ask", "version"),
            "queue": Port(hub, _Enqueue(enqueue), "enqueue"),
            "ledgers": Port(hub, self.fast, "read", "append", "history"),
        }
        self.all = [Host(number, self._start) for number in range(len(setting.skews))]
        self._looked: dict[str, tuple[int, Reading]] = {}  # by target: after how many writes, and what was seen
        self._observer = real_store(self.blobs, setting.segment_entries or 1)
        self._turns = self._calls = 0

    def _start(self, worker: str, number: int) -> Pipeline:
        ports: Any = self._ports
        skew = self.setting.skews[number]
        context = Context(
            ports["registry"],
            ports["models"],
            ports["cluster"],
            ports["door"],
            Clock(self.hub, skew, self._ids),
            worker,
        )
        return Pipeline(
            targets=self.world.targets,
            sources=Sources("account", "registry"),
            ledgers=self.ledgers(),
            queue=ports["queue"],
            context=context,
            turn_seconds=self.setting.turn_seconds,
        )

    def ledgers(self) -> Any:
        """Return the ledgers as a new process has them."""
        if self.setting.segment_entries:
            return real_store(self.blobs, self.setting.segment_entries)
        return self._ports["ledgers"]

    def look(self, target: str) -> Reading:
        """Return the reading of a ledger, without an effect."""
        if not self.setting.segment_entries:
            return self.fast.read(target)
        writes, reading = self._looked.get(target, (-1, None))
        if reading is None or writes != self.blobs.writes:
            reading = self._looking(lambda: self._observer.read(target))
            self._looked[target] = self.blobs.writes, reading
        return reading

    def entries(self, target: str) -> tuple[AnyEntry, ...]:
        """Return the entries of a ledger, without an effect."""
        if not self.setting.segment_entries:
            return tuple(self.fast.history(target))
        return self._looking(lambda: tuple(self._observer.history(target)))

    def _looking[Seen](self, look: Callable[[], Seen]) -> Seen:
        before, self.blobs.directly = self.blobs.directly, True
        try:
            return look()
        finally:
            self.blobs.directly = before

    def run(self, actor: Actor, work: Callable[[Pipeline], object]) -> object:
        """Do an actor's work on one of the hosts. Raises Crash, and what the work raises."""
        self._turns = turn = (self._turns + 1) % len(self.all)
        host = self.all[turn]
        if host.actors:  # the one with least to do, in turns
            for each in self.all:
                if len(each.actors) < len(host.actors):
                    host = each
        actor.host, actor.skew = host.worker, self.setting.skews[host.number]
        host.actors.add(actor)
        if self.hub.in_chaos and _BUSY not in self.hub.reached and all(each.actors for each in self.all):
            self.hub.reached.add(_BUSY)
        self._calls += 1
        context = _with(host.pipeline.context, worker=f"{host.worker}-{self._calls}")  # as in wiring
        try:
            return work(_with(host.pipeline, context=context))
        except IllegalStep as error:  # whoever catches it: Shipmate writes nothing that does not follow
            raise Violation(6, "what is written follows", f"{actor} wrote what the fold refuses", str(error)) from error
        finally:
            host.actors.discard(actor)

    def crashed(self, actor: Actor, operation: Operation) -> None:
        """Let the host of an actor die with everything on it."""
        for host in self.all:
            if host.worker == actor.host:
                host.restart()


def _with[Piece](piece: Piece, **changes: object) -> Piece:
    """Return a frozen dataclass with other fields, as dataclasses.replace() does in seven times the time."""
    made = object.__new__(type(piece))
    made.__dict__.update(piece.__dict__, **changes)
    return made


class _Enqueue:
    """The queue's side of the port."""

    def __init__(self, enqueue: Callable[..., None]) -> None:
        self.enqueue = enqueue


class Queue:
    """The storage queue: visibility, dequeue counts and a poison queue."""

    def __init__(self, hub: Hub, most_deliveries: int) -> None:
        self.hub = hub
        self.most_deliveries = most_deliveries
        self.poisoned = 0
        self.on_delivery: Callable[[Actor], None] = str
        self.hosts: Hosts | None = None
        self.replaying = False
        self._due: set[str] = set()  # targets with a message that waits, while everything is replayed
        self._messages: dict[str, int] = {}  # sent to each target
        self._held: dict[str, tuple[str, str, int]] = {}  # actor → the message that it works on

    def enqueue(self, target: str, delay_seconds: float = 0) -> None:
        if self.replaying and not delay_seconds:
            if target in self._due:
                return  # an equal message is due already, and nothing can be lost any more
            self._due.add(target)
        number = self._messages[target] = self._messages.get(target, 0) + 1
        name = f"{target} message {number}"
        late = self.hub.chance("late messages", name, 0.03)
        if late is not None:
            delay_seconds += 5 + 60 * late
        self._deliver(target, name, 1, delay_seconds)
        if self.hub.chance("duplicate messages", f"{name} twice", 0.04) is not None:
            self._deliver(target, f"{name}'", 1, delay_seconds + 0.5)

    def _deliver(self, target: str, name: str, count: int, delay_seconds: float) -> None:
        actor = name if count == 1 else f"{name} ({count})"
        self.hub.spawn(actor, lambda: self._take(target, name, count), delay_seconds)

    def _take(self, target: str, name: str, count: int) -> None:
        actor = self.hub.actor
        if actor is None or self.hosts is None:
            raise AssertionError(name)
        actor.target = target
        self._due.discard(target)
        self._held[actor.name] = (target, name, count)
        try:
            said = self.hosts.run(actor, lambda pipeline: self._advance(actor, pipeline))
            self.hub.tell(f"{actor}: {said}")
        except Crash:
            share = self.hub.faults.dice.draw(f"{actor.name} comes back")
            self._again(actor, 30 + 270 * share)
        except ShipmateError as error:
            self.hub.tell(f"{actor}: {type(error).__name__}: {error}")
            self._again(actor, VISIBILITY_SECONDS)
        finally:
            self._held.pop(actor.name, None)

    def _advance(self, actor: Actor, pipeline: Pipeline) -> str:
        self.on_delivery(actor)
        said = pipeline.advance(actor.target)
        if said.startswith("LiveHalfGone"):
            self.hub.reached.add("what is live is deleted where it was published")
        return said

    def slept(self, actor: Actor) -> None:
        """Give the message of a worker that sleeps too long to another one."""
        if actor.name in self._held and self.hub.chance("late messages", f"{actor.name} lease", 0.8) is not None:
            self.hub.counts["lease lost"] += 1
            self.hub.reached.add("a message is delivered again while a worker sleeps on it")
            self._again(actor, LEASE_SECONDS)

    def _again(self, actor: Actor, delay_seconds: float) -> None:
        held = self._held.pop(actor.name, None)
        if held is None:
            return  # somebody else has it by now
        target, name, count = held
        if self.most_deliveries and count >= self.most_deliveries:
            self.poisoned += 1
            self.hub.counts["message poisoned"] += 1
            self.hub.reached.add("a message is poisoned")
            return
        self._deliver(target, name, count + 1, delay_seconds)
