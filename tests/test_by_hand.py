"""Releases by hand, in unusual orders: they happen as people were told, and nothing undoes them behind them."""

from datetime import timedelta

import pytest

from shipmate.commands import HoldBody, ReleaseBody, ResumeBody, RollbackBody
from shipmate.core.ledger import Phase
from shipmate.errors import Conflict, Retryable
from tests.situations import later, phases, refusing, rolled_back, shipped, users_meet
from tests.world import World, released


def test_an_explicit_earlier_pair_is_released_through_the_gate() -> None:
    world = released("1.1")
    world.commands().release("vision", "key", "bo", ReleaseBody(reason="the old one is faster", release="r-1"))
    world.run()
    assert phases(world)[-1] == ("r-3", "live")
    assert world.version("").model_version == "1.0"


def test_a_quarantined_pair_is_released_by_hand_only_with_an_override_on_record() -> None:
    world = released()
    world.ship(world.push_app("2.3.1"))
    world.commands().rollback("vision", "key", "bo", RollbackBody(reason="a mistake"))
    world.run()
    world.commands().resume("vision", "key-2", "bo", ResumeBody(reason="it was one"))
    with pytest.raises(Conflict, match='"override": true'):
        world.commands().release("vision", "key-3", "bo", ReleaseBody(reason="it is fine", release="r-2"))
    body = ReleaseBody(reason="it is fine", release="r-2", override=True)
    world.commands().release("vision", "key-3", "bo", body)
    world.run()
    assert world.version("").app_version == "2.3.1"
    assert '"override":true' in world.story()


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


def rolling_out() -> World:
    """Return a world where r-3, of app 2.4.0, is about to be patched in."""
    world = released("1.1")
    world.tell(world.push_app("2.4.0"))
    world.run_until_phase(Phase.INTENDED)
    return world


OLDER = ReleaseBody(reason="1.1 is worse", release="r-1")


def test_a_release_by_hand_goes_before_one_that_a_policy_refuses_which_comes_after_it() -> None:
    world = rolling_out()
    refusing(world, lambda patch: str(world.state.release(3).image) in patch)
    world.run(within=timedelta(minutes=15))
    answer = world.commands().release("vision", "key", "ana", OLDER)
    assert answer.message == (
        "releases app 2.3.0 with model 1.0; r-3 was to roll out, and is in trouble: this goes first; then comes app "
        "2.4.0 with model 1.1, which was published before: set a hold to keep it back"
    )
    world.run()
    assert users_meet(world) == ("2.3.0", "1.0")
    assert shipped(world)[-3:] == ["r-3 2.4.0+1.1 superseded", "r-4 2.3.0+1.0 live", "r-5 2.4.0+1.1 intended"]
    assert world.state.release(3).message == "ana asked for another release"
    world.ship(world.push_app("2.4.1"))
    assert users_meet(world) == ("2.4.1", "1.1")


def test_a_release_by_hand_says_that_what_goes_first_may_not() -> None:
    world = rolling_out()
    world.cluster.fail("patch_deployment", Retryable("the API server is away", after_seconds=30))
    world.run(within=timedelta(minutes=10))
    answer = world.commands().release("vision", "key", "ana", OLDER)
    assert answer.message == (
        "releases app 2.3.0 with model 1.0; r-3 is rolling out and goes first, unless its trouble lasts: then it comes "
        "after"
    )


def test_a_release_by_hand_waits_for_one_that_is_in_the_cluster_whatever_its_trouble() -> None:
    world = rolling_out()
    world.cluster.patch_deployment("vision", "vision", [{"op": "replace", "path": "/spec/replicas", "value": 0}])
    world.run(within=timedelta(minutes=15))
    answer = world.commands().release("vision", "key", "ana", OLDER)
    assert answer.message == "releases app 2.3.0 with model 1.0; r-3 is rolling out and goes first"
    world.run(within=timedelta(minutes=5))
    assert shipped(world)[-1] == "r-3 2.4.0+1.1 intended"


def test_a_release_by_hand_during_a_rollback_says_that_it_is_held() -> None:
    world = released("1.1", "1.2")
    world.commands().rollback("vision", "key-1", "bo", RollbackBody(reason="worse"))
    world.run_until_phase(Phase.INTENDED)
    answer = world.commands().release("vision", "key-2", "ana", ReleaseBody(reason="urgent", release="r-1"))
    assert answer.message == (
        "releases app 2.3.0 with model 1.0; r-4 rolls back first, and its hold keeps this until somebody resumes"
    )


def on_its_way() -> World:
    """Return a world in which r-2 brings model 1.1, and is in its gate."""
    world = released()
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.BUILT)
    return world


