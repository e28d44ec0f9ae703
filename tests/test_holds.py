"""Holds: what they keep out from when on, whose hold is lifted, and what a resume says."""

from datetime import timedelta

import pytest

from shipmate.commands import HoldBody, ReleaseBody, ResumeBody
from shipmate.core.fence import raise_fence_patch
from shipmate.core.ledger import Phase
from shipmate.core.views import DeploymentView
from shipmate.errors import Conflict, Retryable, Reused
from tests.fakes.ledgers import Fault
from tests.situations import outcomes, phases, users_meet
from tests.world import World, released


def test_a_resume_tells_of_a_half_that_may_be_what_failed_in_front_of_users() -> None:
    world = released()
    world.broken_doors.add("2.4.0")
    world.ship(world.publish_model("1.1"), world.push_app("2.4.0"))
    assert phases(world)[:3] == [("r-1", "retired"), ("r-2", "rolled_back"), ("r-3", "live")]
    seen = world.commands().views.before_resume("vision")
    assert seen.ships is not None
    assert (seen.ships.app, seen.ships.model) == ("2.4.0", "1.0")
    assert "it passed its gate, and its app may be what was at fault in r-2, which users met; " in seen.message


def test_a_hold_on_models_lets_code_ship_and_keeps_the_model_ready() -> None:
    world = released()
    world.commands().hold("vision", "k1", "ana", HoldBody(reason="an audit of the models", scope="model"))
    world.ship(world.publish_model("1.1"))
    assert outcomes(world) == [("2.3.0", "1.1", "held")]
    world.ship(world.push_app("2.4.0"))
    assert outcomes(world) == [("2.3.0", "1.1", "superseded"), ("2.4.0", "1.0", "live"), ("2.4.0", "1.1", "held")]
    world.commands().resume("vision", "k2", "ana", ResumeBody(reason="the audit is over"))
    world.run()
    assert outcomes(world)[-1] == ("2.4.0", "1.1", "live")


def test_what_is_published_under_a_hold_is_gated_and_waits_and_ships_on_resume() -> None:
    world = released()
    world.commands().hold("vision", "key-1", "ana", HoldBody(reason="demo for a customer"))
    world.ship(world.publish_model("1.1"))
    assert phases(world)[-1] == ("r-2", "held")
    assert world.version("").model_version == "1.0"
    world.commands().resume("vision", "key-2", "ana", ResumeBody(reason="the demo is over"))
    world.run()
    assert phases(world)[-1] == ("r-2", "live")


def test_a_hold_that_only_reached_the_ledger_keeps_the_patch_out() -> None:
    world = released()
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.INTENDED)
    world.cluster.fail("patch_deployment", Retryable("the API server is away"))
    with pytest.raises(Retryable):
        world.commands().hold("vision", "key", "ana", HoldBody(reason="stop"))
    world.run()
    assert phases(world)[-1] == ("r-2", "held")
    assert world.version("").model_version == "1.0"


def fence(world: World) -> int:
    return world.cluster.deployment("vision", "vision").fence or 0


def test_a_hold_that_is_asked_for_while_the_cluster_is_away_keeps_the_model_from_users() -> None:
    world = released()
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.GATED)
    reached = world.cluster.deployment

    def away(namespace: str, name: str) -> DeploymentView:
        raise Retryable("the API server is away", after_seconds=7)

    world.cluster.deployment = away  # type: ignore[method-assign] # for the time being
    hold = HoldBody(reason="1.1 must not go out")
    with pytest.raises(Retryable, match=r"the hold is on record, but .*: the API server is away; ask again") as caught:
        world.commands().hold("vision", "key", "ana", hold)
    assert caught.value.after_seconds == 7
    world.cluster.deployment = reached  # type: ignore[method-assign]
    world.run()
    assert phases(world)[-1] == ("r-2", "held")
    assert fence(world) < world.state.fence
    assert world.commands().hold("vision", "key", "ana", hold).accepted
    assert fence(world) == world.state.fence


