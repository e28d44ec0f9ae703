"""Signs of life: a stage that takes long keeps its release, says how far it came, and ends once it was overtaken."""

from datetime import timedelta

import pytest

from shipmate.core.ledger import Phase, Progressed, Superseded
from shipmate.errors import Conflict
from shipmate.stages.record import SignsOfLife
from tests.fakes.ledgers import Fault
from tests.golden.record import long_build
from tests.world import World


def planned(world: World) -> SignsOfLife:
    """Bring a release to its build, and return the signs of life of the worker that builds it."""
    world.tell(world.push_app("2.3.0"), world.publish_model("1.0"))
    world.run_until_phase(Phase.PLANNED)
    context = world.pipeline().context
    release, every = world.state.release(1), timedelta(seconds=20)
    return SignsOfLife(world.ledgers, "vision", release, "build", context, every, context.clock.now())


def signs(world: World) -> list[str]:
    return [entry.message for entry in world.ledgers.history("vision") if isinstance(entry, Progressed)]


def test_a_sign_is_recorded_now_and_then_however_often_the_stage_calls() -> None:
    world = World()
    sign = planned(world)
    for second in range(50):
        sign(f"{second} of 50")
        world.clock.sleep(1)
    assert signs(world) == ["20 of 50", "40 of 50"]
    assert world.state.release(1).message == "40 of 50"
    assert world.state.last_stage_at == world.clock.now() - timedelta(seconds=10)


def test_a_stage_ends_once_another_worker_moved_its_release() -> None:
    world = World()
    sign = planned(world)
    world.clock.sleep(60)
    reading = world.ledgers.read("vision")
    stamp = world.pipeline("worker-2").context.stamp()
    world.ledgers.append("vision", reading, [Superseded(**stamp, release=1, message="another goes first")])
    with pytest.raises(Conflict, match="another worker took r-1 over"):
        sign("half of it is there")
    assert signs(world) == []


def test_storage_that_is_away_ends_no_stage() -> None:
    world = World()
    sign = planned(world)
    world.clock.sleep(60)
    world.ledgers.fail_next(Fault.AWAY)
    sign("half of it is there")
    assert signs(world) == []


def test_a_build_that_takes_long_is_left_to_its_worker() -> None:
    world = long_build()
    assert signs(world)[0].startswith("model.onnx: 0 of 0 MiB")
    kinds = [entry.kind_name for entry in world.ledgers.history("vision")]
    assert kinds.count("built") == 1
    assert {entry.by for entry in world.ledgers.history("vision")} == {"worker-1"}
