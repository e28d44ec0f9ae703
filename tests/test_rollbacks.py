"""Rollbacks: where they go, what they leave behind, and what becomes of those that cannot be done."""

from collections.abc import Callable
from datetime import timedelta

import msgspec
import pytest

from shipmate.commands import HoldBody, ReleaseBody, ResumeBody, RollbackBody
from shipmate.core.ledger import Errored, Live, Phase, RollbackRequested, RolledOut
from shipmate.core.targets import GateThresholds
from shipmate.core.views import DeploymentView
from shipmate.errors import Ambiguous, Conflict, Retryable
from tests.situations import clean_up, phases, refusing, rolled_back, shipped, users_meet
from tests.world import TARGET, World, released


def test_a_rollback_by_hand_builds_nothing_and_holds_the_target() -> None:
    world = released()
    world.ship(world.push_app("2.3.1"))
    answer = world.commands().rollback("vision", "key-1", "bo", RollbackBody(reason="wrong percentages"))
    assert answer.accepted
    world.run()
    assert phases(world) == [("r-1", "retired"), ("r-2", "rolled_back"), ("r-3", "live")]
    assert world.version("").app_version == "2.3.0"
    cost = world.state.release(3).cost
    assert cost is not None
    assert cost.uploaded == 0
    status = world.commands().views.status("vision")
    assert status.hold == "bo: wrong percentages"


def test_a_rollback_builds_its_image_again_if_the_registry_lost_it() -> None:
    world = released("1.1")
    image = clean_up(world, 0)
    world.commands().rollback("vision", "key-1", "bo", RollbackBody(reason="worse"))
    world.run()
    assert phases(world)[-1] == ("r-3", "live")
    assert world.version("").model_version == "1.0"
    assert image in world.registry.manifests["vision"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda world: world.models.delete("models", "net/1.0/manifest.json"),
            "cannot be built again: net/1.0/manifest.json",
        ),
        (lambda world: setattr(world.registry, "name", "moved.example"), "of the same halves now is another image"),
    ],
    ids=["its model is gone", "it becomes another image"],
)
def test_a_rollback_whose_image_is_lost_for_good_fails_and_says_why(
    spoil: Callable[[World], object], message: str
) -> None:
    world = released("1.1")
    clean_up(world, 0)
    spoil(world)
    world.commands().rollback("vision", "key-1", "bo", RollbackBody(reason="worse"))
    world.run()
    assert world.state.release(3).ended_because == "ImageGone"
    assert message in (world.state.release(3).message or "")


def failed_with_nothing_to_go_back_to() -> World:
    """Return a world in which users meet r-2, which failed; the image of r-1 is lost and cannot be built alike."""
    world = released()
    world.broken_doors.add("2.4.0")
    world.tell(world.push_app("2.4.0"))
    world.run_until_phase(Phase.ROLLED_OUT)
    clean_up(world, 0)
    world.registry.name = "moved.example"  # which a release image names as its base
    world.run()
    return world


def test_a_first_release_that_fails_is_not_undone_and_a_release_by_hand_is_the_way_out() -> None:
    world = World()
    world.broken_doors.add("2.3.0")
    world.ship(world.publish_model("1.0"), world.push_app("2.3.0"))
    assert world.state.release(1).ended_because == "VerifyFailed"
    status, seen = world.commands().views.status("vision"), world.cluster.deployment("vision", "vision")
    assert (status.hold, status.reason, status.quarantined) == (None, "Quarantined", (world.state.release(1).pair.key,))
    assert seen.asks_for("r-1", world.state.release(1).image)
    with pytest.raises(Conflict, match="nothing is live yet: there is nothing to roll back"):
        world.commands().rollback("vision", "key-1", "bo", RollbackBody(reason="users may meet it"))
    world.broken_doors.clear()
    body = ReleaseBody(reason="the door is mended", release="r-1", override=True)
    world.commands().release("vision", "key-2", "bo", body)
    world.run()
    assert phases(world) == [("r-1", "failed"), ("r-2", "live")]