def test_an_override_for_a_pair_that_is_in_its_gate_is_taken_and_recorded() -> None:
    world = on_its_way()
    answer = world.commands().release("vision", "key", "ana", ReleaseBody(reason="whatever comes", override=True))
    assert answer.accepted
    world.run()
    assert phases(world)[1:] == [("r-2", "superseded"), ("r-3", "live")]


def test_a_pair_on_its_way_is_asked_for_again_in_the_place_of_what_somebody_else_wants() -> None:
    world = on_its_way()
    world.ship(world.push_app("2.4.0"))
    world.tell(world.publish_model("1.2"))
    world.run_until_phase(Phase.BUILT)
    active = world.state.active
    assert active is not None
    world.commands().release("vision", "key-1", "bo", ReleaseBody(reason="the old one", release="r-1"))
    world.commands().release("vision", "key-2", "ana", ReleaseBody(reason="no, the new one", release=active.name))
    world.run()
    assert users_meet(world) == ("2.4.0", "1.2")


def test_a_pair_on_its_way_that_is_in_trouble_or_held_may_be_asked_for() -> None:
    world = on_its_way()
    world.cluster.fail("create_gate_pod", Retryable("the API server is away", after_seconds=60))
    world.run(within=timedelta(seconds=630))
    body = ReleaseBody(reason="now, please")
    assert world.commands().release("vision", "key-1", "ana", body).accepted
    world = on_its_way()
    world.commands().hold("vision", "key-1", "bo", HoldBody(reason="a demo is on"))
    answer = world.commands().release("vision", "key-2", "ana", body)
    assert answer.message == "releases app 2.3.0 with model 1.1, and lifts a hold by bo: a demo is on"


def test_a_release_by_hand_behind_a_rollback_that_was_asked_for_says_that_it_is_held() -> None:
    world = released("1.1", "1.2")
    world.commands().rollback("vision", "key-1", "bo", RollbackBody(reason="worse"))
    answer = world.commands().release("vision", "key-2", "ana", ReleaseBody(reason="again", release="r-1"))
    assert answer.message == (
        "releases app 2.3.0 with model 1.0; bo's rollback to r-2 goes first, and its hold keeps this until somebody "
        "resumes"
    )
    world.run()
    assert phases(world)[-2:] == [("r-4", "live"), ("r-5", "held")]


@pytest.mark.parametrize("phase", [None, Phase.INTENDED], ids=["asked for", "on its way"])
@pytest.mark.parametrize("override", [False, True], ids=["plainly", "with an override"])
def test_a_release_by_hand_of_what_a_rollback_that_goes_first_bars_is_refused(
    phase: Phase | None, override: bool
) -> None:
    world = released("1.1")
    world.commands().hold("vision", "key-1", "cy", HoldBody(reason="audit", scope="app"))
    world.ship(world.push_app("2.4.0"))
    world.commands().rollback("vision", "key-2", "bo", RollbackBody(reason="1.1 is bad"))
    if phase is not None:
        world.run_until_phase(phase)
    body = ReleaseBody(reason="2.4.0 is urgent", release="r-3", override=override)
    with pytest.raises(Conflict, match="bo's rollback to r-1 goes first, undoes r-2, and quarantines this pair or a"):
        world.commands().release("vision", "key-3", "ana", body)
    assert world.state.request is None


def test_what_was_live_and_was_pushed_again_meanwhile_is_not_named_as_what_comes_next() -> None:
    world = released()
    world.ship(world.push_app("2.4.0"))
    for version, contract in (("3.0.0", "2"), ("2.4.0", "1")):
        later(world)
        world.ship(world.push_app(version, contract=contract))
    later(world)
    answer = world.commands().release("vision", "key", "ana", ReleaseBody(reason="2.4.0 leaks", release="r-1"))
    assert answer.message == "releases app 2.3.0 with model 1.0"
    world.run()
    assert users_meet(world) == ("2.3.0", "1.0")


def test_a_release_by_hand_says_that_what_is_not_read_yet_may_follow() -> None:
    world = released("1.1")
    world.clock.sleep(60)
    get_blob, asked = world.registry.get_blob, list[object]()

    def away(*args: object) -> bytes:
        asked.append(args)
        if len(asked) < 7:
            raise Retryable("the registry is away")
        return get_blob(*args)  # type: ignore[arg-type]

    world.registry.get_blob = away  # type: ignore[method-assign, assignment] # for the time being
    world.tell(world.push_app("2.4.0"))
    world.pipeline().advance("vision")
    answer = world.commands().release("vision", "key", "ana", ReleaseBody(reason="1.1 is worse", release="r-1"))
    assert answer.message == (
        "releases app 2.3.0 with model 1.0; what was published and is not read yet may follow: set a hold to keep it "
        "back"
    )


