"""One simulated history: publishers, people, several hosts and faults, then calm, then everything once more.

`simulate(seed)` runs the real pipeline, commands, stages and core over a world in memory, and returns the finished
`History`; `checked(seed)` judges it too. `Simulation` runs a plan that was drawn or written down.
"""

from collections import defaultdict

import msgspec

from shipmate.commands import Commands
from shipmate.core.events import ImagePushed, ModelPublished
from shipmate.core.ledger import Phase
from shipmate.core.precedence import EARLY
from shipmate.core.refs import Digest
from shipmate.errors import Conflict, Invalid, NotFound, ShipmateError
from shipmate.views import Answer
from tests.fakes.halves import app_image, model_folder
from tests.sim import reach
from tests.sim.cluster import PodFate
from tests.sim.faults import Faults, Operation
from tests.sim.history import Acknowledged, Commanded, History
from tests.sim.hosts import Hosts, Queue
from tests.sim.hub import Actor, Crash, Hub
from tests.sim.invariants import check
from tests.sim.observer import Observer, effects
from tests.sim.people import give
from tests.sim.plans import TROUBLE, Happening, Plan, What, app_version, drawn
from tests.sim.world import NAMESPACE, World

SWEEP_SECONDS = 120.0
MOST_CHAOS_STEPS = 40_000
MOST_CALM_STEPS = 20_000
"""Where trouble lasted, hundreds of messages that were delivered twice wait to find that nothing is left to do."""
RETRY_SECONDS = 8.0
LASTING_SECONDS = 500.0
"""How long trouble for good lasts on in a calm world, twice: until all else came to its end, and after a sweep."""
_STAGES = ("registry", "models", "cluster")
MEDDLERS = ("hold", "hold", "rollback", "release", "app", "model", "clean-up", "sweep")


