"""A finished run of the simulator, as the checks after it see it.

`tests.sim.simulation` makes one a seed; `tests.sim.invariants` and `tests.sim.model` judge it. Everything here was seen
from outside Shipmate: what the ledger holds, what the cluster accepted, what was answered, what the publishers did.
Instants are the world's, not a worker's, whose clock may be wrong; only entries carry what workers believed.
"""

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from shipmate.core.events import ImagePushed, ModelPublished
from shipmate.core.fence import Operation
from shipmate.core.ledger import AnyEntry
from shipmate.core.refs import Digest
from shipmate.core.state import State
from shipmate.core.targets import Target
from shipmate.core.views import DeploymentView, PodView
from shipmate.views import Answer

type CommandKind = Literal["release", "rollback", "hold", "resume"]


@dataclasses.dataclass(frozen=True, slots=True)
class Patch:
    """A patch that the cluster accepted. `entries`: how long the target's ledger was at that instant."""

    at: datetime
    worker: str
    operations: tuple[Operation, ...]
    before: DeploymentView
    after: DeploymentView
    entries: int
    pullable: bool  # whether the registry had the image that the patch asks for


@dataclasses.dataclass(frozen=True, slots=True)
class Acknowledged:
    """A delivery of an event that was answered with success: from here on the event is Shipmate's to keep."""

    at: datetime
    event: ModelPublished | ImagePushed


@dataclasses.dataclass(frozen=True, slots=True)
class Commanded:
    """A command that was answered with success.

    `patches` and `entries`: how many patches the target's Deployment had accepted, and how long its ledger was, when
    the answer left. A hold is in force from here on.
    """

    at: datetime
    kind: CommandKind
    key: str
    answer: Answer
    patches: int
    entries: int
    override: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Half:
    """A half that was published: `digest` is what a pair would carry; `name` is the version."""

    name: str
    digest: Digest
    contract: str
    at: datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Truth:
    """What is so in the world, whether or not Shipmate found out."""

    apps: tuple[Half, ...]  # as they were published, oldest first; a half that was published twice is there twice
    models: tuple[Half, ...]
    app_head: Digest | None  # what the followed tag points to at the end
    model_head: Digest | None  # the newest model in the container at the end
    wrong_models: frozenset[Digest]  # their candidate answers wrongly or with 500: none may ever meet users
    broken_apps: frozenset[Digest]  # nobody reaches them through the public door: none may stay live
    gone: frozenset[Digest]  # halves that were, at some time, deleted or overwritten in whole or part
    troubled: Mapping[Digest, str]  # halves that are in trouble for good, until all else is settled → `plans.TROUBLE`
    lost_images: Mapping[Digest, int]  # release images that the clean-up deleted → how long the ledger was by then
    mixed_up_images: frozenset[Digest]  # release images that hold another app than their labels say


@dataclasses.dataclass(frozen=True, slots=True)
class TargetRun:
    """What happened to one target."""

    target: Target
    entries: tuple[AnyEntry, ...]  # before the replay below, in order
    state: State  # as the ledger store gives it, after those entries
    deployment: DeploymentView  # at the end
    patches: tuple[Patch, ...]
    gate_pods: tuple[PodView, ...]  # left at the end
    gate_pods_made: tuple[PodView, ...]  # each that was created, in order; one of the same name may be there twice
    delivered: tuple[ModelPublished | ImagePushed, ...]  # events that were sent at least once
    dropped: tuple[ModelPublished | ImagePushed, ...]  # events that nobody ever sent
    acknowledged: tuple[Acknowledged, ...]
    commands: tuple[Commanded, ...]
    truth: Truth
    replayed: tuple[AnyEntry, ...]  # entries that a replay of all events and messages added after the end
    replayed_effects: tuple[str, ...]  # patches, pods, uploads that the replay caused
    swept: tuple[AnyEntry, ...] = ()  # where the timer never ran: entries that sweeps added after all was settled
    trouble_until: int = 0  # how many entries were there when what was in trouble for good was mended


@dataclasses.dataclass(frozen=True, slots=True)
class History:
    """One seed's finished run."""

    seed: int
    targets: tuple[TargetRun, ...]
    chaos_ended_at: datetime
    ended_at: datetime
    poisoned: int  # messages that went to the poison queue
    sweep_off: bool  # the repairing timer never ran
    skews: tuple[
        float, ...
    ]  # by how many seconds each host's clock is wrong; worker-1.3 is the third process of host 1
    settled: bool  # there was nothing left to do within the steps that calm allows
    chaos_steps: int
    calm_steps: int
