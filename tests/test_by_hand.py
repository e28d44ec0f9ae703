"""What people ask for by hand, in unusual orders: it happens as they were told, and nothing undoes it behind them."""

import msgspec
import pytest

from shipmate.commands import HoldBody, ReleaseBody, ResumeBody, RollbackBody
from shipmate.core.ledger import Live, Phase, RolledOut
from shipmate.core.targets import GateThresholds
from shipmate.errors import Conflict, Retryable
from tests.test_pipeline import clean_up, failed_with_nothing_to_go_back_to, refusing
from tests.world import TARGET, World, released


def shipped(world: World) -> list[str]:
    """Return each release with its versions and its phase."""
    return [f"{each.name} {each.app_version}+{each.model_version} {each.phase}" for each in world.state.releases]


def users_meet(world: World) -> tuple[str, str]:
    """Return the versions of the app and the model that answer."""
    seen = world.version("")
    return seen.app_version, seen.model_version


def rolled_back(world: World, *, reason: str) -> None:
    """Roll back to the last good release, and resume."""
    world.commands().rollback("vision", f"rollback-{world.state.length}", "bo", RollbackBody(reason=reason))
    world.run()
    world.commands().resume("vision", f"resume-{world.state.length}", "bo", ResumeBody(reason="seen"))
    world.run()


# -- rollbacks -----------------------------------------------------------------------------------------------------


def test_a_failed_rollback_that_is_asked_for_again_goes_where_it_should_have_gone() -> None:
    world = released("1.1")
    world.cluster.missing_images = {f"{world.registry.name}/vision@{world.state.release(1).image}"}
    world.commands().rollback("vision", "key-1", "bo", RollbackBody(reason="daisies come back wrong"))
    world.run()
    assert shipped(world)[-1] == "r-3 2.3.0+1.0 failed"
    world.cluster.missing_images = set()
    answer = world.commands().rollback("vision", "key-2", "bo", RollbackBody(reason="daisies come back wrong"))
    assert answer.message == (
        "rolls back to the pair of r-1 (app 2.3.0, model 1.0) and undoes r-2 (app 2.3.0, model 1.1) without a build, "
        "and holds the target there"
    )
    world.run()
    assert users_meet(world) == ("2.3.0", "1.0")


def test_a_rollback_of_what_was_live_during_another_rollout_asks_where_to() -> None:
    world = released("1.1")
    world.tell(world.publish_model("1.2"))
    world.run_until_phase(Phase.INTENDED)
    body = RollbackBody(reason="1.1 is wrong", if_live="r-2")
    with pytest.raises(Conflict, match='r-3 is rolling out over r-2: say with "to" which release to go back to'):
        world.commands().rollback("vision", "key", "bo", body)
    world.commands().rollback("vision", "key", "bo", msgspec.structs.replace(body, to="r-1"))
    world.run()
    assert users_meet(world) == ("2.3.0", "1.0")


def test_a_rollback_under_a_hold_says_whose_hold_stays() -> None:
    world = released("1.1")
    world.commands().hold("vision", "key-1", "ana", HoldBody(reason="demo"))
    answer = world.commands().rollback("vision", "key-2", "bo", RollbackBody(reason="wrong"))
    assert answer.message.endswith(
        "without a build, and sets no hold of its own: a hold by ana is in force (demo) until somebody resumes"
    )


def test_what_a_person_rolled_back_is_quarantined_also_where_another_rollback_brought_users_home() -> None:
    world = released()
    world.ship(world.push_app("2.4.0"))
    world.tell(world.push_app("2.5.0"))
    world.run_until_phase(Phase.ROLLED_OUT)
    clean_up(world, 1)
    world.commands().rollback("vision", "key-1", "bo", RollbackBody(reason="2.5.0 leaks photos"))
    world.registry.name = "moved.example"  # which a release image names as its base: r-2's cannot be built alike
    world.run()
    assert [each.trigger for each in world.state.releases[-2:]] == ["rollback", "automatic_rollback"]
    world.commands().resume("vision", "key-2", "cy", ResumeBody(reason="seen"))
    world.ship(world.publish_model("1.1"))
    assert users_meet(world) == ("2.4.0", "1.1")


def test_an_image_that_is_lost_for_good_before_users_met_it_needs_no_rollback_and_no_hold() -> None:
    world = released()
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.INTENDED)
    clean_up(world)
    world.registry.name = "moved.example"
    world.run()
    assert shipped(world) == ["r-1 2.3.0+1.0 live", "r-2 2.3.0+1.1 rejected"]
    assert (world.state.release(2).ended_because, world.state.hold) == ("ImageGone", None)