def test_a_rollback_ships_no_other_image_in_the_place_of_one_that_is_lost_for_good() -> None:
    world = failed_with_nothing_to_go_back_to()
    assert [release.ended_because for release in world.state.releases] == [None, "VerifyFailed", "ImageGone"]
    with pytest.raises(Conflict, match="r-1 has lost its image for good: release it instead"):
        world.commands().rollback("vision", "key-1", "bo", RollbackBody(reason="the status says so"))


def test_where_a_failed_release_cannot_be_undone_that_is_said_and_a_release_by_hand_is_the_way_out() -> None:
    world = failed_with_nothing_to_go_back_to()
    assert world.pipeline().advance("vision") == (
        "NothingToGoBackTo: r-2 failed, users may meet it, and no release that was live before can be brought back: "
        "publish a newer half, or release an earlier pair by hand"
    )
    world.commands().release("vision", "key-1", "bo", ReleaseBody(reason="the pair that was live", release="r-1"))
    world.run()
    assert phases(world)[-1] == ("r-4", "live")
    assert world.pipeline().advance("vision").startswith("UpToDate")


def test_a_rollback_to_a_release_whose_model_was_deleted_since_goes_live_all_the_same() -> None:
    world = released("1.1")
    world.models.delete("models", "net/1.0/manifest.json")
    world.commands().rollback("vision", "key", "bo", RollbackBody(reason="worse"))
    world.run()
    assert phases(world)[-1] == ("r-3", "live")


def test_a_rollback_during_a_rollout_undoes_what_is_rolling_out() -> None:
    world = released()
    world.ship(world.push_app("2.3.1"))
    world.broken_doors.add("2.3.2")
    world.tell(world.push_app("2.3.2"))
    world.run_until_phase(Phase.ROLLED_OUT)
    world.commands().rollback("vision", "key", "bo", RollbackBody(reason="daisies come back wrong"))
    world.run()
    assert world.version("").app_version == "2.3.1"
    assert [phase for _, phase in phases(world)] == ["retired", "retired", "rolled_back", "live"]
    world.commands().resume("vision", "key-2", "bo", ResumeBody(reason="seen"))
    world.run()
    assert world.version("").app_version == "2.3.1"


def test_a_failed_rollback_can_be_asked_for_again_and_the_status_says_what_is_wrong() -> None:
    world = released()
    world.broken_doors.update(("2.3.0", "2.3.1"))
    world.ship(world.push_app("2.3.1"))
    assert phases(world)[-1] == ("r-3", "failed")
    drift = world.commands().views.status("vision").drift
    assert drift is not None
    assert drift.startswith("the Deployment asks for r-3, and r-1 was live last")
    world.broken_doors.clear()
    world.commands().rollback("vision", "key", "bo", RollbackBody(reason="again"))
    world.run()
    assert phases(world)[-1] == ("r-4", "live")
    assert world.commands().views.status("vision").drift is None


def test_a_hold_does_not_stop_a_rollback() -> None:
    world = released("1.1")
    world.commands().rollback("vision", "key", "bo", RollbackBody(reason="worse"))
    world.run_until_phase(Phase.INTENDED)
    world.commands().hold("vision", "key-2", "ana", HoldBody(reason="stop"))
    world.run()
    assert phases(world)[-1] == ("r-3", "live")
    assert world.version("").model_version == "1.0"


def test_nobody_goes_back_to_what_is_quarantined() -> None:
    world = released()
    world.ship(world.push_app("2.3.1"))
    world.commands().rollback("vision", "key", "bo", RollbackBody(reason="wrong percentages"))
    world.run()
    with pytest.raises(Conflict, match="the pair of r-2, or a half of it, is quarantined: release it instead"):
        world.commands().rollback("vision", "key-2", "bo", RollbackBody(reason="a mistake", to="r-2"))


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


