"""Parts die and go away in the middle of a release: it finishes, once, and users lose nothing."""

import hashlib
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from localcloud import registry, storage
from shipmate.core.ledger import Built, Errored, Gated, Intended, Live, Phase, Planned, Received, RolledOut
from tests.e2e.world import Target, eventually

STAGES = (Phase.PLANNED, Phase.BUILT, Phase.GATED, Phase.INTENDED, Phase.ROLLED_OUT)
LASTING = (Phase.PLANNED, Phase.BUILT, Phase.INTENDED, Phase.ROLLED_OUT)
"""Phases long enough to be hit. From a verdict to the rollout it takes milliseconds, unless a hold keeps it there."""
_REACHED = (Planned, Built, Gated, Intended, RolledOut)

LARGE_BYTES = 96 << 20
TRIES = 4
"""So many releases are broken in the middle where one may be through before the blow falls."""


def until_reached(target: Target, number: int, phase: Phase) -> None:
    """Wait until the ledger says that a release came to a phase, or passed it."""

    def reached() -> bool:
        release = next((each for each in target.state().releases if each.number == number), None)
        if release is None:
            return False
        on_its_way = (*STAGES, Phase.LIVE)
        assert release.phase in on_its_way, f"r-{number} is {release.phase} before it was {phase}: {release.message}"
        return on_its_way.index(release.phase) >= on_its_way.index(phase)

    eventually(reached, f"r-{number} is {phase}", pause=0.01)


def until_in_the_gate(target: Target, number: int) -> None:
    """Wait until the gate has a pod for a release, or its verdict, if that was quicker."""
    until_reached(target, number, Phase.BUILT)
    eventually(lambda: target.gate_pods() or target.entries(Gated, release=number), "the gate has its pod", pause=0.05)


def expect_finished_once(target: Target, number: int) -> None:
    """Check that a release is live, that each of its steps is on record once, and that nothing of it is left over."""
    target.until(number, "live")
    state = target.state()
    release = state.release(number)
    for kind in (*_REACHED, Live):
        assert len(target.entries(kind, release=number)) == 1, kind
    assert [each.number for each in state.releases if each.pair == release.pair] == [number]
    assert target.answered_by() == f"r-{number}"
    fences = [entry.fence for entry in target.entries(Intended)]
    assert fences == sorted(set(fences))
    assert target.fence() == release.fence == fences[-1]
    eventually(lambda: not target.gate_pods(), "no pod of a gate is left")


@pytest.fixture(autouse=True)
def _everything_runs(steady: Target) -> None:
    """The parts that a failed test left stopped are started again."""
    world = steady.world
    storage.start(world.local.cloud)
    registry.start(world.local.cloud)
    world.start_functions()


def test_the_functions_host_is_killed_at_every_stage(steady: Target) -> None:
    left = list(LASTING)
    for again in range(TRIES):
        number = steady.next_release()
        steady.publish(steady.world.models.derived(f"kill-host-{again}"))
        for phase in tuple(left):
            until_reached(steady, number, phase)
            steady.world.kill_functions()
            if steady.state().release(number).phase is phase:
                left.remove(phase)
            steady.world.start_functions()
        expect_finished_once(steady, number)
        if not left:
            return
    pytest.fail(f"each release had gone on before the kill at {left}")


def test_the_functions_host_is_killed_between_verdict_and_rollout(steady: Target) -> None:
    number, live = steady.next_release(), steady.answered_by()
    steady.api.post("/hold", {"reason": "a look before it ships", "author": "ana"})
    try:
        steady.publish(steady.world.models.derived("kill-held"))
        steady.until(number, "held")
        steady.world.kill_functions()
        steady.world.start_functions()
        assert steady.until(number, "held")["release"]["phase"] == "held"
        assert steady.answered_by() == live
    finally:
        steady.world.start_functions()
        steady.api.post("/resume", {"reason": "seen", "author": "ana"})
    expect_finished_once(steady, number)