class Simulation:
    """One history in the making."""

    def __init__(self, seed: int, plan: Plan, faults: Faults, *, telling: bool = False) -> None:
        self.seed = seed
        self.plan = plan
        setting = plan.setting
        self.hub = hub = Hub(faults, telling=telling)
        hub.on_sleep, hub.on_crash, hub.on_failure = self._slept, self._crashed, self._failed
        hub.on_outage = lambda system: reach.at_outage(hub, system)
        self.world = World(hub, setting.targets, self._pod_fate, guarded=setting.guarded)
        self.queue = Queue(hub, setting.most_deliveries)
        self.hosts = Hosts(hub, self.world, setting, self.queue.enqueue)
        self.queue.hosts = self.hosts
        self.queue.on_delivery = self._delivery
        cluster = self.world.cluster
        cluster.is_built = self._is_built
        cluster.who = lambda: hub.actor.host if hub.actor else ""
        cluster.entries = lambda name: self.hosts.look(name).state.length
        self.happened: list[Happening] = []  # those that no plan knew of
        self.delivered: list[ImagePushed | ModelPublished] = []
        self.dropped: list[ImagePushed | ModelPublished] = []
        self.acknowledged: list[Acknowledged] = []
        self.commands: defaultdict[str, list[Commanded]] = defaultdict(list)
        self.troubled: frozenset[tuple[Digest, str]] = frozenset()  # halves that are in trouble for good, and which
        self.trouble_ended: dict[str, int] = {}  # target → how long its ledger was then; empty if there is none
        self._numbers = 0
        self._pods: dict[str, int] = {}  # how many were made of each image

    # -- the run

    def run(self) -> History:
        """Live through chaos and calm, then deliver everything again."""
        hub, setting = self.hub, self.plan.setting
        self._decide_the_truth()
        for number, happening in enumerate(self.plan.happenings):
            hub.spawn(f"{happening.what} {number}", self._doing(happening), happening.at)
        if not setting.sweep_off:
            hub.spawn("timer 1", lambda: self._sweep_by_timer(1), SWEEP_SECONDS)
        settled = hub.run(MOST_CHAOS_STEPS, setting.chaos_seconds)
        chaos_steps, hub.steps = hub.steps, 0
        hub.calm()
        hub.tell("-- the faults are over --")
        chaos_ended_at = hub.instant()
        self.world.cluster.refused_images.clear()
        settled = settled and self._settle_in_trouble()
        settled = settled and hub.run(MOST_CALM_STEPS)
        if settled and not setting.sweep_off:
            settled = self._sweep_until_calm()
        calm_steps = hub.steps
        observer = Observer(self)
        ended_at = hub.instant()
        if settled and setting.sweep_off:
            settled = self._sweep_until_calm()
        observer.swept()
        if settled:
            self._replay()
        return History(
            seed=self.seed,
            targets=observer.finished(),
            chaos_ended_at=chaos_ended_at,
            ended_at=ended_at,
            poisoned=self.queue.poisoned,
            sweep_off=setting.sweep_off,
            skews=setting.skews,
            settled=settled,
            chaos_steps=chaos_steps,
            calm_steps=calm_steps,
        )

    def dissolve(self) -> None:
        """Let go of everything, so that no collector of cycles has to find it; the simulation is of no use after."""
        for part in (self.hosts, self.queue, self.world.cluster, self.world, self.hub, self):
            part.__dict__.clear()

    def _decide_the_truth(self) -> None:
        """Say from the start what each version is worth: the same bytes are as good later as now."""
        for happening in self.plan.happenings:
            if happening.quality == "good":
                continue
            digest = (app_image if happening.what == "app" else model_folder)(
                happening.version, happening.contract
            ).digest
            if happening.quality == "broken":
                self.world.broken_apps.add(digest)
            elif happening.quality == "wrong":
                self.world.says[digest] = ("honeycomb", 0.9)
            elif happening.quality == "failing":
                self.world.failing_models.add(digest)
            elif happening.quality in TROUBLE:
                self.world.in_trouble[digest] = happening.quality
        self.troubled = frozenset(self.world.in_trouble.items())

    def _settle_in_trouble(self) -> bool:
        """Let all come to its end that can while trouble for good lasts; note where the ledgers are, and end it.

        That somebody mends it at last is what all other promises wait for, and shows that nothing was given up.
        """
        if not self.troubled:
            return True
        for number in range(2):
            if number and not self.plan.setting.sweep_off:
                self.hub.spawn("calm sweep in trouble", self._sweep)
            if not self.hub.run(MOST_CALM_STEPS, self.hub.now + LASTING_SECONDS):
                return False
        self.trouble_ended = {name: len(self.hosts.entries(name)) for name in self.world.targets}
        active = [self.hosts.look(name).state.active for name in self.world.targets]
        if any(each is not None and each.retry_at is not None and each.trigger != "request" for each in active):
            self.hub.reached.add("the newest pair is in trouble for good")
        self.hub.tell("-- the trouble is mended --")
        self.world.in_trouble.clear()
        return True

    def _sweep_by_timer(self, number: int) -> None:
        if self.hub.in_chaos:
            self.hub.spawn(f"timer {number + 1}", lambda: self._sweep_by_timer(number + 1), SWEEP_SECONDS)
            self._sweep()

    def _sweep(self) -> None:
        actor = self.hub.actor
        if actor is None:
            raise AssertionError
        try:
            found = self.hosts.run(actor, lambda pipeline: pipeline.sweep())
        except (ShipmateError, Crash) as error:
            self.hub.tell(f"{actor}: the sweep ended: {error!r}")
        else:
            self.hub.tell(f"{actor}: the sweep found {found}")
            if isinstance(found, dict) and any(found.values()):
                self.hub.reached.add("the sweep finds what no event told")

    def _sweep_until_calm(self) -> bool:
        """Run the sweep until it finds nothing to do; twice suffices where there is nothing wrong."""
        for number in range(4):
            before = self._marks()
            self.hub.spawn(f"calm sweep {number}", self._sweep)
            if not self.hub.run(MOST_CALM_STEPS):
                return False
            if self._marks() == before:
                return True
        return False

    def _marks(self) -> tuple[object, ...]:
        """Return what changes when anything has an effect."""
        lengths = [self.hosts.look(name).state.length for name in self.world.targets]
        return (*lengths, *effects(self.world).items())

    def _replay(self) -> None:
        """Deliver every event and a message for each target once more."""
        self.hub.tell("-- everything is delivered once more --")
        self.queue.replaying = True
        for event in self.delivered:
            self.hub.spawn(f"replay {event.event_id}", lambda event=event: self._deliver(event, again=False))  # type: ignore[misc]
        for name in self.world.targets:
            self.queue.enqueue(name)
        self.hub.run(MOST_CALM_STEPS)

    # -- what happens

    def _doing(self, happening: Happening) -> "Doing":
        return Doing(self, happening)

    def do(self, happening: Happening) -> None:
        """Let a happening happen; called in an actor of its own."""
        match happening.what:
            case "app" | "model":
                self._publish(happening)
            case "outage":
                now = self.hub.now
                self.hub.tell(f"{happening.system} is away for {happening.seconds:.0f} s")
                self.hub.outages.append((happening.system, now, now + happening.seconds))
            case "clean-up":
                self.world.clean_up(60.0)
            case "policy":
                self._refuse_what_was_live(happening.target)
            case "loss":
                self._lose(happening)
            case "restore":
                self.world.restore_models()
            case "sweep":
                self._sweep()
            case "touch":
                self.world.touch_model(happening.version)
            case _:
                self._ask(happening)

    def _refuse_what_was_live(self, name: str) -> None:
        """Let the API server take no patch to the image of a release that was live, until the faults are over."""
        state = self.hosts.look(name).state
        images = {str(state.release(number).image) for number in state.verified if number != state.live}
        self.world.cluster.refused_images.update(images)
        self.hub.tell(f"a policy of the cluster refuses what was live of {name}")

    def _lose(self, happening: Happening) -> None:
        """Let somebody delete a half of what is live where it was published; what is in the cluster goes on."""
        live = self.hosts.look(happening.target).state.serving
        if live is not None and happening.scope == "app":
            self.world.lose_app(happening.target, live.pair.app)
        elif live is not None:
            self.world.lose_model(live.pair.model)

    def _publish(self, happening: Happening) -> None:
        world, version = self.world, happening.version
        self._numbers += 1
        event_id = f"event-{self._numbers}"
        event: ImagePushed | ModelPublished
        if happening.what == "app":
            event = world.push_app(happening.target, version, event_id, happening.contract)
        else:
            event = world.publish_model(version, event_id, happening.contract, happening.folder)
            if happening.quality == "gone":
                digest = model_folder(version, happening.contract).digest
                world.lose_model_file(happening.folder or version, digest)
        self._send(event, happening.deliveries)

    def _send(self, event: ImagePushed | ModelPublished, deliveries: tuple[float, ...]) -> None:
        if not deliveries:
            self.hub.counts["event dropped"] += 1
            self.hub.tell(f"the event {event.event_id} is dropped")
            self.dropped.append(event)
            return
        self.delivered.append(event)
        if len(deliveries) > 1:
            self.hub.counts["event duplicated"] += 1
        for number, seconds in enumerate(deliveries):
            self.hub.spawn(f"{event.event_id} delivery {number}", lambda: self._deliver(event), seconds)

    def _deliver(self, event: ImagePushed | ModelPublished, *, again: bool = True) -> None:
        """Deliver an event until it is acknowledged, as Event Grid does."""
        actor = self.hub.actor
        if actor is None:
            raise AssertionError(event)
        attempt = 1
        while True:
            try:
                self.hosts.run(actor, lambda pipeline: pipeline.intake(event))
            except (ShipmateError, Crash) as error:
                self.hub.tell(f"{actor}: the delivery failed: {error!r}")
            else:
                break
            actor.doomed = False  # the next attempt is another request
            attempt += 1
            self.hub.pause(RETRY_SECONDS)
        if again:
            self.acknowledged.append(Acknowledged(self.hub.instant(), event))

    def _ask(self, happening: Happening) -> None:
        """Give a command until it is answered, and perhaps once more later."""
        actor = self.hub.actor
        if actor is None:
            raise AssertionError(happening)
        for later in (0.0, *happening.again):
            self.hub.pause(later)
            while True:
                try:
                    answer = self.hosts.run(actor, lambda pipeline: give(Commands(pipeline), happening))
                except (Conflict, NotFound, Invalid) as error:
                    self.hub.tell(f"{actor}: refused: {error}")
                    self.hub.counts["command refused"] += 1
                    if "while" in str(error) and happening.if_live:
                        self.hub.reached.add("a command's if_live no longer holds")
                    return
                except (ShipmateError, Crash) as error:
                    self.hub.tell(f"{actor}: the command failed: {error!r}")
                else:
                    self._answered(actor, happening, answer)
                    break
                actor.doomed = False
                self.hub.pause(RETRY_SECONDS)
            if later:
                self.hub.reached.add("a command is repeated with its key")

    def _answered(self, actor: Actor, asked: Happening, answer: object) -> None:
        if not isinstance(answer, Answer):
            raise TypeError(answer)
        patches = len(self.world.cluster.patches(NAMESPACE, asked.target))
        length = self.hosts.look(asked.target).state.length
        kind: object = asked.what
        sleepers = self.hub.sleepers.items()
        if kind == "hold" and any(who.target == asked.target and what == "patch_deployment" for who, what in sleepers):
            self.hub.reached.add("a hold comes while a worker sleeps before its patch")
        self.hub.tell(f"{actor}: answered: {answer.message}")
        self.commands[asked.target].append(
            Commanded(self.hub.instant(), kind, asked.key, answer, patches, length, asked.override)  # type: ignore[arg-type]
        )

    # -- trouble that does not belong to one call

    def _pod_fate(self, name: str, image: str) -> PodFate:
        if not self.world.is_pullable(image):
            self.hub.reached.add("no node can pull a candidate's image")
            return PodFate(pullable=False)
        key = f"pod of {image[-12:]}" if not name.startswith("gate-") else f"gate pod of {image[-12:]}"
        self._pods[key] = number = self._pods.get(key, 0) + 1
        dead = self.hub.chance("dead pods", f"{key} #{number} is dead", 0.03)
        if dead is not None:
            self.hub.reached.add("a pod never gets ready")
            return PodFate(1e9, crashes=dead < 0.4)
        slow = self.hub.chance("slow pods", f"{key} #{number} is slow", 0.08)
        return PodFate(1.0 if slow is None else 5 + 60 * slow * slow)

    def _is_built(self, target: str, name: str) -> bool:
        releases = self.hosts.look(target).state.releases
        return any(release.name == name and release.phase is Phase.BUILT for release in releases)

    def _delivery(self, actor: Actor) -> None:
        """Look whether a host's wrong clock matters to what it is about to decide."""
        if abs(actor.skew) < 2 or self.plan.setting.segment_entries:
            return
        active = self.hosts.look(actor.target).state.active
        if active is not None and active.retry_at is not None:
            over = active.retry_at <= self.hub.instant()
            if over != (active.retry_at <= self.hub.instant(actor.skew)):
                self.hub.reached.add("a wrong clock decides at a deadline")

    def _slept(self, actor: Actor, operation: Operation) -> None:
        self.queue.slept(actor)
        actor.slept_at = self.hosts.look(actor.target).state.length if actor.target else 0
        if actor.target and operation.danger >= 6:
            share = self.hub.chance("meddling", f"{actor.name} {operation.name} meddler", 0.5)
            if share is not None:
                self._meddle(actor, share)

    def _meddle(self, actor: Actor, share: float) -> None:
        """Let somebody do something while a worker sleeps before a dangerous call."""
        self._numbers += 1
        what = MEDDLERS[int(share * len(MEDDLERS))]
        if what == "sweep" and self.plan.setting.sweep_off:
            return  # what a sweep leaves half done, only the next one takes up
        number, at = self._numbers, 1 + 15 * (share * 97 % 1)
        happening = Happening(
            at=self.hub.now + at,
            what=what,  # type: ignore[arg-type] # one of them
            target=actor.target,
            version=app_version(actor.target, 20 + number % 20) if what == "app" else f"model-{20 + number % 20}",
            key=f"meddler-{number}",
        )
        self.happened.append(happening)
        self.hub.counts[f"meddler: {what}"] += 1
        self.hub.spawn(f"meddler {number}", lambda: self.do(happening), at)
        if what == "hold" and share * 31 % 1 < 0.7:
            lift = msgspec.structs.replace(happening, what="resume", at=at + 60, key=f"{happening.key}-lift")
            self.happened.append(lift)
            self.hub.spawn(f"meddler {number} lifts", lambda: self.do(lift), at + 60)

    def _failed(self, actor: Actor, operation: Operation) -> None:
        """Let what is live be published again, now and then, where an effect failed for a release on its way."""
        if actor.target and operation.system in _STAGES:
            call = f"{actor.name} {operation.name} {actor.calls[operation.name]}"
            share = self.hub.chance("meddling", f"{call} again", 0.5)
            if share is not None:
                self._publish_live_again(actor.target, share)

    def _publish_live_again(self, name: str, share: float) -> None:
        """Move the tag back to the live app, or restore the live model, about when a failed stage is tried again."""
        state = self.hosts.look(name).state
        live, active = state.serving, state.active
        if live is None or active is None or active.phase not in EARLY or active.pair == live.pair:
            return
        what: What = "app" if active.pair.app != live.pair.app else "model"
        version = live.app_version if what == "app" else live.model_version
        published = self.world.apps[name] if what == "app" else self.world.published_models
        digest = live.pair.app if what == "app" else live.pair.model
        contract = next(half.contract for half in reversed(published) if half.digest == digest)
        at = 0.8 + 2.8 * share
        happening = Happening(at=self.hub.now + at, what=what, target=name, version=version, contract=contract)
        self._numbers += 1
        self.happened.append(happening)
        self.hub.counts[f"meddler: live {what} again"] += 1
        self.hub.spawn(f"meddler {self._numbers}", lambda: self.do(happening), at)

    def _crashed(self, actor: Actor, operation: Operation) -> None:
        reach.at_crash(self.hub, actor, operation)
        self.hosts.crashed(actor, operation)


class Doing:
    """A happening as an actor's work."""

    def __init__(self, simulation: Simulation, happening: Happening) -> None:
        self._simulation = simulation
        self._happening = happening

    def __call__(self) -> None:
        self._simulation.do(self._happening)


def simulation_of(seed: int, *, telling: bool = False) -> Simulation:
    """Return a seed's history before it begins."""
    faults = Faults(seed)
    return Simulation(seed, drawn(seed, faults), faults, telling=telling)


def simulate(seed: int) -> History:
    """Run one seed and return what happened."""
    return simulation_of(seed).run()


def checked(seed: int) -> History:
    """Run one seed and judge it; raise Violation if an invariant does not hold."""
    history = simulate(seed)
    check(history)
    return history