def test_who_rolls_back_after_a_rollback_says_where_to() -> None:
    world = released("1.1", "1.2")
    world.commands().rollback("vision", "key-1", "bo", RollbackBody(reason="worse"))
    world.run()
    again = RollbackBody(reason="worse, as the alert says")
    words = 'r-4 rolled back to the pair of r-2 already: to go back further, name a release with "to", r-1 for'
    with pytest.raises(Conflict, match=words):
        world.commands().rollback("vision", "key-2", "ana", again)
    world.commands().rollback("vision", "key-3", "ana", msgspec.structs.replace(again, to="r-1"))
    world.run()
    assert world.version("").model_version == "1.0"


def test_who_rolls_back_where_nothing_older_is_left_is_told_so() -> None:
    world = released()
    world.broken_doors.add("2.4.0")
    world.ship(world.push_app("2.4.0"))
    assert phases(world)[-1] == ("r-3", "live")
    with pytest.raises(Conflict, match="no other release was live before: there is nothing to go back to"):
        world.commands().rollback("vision", "key", "bo", RollbackBody(reason="as the alert says"))


def test_what_a_person_rolled_back_while_it_rolled_out_does_not_ship_again_though_the_rollback_comes_to_nothing() -> (
    None
):
    world = released()
    world.tell(world.push_app("2.5.0"))
    world.run_until_phase(Phase.ROLLED_OUT)
    clean_up(world, 0)
    world.registry.name = "moved.example"
    world.commands().rollback("vision", "key", "bo", RollbackBody(reason="2.5.0 leaks photos"))
    world.run()
    assert phases(world) == [("r-1", "live"), ("r-2", "superseded"), ("r-3", "failed")]
    status = world.commands().views.status("vision")
    assert (status.reason, status.quarantined) == ("NothingToGoBackTo", (world.state.release(2).pair.app,))
    assert status.next.startswith("r-2 is to be undone, users may meet it, and no release that was live before can be")
    said = world.commands().views.why("vision", "r-2").next
    assert said.endswith('"release": "r-2" and "override": true')


def test_a_rollback_of_what_another_rollback_is_to_undo_undoes_the_same() -> None:
    world = released()
    world.ship(world.push_app("2.4.0"))
    world.tell(world.push_app("2.5.0"))
    world.run_until_phase(Phase.ROLLED_OUT)
    refusing(world, lambda patch: str(world.state.release(2).image) in patch)
    world.commands().rollback("vision", "key-1", "bo", RollbackBody(reason="2.5.0 leaks photos"))
    world.run()
    answer = world.commands().rollback("vision", "key-2", "ana", RollbackBody(reason="2.4.0 will not do", to="r-1"))
    assert "and undoes r-3 (app 2.5.0, model 1.0)" in answer.message
    world.run()
    assert users_meet(world) == ("2.3.0", "1.0")
    assert world.state.quarantine == {world.state.release(3).pair.app}
    assert world.state.release(2).phase is Phase.RETIRED


def test_a_rollback_of_what_was_live_while_another_is_to_be_undone_asks_where_to() -> None:
    world = failed_with_nothing_to_go_back_to()
    body = RollbackBody(reason="1.0 is wrong", if_live="r-1")
    with pytest.raises(Conflict, match='r-2 is not undone yet, and went out over r-1: say with "to" which release'):
        world.commands().rollback("vision", "key", "bo", body)


def test_a_rollback_that_another_rollback_missed_the_image_of_is_not_built_as_another_image() -> None:
    world = released("1.1")
    clean_up(world, 0)
    world.registry.name = "moved.example"
    world.commands().rollback("vision", "key-1", "bo", RollbackBody(reason="1.1 is wrong"))
    world.run_until_phase(Phase.PLANNED)
    asked = RollbackRequested(
        **world.pipeline().context.stamp(), request="key-2", author="ana", reason="wrong", to=1, undoes=2
    )
    world.ledgers.append("vision", world.ledgers.read("vision"), [asked])
    world.run()
    assert phases(world)[2:] == [("r-3", "failed"), ("r-4", "failed")]
    assert world.state.release(4).message == "the image of r-1 is lost for good; roll back to another release"