def test_the_functions_host_is_killed_between_intake_and_plan(steady: Target) -> None:
    for again in range(TRIES):
        number = steady.next_release()
        path = steady.publish(steady.world.models.derived(f"kill-intake-{again}"))
        until_received(steady, path)
        steady.world.kill_functions()
        is_planned = steady.next_release() > number
        steady.world.start_functions()
        expect_finished_once(steady, number)
        if not is_planned:
            return
    pytest.fail("each release was planned before the kill")


def until_received(target: Target, path: str) -> None:
    def found() -> bool:
        return any(getattr(entry.event, "path", "") == path for entry in target.entries(Received))

    eventually(found, f"{path} is on record", pause=0.01)


def with_new_weights(folder: Path, manifest: dict[str, Any]) -> None:
    """Add a large file that no registry has, whose upload takes a second."""
    data = random.randbytes(LARGE_BYTES)
    (folder / "notes.bin").write_bytes(data)
    entry = {"path": "notes.bin", "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest["files"].append(entry)


def until_uploading(target: Target, number: int, before: set[Path]) -> None:
    """Wait until the registry has some of a layer, or the release is built, if that was quicker."""
    eventually(
        lambda: set(target.upload_sessions()) - before or target.entries(Built, release=number),
        "a layer is on its way",
        pause=0.005,
    )


def test_the_functions_host_is_killed_while_a_layer_is_uploaded(steady: Target) -> None:
    for again in range(TRIES):
        number, before = steady.next_release(), set(steady.upload_sessions())
        steady.publish(steady.world.models.derived(f"kill-upload-{again}", with_new_weights))
        until_reached(steady, number, Phase.PLANNED)
        until_uploading(steady, number, before)
        steady.world.kill_functions()
        is_on_its_way = steady.state().release(number).phase is Phase.PLANNED
        steady.world.start_functions()
        expect_finished_once(steady, number)
        (built,) = steady.entries(Built, release=number)
        assert built.cost.uploaded + built.cost.reused > LARGE_BYTES
        if is_on_its_way:
            return
    pytest.fail("each layer was uploaded before the kill")


def test_all_instances_are_killed_in_the_gate(steady: Target) -> None:
    for again in range(TRIES):
        number = steady.next_release()
        steady.publish(steady.world.models.derived(f"kill-instances-{again}"))
        until_in_the_gate(steady, number)
        host, killed = steady.world.functions_pid, steady.world.instance_pids()
        assert len(killed) == steady.world.instances
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        in_the_gate = not steady.entries(Gated, release=number)
        expect_finished_once(steady, number)
        assert steady.world.functions_pid == host
        assert set(steady.world.instance_pids()).isdisjoint(killed)
        if in_the_gate:
            return
    pytest.fail("each release had its verdict before the kill")


def test_the_registry_goes_away_during_a_build(steady: Target) -> None:
    number = steady.next_release()
    cloud = steady.world.local.cloud
    registry.stop(cloud)
    steady.publish(steady.world.models.derived("no-registry"))
    (first, *_) = eventually(lambda: steady.entries(Errored, release=number), "the build is on record as errored")
    assert first.stage == "build"
    assert first.retry_at > first.at
    told = steady.until(number, "planned")
    assert told["release"]["message"] in {each.message for each in steady.entries(Errored, release=number)}
    assert first.message.startswith(f"the connection to {cloud.registry} broke")
    registry.start(cloud)
    expect_finished_once(steady, number)


def test_storage_is_restarted_in_the_middle(steady: Target) -> None:
    number = steady.next_release()
    cloud = steady.world.local.cloud
    steady.publish(steady.world.models.derived("no-storage"))
    until_reached(steady, number, Phase.PLANNED)
    storage.restart(cloud)
    until_reached(steady, number, Phase.GATED)
    storage.restart(cloud)
    expect_finished_once(steady, number)
