"""Pieces of the real code, and of the ports' promises, with a fault each: what `tests.sim.mutants` plants.

A piece is as like the one whose place it takes as its fault allows, and calls that one where it can.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from azure.core.exceptions import AzureError
from msgspec.structs import replace

from shipmate.core import fence, fold, intake, plan
from shipmate.core.fence import Standing
from shipmate.core.gate import GateReport
from shipmate.core.gate_pod import gate_name
from shipmate.core.ledger import AnyEntry, AppHalf, Built, Gated, Live, Phase, Planned, Requested
from shipmate.core.refs import Digest
from shipmate.core.state import State
from shipmate.edge import ledger_store
from shipmate.edge.ledger_store import LedgerStore
from shipmate.errors import NotFound, Rejected, ShipmateError
from shipmate.pipeline import Pipeline
from shipmate.ports import Blob, Reading
from shipmate.stages import build, gate, graft, record, resolve, rollout, sweep
from shipmate.stages.record import Appended
from tests.sim import ledgers
from tests.sim.ledgers import FastLedgers
from tests.sim.world import SimModels

# -- effects and their records -------------------------------------------------------------------------------------

_under_fence = rollout._under_fence
_fence_patch = fence.fence_patch
_append = record.append
_fast_append = FastLedgers.append
_read = LedgerStore.read
_write = LedgerStore._write
_is_written = LedgerStore._is_written
_blob_append = ledgers.Blobs.append


def patched_in_again(release: Any, target: Any, cluster: Any, patch: Any) -> Any:
    where = target.deployment
    if rollout._is_applied(cluster.deployment(where.namespace, where.name), release):
        return Standing.SUPERSEDED  # whoever made the patch is not asked: a higher fence is taken
    return _under_fence(release, target, cluster, patch)


def append_own_again(self: FastLedgers, target: str, reading: Reading, entries: Sequence[AnyEntry]) -> Reading:
    written = self._entries.get(target, [])
    if len(written) > reading.entries and written[reading.entries].id == entries[0].id:
        return _fast_append(self, target, self.read(target), entries)
    return _fast_append(self, target, reading, entries)


def append_own_again_in_the_store(
    self: LedgerStore, target: str, reading: Reading, data: bytes, own_id: str | None
) -> bool:
    is_new = _write(self, target, reading, data, own_id)
    if not is_new and own_id is not None:
        entries = [line for line in data.splitlines(keepends=True) if b'"kind":"snapshot"' not in line]
        _write(self, target, _read(self, target), b"".join(entries), own_id=None)
    return is_new


def whatever_is_behind_is_own(
    self: LedgerStore, target: str, reading: Reading, own_id: str | None, error: AzureError
) -> bool:
    if own_id is None:
        return _is_written(self, target, reading, own_id, error)
    try:
        return bool(self._tail(target, reading))
    except AzureError as again:
        raise ledger_store._ambiguous(target, again) from error


def append_anyway(self: FastLedgers, target: str, reading: Reading, entries: Sequence[AnyEntry]) -> Reading:
    return _fast_append(self, target, self.read(target), entries)


def append_what_was_decided(
    ledgers: Any, name: str, entries: Callable[[State], list[AnyEntry]], reading: Reading | None = None
) -> Appended:
    decided = entries((reading or ledgers.read(name)).state)
    return _append(ledgers, name, lambda state: decided, reading)


def append_to_what_was_read_first(
    ledgers: Any, name: str, entries: Callable[[State], list[AnyEntry]], reading: Reading | None = None
) -> Appended:
    first = reading or ledgers.read(name)
    return _append(_With(ledgers, read=lambda target: first), name, entries, first)


def read_what_was_read_before(self: LedgerStore, target: str) -> Reading:
    known = self._last.get(target)
    if known is None or self._container.directly:  # type: ignore[attr-defined] # the simulator itself looks
        return _read(self, target)
    reads = self.__dict__["reads"] = self.__dict__.get("reads", 0) + 1
    return known if reads % 2 else _read(self, target)


def patch_without_tests(deployment: Any, *, expected_fence: int, new_fence: int, **what: Any) -> list[Any]:
    operations = _fence_patch(deployment, expected_fence=new_fence - 1, new_fence=new_fence, **what)
    return [operation for operation in operations if operation["op"] != "test"]


def patch_by_resource_version(deployment: Any, **what: Any) -> list[Any]:
    version = {"op": "test", "path": "/metadata/resourceVersion", "value": deployment.resource_version}
    return [version, *patch_without_tests(deployment, **what)]


def always_patchable(current: int | None, mine: int) -> Standing:
    return Standing.UNADOPTED if current is None else Standing.PATCHABLE


# -- gate pods -------------------------------------------------------------------------------------------------------

_start = gate._start
_remove_gate_pods = Pipeline._remove_gate_pods
_sweep = Pipeline.sweep


def random_gate_names() -> Callable[..., str]:
    numbers = itertools.count()
    return lambda *what: f"{gate_name(*what)}-{next(numbers)}"


def only_a_new_gate_pod(release: Any, target: Any, context: Any) -> Any:
    name = gate_name(target.name, release.pair.key, release.number, release.attempt)
    try:
        context.cluster.gate_pod(target.deployment.namespace, name)
    except NotFound:
        return _start(release, target, context)
    raise Rejected("GatePodExists", f"there is a pod {name} already")


def pods_of_the_last_attempt(pods: Any, target: Any, state: State) -> Any:
    last = {gate_name(target.name, each.pair.key, each.number, each.attempt): each.phase for each in state.releases}
    return (pod for pod in pods if last.get(pod.name, Phase.BUILT) is not Phase.BUILT)


def sweep_without_janitor(self: Pipeline) -> dict[str, int]:
    return _sweep(_With(self, _remove_gate_pods=lambda target: 0))  # type: ignore[arg-type] # looks like one


class _With:
    """An object with some attributes replaced."""

    def __init__(self, real: object, **instead: object) -> None:
        self.__dict__.update(instead)
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


# -- events, messages, the sweep -------------------------------------------------------------------------------------

_intake = Pipeline.intake
_advance = Pipeline.advance


def intake_without_a_second_message(self: Pipeline, event: Any) -> tuple[str, ...]:
    found = intake.concerned(event, [*self.targets.values()], self.sources)
    assert isinstance(found, tuple)
    for target in found:
        if self._receive(target.name, event, repaired=False):
            self.queue.enqueue(target.name)
    return tuple(target.name for target in found)


def acknowledge_anyway(self: Pipeline, event: Any) -> tuple[str, ...]:
    try:
        return _intake(self, event)
    except ShipmateError:
        return ()


def swallow_errors(self: Pipeline, name: str) -> str:
    try:
        return _advance(self, name)
    except ShipmateError as error:
        return str(error)


def repair_what_is_known(self: Pipeline, target: Any) -> int:
    state = self.ledgers.read(target.name).state
    event = sweep.newest_model(target, state, self.sources, self.context)
    return int(event is not None and self._receive(target.name, event, repaired=True))


# -- segments --------------------------------------------------------------------------------------------------------


def unsealed(self: LedgerStore, target: str, reading: Reading, data: bytes, own_id: str | None) -> bool:
    return True if data == ledger_store._SEALED else _write(self, target, reading, data, own_id)


def seal_anyway(self: ledgers.Blobs, name: str, data: bytes, position: int) -> None:
    behind = len(self.data.get(name, b"")) if data == ledger_store._SEALED else position
    _blob_append(self, name, data, behind)


# -- order, verdicts, rollbacks --------------------------------------------------------------------------------------

_live = fold._live
_app_image = graft._app_image
_resolve = resolve.resolve


def resolve_the_event_alone(event: Any, target: Any, state: State, registry: Any) -> Any:
    digest, facts = graft.resolve_app(registry, event.repository, event.digest, target.platform)
    return AppHalf(digest, event.digest, event.repository, facts.version, facts.contract, event.occurred_at)


def verdict_of_another_pair(release: Any, target: Any, state: State, context: Any) -> Any:
    for other in state.releases:
        if other.pair.app == release.pair.app and other.was_live:
            report = GateReport(passed=True, faults=(), rows=(), slowest_seconds=0.0, compared_with=None)
            return Gated(**context.stamp(), release=release.number, report=report)
    return gate.gate(release, target, state, context)


def live_unasked(release: Any, target: Any, state: State, context: Any) -> Live:
    return Live(**context.stamp(), release=release.number, replies=0)


def rollback_without_hold(state: State, entry: Live) -> State:
    return replace(_live(state, entry), hold=state.hold)


def rollback_image_unseen(release: Any, target: Any, state: State, context: Any) -> Built:
    return Built(**context.stamp(), release=release.number, image=release.image)


def restored_but_for_rollbacks(release: Any, target: Any, state: State, context: Any) -> None:
    if not release.is_rollback:
        build.restore(release, target, state, context)


def app_by_its_tag(registry: Any, repository: str, digest: Digest) -> Any:
    return _app_image(registry, repository, "main")  # type: ignore[arg-type] # the fault


def forgive_what_is_published_again(event: Any, target: Any, state: State, context: Any) -> Any:
    return _resolve(event, target, replace(state, quarantine=frozenset()), context)


def touch_as_if_written(self: SimModels, container: str, path: str) -> Blob:
    return self.put(container, path, self._find(container, path)[1])


def newest_halves_of_all(state: State) -> Any:
    return (state.apps[-1], state.models[-1]) if state.apps and state.models else None


# -- holds, commands, requests ---------------------------------------------------------------------------------------

_requested = plan._requested
_planned = fold._planned


def append_whatever_the_key(
    ledgers: Any, name: str, entries: Callable[[State], list[AnyEntry]], reading: Reading | None = None
) -> Appended:
    return _append(ledgers, name, lambda state: entries(replace(state, requests={}, fingerprints={})), reading)


def forget_the_wish(state: State, entry: Planned) -> State:
    return replace(_planned(state, entry), request=None)


def forget_who_asked(state: State, asked: Any) -> Any:
    step = _requested(state, asked)
    return replace(step, request=None) if isinstance(step, plan.Plan) else step


def tried_by_the_clock(state: State, pair: Any) -> Any:
    found = (old for old in reversed(state.releases) if old.pair == pair and old.phase is not Phase.SUPERSEDED)
    tried = next(found, None)
    halves = (state.app(pair.app), state.model(pair.model))
    anew = tried is not None and any(half is not None and half.published_at > tried.planned_at for half in halves)
    return None if anew else tried


def request_without_override(**fields: Any) -> Requested:
    return Requested(**{**fields, "override": False})


def active_until_intended(self: State) -> Any:
    phases = (Phase.PLANNED, Phase.BUILT, Phase.GATED)
    return next((release for release in reversed(self.releases) if release.phase in phases), None)