def test_a_rollback_to_a_rollback_forgives_what_the_gate_forgave() -> None:
    world = World(msgspec.structs.replace(TARGET, gate=GateThresholds(max_wrong=1, max_newly_wrong=1)))
    world.ship(world.push_app("2.3.0"), world.publish_model("1.0", says="honeycomb"))
    world.ship(world.publish_model("1.1"))
    rolled_back(world, reason="slow")
    world.broken_doors.add("2.4.0")
    world.ship(world.push_app("2.4.0"))
    assert shipped(world)[-2:] == ["r-4 2.4.0+1.0 rolled_back", "r-5 2.3.0+1.0 live"]


def failed_and_not_undone() -> World:
    """Return a world where r-2 failed at the door, and the API server takes no patch back to r-1."""
    world = released()
    world.broken_doors.add("2.4.0")
    world.tell(world.push_app("2.4.0"))
    world.run_until_phase(Phase.ROLLED_OUT)
    refusing(world, lambda patch: str(world.state.release(1).image) in patch)
    world.run()
    return world


def test_a_rollback_in_lasting_trouble_gives_way_to_a_release_by_hand() -> None:
    world = failed_and_not_undone()
    world.ship(world.push_app("2.4.1"))
    assert world.commands().views.status("vision").app_head == "2.4.1", "what is published is read all the same"
    answer = world.commands().release("vision", "key", "bo", ReleaseBody(reason="the fix"))
    assert (
        answer.message == "releases app 2.4.1 with model 1.0; r-3 was to roll back, and is in trouble: this goes first"
    )
    world.run()
    assert shipped(world)[-2:] == ["r-3 2.3.0+1.0 superseded", "r-4 2.4.1+1.0 live"]


def test_what_a_rollback_gave_way_for_and_is_rejected_leaves_the_rollback_to_be_done() -> None:
    world = failed_and_not_undone()
    world.failing_models.add("1.1")
    world.ship(world.publish_model("1.1"))
    world.commands().release("vision", "key", "bo", ReleaseBody(reason="perhaps with 1.1"))
    world.run()
    assert [str(each.phase) for each in world.state.releases[2:]] == ["superseded", "rejected", "intended"]
    assert world.state.releases[-1].trigger == "automatic_rollback"
    said = world.commands().views.why("vision", "r-1").verdict
    assert said.endswith("; users may meet r-2 all the same, which is not undone yet")


def test_a_rollback_in_lasting_trouble_gives_way_to_another() -> None:
    world = released()
    world.ship(world.push_app("2.3.5"))
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.ROLLED_OUT)
    refusing(world, lambda patch: str(world.state.release(2).image) in patch)
    world.commands().rollback("vision", "key-1", "bo", RollbackBody(reason="wrong"))
    world.run_until_phase(Phase.INTENDED)
    with pytest.raises(Conflict, match="r-4 is rolling back to r-2 already: wait until it is done"):
        world.commands().rollback("vision", "key-2", "bo", RollbackBody(reason="wrong", to="r-1"))
    world.run()
    with pytest.raises(Conflict, match=r'r-4 is rolling back to r-2 already, and is in trouble.* name it with "to"'):
        world.commands().rollback("vision", "key-2", "bo", RollbackBody(reason="wrong"))
    world.commands().rollback("vision", "key-2", "bo", RollbackBody(reason="wrong", to="r-1"))
    world.run()
    assert users_meet(world) == ("2.3.0", "1.0")


def test_a_wish_to_go_back_to_what_turns_out_bad_before_its_turn_is_dropped_and_says_so() -> None:
    world = released("1.1")
    refusing(world, lambda patch: str(world.state.release(1).image) in patch)
    world.commands().rollback("vision", "key-1", "bo", RollbackBody(reason="1.1 is wrong"))
    world.run()
    world.commands().rollback("vision", "key-2", "ana", RollbackBody(reason="1.1 is right", to="r-2"))
    stamp, bad = world.pipeline("worker-2").context.stamp, (world.state.release(2).pair.model,)
    another = [RolledOut(**stamp(), release=3), Live(**stamp(), release=3, replies=3, quarantine=bad)]
    world.ledgers.append("vision", world.ledgers.read("vision"), another)
    world.run()
    assert shipped(world)[-1] == "r-3 2.3.0+1.0 live"
    found = world.commands().views.why("vision", "key-2")
    assert found.fate == "quarantined"
    assert found.verdict.endswith("1.1 is right; before its turn came, the pair or a half of it was quarantined")


