"""Blame: what a verdict bars, and what it leaves free, where a half was good before or the live pair is as wrong."""

import msgspec

from shipmate.commands import ReleaseBody, RollbackBody
from shipmate.core.targets import GateThresholds
from tests.fakes.cluster import Asked, Reply
from tests.situations import later, rolled_back, set_image, shipped, users_meet
from tests.world import TARGET, World, released

LENIENT = msgspec.structs.replace(TARGET, gate=GateThresholds(max_wrong=1, max_newly_wrong=1))


def disagreeing(world: World, app: str, model: str) -> None:
    """Let one app answer 500 with one model, in its gate's pod and through the door alike."""
    answers = world.cluster.answering

    def answer(asked: Asked) -> Reply:
        status, headers, body = answers(asked)
        bad = (headers["x-app-version"], headers["x-model-version"]) == (app, model)
        return (500, headers, b"unknown operator") if bad else (status, headers, body)

    world.cluster.answering = answer


def replaced_twice() -> World:
    """Return a world in which 2.4.0 took the place of 2.3.0, and model 2.0, which only it reads, that of 1.0."""
    world = released()
    world.ship(world.push_app("2.4.0"))
    world.ship(world.publish_model("2.0"))
    disagreeing(world, "2.3.0", "2.0")
    later(world)
    return world


def test_code_that_was_live_with_another_model_is_not_quarantined_and_the_way_back_to_it_stays_open() -> None:
    world = replaced_twice()
    world.ship(world.push_app("2.3.0"))
    bad = world.state.release(4).pair
    assert shipped(world)[-1] == "r-4 2.3.0+2.0 rejected"
    assert world.state.quarantine == {bad.key}
    assert world.pipeline().advance("vision").startswith("UpToDate")
    world.commands().rollback("vision", "key", "ana", RollbackBody(reason="2.4.0 leaks photos", to="r-1"))
    world.run()
    assert users_meet(world) == ("2.3.0", "1.0")


def test_code_that_was_live_with_another_model_ships_with_the_model_that_fits_it() -> None:
    world = replaced_twice()
    world.ship(world.push_app("2.3.0"))
    world.ship(world.publish_model("2.1"))
    assert users_meet(world) == ("2.3.0", "2.1")


def test_code_that_was_live_and_fails_at_the_door_with_another_model_is_not_quarantined_either() -> None:
    world = released()
    world.ship(world.push_app("2.4.0"))
    world.ship(world.publish_model("2.0"))
    later(world)
    world.broken_doors.add("2.3.0")
    world.ship(world.push_app("2.3.0"))
    assert world.state.release(4).ended_because == "VerifyFailed"
    assert world.state.quarantine == {world.state.release(4).pair.key}


def test_code_that_a_person_rolled_back_is_quarantined_by_itself_though_it_was_live_with_another_model() -> None:
    world = replaced_twice()
    world.cluster.answering = world._pod_answers
    world.ship(world.push_app("2.3.0"))
    assert users_meet(world) == ("2.3.0", "2.0")
    rolled_back(world, reason="2.3.0 leaks photos")
    assert world.state.quarantine == {world.state.release(4).pair.app}


def test_code_that_was_rolled_back_and_fails_again_under_an_override_stays_quarantined_by_itself() -> None:
    world = released()
    world.ship(world.push_app("2.4.0"))
    rolled_back(world, reason="2.4.0 leaks photos")
    world.failing_apps.add("2.4.0")
    body = ReleaseBody(reason="it is mended elsewhere", release="r-2", override=True)
    world.commands().release("vision", "key", "ana", body)
    world.run()
    assert shipped(world)[-1] == "r-4 2.4.0+1.0 rejected"
    assert world.state.quarantine == {world.state.release(2).pair.app}


def wrong_by_stricter_thresholds() -> World:
    """Return a world whose live model answers what its target's thresholds no longer allow."""
    world = World(LENIENT)
    world.ship(world.push_app("2.3.0"), world.publish_model("1.0", says="tulip"))
    world.target = TARGET
    return world


def test_code_is_not_quarantined_for_the_live_models_own_answer() -> None:
    world = wrong_by_stricter_thresholds()
    world.ship(world.push_app("2.4.0"))
    bad = world.state.release(2)
    assert bad.message == "1 of 1 golden photos is wrong, allowed 0"
    assert world.state.quarantine == {bad.pair.key}
    world.ship(world.publish_model("1.1"))
    assert users_meet(world) == ("2.4.0", "1.1")


def test_a_model_answers_for_its_own_questions_though_the_live_one_is_as_wrong() -> None:
    world = wrong_by_stricter_thresholds()
    world.ship(world.publish_model("1.1", says="tulip"))
    assert world.state.quarantine == {world.state.release(2).pair.model}


def test_the_live_pair_is_not_barred_where_somebody_releases_it_again_under_stricter_thresholds() -> None:
    world = World(LENIENT)
    world.ship(world.push_app("2.3.0"), world.publish_model("1.0", says="tulip"))
    first = world.cluster.deployment("vision", "vision").containers[0].image
    world.ship(world.push_app("2.4.0"))
    world.target = TARGET
    set_image(world, first)
    world.commands().release("vision", "key-1", "ana", ReleaseBody(reason="set it right", release="r-2"))
    world.run()
    assert shipped(world)[1:] == ["r-2 2.4.0+1.0 live", "r-3 2.4.0+1.0 rejected"]
    assert not world.state.quarantine
    world.commands().rollback("vision", "key-2", "ana", RollbackBody(reason="set it right"))
    world.run()
    assert users_meet(world) == ("2.4.0", "1.0")