def test_halves_that_do_not_fit_are_not_released_by_hand_and_not_blamed_for_it() -> None:
    world = released()
    world.ship(world.publish_model("2.0", contract="2"))
    body = ReleaseBody(reason="try it", model=world.state.models[-1].digest)
    with pytest.raises(
        Conflict, match=r"model 2\.0 needs app contract 2, app 2\.3\.0 speaks 1: name two halves that fit"
    ):
        world.commands().release("vision", "key-1", "bo", body)
    world.ship(world.push_app("3.0.0", contract="2"))
    seen = world.version("")
    assert (seen.app_version, seen.model_version) == ("3.0.0", "2.0")


def test_a_release_by_hand_names_what_was_published_before_and_comes_after_it() -> None:
    world = released("1.1")
    world.tell(world.push_app("2.4.0"))
    world.run_until_phase(Phase.BUILT)
    older = ReleaseBody(reason="1.1 is worse", release="r-1")
    answer = world.commands().release("vision", "key-1", "ana", older)
    assert answer.message == (
        "releases app 2.3.0 with model 1.0; then comes app 2.4.0 with model 1.1, which was published before: "
        "set a hold to keep it back"
    )
    world.run()
    seen = world.version("")
    assert (seen.app_version, seen.model_version) == ("2.4.0", "1.1")
    answer = world.commands().release("vision", "key-2", "ana", older)
    assert answer.message == "releases app 2.3.0 with model 1.0"
    world.run()
    assert world.version("").model_version == "1.0"


def test_a_release_by_hand_stays_although_what_was_live_had_been_uploaded_again() -> None:
    world = released("1.1")
    later(world)
    world.ship(world.publish_model("1.1"))
    world.commands().release("vision", "key-1", "ana", ReleaseBody(reason="1.1 is worse", release="r-1"))
    world.run()
    assert world.version("").model_version == "1.0"
    assert world.pipeline().advance("vision") == "AlreadyReleased: the newest pair was r-2, retired"


def test_code_released_with_an_override_stays_when_a_model_comes() -> None:
    world = released()
    world.failing_apps.add("2.4.0")
    world.ship(world.push_app("2.4.0"))
    world.failing_apps.clear()
    for version in ("2.3.0", "2.4.0"):
        later(world)
        world.ship(world.push_app(version))
    body = ReleaseBody(reason="it is meant", release="r-2", override=True)
    world.commands().release("vision", "key-1", "ana", body)
    world.run()
    assert world.version("").app_version == "2.4.0"
    world.ship(world.publish_model("1.1"))
    seen = world.version("")
    assert (seen.app_version, seen.model_version) == ("2.4.0", "1.1"), "the tag points to it"


def test_a_model_released_with_an_override_stays_when_code_comes_if_it_was_uploaded_last() -> None:
    world = released()
    world.ship(world.publish_model("1.1", says="honeycomb"))
    later(world)
    world.ship(world.publish_model("1.2"))
    later(world)
    world.ship(world.publish_model("1.1", folder="1.1-again"))
    assert world.version("").model_version == "1.2"
    world.models.delete("models", "net/1.1/manifest.json")
    body = ReleaseBody(reason="it was mended elsewhere", release="r-2", override=True)
    world.commands().release("vision", "key-1", "ana", body)
    world.run()
    assert world.version("").model_version == "1.1"
    world.ship(world.push_app("2.4.0"))
    seen = world.version("")
    assert (seen.app_version, seen.model_version) == ("2.4.0", "1.1"), "it was uploaded last, and is read from there"


def test_code_does_not_take_an_older_model_where_the_live_one_is_deleted() -> None:
    world = released("1.1")
    for path in ("net/1.1/manifest.json", "net/1.1/model.onnx"):
        world.models.delete("models", path)
    world.ship(world.push_app("2.4.0"))
    seen = world.version("")
    assert (seen.app_version, seen.model_version) == ("2.3.0", "1.1")
    assert world.pipeline().advance("vision") == (
        "LiveHalfGone: model 1.1 is live and is gone from where it was published, and nothing newer is there to go "
        "with what is new: publish it again, or a newer one"
    )
    later(world)
    world.ship(world.publish_model("1.1"))
    seen = world.version("")
    assert (seen.app_version, seen.model_version) == ("2.4.0", "1.1")


def test_a_push_of_what_is_live_ends_the_healthy_release_of_what_it_takes_back() -> None:
    world = released()
    world.tell(world.push_app("2.4.0"))
    world.run_until_phase(Phase.PLANNED)
    later(world)
    world.tell(world.push_app("2.3.0"))
    world.run()
    assert [release.phase for release in world.state.releases] == [Phase.LIVE, Phase.SUPERSEDED]