def test_what_failed_and_cannot_be_undone_is_said_after_another_release_came_to_nothing() -> None:
    world = failed_with_nothing_to_go_back_to()
    world.ship(world.publish_model("1.1", says="honeycomb"))
    assert shipped(world)[-1] == "r-4 2.3.0+1.1 rejected"
    assert world.commands().views.status("vision").reason == "NothingToGoBackTo"


# -- releases by hand ----------------------------------------------------------------------------------------------


def test_a_half_is_released_by_hand_with_the_newest_that_may_ship() -> None:
    world = released("1.1")
    world.ship(world.push_app("2.4.0"))
    rolled_back(world, reason="2.4.0 leaks photos")
    body = ReleaseBody(reason="1.0 was better", model=world.state.models[0].digest)
    world.commands().release("vision", "key", "ana", body)
    world.run()
    assert users_meet(world) == ("2.3.0", "1.0")


def test_an_override_says_what_it_lifts() -> None:
    world = released()
    world.ship(world.publish_model("1.1", says="honeycomb"))
    body = ReleaseBody(reason="it is a honeycomb", release="r-2", override=True)
    answer = world.commands().release("vision", "key", "ana", body)
    assert answer.message == "releases app 2.3.0 with model 1.1, and lifts the quarantine of model 1.1"


def test_an_override_that_gave_way_before_its_turn_lifts_nothing() -> None:
    world = released("1.1")
    world.ship(world.push_app("2.4.0"))
    rolled_back(world, reason="2.4.0 leaks photos")
    override = ReleaseBody(reason="2.4.0 all the same", release="r-3", override=True)
    world.commands().release("vision", "key-1", "ana", override)
    world.commands().release("vision", "key-2", "bo", ReleaseBody(reason="no!", release="r-1"))
    world.run()
    world.ship(world.publish_model("1.3"))
    assert users_meet(world) == ("2.3.0", "1.3")
    said = world.commands().views.why("vision", "key-1").verdict
    assert said.endswith("a later request took its place before its turn came")
    answer = world.commands().release("vision", "key-3", "ana", override)
    assert answer.message == (
        "releases app 2.4.0 with model 1.1, and lifts the quarantine of app 2.4.0; "
        "then comes app 2.4.0 with model 1.3, which was published before: set a hold to keep it back"
    )
    world.run()
    assert users_meet(world) == ("2.4.0", "1.3")


def test_blame_does_not_undo_a_release_by_hand() -> None:
    world = released()
    world.clock.sleep(60)
    world.ship(world.push_app("2.3.5"))
    answers = world._pod_answers

    def disagreeing(asked: object) -> tuple[int, dict[str, str], bytes]:
        status, headers, body = answers(asked)  # type: ignore[arg-type]
        bad = (headers["x-app-version"], headers["x-model-version"]) == ("2.4.0", "1.1")
        return (500, headers, b"they do not agree") if bad else (status, headers, body)

    world.cluster.answering = disagreeing  # type: ignore[assignment]
    world.ship(world.push_app("2.4.0"), world.publish_model("1.1"))
    assert users_meet(world) == ("2.4.0", "1.0")
    body = ReleaseBody(reason="2.4.0 is worse, and 2.3.5 too", release="r-1")
    answer = world.commands().release("vision", "key", "ana", body)
    assert answer.message == (
        "releases app 2.3.0 with model 1.0; then comes app 2.3.0 with model 1.1, which was published before: set a "
        "hold to keep it back"
    )
    world.run()
    assert users_meet(world) == ("2.3.0", "1.1"), "2.4.0 was live, and somebody released another in its place"


def test_a_release_by_hand_during_a_rollout_says_what_goes_first() -> None:
    world = released("1.1")
    world.tell(world.publish_model("1.2"))
    world.run_until_phase(Phase.ROLLED_OUT)
    body = ReleaseBody(reason="1.1 and 1.2 are worse", release="r-1")
    answer = world.commands().release("vision", "key", "ana", body)
    assert answer.message == "releases app 2.3.0 with model 1.0; r-3 is rolling out and goes first"
    world.run()
    assert users_meet(world) == ("2.3.0", "1.0")


def test_a_release_by_hand_during_a_rollback_says_that_it_is_held() -> None:
    world = released("1.1")
    world.commands().rollback("vision", "key-1", "bo", RollbackBody(reason="worse"))
    world.run_until_phase(Phase.INTENDED)
    answer = world.commands().release("vision", "key-2", "ana", ReleaseBody(reason="urgent", release="r-1"))
    assert answer.message == (
        "releases app 2.3.0 with model 1.0; r-3 rolls back first, and its hold keeps this until somebody resumes"
    )


