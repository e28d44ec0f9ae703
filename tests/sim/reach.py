"""States that many runs must come by: a search that never meets them proves nothing about them.

`REACH` is the table. Some are seen while they happen (`hub.reached` gets their names), the others in the finished
history; `make sim` counts the seeds that came by each, and a test demands that each is met often enough.
"""

from collections.abc import Callable
from typing import Any

from shipmate.core.ledger import (
    AnyEntry,
    Built,
    Errored,
    Failed,
    Held,
    HoldSet,
    IgnoredEvent,
    Intended,
    Live,
    ModelHalf,
    Planned,
    Progressed,
    Received,
    Rejected,
    Requested,
    Resolved,
    Resumed,
    Skipped,
    Superseded,
    Waiting,
)
from shipmate.core.refs import Digest
from tests.sim.faults import Operation
from tests.sim.history import History, TargetRun
from tests.sim.hub import Actor, Hub

REACH = {
    # workers
    "all hosts are busy at once": "three workers are at work in the same instant",
    "a worker wakes before its patch and the ledger went on": "it decided, slept, and others acted meanwhile",
    "a worker wakes before its append and the ledger went on": "its effect is done, its outcome comes late",
    "two workers record the same outcome": "both took the step; the ledger lets one of them be first",
    "a worker dies between its append and its message": "the target is due and no message says so",
    "a worker dies after its patch": "the Deployment changed and no entry says so",
    "a worker dies after the image is there": "the release image is complete and no entry says so",
    "a worker dies after it started a gate pod": "the pod runs and nobody waits for it",
    "a message is delivered again while a worker sleeps on it": "two workers have the same message",
    "a message is poisoned": "it failed as often as the queue allows, and nobody gets it any more",
    "a wrong clock decides at a deadline": "the worker thinks that a wait is over and it is not, or the reverse",
    # the ledger
    "somebody else appends first": "a conditional append fails for another writer's entry",
    "an append finds its own entry behind a 412": "it was applied, its reply was lost, and it is not applied again",
    "an append's reply is lost": "nobody can tell whether the entry is there until the ledger is read again",
    "a segment is rolled": "the real store seals a blob and goes on in the next",
    "two workers roll the same segment": "both try to seal it",
    "the ledger is away": "storage serves nobody for a while",
    # the cluster
    "a policy refuses what was live before": "the API server takes no patch to its image until somebody allows it",
    "a patch is refused": "its fence, or what it tested, changed since",
    "a patch's reply is lost": "the Deployment may or may not have changed",
    "a hold comes while a worker sleeps before its patch": "the patch may only land before the hold is in force",
    "a hold outruns a patch": "an intended release is held because the hold's fence came first",
    "a rollout takes a second fence": "a higher fence came first and is out of the way",
    "a gate pod is there already": "another worker, or an earlier life of this one, made it",
    "a gate pod is made again after its verdict": "by a worker that woke late; somebody must remove it",
    "a pod never gets ready": "a rollout or a gate ends at its deadline",
    "the cluster is away": "the API server serves nobody for a while",
    # the registry and the models
    "a tag moves between resolve and pull": "what is pulled by digest is no longer what the tag says",
    "a tag moves before its event is read": "the event is stale when its turn comes",
    "the clean-up takes a release image": "it was pushed, and is not there any more",
    "an image that was cleaned away is built again": "to the same digest, in time for its gate or rollout",
    "the image of a rollback's target is gone": "what to go back to was cleaned away",
    "the registry is away": "it serves nobody for a while",
    "the models are away": "model storage serves nobody for a while",
    "a half cannot be built": "a file that its manifest lists is not there",
    # events
    "an event is delivered twice": "at the same time or much later",
    "an event comes after a newer one of its blob": "its sequencer says that it is old",
    "the sweep finds what no event told": "an event was dropped",
    "the same bytes are published again": "nothing new is released for them",
    "an older model's metadata is changed": "its blob has another ETag and date, and nobody published it",
    "a quarantined model is uploaded under another name": "it ships under no name",
    "something is published during a gate": "the verdict belongs to the pair that was asked, not to the newest",
    "a model and an app make one release": "published close together",
    "one model ships to two targets": "each target has a ledger of its own",
    "a model that was deleted is restored": "it is as old as before, and no event tells of it",
    "what is live is deleted where it was published": "nothing older goes in its place, and the target says so",
    # verdicts
    "a gate rejects": "the candidate answers wrongly, or not at all",
    "the halves of a rejected pair are asked apart": "to find out which is at fault",
    "a rollout fails": "pods do not become ready",
    "a release fails at the door": "its pods are ready and users are not answered by it",
    "a bad release is rolled back by itself": "the last good pair is live again",
    "a pair waits for its partner": "the newest halves speak different contracts",
    "a partner comes": "what waited ships",
    "trouble is on record": "a stage says when it tries again",
    "a worker hands over": "its turn ends with a release on its way",
    # what nobody mends while the run lasts
    "no node can pull a candidate's image": "its gate's pod never runs, and its answers are not to blame",
    "the registry refuses a release image for good": "the build never ends, and neither half is to blame",
    "what is in trouble for good is passed": "a newer pair goes instead",
    "the newest pair is in trouble for good": "nothing can go instead, and the ledger names the trouble",
    # what is live, published again
    "what is on its way is older than live by now": "what is live was published again, which supersedes the other",
    # people
    "a person rolls back": "and the earlier pair is live again",
    "a person's wish ends a release on its way": "it had not met users",
    "a rollback in lasting trouble gives way": "to what a person asks for",
    "a release waits under a hold": "it passed its gate",
    "a held release ships": "after the hold was lifted",
    "a hold is set over a narrower one": "which is in force again when the wider one is lifted",
    "a hold on one half lets the other ship": "with the live partner",
    "a quarantined pair is released by override": "which is on record",
    "a command is repeated with its key": "and changes nothing",
    "a command's if_live no longer holds": "something else is live by now",
}
"""Name → what it means."""

