"""One simulated history: publishers, people, several workers and faults, then calm; and what must hold throughout.

`simulate(seed)` raises `Violation` with the invariant, the seed and the ledger's story.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from shipmate.commands import Answer, Commands, HoldBody, ReleaseBody, RollbackBody
from shipmate.core import plan
from shipmate.core.events import ImagePushed, ModelPublished
from shipmate.core.ledger import (
    ACTIVE,
    AnyEntry,
    Failed,
    Gated,
    HoldSet,
    Intended,
    Live,
    Planned,
    Rejected,
    Resumed,
)
from shipmate.core.plan import Idle, decide
from shipmate.core.views import PAIR
from shipmate.errors import Conflict, NotFound, ShipmateError
from shipmate.pipeline import Pipeline
from shipmate.stages.context import Context
from tests.sim.hub import Crash, Hub, Port
from tests.world import World

CHAOS_SECONDS = 600.0
CALM_SECONDS = 7200.0
WORKERS = 3
HOST_DEATH_SECONDS = 600.0  # how long a message of a dead host stays invisible (azure-webjobs-sdk)
VISIBILITY_SECONDS = 5.0
MOST_DELIVERIES = 5
SWEEP_SECONDS = 60.0


class Violation(AssertionError):
    """An invariant does not hold."""


class Clock:
    """Virtual time as one worker sees it."""

    def __init__(self, hub: Hub, skew_seconds: float) -> None:
        self._hub = hub
        self._skew = timedelta(seconds=skew_seconds)

    def now(self) -> datetime:
        return self._hub.now + self._skew

    def sleep(self, seconds: float) -> None:
        self._hub.pause(seconds)

    def new_id(self) -> str:
        return f"{self._hub.random.getrandbits(64):016x}"


class Queue:
    """The storage queue with visibility, dequeue counts and a poison queue; workers take from it as they are free."""

    def __init__(self, hub: Hub, work: Callable[[str], None]) -> None:
        self._hub = hub
        self._work = work
        self.poisoned = 0
        self._busy = 0

    def enqueue(self, target: str, delay_seconds: float = 0) -> None:
        self._deliver(target, 1, delay_seconds)

    def _deliver(self, target: str, count: int, delay_seconds: float) -> None:
        self._hub.spawn(lambda: self._take(target, count), delay_seconds)

    def _take(self, target: str, count: int) -> None:
        while self._busy >= WORKERS:
            self._hub.pause(0.5)
        self._busy += 1
        try:
            self._work(target)
            if self._hub.chaos and self._hub.random.random() < 0.02:
                self._hub.faults["message delivered twice"] += 1
                self._deliver(target, count, 1.0)
        except Crash:
            self._again(target, count, HOST_DEATH_SECONDS)
        except ShipmateError:
            self._again(target, count, VISIBILITY_SECONDS)
        finally:
            self._busy -= 1

    def _again(self, target: str, count: int, delay_seconds: float) -> None:
        if count >= MOST_DELIVERIES:
            self.poisoned += 1
            self._hub.faults["message poisoned"] += 1
            return
        self._deliver(target, count + 1, delay_seconds)


class Simulation:
    """One seed's world."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.hub = Hub(seed)
        self.world = World()
        self.world.clock = Clock(self.hub, 0.0)  # type: ignore[assignment] # publishers live in virtual time
        self.queue = Queue(self.hub, lambda target: self._pipeline().advance(target))
        self.acknowledged: set[str] = set()
        self.held_at: list[tuple[str, int]] = []  # holds that were reported in force, with the patches until then
        self._workers = 0

    def _pipeline(self) -> Pipeline:
        self._workers += 1
        hub, world = self.hub, self.world
        skew = hub.random.uniform(-2.0, 2.0)
        return Pipeline(
            targets={world.target.name: world.target},
            sources=world.pipeline().sources,
            ledgers=Port(hub, world.ledgers),
            queue=Port(hub, self.queue),
            context=Context(
                Port(hub, world.registry),
                Port(hub, world.models),
                Port(hub, world.cluster),
                Port(hub, world),
                Clock(hub, skew),
                f"worker-{self._workers}",
            ),
        )

    # -- what happens in a history

    def run(self) -> None:
        """Live through chaos and calm, and check what must hold."""
        random = self.hub.random
        self._publish(self.world.push_app("app-0"))
        self._publish(self.world.publish_model("model-0"))
        for number in range(1, random.randint(2, 6)):
            self.hub.spawn(self._publisher(number), random.uniform(0, CHAOS_SECONDS * 0.8))
        for number in range(random.randint(0, 3)):
            self.hub.spawn(self._person(number), random.uniform(60, CHAOS_SECONDS))
        self._sweep_on()
        start = self.hub.now
        if not self.hub.run(start + timedelta(seconds=CHAOS_SECONDS), 60_000):
            self._fail("livelock: the chaos takes too many steps")
        self.hub.chaos = False
        if not self.hub.run(start + timedelta(seconds=CHAOS_SECONDS + CALM_SECONDS), 60_000):
            self._fail("livelock: calm does not settle")
        self.check()

    def _publisher(self, number: int) -> Callable[[], None]:
        def publish() -> None:
            dice = self.hub.random.random()
            if dice < 0.3:
                self._publish(self.world.push_app(f"app-{number}"))
            elif dice < 0.4:  # it passes its gate, and nobody reaches it through the door
                self.world.broken_doors.add(f"app-{number}")
                self._publish(self.world.push_app(f"app-{number}"))
            elif dice < 0.45:
                self.world.failing_models.add(f"model-{number}")
                self._publish(self.world.publish_model(f"model-{number}"))
            elif dice < 0.5:
                self._publish(self.world.publish_model(f"model-{number}"))
                self.world.models.delete("models", f"net/model-{number}/model.onnx")
            elif dice < 0.8:
                self._publish(self.world.publish_model(f"model-{number}"))
            else:
                self._publish(self.world.publish_model(f"model-{number}", says="honeycomb"))

        return publish

    def _publish(self, event: ModelPublished | ImagePushed) -> None:
        random = self.hub.random
        if random.random() < 0.05:
            self.hub.faults["event dropped"] += 1
            return
        for _ in range(2 if random.random() < 0.3 else 1):
            self.hub.spawn(lambda: self._deliver(event), random.choice([0.1, 0.1, 5.0, 60.0]))

    def _deliver(self, event: ModelPublished | ImagePushed) -> None:
        try:
            self._pipeline().intake(event)
        except (ShipmateError, Crash):
            self.hub.spawn(lambda: self._deliver(event), 10.0)
        else:
            self.acknowledged.add(event.event_id)

    def _person(self, number: int) -> Callable[[], None]:
        def ask() -> None:
            commands = Commands(self._pipeline())
            key, name = f"key-{number}", self.world.target.name
            kind = self.hub.random.choice(["rollback", "hold", "resume", "release"])
            try:
                self._command(commands, kind, name, key)
            except (Conflict, NotFound):
                self.hub.faults["command refused"] += 1
            except (ShipmateError, Crash):
                self.hub.spawn(ask, 5.0)

        return ask

    def _command(self, commands: Commands, kind: str, name: str, key: str) -> Answer:
        if kind == "rollback":
            return commands.rollback(name, key, "bo", RollbackBody(reason="worse"))
        if kind == "resume":
            return commands.resume(name, key, "ana", HoldBody(reason="go on"))
        if kind == "release":
            return commands.release(name, key, "ana", ReleaseBody(reason="now"))
        answer = commands.hold(name, key, "ana", HoldBody(reason="stop"))
        self.held_at.append((key, len(self.world.cluster.history)))
        return answer

    def _sweep_on(self) -> None:
        def sweep() -> None:
            self._sweep_on()
            try:
                self._pipeline().sweep()
            except (ShipmateError, Crash):
                self.hub.faults["sweep failed"] += 1

        self.hub.spawn(sweep, SWEEP_SECONDS)

    # -- what must hold

    def check(self) -> None:
        """Raise Violation if an invariant does not hold at the end."""
        state = self.world.state
        entries = list(self.world.ledgers.history(self.world.target.name))
        lost = self.acknowledged - set(state.seen)
        if lost:
            self._fail(f"acknowledged and lost: {sorted(lost)}")
        if any(release.phase in ACTIVE for release in state.releases):
            self._fail("not converged: a release is still on its way")
        if state.publications:
            self._fail("not converged: a publication was never resolved")
        pods = self.world.cluster.list_gate_pods("vision")
        if pods:
            self._fail(f"gate pods were left behind: {[pod.name for pod in pods]}")
        step = decide(state, self.world.target, self.hub.now, "monitor", 60.0)
        if not isinstance(step, Idle):
            self._fail(f"not converged: {step} is still to be done")
        self._check_cluster(entries)
        self._check_convergence()

    def _check_cluster(self, entries: list[AnyEntry]) -> None:
        intended = {entry.release: entry for entry in entries if isinstance(entry, Intended)}
        planned = {entry.release: entry for entry in entries if isinstance(entry, Planned)}
        gated = {entry.release for entry in entries if isinstance(entry, Gated)}
        last = 0
        for number, patch in enumerate(self.world.cluster.history):
            if patch.after.release == patch.before.release:
                continue
            release = int((patch.after.release or "r-0").removeprefix("r-"))
            if release not in intended or release not in planned:
                self._fail(f"r-{release} was patched in without an intent")
            if patch.after.fence != intended[release].fence:
                self._fail(f"r-{release} was patched in under another fence")
            if release <= last:
                self._fail(f"the cluster moved back from r-{last} to r-{release} without a release on record")
            last = release
            if planned[release].to is None and release not in gated:
                self._fail(f"r-{release} met users without a gate")
            if (patch.after.template_annotations or {}).get(PAIR) != planned[release].pair.key:
                self._fail(f"r-{release} was patched in with another pair")
            self._check_holds(entries, intended[release], planned[release], number)
            self._check_quarantine(entries, planned[release], intended[release])

    def _check_holds(self, entries: list[AnyEntry], intent: Intended, planned: Planned, patch: int) -> None:
        if planned.to is not None:
            return
        for request, patches in self.held_at:
            hold = next((e for e in entries if isinstance(e, HoldSet) and e.request == request), None)
            if hold is None or patch < patches:
                continue
            later = entries[entries.index(hold) :]
            lifted = next(
                (index for index, e in enumerate(later) if isinstance(e, Resumed) and e.hold == hold.id), None
            )
            allowed = lifted is not None and intent in later[lifted:]
            if not allowed:
                self._fail(f"r-{planned.release} was patched in after a hold was reported in force")

    def _check_quarantine(self, entries: list[AnyEntry], planned: Planned, intent: Intended) -> None:
        quarantined: set[str] = set()
        for entry in entries[: entries.index(intent)]:
            if isinstance(entry, Rejected | Failed | Live):
                quarantined.update(entry.quarantine)
        if not quarantined.isdisjoint((planned.pair.app, planned.pair.model, planned.pair.key)):
            self._fail(f"r-{planned.release} shipped although it is quarantined")

    def _check_convergence(self) -> None:
        state = self.world.state
        view = self.world.cluster.deployment("vision", "vision")
        if state.serving is not None and view.pair != state.serving.pair.key:
            self._fail(f"the ledger says {state.serving.name} is live, the cluster runs {view.release}")
        pair, _ = plan.newest_pair(state)
        if pair is None or state.hold is not None:
            return
        tried = [release for release in state.releases if release.pair == pair]
        if not tried:
            self._fail("not converged: the newest pair was never released")

    def _fail(self, what: str) -> None:
        raise Violation(f"seed {self.seed}: {what}\n{self.world.story()}")


def simulate(seed: int) -> Simulation:
    """Run one seed and return its world; raise Violation if an invariant does not hold."""
    simulation = Simulation(seed)
    simulation.run()
    return simulation