def test_a_new_fence_is_taken_anew_if_a_hold_came_first() -> None:
    world = released()
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.INTENDED)
    view = world.cluster.deployment("vision", "vision")
    world.cluster.patch_deployment(
        "vision", "vision", raise_fence_patch(view, expected_fence=view.fence or 0, new_fence=10)
    )  # another Shipmate, say

    def a_hold_came_first(target: str) -> None:
        if world.state.hold is None:
            world.commands().hold(target, "key-1", "ana", HoldBody(reason="stop"))

    world.ledgers.on_conflict = a_hold_came_first
    world.ledgers.fail_next(Fault.CONFLICT)
    world.run()
    assert phases(world)[-1] == ("r-2", "held")


def test_a_late_hold_leaves_the_fence_of_a_newer_rollout_alone() -> None:
    world = released()
    world.commands().hold("vision", "key-1", "ana", HoldBody(reason="demo"))
    world.commands().resume("vision", "key-2", "ana", ResumeBody(reason="over"))
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.INTENDED)
    world.commands().hold("vision", "key-1", "ana", HoldBody(reason="demo"))  # its first attempt came this late
    world.run()
    assert phases(world) == [("r-1", "retired"), ("r-2", "live")]


def test_a_resume_says_whose_hold_it_lifts() -> None:
    world = released("1.1")
    world.commands().hold("vision", "key-1", "ana", HoldBody(reason="audit", scope="model"))
    world.commands().hold("vision", "key-2", "bo", HoldBody(reason="incident"))
    answer = world.commands().resume("vision", "key-3", "ana", ResumeBody(reason="audited", dry_run=True))
    assert answer.message.startswith("would be taken: lifts a hold by bo (incident): ")


def test_a_resume_that_names_a_hold_lifts_no_other() -> None:
    world = released()
    commands = world.commands()
    commands.hold("vision", "key-1", "ana", HoldBody(reason="a demo is on"))
    seen = commands.views.before_resume("vision").hold
    assert seen is not None
    commands.resume("vision", "key-2", "ana", ResumeBody(reason="the demo is over", hold=seen.id))
    commands.hold("vision", "key-3", "cy", HoldBody(reason="INCIDENT"))
    held, length = world.state.hold, world.state.length
    assert held is not None
    for dry_run in (False, True):
        late = ResumeBody(reason="the demo is over", hold=seen.id, dry_run=dry_run)
        with pytest.raises(Conflict) as told:
            commands.resume("vision", "key-4", "bo", late)
        assert str(told.value) == (
            f"the hold '{seen.id}' is not in force, a hold by cy is (INCIDENT), whose id is '{held.id}'; look again, "
            "then decide"
        )
    assert (world.state.hold, world.state.length) == (held, length)
    commands.resume("vision", "key-5", "bo", ResumeBody(reason="cy said so", hold=held.id))
    assert world.state.hold is None


def test_a_resume_that_names_a_hold_under_another_lifts_neither() -> None:
    world = released()
    commands = world.commands()
    commands.hold("vision", "key-1", "ana", HoldBody(reason="audit", scope="model"))
    under = world.state.hold
    assert under is not None
    commands.hold("vision", "key-2", "bo", HoldBody(reason="incident"))
    with pytest.raises(Conflict, match=r"is not in force, a hold by bo is \(incident\)"):
        commands.resume("vision", "key-3", "ana", ResumeBody(reason="audited", hold=under.id))
    assert world.state.hold is not None
    assert world.state.hold.under == under


def test_a_hold_set_while_a_resume_is_written_is_not_lifted_by_it() -> None:
    world = released()
    commands = world.commands()
    commands.hold("vision", "key-1", "ana", HoldBody(reason="a demo is on"))
    seen = world.state.hold
    assert seen is not None

    def another_came_first(name: str) -> None:
        commands.resume(name, "key-2", "ana", ResumeBody(reason="the demo is over"))
        commands.hold(name, "key-3", "cy", HoldBody(reason="INCIDENT"))

    world.ledgers.on_conflict = another_came_first
    world.ledgers.fail_next(Fault.CONFLICT)
    with pytest.raises(Conflict, match="a hold by cy is"):
        commands.resume("vision", "key-4", "bo", ResumeBody(reason="the demo is over", hold=seen.id))
    assert world.state.hold is not None
    assert world.state.hold.author == "cy"
    assert "key-4" not in world.state.requests