SEEDS_OF_EACH = 20
"""In 10,000 seeds, at least this many come by each of them."""

_AWAY = {"ledger": "the ledger is away", "cluster": "the cluster is away", "registry": "the registry is away",
         "models": "the models are away"}  # fmt: skip


def at_crash(hub: Hub, actor: Actor, operation: Operation) -> None:
    """Note where a worker died."""
    if operation.name == "enqueue" and actor.done == "append":
        hub.reached.add("a worker dies between its append and its message")
    found = {
        "patch_deployment": "a worker dies after its patch",
        "put_manifest": "a worker dies after the image is there",
        "create_gate_pod": "a worker dies after it started a gate pod",
    }.get(actor.done)
    if found is not None and actor.done == operation.name:
        hub.reached.add(found)


def at_outage(hub: Hub, system: str) -> None:
    """Note that a system did not serve somebody."""
    if system in _AWAY:
        hub.reached.add(_AWAY[system])


def reached(hub: Hub, history: History) -> set[str]:
    """Return the names of all states that a run came by."""
    found = set(hub.reached)
    counts = hub.counts
    if counts["lost reply at append"]:
        found.add("an append's reply is lost")
    if counts["lost reply at patch_deployment"]:
        found.add("a patch's reply is lost")
    if counts["event duplicated"]:
        found.add("an event is delivered twice")
    live: list[set[str]] = []
    for run in history.targets:
        found.update(_Reader(run).found)
        live.append({release.pair.model for release in run.state.releases if release.was_live})
    if len(live) > 1 and live[0] & live[1]:
        found.add("one model ships to two targets")
    return found


