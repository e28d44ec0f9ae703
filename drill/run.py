"""The story of a drill: start a world, bring every target to its first release, break things under a burst, judge."""

import fcntl
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueClient

from drill import faults, models, world
from drill.app_image import FIRST_REPOSITORY, AppImage, Pusher, ensure_program
from drill.monitors import Door, Evidence
from drill.publishers import Publishers, burst
from drill.replay import replay
from drill.report import Fault, Report, Seen
from drill.taking import Taken, taken_in
from drill.watching import Watching
from drill.world import NAMESPACE, Size
from localcloud import registry
from localcloud.cloud import LEDGERS, QUEUE, LocalCloud
from localcloud.config import Cloud, state_root
from localcloud.demo.users import Count, Users
from localcloud.eventgrid.client import RelayClient
from localcloud.kubernetes import cluster
from localcloud.talk import say
from localcloud.targets import TargetCluster
from shipmate.core.answers import parse_version, question
from shipmate.core.gate_pod import GATE_SELECTOR
from shipmate.core.state import State
from shipmate.core.views import PAIR
from shipmate.edge.ledger_store import LedgerStore
from shipmate.errors import ShipmateError
from shipmate.pipeline import UNCLAIMED

FIRST_WITHIN_SECONDS = 900.0
PATCH_WITHIN_SECONDS = 60.0
USER_PAUSE_SECONDS = 0.5
POLL_SECONDS = 2.0
READERS = 8
SETTLED_SECONDS = 5.0
KILLED = "Functions workers killed"


class DrillError(Exception):
    """The drill could not be carried out; the message says where it stopped."""


def run(size: Size, cloud: Cloud) -> Report:
    """Carry out a drill on a cloud of its own and return what it found. Raises DrillError, StartError, SetupError."""
    local = LocalCloud(cloud)
    with _alone(), ExitStack() as stack:
        say("doing", f"a world of {size.targets} targets is started")
        stack.callback(local.stop)
        image = _start(local, size)
        admin = local.target_cluster()
        stack.callback(world.remove, admin, wait=False)
        drill = Drill(local, admin, size, Publishers(cloud, image, cloud.state / "models"))
        stack.callback(drill.close)
        return drill.carry_out()


@contextmanager
def _alone() -> Iterator[None]:
    """Let one drill of this machine at a time have the world."""
    path = state_root() / "drill.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _start(local: LocalCloud, size: Size) -> AppImage:
    """Start everything, with nothing published yet."""
    image = AppImage(ensure_program())
    local.wipe()
    cluster.up()
    cluster.add_registry_mirror(local.cloud.registry)
    admin = local.target_cluster()
    world.remove(admin, wait=True)
    registry.start(local.cloud)
    with closing(Pusher(local.cloud.registry, image)) as pusher:
        pusher.push(FIRST_REPOSITORY, "0.0.0", "first")
    world.apply(admin, local.cloud, size)
    local.start(
        targets_yaml=world.targets_yaml(size, world.public_urls(admin, size)),
        instances=size.instances,
        settings=world.app_settings(size),
        lease_seconds=size.lease_seconds,
        time_scale=size.time_scale,
        apply_targets=False,
    )
    return image