def test_a_release_by_hand_says_that_what_is_not_read_yet_may_follow() -> None:
    world = released("1.1")
    world.clock.sleep(60)
    get_blob, asked = world.registry.get_blob, list[object]()

    def away(*args: object) -> bytes:
        asked.append(args)
        if len(asked) < 7:
            raise Retryable("the registry is away")
        return get_blob(*args)  # type: ignore[arg-type]

    world.registry.get_blob = away  # type: ignore[method-assign] # for the time being
    world.tell(world.push_app("2.4.0"))
    world.pipeline().advance("vision")
    answer = world.commands().release("vision", "key", "ana", ReleaseBody(reason="1.1 is worse", release="r-1"))
    assert answer.message == (
        "releases app 2.3.0 with model 1.0; what was published and is not read yet may follow: set a hold to keep it "
        "back"
    )


# -- holds ---------------------------------------------------------------------------------------------------------


def test_a_resume_says_whose_hold_it_lifts() -> None:
    world = released("1.1")
    world.commands().hold("vision", "key-1", "ana", HoldBody(reason="audit", scope="model"))
    world.commands().hold("vision", "key-2", "bo", HoldBody(reason="incident"))
    answer = world.commands().resume("vision", "key-3", "ana", ResumeBody(reason="audited", dry_run=True))
    assert answer.message.startswith("would be taken: lifts a hold by bo (incident): ")


def test_a_hold_says_what_is_in_the_cluster_already() -> None:
    world = released()
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.ROLLED_OUT)
    answer = world.commands().hold("vision", "key", "ana", HoldBody(reason="stop"))
    assert answer.message == ("nothing new ships until somebody resumes; r-2 is in the cluster already, and goes on")


def test_a_resume_does_not_promise_what_had_its_turn() -> None:
    world = released("1.1")
    world.commands().release("vision", "key-1", "ana", ReleaseBody(reason="1.1 is worse", release="r-1"))
    world.run()
    world.commands().hold("vision", "key-2", "ana", HoldBody(reason="demo"))
    world.registry.get_blob = lambda *_: (_ for _ in ()).throw(Retryable("the registry is away"))  # type: ignore[method-assign]
    world.tell(world.push_app("2.4.0"))
    world.pipeline().advance("vision")
    seen = world.commands().views.before_resume("vision")
    assert seen.ships is None
    assert seen.message.startswith("lifts a hold by ana (demo): nothing is ready to ship: ")


# -- what the gate knows -------------------------------------------------------------------------------------------


def test_a_model_that_fits_the_live_app_ships_although_newer_halves_of_another_contract_had_their_turn() -> None:
    world = released()
    world.clock.sleep(60)
    world.ship(world.push_app("3.0.0", contract="2"), world.publish_model("2.0", contract="2"))
    world.commands().release("vision", "key", "ana", ReleaseBody(reason="back to contract 1", release="r-1"))
    world.run()
    world.ship(world.publish_model("1.1"))
    assert users_meet(world) == ("2.3.0", "1.1")


def test_the_live_model_uploaded_again_does_not_use_up_the_quiet_window_of_what_comes_later() -> None:
    world = World(msgspec.structs.replace(TARGET, quiet_seconds=10.0, quiet_cap_seconds=60.0))
    world.ship(world.push_app("2.3.0"), world.publish_model("1.0"))
    world.ship(world.publish_model("1.0"))
    world.clock.sleep(3600)
    world.tell(world.push_app("2.4.0"))
    assert world.pipeline().advance("vision") == "waits 10 s: quiet window"
    world.clock.sleep(3)
    world.tell(world.publish_model("1.1"))
    world.run()
    assert shipped(world) == ["r-1 2.3.0+1.0 retired", "r-2 2.4.0+1.1 live"]


def test_a_label_that_is_half_a_character_is_an_answer_like_others() -> None:
    world = released()
    world.ship(world.publish_model("1.1", says="half \ud83d"))
    assert shipped(world)[-1] == "r-2 2.3.0+1.1 rejected"
    report = world.commands().views.history("vision", "r-2").report
    assert report is not None
    assert report.rows[0].candidate[0][0] == "half ?"
    world.ship(world.publish_model("1.2"))
    assert users_meet(world) == ("2.3.0", "1.2")