def test_a_resume_that_was_taken_is_no_conflict_when_it_is_repeated() -> None:
    world = released()
    commands = world.commands()
    commands.hold("vision", "key-1", "ana", HoldBody(reason="a demo is on"))
    hold = world.state.hold
    assert hold is not None
    lift = ResumeBody(reason="the demo is over", hold=hold.id)
    commands.resume("vision", "key-2", "bo", lift)
    commands.hold("vision", "key-3", "cy", HoldBody(reason="INCIDENT"))
    assert commands.resume("vision", "key-2", "bo", lift).message == "recorded; no release was planned for it"
    assert world.state.hold is not None
    with pytest.raises(Reused):
        commands.resume("vision", "key-2", "bo", ResumeBody(reason="the demo is over"))


def test_a_resume_that_names_no_hold_is_known_by_what_earlier_builds_wrote_of_it() -> None:
    world = released()
    commands = world.commands()
    commands.hold("vision", "key-1", "ana", HoldBody(reason="a demo is on"))
    commands.resume("vision", "key-2", "ana", ResumeBody(reason="go on"))
    assert world.state.fingerprints["key-2"] == "ed9172c1a12e0fb9ed8ef0797bedf525"


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


def test_a_resume_promises_nothing_that_the_hold_under_it_keeps_while_a_push_cannot_be_read() -> None:
    world = released()
    world.commands().hold("vision", "key-1", "ana", HoldBody(reason="audit", scope="model"))
    world.commands().hold("vision", "key-2", "bo", HoldBody(reason="incident"))
    world.ship(world.publish_model("1.1"))
    world.registry.resolve = lambda *_: (_ for _ in ()).throw(Retryable("the registry is away"))  # type: ignore[method-assign]
    world.tell(world.push_app("2.4.0"))
    world.run(within=timedelta(seconds=40))
    seen = world.commands().views.before_resume("vision")
    assert seen.ships is None
    assert "nothing is ready to ship: waits until" in seen.message
    assert "until then: r-2 is ready; a hold on models by ana keeps it: audit" in seen.message


def test_a_resume_says_what_ships_although_something_newer_waits_for_its_partner() -> None:
    world = released()
    world.commands().hold("vision", "key-1", "ana", HoldBody(reason="audit", scope="model"))
    world.commands().hold("vision", "key-2", "bo", HoldBody(reason="incident"))
    world.ship(world.publish_model("1.1"))
    world.ship(world.push_app("2.4.0"))
    world.ship(world.push_app("3.0.0", contract="2"))
    answer = world.commands().resume("vision", "key-3", "bo", ResumeBody(reason="over"))
    assert answer.ships is not None
    assert (answer.ships.app, answer.ships.model, answer.ships.gate_passed) == ("2.4.0", "1.0", False)
    world.run()
    assert users_meet(world) == ("2.4.0", "1.0")


def intended() -> World:
    """Return a world with r-1 live, and r-2 about to be patched in."""
    world = released()
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.INTENDED)
    return world


def test_a_hold_is_in_force_when_somebody_else_is_told_of_it() -> None:
    world = intended()
    hold = HoldBody(reason="stop")
    world.cluster.fail("patch_deployment", Retryable("the API server is away"))
    with pytest.raises(Retryable):
        world.commands().hold("vision", "key-1", "ana", hold)
    assert fence(world) < world.state.fence
    with pytest.raises(Conflict, match="vision is held already by ana: stop"):
        world.commands().hold("vision", "key-2", "bo", HoldBody(reason="is it held?", dry_run=True))
    assert fence(world) < world.state.fence, "a dry run changes nothing"
    with pytest.raises(Conflict, match="vision is held already by ana: stop"):
        world.commands().hold("vision", "key-2", "ana", hold)
    assert fence(world) == world.state.fence