def test_a_rollback_that_failed_in_front_of_users_is_told_of_by_what_is_live() -> None:
    world = released()
    world.broken_doors.update(("2.3.0", "2.3.1"))
    world.ship(world.push_app("2.3.1"))
    found = world.commands().views.why("vision", "r-1")
    assert "; users may meet r-3 all the same, a rollback that failed: not verified at " in found.verdict
    assert found.next == "to try it again: POST /api/targets/vision/rollback"


def test_a_rollback_that_is_patched_in_goes_first_whatever_trouble_it_is_in() -> None:
    world = released("1.1", "1.2")
    world.commands().rollback("vision", "key-1", "bo", RollbackBody(reason="1.2 is wrong"))
    world.run_until_phase(Phase.ROLLED_OUT)
    trouble = Errored(
        **world.pipeline().context.stamp(),
        release=4,
        stage="verify",
        message="storage refuses",
        retry_at=world.clock.now() + timedelta(hours=1),
    )
    for _ in range(4):
        world.ledgers.append(
            "vision", world.ledgers.read("vision"), [msgspec.structs.replace(trouble, id=world.clock.new_id())]
        )
    answer = world.commands().release("vision", "key-2", "ana", ReleaseBody(reason="1.0 will do", release="r-1"))
    assert answer.message.endswith("; r-4 rolls back first, and its hold keeps this until somebody resumes")


def test_a_resume_during_a_rollback_in_trouble_ships_nothing() -> None:
    world = released("1.1")
    world.commands().hold("vision", "key-1", "ana", HoldBody(reason="a demo"))
    world.ship(world.push_app("2.4.0"))
    refusing(world, lambda patch: str(world.state.release(1).image) in patch)
    world.commands().rollback("vision", "key-2", "bo", RollbackBody(reason="1.1 is wrong"))
    world.run()
    answer = world.commands().resume("vision", "key-3", "ana", ResumeBody(reason="over"))
    assert answer.ships is None
    words = "lifts a hold by ana (a demo): nothing is ready to ship: r-4 rolls back first, and its hold keeps"
    assert answer.message.startswith(words)


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


def test_a_release_whose_image_is_lost_for_good_is_nothing_to_go_back_to() -> None:
    world = released()
    world.ship(world.publish_model("1.1"))
    image = world.state.release(1).image
    assert image is not None
    del world.registry.manifests["vision"][image]
    world.models.delete("models", "net/1.0/manifest.json")
    world.commands().rollback("vision", "key-1", "bo", RollbackBody(reason="worse"))
    world.run()
    assert world.state.release(3).ended_because == "ImageGone"
    assert (world.state.release(2).phase, world.state.hold) == (Phase.LIVE, None)
    assert len(world.state.releases) == 3, "a rollback that failed before it touched anything undoes nothing"
    with pytest.raises(Conflict, match="r-1 has lost its image for good: release it instead"):
        world.commands().rollback("vision", "key-2", "bo", RollbackBody(reason="worse", to="r-1"))


def rolling_back_while_the_api_server_is_away(world: World, number: int) -> None:
    """Let a rollback to a release wait for the API server, while the registry's clean-up takes its image."""
    patch = world.cluster.patch_deployment

    def away(*what: object) -> DeploymentView:
        raise Retryable("the API server is away")

    world.commands().rollback("vision", "key", "bo", RollbackBody(reason="worse", to=f"r-{number}"))
    world.cluster.patch_deployment = away  # type: ignore[method-assign, assignment] # for the time being
    world.run()
    active = world.state.active
    assert active is not None
    assert active.phase is Phase.INTENDED
    clean_up(world, number - 1)
    world.cluster.patch_deployment = patch  # type: ignore[method-assign] # as it was