class _Reader:
    """Goes through a target's entries once and collects what they show."""

    def __init__(self, run: TargetRun) -> None:
        self.found: set[str] = set()
        self._lost = run.truth.lost_images
        self._troubled = run.truth.troubled
        self._planned: dict[int, Planned] = {}
        self._last: dict[int, type[AnyEntry]] = {}  # release → kind of its last entry
        self._waiting: set[str] = set()
        self._paths: dict[Digest, str] = {}  # model → the blob that made it known
        self._hold: HoldSet | None = None
        for entry in run.entries:
            name = _PLAIN.get(type(entry))
            if name is not None:
                self.found.add(name)
            read = _READ.get(type(entry))
            if read is not None:
                read(self, entry)
            number = getattr(entry, "release", None)
            if isinstance(number, int):
                self._last[number] = type(entry)

    def received(self, entry: Received) -> None:
        if any(kind is Built for kind in self._last.values()):
            self.found.add("something is published during a gate")

    def planned(self, entry: Planned) -> None:
        if entry.trigger == "blame":
            self.found.add("the halves of a rejected pair are asked apart")
        if entry.to is not None and entry.image in self._lost:
            self.found.add("the image of a rollback's target is gone")
        before = next((each.pair for each in reversed(self._planned.values())), None)
        if before is not None and before.app != entry.pair.app and before.model != entry.pair.model:
            self.found.add("a model and an app make one release")
        self._planned[entry.release] = entry

    def waiting(self, entry: Waiting) -> None:
        self._waiting |= {entry.app, entry.model}

    def hold(self, entry: HoldSet | Resumed) -> None:
        if isinstance(entry, HoldSet) and self._hold is not None and self._hold.scope != "all":
            self.found.add("a hold is set over a narrower one")
        self._hold = entry if isinstance(entry, HoldSet) else None

    def held(self, entry: Held) -> None:
        outran = self._last.get(entry.release) is Intended
        self.found.add("a hold outruns a patch" if outran else "a release waits under a hold")

    def intended(self, entry: Intended) -> None:
        before, planned = self._last.get(entry.release), self._planned[entry.release]
        if before is Intended:
            self.found.add("a rollout takes a second fence")
        if before is Held:
            self.found.add("a held release ships")
        if self._hold is not None and self._hold.scope != "all" and planned.to is None:
            self.found.add("a hold on one half lets the other ship")
        if not self._waiting.isdisjoint((planned.pair.app, planned.pair.model)):
            self.found.add("a partner comes")

    def rejected(self, entry: Rejected) -> None:
        self.found.add("a half cannot be built" if entry.withdrawn else "a gate rejects")

    def failed(self, entry: Failed) -> None:
        self.found.add("a release fails at the door" if entry.stage == "verify" else "a rollout fails")

    def live(self, entry: Live) -> None:
        trigger = self._planned[entry.release].trigger
        if trigger == "automatic_rollback":
            self.found.add("a bad release is rolled back by itself")
        if trigger == "rollback":
            self.found.add("a person rolls back")

    def superseded(self, entry: Superseded) -> None:
        if "rolled back" in entry.message or "asked for" in entry.message:
            self.found.add("a person's wish ends a release on its way")
        if "published again and is live" in entry.message:
            self.found.add("what is on its way is older than live by now")
        planned = self._planned[entry.release]
        if planned.to is not None:
            self.found.add("a rollback in lasting trouble gives way")
        pair = planned.pair
        if "in trouble" in entry.message and (pair.app in self._troubled or pair.model in self._troubled):
            self.found.add("what is in trouble for good is passed")

    def progressed(self, entry: Progressed) -> None:
        if entry.hands_over:
            self.found.add("a worker hands over")

    def requested(self, entry: Requested) -> None:
        if entry.override:
            self.found.add("a quarantined pair is released by override")

    def resolved(self, entry: Resolved) -> None:
        if isinstance(entry.half, ModelHalf):
            self._paths[entry.half.digest] = entry.half.path

    def skipped(self, entry: Skipped) -> None:
        name, half = _SKIPPED.get(entry.reason), entry.half
        if name is not None:
            self.found.add(name)
        if entry.reason == "Quarantined" and isinstance(half, ModelHalf) and half.path != self._paths.get(half.digest):
            self.found.add("a quarantined model is uploaded under another name")


_PLAIN: dict[type, str] = {
    IgnoredEvent: "an event comes after a newer one of its blob",
    Waiting: "a pair waits for its partner",
    Errored: "trouble is on record",
}
_SKIPPED = {
    "Stale": "a tag moves before its event is read",
    "Duplicate": "the same bytes are published again",
}
_READ: dict[type, Callable[[_Reader, Any], None]] = {
    Received: _Reader.received,
    Planned: _Reader.planned,
    Waiting: _Reader.waiting,
    HoldSet: _Reader.hold,
    Resumed: _Reader.hold,
    Held: _Reader.held,
    Intended: _Reader.intended,
    Rejected: _Reader.rejected,
    Failed: _Reader.failed,
    Live: _Reader.live,
    Superseded: _Reader.superseded,
    Progressed: _Reader.progressed,
    Requested: _Reader.requested,
    Resolved: _Reader.resolved,
    Skipped: _Reader.skipped,
}