def test_a_hold_on_everything_is_set_over_one_on_models_which_is_in_force_again_after_it() -> None:
    world = released()
    commands = world.commands()
    commands.hold("vision", "key-1", "ana", HoldBody(reason="audit", scope="model"))
    with pytest.raises(Conflict, match='held already by ana, models only: audit; a hold with "scope": "all" can be'):
        commands.hold("vision", "key-2", "bo", HoldBody(reason="incident", scope="app"))
    answer = commands.hold("vision", "key-3", "bo", HoldBody(reason="incident"))
    assert answer.message == (
        "nothing new ships until somebody resumes; a hold on models by ana is in force again then: audit"
    )
    assert commands.views.status("vision").hold == "bo: incident; under it a hold on models by ana: audit"
    world.ship(world.push_app("2.4.0"), world.publish_model("1.1"))
    assert world.version("").app_version == "2.3.0"
    answer = commands.resume("vision", "key-4", "bo", ResumeBody(reason="it is over"))
    assert answer.message.endswith("; a hold on models by ana is in force again: audit")
    world.run()
    seen = world.version("")
    assert (seen.app_version, seen.model_version) == ("2.4.0", "1.0")
    commands.resume("vision", "key-5", "ana", ResumeBody(reason="audited"))
    world.run()
    assert world.version("").model_version == "1.1"


def test_a_persons_hold_outlives_the_hold_of_an_automatic_rollback() -> None:
    world = released()
    world.commands().hold("vision", "key-1", "ana", HoldBody(reason="audit", scope="model"))
    world.ship(world.publish_model("1.1"))
    world.broken_doors.add("2.4.0")
    world.ship(world.push_app("2.4.0"))
    assert world.state.hold is not None
    assert (world.state.hold.author, world.state.hold.scope) == ("shipmate", "all")
    world.commands().resume("vision", "key-2", "bo", ResumeBody(reason="the fixed app is on its way"))
    world.ship(world.push_app("2.4.1"))
    seen = world.version("")
    assert (seen.app_version, seen.model_version) == ("2.4.1", "1.0"), "what ana holds stays held"


def test_who_releases_what_is_held_is_told_whose_hold_that_lifts() -> None:
    world = released()
    world.commands().hold("vision", "key-1", "ana", HoldBody(reason="audit", scope="app"))
    world.ship(world.push_app("2.4.0"))
    asked = ReleaseBody(reason="it is urgent", dry_run=True)
    words = "releases app 2.4.0 with model 1.0, and lifts a hold on apps by ana: audit"
    assert world.commands().release("vision", "key-2", "cy", asked).message == f"would be taken: {words}"
    assert world.commands().release("vision", "key-2", "cy", ReleaseBody(reason="it is urgent")).message == words
    world.run()
    assert world.version("").app_version == "2.4.0"


def test_what_is_held_twice_is_not_released_by_lifting_one_hold() -> None:
    world = released()
    world.commands().hold("vision", "key-1", "ana", HoldBody(reason="audit", scope="app"))
    world.commands().hold("vision", "key-2", "bo", HoldBody(reason="incident"))
    world.ship(world.push_app("2.4.0"))
    with pytest.raises(Conflict, match="a hold by bo is in force, and a hold on apps by ana under it: resume first"):
        world.commands().release("vision", "key-3", "cy", ReleaseBody(reason="it is urgent"))


def test_a_hold_on_a_deployment_that_never_rests_says_that_it_is_on_record() -> None:
    world = released()
    for _ in range(5):
        world.cluster.fail("patch_deployment", Conflict("a test of the patch failed"))
    with pytest.raises(Retryable, match="the hold is on record, but the Deployment changes faster than its fence can"):
        world.commands().hold("vision", "key-1", "ana", HoldBody(reason="stop"))
    assert world.state.hold is not None