def test_a_rollback_whose_image_is_cleaned_away_before_its_patch_builds_it_again() -> None:
    world = released("1.1")
    rolling_back_while_the_api_server_is_away(world, 1)
    world.run()
    assert shipped(world)[-1] == "r-3 2.3.0+1.0 live"
    assert world.state.release(3).image in world.registry.manifests["vision"]


def test_a_rollback_whose_image_is_lost_for_good_before_its_patch_touches_nothing() -> None:
    world = released("1.1")
    before = world.cluster.deployment("vision", "vision")
    rolling_back_while_the_api_server_is_away(world, 1)
    world.models.delete("models", "net/1.0/manifest.json")
    world.run()
    failed = world.state.release(3)
    assert (failed.phase, failed.ended_because, world.state.hold) == (Phase.FAILED, "ImageGone", None)
    assert "cannot be built again: net/1.0/manifest.json is not there any more" in (failed.message or "")
    assert world.cluster.deployment("vision", "vision").release == before.release
    assert world.commands().views.why("vision", "r-2").verdict.endswith("users are answered by it")
    with pytest.raises(Conflict, match="r-1 has lost its image for good"):
        world.commands().rollback("vision", "key-2", "bo", RollbackBody(reason="worse", to="r-1"))


def test_what_failed_is_undone_by_another_release_where_its_rollback_lost_its_image_before_its_patch() -> None:
    world = released("1.1")
    world.broken_doors.add("2.4.0")
    world.tell(world.push_app("2.4.0"))
    world.run_until_phase(Phase.ROLLED_OUT)
    rolling_back_while_the_api_server_is_away(world, 2)
    world.models.delete("models", "net/1.1/manifest.json")
    world.run()
    assert [each[:2] for each in phases(world)][2:] == [("r-3", "rolled_back"), ("r-4", "failed"), ("r-5", "live")]
    assert users_meet(world) == ("2.3.0", "1.0")


def test_a_rollback_that_is_patched_in_goes_on_although_its_image_is_lost_since() -> None:
    world = released("1.1")
    world.cluster.fail("patch_deployment", Ambiguous("the reply was lost"), after=True)
    world.commands().rollback("vision", "key", "bo", RollbackBody(reason="worse"))
    resolve = world.registry.resolve

    def lost_by_then(*what: object) -> object:
        if world.cluster.deployment("vision", "vision").release == "r-3":
            world.registry.resolve = resolve  # type: ignore[method-assign] # as it was
            clean_up(world, 0)
            world.models.delete("models", "net/1.0/manifest.json")
        return resolve(*what)  # type: ignore[arg-type]

    world.registry.resolve = lost_by_then  # type: ignore[method-assign,assignment] # for the time being
    manifests = dict(world.registry.manifests["vision"])
    world.run_until_phase(Phase.ROLLED_OUT)
    world.registry.manifests["vision"].update(manifests)
    world.run()
    assert shipped(world)[-1] == "r-3 2.3.0+1.0 live"


def test_a_rollback_that_is_patched_in_ends_although_the_registry_is_away() -> None:
    world = released("1.1")
    world.cluster.fail("patch_deployment", Ambiguous("the reply was lost"), after=True)
    world.commands().rollback("vision", "key", "bo", RollbackBody(reason="worse"))
    resolve = world.registry.resolve

    def away_by_then(*what: object) -> object:
        if world.cluster.deployment("vision", "vision").release == "r-3":
            raise Retryable("the registry is away")
        return resolve(*what)  # type: ignore[arg-type]

    world.registry.resolve = away_by_then  # type: ignore[method-assign,assignment] # for good
    world.run()
    assert shipped(world)[-1] == "r-3 2.3.0+1.0 live"