@dataclass
class Drill:
    """A drill over a cloud that is up."""

    local: LocalCloud
    admin: TargetCluster
    size: Size
    publishers: Publishers

    def __post_init__(self) -> None:
        self._names = world.target_names(self.size)
        self._urls = world.public_urls(self.admin, self.size)
        self._storage = BlobServiceClient.from_connection_string(self.local.cloud.connection_string)
        self._ledgers = LedgerStore(self._storage, LEDGERS)
        self._relay = RelayClient(self.local.cloud.eventgrid_url)
        self._watching = Watching(self.admin.kubeconfig, self.admin.context)
        self._faults: list[Fault] = []

    def close(self) -> None:
        """Close the connections."""
        self._watching.stop()
        self._relay.close()
        self._storage.close()

    def carry_out(self) -> Report:
        """Release, break, wait, judge."""
        self._watching.start()
        began = time.monotonic()
        self._bring_first()
        first_seconds = time.monotonic() - began
        users = [
            Users(self._urls[name], question([models.PHOTO]), each_kind=1, pause_seconds=USER_PAUSE_SECONDS)
            for name in self._names[: self.size.doors]
        ]
        for each in users:
            each.start()
        began_at, began = time.time(), time.monotonic()
        try:
            self._break_and_publish()
            converged_after = self._converge()
            taken, seconds = taken_in(self._relay, began_at, self._names), time.monotonic() - began
            replayed = self._tell_old_news(began_at)
        finally:
            seen = _together([each.stop() for each in users])
        return self._report(
            seen,
            replace(taken, acknowledged=taken_in(self._relay, began_at, self._names).acknowledged),
            Seen(
                first_seconds=first_seconds,
                seconds=seconds,
                converged_seconds=converged_after,
                publish_again=self.publishers.again,
                watch_gaps=self._watching.gaps,
                replayed=replayed,
            ),
        )

    # -- before

    def _bring_first(self) -> None:
        say("doing", "every target gets its first release")
        self.publishers.publish([(name, half) for name in self._names for half in ("app", "model")])
        left = self._wait_until_newest(FIRST_WITHIN_SECONDS)
        if left:
            raise DrillError(f"{len(left)} targets have no first release after {FIRST_WITHIN_SECONDS:.0f} s: {left[0]}")
        self._relay.wait_until_idle(within_seconds=60)
        say("done", f"{len(self._names)} targets are live, users ask {min(self.size.doors, len(self._names))} of them")

    # -- the drill itself

    def _break_and_publish(self) -> None:
        """Publish the burst under the relay's faults, while a thread breaks parts; then break more during rollouts."""
        size = self.size
        self._relay.add_fault("duplicate", probability=size.duplicates, seconds=size.late_seconds, seed=size.seed)
        self._relay.add_fault("delay", probability=0.5, seconds=size.late_seconds, seed=size.seed + 1)
        self._relay.add_fault("reorder", probability=1.0, seconds=size.late_seconds)
        say("doing", f"{size.events} publishes, {size.duplicates:.0%} of their events twice, all out of order")
        plan = burst(self._names, size.events, size.seed)
        acts = [(KILLED, self._kill) for _ in range(size.kills - 1)]
        acts.insert(1, ("Azurite restarted", self._restart_storage))
        first, began = len(self.publishers.done), time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            publishing = pool.submit(self.publishers.publish, plan)
            for number, (what, act) in enumerate(acts, 1):
                while len(self.publishers.done) - first < size.events * number / (len(acts) + 1):
                    if publishing.done():
                        publishing.result()
                    time.sleep(0.05)
                self._break(what, act)
            publishing.result()
        seconds = time.monotonic() - began
        say("done", f"published {size.events} in {seconds:.0f} s, {size.events / seconds:.0f} a second")
        self._watching.wait_for_patch(PATCH_WITHIN_SECONDS)
        self._break("API server away", lambda: faults.hang_api_server(size.outage_seconds))
        if size.kills:
            self._watching.wait_for_patch(PATCH_WITHIN_SECONDS)
            self._break(KILLED, self._kill)

    def _kill(self) -> None:
        faults.kill_functions(self.local)

    def _restart_storage(self) -> None:
        faults.restart_storage(self.local)

    def _break(self, what: str, act: Callable[[], object]) -> None:
        """Break a part and note how many releases were under way."""
        under_way = sum(state.active is not None for state in self._states())
        began = time.monotonic()
        act()
        seconds = time.monotonic() - began
        self._faults.append(Fault(what, under_way, round(seconds, 1)))
        say("warning", f"{what}: {under_way} releases were under way; back after {seconds:.1f} s")

    # -- after

    def _converge(self) -> float:
        """Wait until every event was delivered and every target runs its newest pair; return how long that took."""
        say("doing", "nothing more is published or broken; every target comes to its newest pair")
        began = time.monotonic()
        left = self._wait_until_newest(self.size.within_seconds, and_idle=True)
        seconds = time.monotonic() - began
        if left:
            say("failed", f"{len(left)} targets did not, within {seconds:.0f} s: {left[0]}")
        else:
            say("done", f"every target runs its newest pair, {seconds:.0f} s after the last fault")
        return seconds

    def _tell_old_news(self, since: float) -> int:
        """Let the oldest event of every half come once more, and wait for what that must not start."""
        self._relay.remove_faults()
        told = replay(self._relay, self.local.cloud, since, self._names)
        self._wait_until_newest(self.size.within_seconds, and_idle=True)
        time.sleep(self.size.quiet_seconds + SETTLED_SECONDS)
        self._wait_until_newest(self.size.within_seconds, and_idle=True)
        say("done", f"the oldest event of each half came again, {told} in all")
        return told

    def _wait_until_newest(self, within_seconds: float, *, and_idle: bool = False) -> list[str]:
        """Return the targets that are not at rest with their newest pair, none as soon as all are."""
        deadline = time.monotonic() + within_seconds
        told = time.monotonic()
        while True:
            left = self._not_at_rest()
            pending = self._relay.stats()["deliveries"].get("pending", 0) if and_idle else 0
            if (not left and not pending) or time.monotonic() > deadline:
                return left
            if time.monotonic() - told > 30:
                told = time.monotonic()
                say("idle", f"{len(left)} targets are not there yet, {pending} deliveries wait; {left[:1]}")
            time.sleep(POLL_SECONDS)

    def _not_at_rest(self) -> list[str]:
        evidence = Evidence(self.publishers.done, {}, frozenset(), (), {}, {})
        left = []
        for name, state in zip(self._names, self._states(), strict=True):
            wanted, serving, active = evidence.newest(name), state.serving, state.active
            if serving is None or serving.pair != wanted or active is not None or state.publications:
                last = state.releases[-1] if state.releases else None
                told = f"{last.name} is {last.phase} {last.message or ''}" if last is not None else "no release"
                left.append(f"{name}: {told}, {len(state.publications)} publications wait")
        return left

    def _states(self) -> list[State]:
        """Return the state of every target; storage that is away is waited for."""
        while True:
            try:
                with ThreadPoolExecutor(READERS) as pool:
                    return [reading.state for reading in pool.map(self._ledgers.read, self._names)]
            except ShipmateError:
                time.sleep(POLL_SECONDS)

    def _report(self, users: Count, taken: Taken, seen: Seen) -> Report:
        evidence = Evidence(
            publishes=self.publishers.done,
            ledgers={name: tuple(self._ledgers.history(name)) for name in (*self._names, *UNCLAIMED)},
            acknowledged=taken.acknowledged,
            patches=self._watching.patches,
            doors={name: self._door(name) for name in self._names},
            replica_sets=self._replica_sets(),
        )
        seen = replace(seen, poisoned=self._poisoned(), gate_pods=self._gate_pods())
        return Report.of(
            size=self.size, evidence=evidence, users=users, taken=taken, faults=tuple(self._faults), seen=seen
        )

    def _door(self, name: str) -> Door:
        reply = httpx.get(f"{self._urls[name]}/version", timeout=30, trust_env=False)
        version = parse_version(reply.headers)
        return Door(version.release, version.model_digest)

    def _replica_sets(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {name: [] for name in self._names}
        for each in self._kubectl("replicasets"):
            pair = each["spec"]["template"]["metadata"].get("annotations", {}).get(PAIR)
            if pair is not None:
                found[each["metadata"]["ownerReferences"][0]["name"]].append(pair)
        return found

    def _gate_pods(self) -> int:
        """Return how many of the gates' pods are left; those that just end are given some seconds."""
        deadline = time.monotonic() + 60
        while True:
            left = len(self._kubectl("pods", "-l", GATE_SELECTOR))
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(POLL_SECONDS)

    def _kubectl(self, *what: str) -> Sequence[Any]:
        found: Sequence[Any] = json.loads(self.admin.run("get", *what, "-n", NAMESPACE, "-o", "json"))["items"]
        return found

    def _poisoned(self) -> int:
        """Return how many messages the queue gave up."""
        with QueueClient.from_connection_string(self.local.cloud.connection_string, f"{QUEUE}-poison") as queue:
            try:
                return queue.get_queue_properties().approximate_message_count or 0
            except ResourceNotFoundError:
                return 0


def _together(counts: Sequence[Count]) -> Count:
    whole = Count()
    for count in counts:
        whole.requests += count.requests
        whole.failed += count.failed
        whole.slow += count.slow
        whole.slowest_seconds = max(whole.slowest_seconds, count.slowest_seconds)
        whole.faults += count.faults
    return whole
