"""Faults planted on purpose: the proof that the simulator and its invariants would find them.

Each mutant replaces a piece of the real code, or of a port's promise, by one with a fault of a class that controllers
like this one are known to have. `python -m tests.sim.mutants [SEEDS]` prints for each the first seed that finds it, and
the share of seeds that do.
"""

import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from shipmate import commands, pipeline
from shipmate.core import fold, intake, plan
from shipmate.core.fence import Standing
from shipmate.core.gate import GateReport
from shipmate.core.ledger import (
    AnyEntry,
    Built,
    Gated,
    IllegalStep,
    Live,
    Phase,
    Planned,
    Requested,
    State,
)
from shipmate.core.refs import Digest
from shipmate.edge import ledger_store
from shipmate.edge.ledger_store import LedgerStore
from shipmate.errors import NotFound, Rejected, ShipmateError
from shipmate.pipeline import Pipeline
from shipmate.ports import Reading
from shipmate.stages import build, gate, graft, resolve, rollout, verify
from tests.sim import hosts, ledgers
from tests.sim.invariants import Violation, check
from tests.sim.ledgers import FastLedgers
from tests.sim.simulation import simulate

SEEDS = 2000
"""Each mutant is found by one of so many."""
CLASSES = {
    1: "an effect is done and its outcome is not recorded",
    2: "an append is applied, its reply is lost, and it is appended again",
    3: "a worker that slept acts on a decision that is stale",
    4: "a resource version is taken for a fence",
    5: "gate pods are made twice or left behind",
    6: "a gate pod comes back after the clean-up",
    7: "a record without the message that has it acted upon",
    8: "messages are lost or poisoned",
    9: "an event is acknowledged before it is recorded",
    10: "work goes on for ever and gets nowhere",
    11: "two workers roll a segment",
    13: "an older version ships",
    14: "a change is missed",
    15: "what ships was not judged itself",
    16: "a rollback is fought, blocked or unfounded",
    17: "a tag moves between the look and the use",
    18: "a quarantine is got around",
    19: "a hold is too late, or holds nothing",
    20: "a command is repeated late",
    21: "a clock that is wrong decides",
    22: "the sweep and people's wishes race with everything else",
}
"""Classes of faults, as found in other controllers. One more is known, stale reads (12): they do no harm by themselves
where every write is conditional."""


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A planted fault of one of `CLASSES`. `patches`: place, attribute (or a dict's key), what stands there instead."""

    name: str
    bug_class: int
    patches: tuple[tuple[Any, Any, Any], ...]
    seeds: Sequence[int] = range(SEEDS)  # where to look for it; for one that is rarely found, not from the beginning

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Let the fault be there for a while."""
        with pytest.MonkeyPatch.context() as patch:
            for place, attribute, instead in self.patches:
                (patch.setitem if isinstance(place, dict) else patch.setattr)(place, attribute, instead)
            yield


def finds(seed: int) -> str | None:
    """Return what is wrong with a seed's history, in one line; None if nothing is.

    Whatever else the seed raises is raised: a fault that only crashes would be found by any test.
    """
    try:
        check(simulate(seed))
    except Violation as violation:
        return f"{violation.number}: {violation.what}"
    except IllegalStep as error:
        return f"refused: {error}"
    return None


def first(mutant: Mutant) -> tuple[int, str] | None:
    """Return the first of the mutant's seeds that finds it, and what it finds."""
    with mutant.planted():
        found = ((seed, finds(seed)) for seed in mutant.seeds)
        return next(((seed, what) for seed, what in found if what is not None), None)


# -- effects and their records -------------------------------------------------------------------------------------

_patched = rollout._patched
_fence_patch = rollout.fence_patch
_append = pipeline.append
_fast_append = FastLedgers.append
_write = LedgerStore._write
_blob_append = ledgers.Blobs.append


def patched_in_again(release: Any, target: Any, state: State, cluster: Any) -> Any:
    where = target.deployment
    if rollout._is_applied(cluster.deployment(where.namespace, where.name), release):
        return None  # whoever made the patch is not asked: a higher fence is taken
    return _patched(release, target, state, cluster)


def append_own_again(self: FastLedgers, target: str, reading: Reading, entries: Sequence[AnyEntry]) -> Reading:
    written = self._entries.get(target, [])
    if len(written) > reading.entries and written[reading.entries].id == entries[0].id:
        return _fast_append(self, target, self.read(target), entries)
    return _fast_append(self, target, reading, entries)


def append_anyway(self: FastLedgers, target: str, reading: Reading, entries: Sequence[AnyEntry]) -> Reading:
    return _fast_append(self, target, self.read(target), entries)


def append_what_was_decided(
    ledgers: Any, name: str, entries: Callable[[State], list[AnyEntry]], reading: Reading | None = None
) -> list[AnyEntry]:
    decided = entries((reading or ledgers.read(name)).state)
    return _append(ledgers, name, lambda state: decided, reading)


def patch_without_tests(deployment: Any, *, expected_fence: int, new_fence: int, **what: Any) -> list[Any]:
    operations = _fence_patch(deployment, expected_fence=new_fence - 1, new_fence=new_fence, **what)
    return [operation for operation in operations if operation["op"] != "test"]


def patch_by_resource_version(deployment: Any, **what: Any) -> list[Any]:
    version = {"op": "test", "path": "/metadata/resourceVersion", "value": deployment.resource_version}
    return [version, *patch_without_tests(deployment, **what)]


def always_patchable(current: int | None, mine: int) -> Standing:
    return Standing.UNADOPTED if current is None else Standing.PATCHABLE


# -- gate pods -------------------------------------------------------------------------------------------------------

_gate_name = gate.gate_name
_start = gate._start
_remove_gate_pods = Pipeline._remove_gate_pods
_sweep = Pipeline.sweep


def random_gate_names() -> Callable[..., str]:
    numbers = itertools.count()
    return lambda *what: f"{_gate_name(*what)}-{next(numbers)}"


def only_a_new_gate_pod(release: Any, target: Any, context: Any) -> Any:
    name = gate.gate_name(target.name, release.pair.key, release.attempt)
    try:
        context.cluster.gate_pod(target.deployment.namespace, name)
    except NotFound:
        return _start(release, target, context)
    raise Rejected("GatePodExists", f"there is a pod {name} already")


def pods_of_the_last_attempt(pods: Any, target: Any, state: State) -> Any:
    last = {gate.gate_name(target.name, each.pair.key, each.attempt): each.phase for each in state.releases}
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
_is_duplicate = intake.is_duplicate


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
    event = self._newest_model(target, state)
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


def resolve_the_event_alone(event: Any, target: Any, registry: Any) -> Any:
    digest, facts = graft.resolve_app(registry, event.repository, event.digest, target.platform)
    return ledgers_app_half(event, digest, facts)


def ledgers_app_half(event: Any, digest: Digest, facts: Any) -> Any:
    return resolve.AppHalf(digest, event.digest, event.repository, facts.version, facts.contract, event.occurred_at)


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


def app_by_its_tag(registry: Any, repository: str, digest: Digest) -> Any:
    return _app_image(registry, repository, "main")  # type: ignore[arg-type] # the fault


def forgive_what_is_published_again(event: Any, target: Any, state: State, context: Any) -> Any:
    return _resolve(event, target, replace(state, quarantine=frozenset()), context)


def newest_halves_of_all(state: State) -> Any:
    return (state.apps[-1], state.models[-1]) if state.apps and state.models else None


# -- holds, commands, requests ---------------------------------------------------------------------------------------

_requested = plan._requested
_planned = fold._planned


def append_whatever_the_key(
    ledgers: Any, name: str, entries: Callable[[State], list[AnyEntry]], reading: Reading | None = None
) -> list[AnyEntry]:
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


MUTANTS = (
    Mutant("a patch that was made is made again", 1, ((rollout, "_patched", patched_in_again),)),
    Mutant("two releases are on their way at once", 1, ((State, "active", property(active_until_intended)),)),
    Mutant("an own append behind a 412 is appended again", 2, ((FastLedgers, "append", append_own_again),)),
    Mutant("a decision is recorded whatever came in between", 2, ((pipeline, "append", append_what_was_decided),)),
    Mutant("appends compare with nothing", 3, ((FastLedgers, "append", append_anyway),)),
    Mutant(
        "patches have no fence",
        3,
        ((rollout, "fence_patch", patch_without_tests), (rollout, "classify_fence", always_patchable)),
    ),
    Mutant(
        "the resource version is the fence",
        4,
        ((rollout, "fence_patch", patch_by_resource_version), (rollout, "classify_fence", always_patchable)),
    ),
    Mutant("gate pods have random names", 5, ((gate, "gate_name", random_gate_names()),)),
    Mutant("a gate pod that is there already fails the candidate", 5, ((gate, "_start", only_a_new_gate_pod),)),
    Mutant("gate pods are never removed", 5, ((Pipeline, "_remove_gate_pods", lambda self, target: 0),)),
    Mutant("gate pods of earlier attempts are forgotten", 6, ((gate, "_finished", pods_of_the_last_attempt),)),
    Mutant("the sweep leaves gate pods that came back", 6, ((Pipeline, "sweep", sweep_without_janitor),)),
    Mutant("a repeated event sends no message", 7, ((Pipeline, "intake", intake_without_a_second_message),)),
    Mutant("errors end the work on a message", 7, ((Pipeline, "advance", swallow_errors),)),
    Mutant("messages are deleted before they are worked on", 8, ((hosts.Queue, "_again", lambda *what: None),)),
    Mutant("the sweep wakes nobody", 8, ((Pipeline, "_wake", lambda self, target: 0),), range(1000, SEEDS)),
    Mutant("events are acknowledged before they are recorded", 9, ((Pipeline, "intake", acknowledge_anyway),)),
    Mutant("events are recorded as often as they come", 9, ((intake, "is_duplicate", lambda state, event: False),)),
    Mutant("what cannot succeed is tried for ever", 10, ((gate, "PATIENCE", 1_000_000),)),
    Mutant("a segment is rolled without a seal", 11, ((LedgerStore, "_write", unsealed),), range(7, SEEDS, 8)),
    Mutant(
        "a segment is sealed without a condition", 11, ((ledgers.Blobs, "append", seal_anyway),), range(7, SEEDS, 8)
    ),
    Mutant("the newest model is the one that came last", 13, ((fold, "_published", lambda half: 0),)),
    Mutant("an event of a tag that moved on is taken", 13, ((resolve, "_app", resolve_the_event_alone),)),
    Mutant("the sweep repairs nothing", 14, ((Pipeline, "_repair", lambda self, target: 0),)),
    Mutant("what is rolled out is called live", 14, ((pipeline, "verify", live_unasked),)),
    Mutant("a verdict counts for other pairs of the app", 15, ((pipeline, "gate", verdict_of_another_pair),)),
    Mutant("a rollback sets no hold", 16, ((fold._FOLD, Live, rollback_without_hold),)),
    Mutant("a rollback's image is not looked for", 16, ((build, "_found", rollback_image_unseen),)),
    Mutant("what was undone is not quarantined", 16, ((verify, "guilty", lambda bad, good: ()),)),
    Mutant("a failed rollout is not undone", 16, ((plan, "last_good", lambda state: None),)),
    Mutant("the build reads the app by its tag", 17, ((graft, "_app_image", app_by_its_tag),)),
    Mutant(
        "a quarantined half that is published again is forgiven",
        18,
        (
            (pipeline, "resolve", forgive_what_is_published_again),
            (plan, "_unquarantined", newest_halves_of_all),
            (State, "is_quarantined", lambda self, pair: False),
        ),
    ),
    Mutant("the quarantine takes both halves", 18, ((gate, "guilty", lambda bad, good: (bad.app, bad.model)),)),
    Mutant("a hold does not raise the fence", 19, ((commands.Commands, "_raise_fence", lambda self, target: None),)),
    Mutant("a hold is looked at when a release is planned", 19, ((plan, "_to_traffic", lambda s, r: plan.Intend(r)),)),
    Mutant("a hold on one kind of half holds nothing", 19, ((State, "hold_on", lambda self, pair: None),)),
    Mutant("a repeated command is taken again", 20, ((commands, "append", append_whatever_the_key),)),
    Mutant(
        "a worker's clock tells what was published anew",
        21,
        ((plan, "_tried", tried_by_the_clock),),
        range(900, SEEDS),
    ),
    Mutant("the sweep records what is known", 22, ((Pipeline, "_repair", repair_what_is_known),)),
    Mutant("a wish is forgotten when anything is planned", 22, ((fold._FOLD, Planned, forget_the_wish),)),
    Mutant("a release forgets who asked for it", 22, ((plan, "_requested", forget_who_asked),)),
    Mutant("an override is not recorded", 22, ((commands, "Requested", request_without_override),)),
)


def main(seeds: int) -> None:
    """Print the table."""
    print(f"{'class':>5}  {'planted fault':55} {'first':>6} {'share':>7}  found as")  # noqa: T201
    for mutant in MUTANTS:
        with mutant.planted():
            found = {seed: what for seed in mutant.seeds[:seeds] if (what := finds(seed)) is not None}
        seed = min(found, default=None)
        share = len(found) / len(mutant.seeds[:seeds])
        what = found[seed][:90] if seed is not None else "NOT FOUND"
        print(f"{mutant.bug_class:5}  {mutant.name:55} {seed!s:>6} {share:7.1%}  {what}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
