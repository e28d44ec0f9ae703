"""What is seen of a run from outside, put together as its `History`."""

import dataclasses
from typing import TYPE_CHECKING

from shipmate.core.events import ImagePushed, ModelPublished
from shipmate.core.ledger import AnyEntry
from shipmate.core.refs import digest_of
from shipmate.core.state import State
from shipmate.core.views import DeploymentView, PodView
from tests.sim.history import Patch, TargetRun, Truth
from tests.sim.world import NAMESPACE, World

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation


def effects(world: World) -> dict[str, object]:
    """Return what every effect outside the ledger changes, by name."""
    cluster = world.cluster
    patches = {f"patches of {name}": len(cluster.patches(NAMESPACE, name)) for name in world.targets}
    return {
        **patches,
        "gate pods": tuple(pod.name for pod in cluster.present_gate_pods(NAMESPACE)),
        "gate pods created": len(cluster.created_gate_pods),
        "uploads": world.registry.uploads,
        "manifests": len(world.registry.manifests["vision"]),
    }


@dataclasses.dataclass(frozen=True, slots=True)
class _Snapshot:
    entries: tuple[AnyEntry, ...]
    state: State
    deployment: DeploymentView
    patches: tuple[Patch, ...]


class Observer:
    """Looks at a simulation when it is calm, after the last sweep, and after the replay."""

    def __init__(self, simulation: "Simulation") -> None:
        self._simulation = simulation
        self._world = simulation.world
        self._settled = {name: self._snapshot(name) for name in self._world.targets}
        self._lengths: dict[str, int] = {}
        self._pods: tuple[PodView, ...] = ()
        self._effects: dict[str, object] = {}

    def swept(self) -> None:
        """Note what the last sweep left behind."""
        look = self._simulation.hosts.look
        self._lengths = {name: look(name).state.length for name in self._world.targets}
        self._pods = self._world.cluster.present_gate_pods(NAMESPACE)
        self._effects = effects(self._world)

    def finished(self) -> tuple[TargetRun, ...]:
        """Return the run of each target."""
        after = effects(self._world)
        changed = tuple(f"{name}: {old} → {after[name]}" for name, old in self._effects.items() if after[name] != old)
        return tuple(self._finished(name, changed) for name in self._world.targets)

    def _snapshot(self, name: str) -> _Snapshot:
        simulation, cluster = self._simulation, self._world.cluster
        return _Snapshot(
            simulation.hosts.entries(name),
            simulation.hosts.look(name).state,
            cluster.deployment(NAMESPACE, name),
            tuple(cluster.patches(NAMESPACE, name)),
        )

    def _finished(self, name: str, changed: tuple[str, ...]) -> TargetRun:
        simulation, settled = self._simulation, self._settled[name]
        target = self._world.targets[name]
        entries = simulation.hosts.entries(name)
        before, swept = len(settled.entries), self._lengths[name]

        def concerns(event: ImagePushed | ModelPublished) -> bool:
            return isinstance(event, ModelPublished) or event.repository == target.app.repository

        cluster = self._world.cluster
        return TargetRun(
            target=target,
            entries=settled.entries,
            state=settled.state,
            deployment=settled.deployment,
            patches=settled.patches,
            gate_pods=tuple(pod for pod in self._pods if pod.name.startswith(f"gate-{name}-")),
            gate_pods_made=tuple(pod for pod in cluster.created_gate_pods if pod.name.startswith(f"gate-{name}-")),
            delivered=tuple(event for event in simulation.delivered if concerns(event)),
            dropped=tuple(event for event in simulation.dropped if concerns(event)),
            acknowledged=tuple(each for each in simulation.acknowledged if concerns(each.event)),
            commands=tuple(simulation.commands[name]),
            truth=self._truth(name),
            replayed=entries[swept:],
            replayed_effects=changed,
            swept=entries[before:swept],
            trouble_until=simulation.trouble_ended.get(name, 0),
        )

    def _truth(self, name: str) -> Truth:
        world = self._world
        source = world.targets[name].app
        newest = world.published_models[-1].digest if world.published_models else None
        is_there = any(digest_of(data) == newest for _, data in world.models.manifests())
        return Truth(
            apps=tuple(world.apps[name]),
            models=tuple(world.published_models),
            app_head=world.registry.tags[source.repository].get(source.tag),
            model_head=newest if is_there else None,
            wrong_models=frozenset(world.says) | frozenset(world.failing_models),
            broken_apps=frozenset(world.broken_apps),
            gone=frozenset(world.gone),
            troubled=dict(self._simulation.troubled),
            lost_images={image: lengths[name] for image, lengths in world.registry.lost.items()},
            mixed_up_images=world.mixed_up(),
        )
