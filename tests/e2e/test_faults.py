"""Parts die and go away in the middle of a release: it finishes, once, and users lose nothing."""

import os
import signal

import pytest

from localcloud import registry, storage
from shipmate.core.ledger import Built, Errored, Gated, Intended, Live, Phase, Planned, RolledOut
from tests.e2e.world import Target, eventually

STAGES = (Phase.PLANNED, Phase.BUILT, Phase.GATED, Phase.INTENDED, Phase.ROLLED_OUT)
_REACHED = (Planned, Built, Gated, Intended, RolledOut)

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
    left = list(STAGES)
    for again in range(TRIES):
        number = steady.next_release()
        steady.publish(steady.world.models.derived(f"kill-host-{again}"))
        for phase in tuple(left):
            until_reached(steady, number, phase)
            steady.world.kill_functions()
            if not steady.entries(Live, release=number):
                left.remove(phase)
            steady.world.start_functions()
        expect_finished_once(steady, number)
        if not left:
            return
    pytest.fail(f"each release was live before the kill at {left}")


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
