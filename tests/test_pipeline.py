"""The way of the data over in-memory ports: what people would see of each publish and command."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from datetime import timedelta

import msgspec
import pytest

from shipmate.commands import HoldBody, ReleaseBody, ResumeBody, RollbackBody
from shipmate.core.events import ModelPublished
from shipmate.core.fence import Operation, raise_fence_patch
from shipmate.core.ledger import Phase
from shipmate.core.refs import Digest, digest_of
from shipmate.core.targets import ModelSource
from shipmate.core.views import DeploymentView
from shipmate.errors import Conflict, Invalid, Misconfigured, NotAllowed, NotFound, Retryable
from shipmate.ports import Blob
from tests.fakes.ledgers import FakeClock, Fault
from tests.world import TARGET, World, released


class AllBut(set[str]):
    """Every image but one."""

    def __init__(self, good: str) -> None:
        super().__init__()
        self._good = good

    def __contains__(self, image: object) -> bool:
        return image != self._good


def phases(world: World) -> list[tuple[str, str]]:
    return [(release.name, release.phase) for release in world.state.releases]


def test_a_model_and_an_app_published_together_make_one_release_that_users_are_answered_by():
    world = World()
    for event in (world.push_app("2.3.0"), world.publish_model("1.0")):
        assert world.pipeline().intake(event) == ("vision",)
    world.run()
    assert phases(world) == [("r-1", "live")]
    seen = world.version("")
    assert (seen.model_version, seen.app_version, seen.release) == ("1.0", "2.3.0", "r-1")


def test_a_new_model_goes_live_and_moves_no_app_bytes():
    world = released()
    world.ship(world.publish_model("1.1"))
    assert phases(world) == [("r-1", "retired"), ("r-2", "live")]
    assert world.version("").model_version == "1.1"
    first, cost = (release.cost for release in world.state.releases)
    assert first is not None
    assert cost is not None
    assert (cost.mounted, cost.reused) == (0, first.mounted)  # the app's layers, there already


def test_new_code_goes_live_and_reuses_the_model_layers():
    world = released()
    world.ship(world.push_app("2.3.1"))
    assert phases(world)[-1] == ("r-2", "live")
    cost = world.state.release(2).cost
    assert cost is not None
    assert cost.reused > 0
    assert world.version("").app_version == "2.3.1"


def test_a_worse_model_is_rejected_and_quarantined_and_users_never_meet_it():
    world = released()
    world.ship(world.publish_model("1.1", says="honeycomb", confidence=0.03))
    release = world.state.release(2)
    assert release.phase is Phase.REJECTED
    assert release.message == (
        "1 of 1 golden photos is newly wrong, allowed 0; 1 of 1 golden photos is wrong, allowed 0"
    )
    assert release.pair.model in world.state.quarantine
    assert release.pair.app not in world.state.quarantine
    assert world.version("").model_version == "1.0"
    assert world.cluster.list_gate_pods("vision") == ()


def test_good_code_ships_with_the_old_model_after_a_model_was_rejected():
    world = released()
    world.ship(world.publish_model("1.1", says="honeycomb"))
    world.ship(world.push_app("2.3.1"))
    seen = world.version("")
    assert (seen.model_version, seen.app_version) == ("1.0", "2.3.1")


def both_published(world: World, **model: object) -> None:
    """Publish code and a model so close together that they are tried as one pair."""
    world.ship(world.push_app("2.4.0"), world.publish_model("1.1", **model))


def outcomes(world: World) -> list[tuple[str, str, str]]:
    return [(release.app_version, release.model_version, release.phase) for release in world.state.releases[1:]]


def test_when_code_and_model_came_together_the_bad_model_alone_is_blamed_and_the_code_ships():
    world = released()
    both_published(world, says="honeycomb")
    assert outcomes(world) == [("2.4.0", "1.1", "rejected"), ("2.3.0", "1.1", "rejected"), ("2.4.0", "1.0", "live")]
    bad = world.state.release(2).pair
    assert world.state.quarantine == {bad.key, bad.model}


def test_when_code_and_model_came_together_the_bad_code_alone_is_blamed_and_the_model_ships():
    world = released()
    world.failing_apps.add("2.4.0")
    both_published(world)
    assert outcomes(world) == [("2.4.0", "1.1", "rejected"), ("2.3.0", "1.1", "live"), ("2.4.0", "1.0", "rejected")]
    bad = world.state.release(2).pair
    assert world.state.quarantine == {bad.key, bad.app}
    assert world.version("").model_version == "1.1"
    assert world.cluster.list_gate_pods("vision") == ()


def test_when_both_are_bad_both_are_blamed_and_nothing_ships():
    world = released()
    world.failing_apps.add("2.4.0")
    both_published(world, says="honeycomb")
    bad = world.state.release(2).pair
    assert world.state.quarantine == {bad.key, bad.model, bad.app}
    assert world.state.serving == world.state.release(1)


def test_a_hold_on_models_lets_code_ship_and_keeps_the_model_ready():
    world = released()
    world.commands().hold("vision", "k1", "ana", HoldBody(reason="an audit of the models", scope="model"))
    world.ship(world.publish_model("1.1"))
    assert outcomes(world) == [("2.3.0", "1.1", "held")]
    world.ship(world.push_app("2.4.0"))
    assert outcomes(world) == [("2.3.0", "1.1", "superseded"), ("2.4.0", "1.0", "live"), ("2.4.0", "1.1", "held")]
    world.commands().resume("vision", "k2", "ana", ResumeBody(reason="the audit is over"))
    world.run()
    assert outcomes(world)[-1] == ("2.4.0", "1.1", "live")


def test_a_rollback_by_hand_builds_nothing_and_holds_the_target():
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


def test_what_is_published_under_a_hold_is_gated_and_waits_and_ships_on_resume():
    world = released()
    world.commands().hold("vision", "key-1", "ana", HoldBody(reason="demo for a customer"))
    world.ship(world.publish_model("1.1"))
    assert phases(world)[-1] == ("r-2", "held")
    assert world.version("").model_version == "1.0"
    world.commands().resume("vision", "key-2", "ana", ResumeBody(reason="the demo is over"))
    world.run()
    assert phases(world)[-1] == ("r-2", "live")


def clean_up(world: World, number: int = -1) -> Digest:
    """Delete a release's image, the newest one's unless told, as a retention policy does; return its digest."""
    image = world.state.releases[number].image
    assert image is not None
    del world.registry.manifests["vision"][image]
    tags = world.registry.tags["vision"]
    for tag in [tag for tag, digest in tags.items() if digest == image]:
        del tags[tag]
    return image


def test_an_image_that_was_cleaned_away_under_a_hold_is_built_again_to_the_same_digest():
    world = released()
    world.commands().hold("vision", "key-1", "ana", HoldBody(reason="a long holiday"))
    world.ship(world.publish_model("1.1"))
    image = clean_up(world)
    world.commands().resume("vision", "key-2", "ana", ResumeBody(reason="back again"))
    world.run()
    assert phases(world)[-1] == ("r-2", "live")
    assert image in world.registry.manifests["vision"]


def test_a_rollback_builds_its_image_again_if_the_registry_lost_it():
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
def test_a_rollback_whose_image_is_lost_for_good_fails_and_says_why(spoil, message):
    world = released("1.1")
    clean_up(world, 0)
    spoil(world)
    world.commands().rollback("vision", "key-1", "bo", RollbackBody(reason="worse"))
    world.run()
    assert world.state.release(3).ended_because == "ImageGone"
    assert message in (world.state.release(3).message or "")


def test_a_pair_is_not_quarantined_for_an_image_that_could_not_be_pulled():
    world = released()
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.INTENDED)
    world.cluster.missing_images = AllBut(f"{world.registry.name}/vision@{world.state.release(1).image}")
    world.run()
    assert phases(world)[1:] == [("r-2", "rolled_back"), ("r-3", "live")]
    assert world.state.release(2).ended_because == "ImagePullFailed"
    assert not world.state.quarantine


def test_an_image_that_would_not_become_the_same_again_is_not_gated():
    world = World()
    world.tell(world.push_app("2.3.0"), world.publish_model("1.0"))
    world.run_until_phase(Phase.BUILT)
    clean_up(world)
    world.registry.name = "moved.example"  # it is in the image's label of its base
    world.run()
    assert phases(world) == [("r-1", "rejected")]
    assert "release the pair by hand" in (world.state.release(1).message or "")


def test_an_image_that_was_cleaned_away_before_its_gate_is_built_again():
    world = World()
    world.tell(world.push_app("2.3.0"), world.publish_model("1.0"))
    world.run_until_phase(Phase.BUILT)
    image = clean_up(world)
    world.run()
    assert phases(world) == [("r-1", "live")]
    assert image in world.registry.manifests["vision"]


def test_a_repeated_command_and_a_repeated_event_change_nothing():
    world = released()
    event = world.publish_model("1.1")
    world.ship(event)
    world.tell(event)
    world.commands().rollback("vision", "key-1", "bo", RollbackBody(reason="no"))
    world.run()
    length = len(world.state.releases)
    again = world.commands().rollback("vision", "key-1", "bo", RollbackBody(reason="no"))
    world.run()
    assert len(world.state.releases) == length
    assert again.release == "r-3"


def test_an_image_that_cannot_be_pulled_is_trouble_and_no_verdict_and_newer_code_passes_it():
    world = released()
    world.tell(world.push_app("2.3.1"))
    good = f"{world.registry.name}/vision@{world.state.release(1).image}"
    world.cluster.missing_images = AllBut(good)
    world.run()
    assert world.state.release(2).message is not None
    assert "cannot pull its image" in world.state.release(2).message
    assert world.version("").app_version == "2.3.0"
    world.cluster.missing_images = set()
    world.ship(world.push_app("2.3.2"))
    assert world.version("").app_version == "2.3.2"
    assert not world.state.quarantine


class SlowClock(FakeClock):
    """The clock of a worker whose machine is a minute behind."""

    def __init__(self, right: FakeClock) -> None:
        super().__init__(right.now() - timedelta(minutes=1))
        self.new_id = right.new_id  # type: ignore[method-assign]


type Patching = Callable[[str, str, Sequence[Operation]], DeploymentView]


def refusing(world: World, what: Callable[[str], bool]) -> Patching:
    """Let the API server refuse the patches that hold what is told; return how it patched before."""
    patch = world.cluster.patch_deployment

    def refused(namespace: str, name: str, operations: Sequence[Operation]) -> DeploymentView:
        if what(json.dumps(operations)):
            raise NotAllowed("admission webhook denied the request: the image is not signed")
        return patch(namespace, name, operations)

    world.cluster.patch_deployment = refused  # type: ignore[method-assign] # until somebody sets it right
    return patch


def test_a_release_that_a_policy_refuses_is_passed_by_newer_code() -> None:
    world = released()
    refusing(world, lambda patch: str(world.state.release(2).image) in patch)
    world.ship(world.push_app("2.4.0"))
    assert world.version("").app_version == "2.3.0"
    assert world.state.release(2).message == "admission webhook denied the request: the image is not signed"
    world.ship(world.push_app("2.4.1"))
    assert phases(world) == [("r-1", "retired"), ("r-2", "superseded"), ("r-3", "live")]
    assert world.state.release(2).message == (
        "something was published while the API server refused this release: "
        "admission webhook denied the request: the image is not signed"
    )
    assert not world.state.quarantine


def test_a_release_waits_for_a_right_that_shipmate_lacks_whatever_is_published() -> None:
    world = released()
    patch = refusing(world, lambda patch: True)
    world.ship(world.push_app("2.4.0"), world.publish_model("1.1"))
    world.ship(world.push_app("2.4.1"))
    assert [phase for _, phase in phases(world)] == ["live", "intended"]
    world.cluster.patch_deployment = patch  # type: ignore[method-assign] # somebody granted it
    world.run()
    assert [phase for _, phase in phases(world)] == ["retired", "retired", "live"]
    assert world.version("").app_version == "2.4.1"


def another_reads(world: World) -> None:
    """Let another worker read what was published, for which nothing else is due."""
    other = world.pipeline("worker-2")
    slow = dataclasses.replace(other.context, clock=SlowClock(world.clock))
    dataclasses.replace(other, context=slow, stalled_seconds=3600.0).advance("vision")


@pytest.mark.parametrize("version", ["2.5.0", "2.3.0"], ids=["on", "back"])
def test_a_tag_that_moves_while_a_push_is_read_leaves_the_push_behind(version: str) -> None:
    world = released()
    world.clock.sleep(60)
    get_blob, asked = world.registry.get_blob, list[Digest]()

    def moving(repository: str, digest: Digest, limit: int) -> bytes:
        found = get_blob(repository, digest, limit)
        asked.append(digest)
        if len(asked) == 1:
            raise Retryable("the registry is away")
        if len(asked) == 2:  # another worker, for which the retry is not due, reads what moved the tag
            world.tell(world.push_app(version))
            another_reads(world)
        return found

    world.registry.get_blob = moving  # type: ignore[method-assign] # for the time being
    world.ship(world.push_app("2.4.0"))
    assert len(asked) > 2
    assert world.version("").app_version == version


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


def test_apps_are_as_old_as_the_tags_moves_say_whatever_their_events_do() -> None:
    world = released()
    ahead = world.push_app("2.4.0")
    world.ship(msgspec.structs.replace(ahead, occurred_at=ahead.occurred_at + timedelta(minutes=5)))
    newest = world.push_app("2.5.0")
    world.ship(newest)
    assert world.version("").app_version == "2.5.0"
    del world.registry.manifests["vision-app"][newest.digest]
    world.ship(world.publish_model("1.1"))
    assert world.pipeline().advance("vision").startswith("LiveHalfGone")
    assert world.version("").app_version == "2.5.0"
    world.ship(world.push_app("2.6.0"))
    seen = world.version("")
    assert (seen.app_version, seen.model_version) == ("2.6.0", "1.1")


def test_what_was_gone_and_is_there_again_is_found_by_the_sweep() -> None:
    world = released()
    world.clock.sleep(60)
    world.registry.manifests["vision-app"].clear()
    world.ship(world.publish_model("1.1"))
    assert world.pipeline().advance("vision").startswith("LiveHalfGone")
    world.clock.sleep(60)
    world.push_app("2.3.0")  # no event tells of it
    world.pipeline().sweep()
    world.run()
    assert world.version("").model_version == "1.1"


def test_an_older_upload_of_the_live_model_that_is_told_of_late_makes_nothing_older_the_newest():
    world = World()
    late, older = world.publish_model("1.0"), world.publish_model("1.1")
    newest = world.publish_model("1.0", folder="1.0-again")
    world.ship(world.push_app("2.3.0"), newest)
    world.ship(late, older)
    assert phases(world) == [("r-1", "live")]
    assert world.version("").model_version == "1.0"


def test_an_app_without_contract_label_is_skipped_with_words():
    world = released()
    world.ship(world.push_app("2.3.1", contract=None))
    assert phases(world) == [("r-1", "live")]
    assert "NoContractLabel" in world.story()


def test_a_pair_that_does_not_fit_waits_and_ships_when_its_partner_comes():
    world = released()
    world.ship(world.publish_model("2.0", contract="2"))
    assert phases(world) == [("r-1", "live")]
    assert "needs app contract 2" in world.commands().views.status("vision").next
    world.ship(world.push_app("3.0.0", contract="2"))
    seen = world.version("")
    assert (seen.model_version, seen.app_version) == ("2.0", "3.0.0")


def test_what_no_event_told_us_is_found_by_the_sweep():
    world = World()
    world.push_app("2.3.0")
    world.publish_model("1.0")
    assert world.pipeline().sweep() == {"vision": 2}
    world.run()
    assert phases(world) == [("r-1", "live")]
    assert world.pipeline().sweep() == {"vision": 0}


def test_trouble_outside_is_recorded_and_tried_again():
    world = released()
    world.cluster.fail("create_gate_pod", Retryable("the API server is away"))
    world.ship(world.publish_model("1.1"))
    assert phases(world)[-1] == ("r-2", "live")
    assert "the API server is away" in world.story()


def test_a_lost_reply_to_the_patch_makes_no_second_patch():
    world = released()
    before = len(world.cluster.history)
    world.cluster.fail("patch_deployment", Retryable("connection reset"), after=True)
    world.ship(world.publish_model("1.1"))
    assert phases(world)[-1] == ("r-2", "live")
    assert len(world.cluster.history) == before + 1


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        (ReleaseBody(reason="x", release="r-9"), NotFound, "there is no release 'r-9'; see the list of releases"),
        (ReleaseBody(reason="x"), Conflict, "r-1 is live with this pair already"),
        (ReleaseBody(reason="x", if_live="r-7"), Conflict, "you asked for this while r-7 is live, and r-1 is"),
        (
            ReleaseBody(reason="x", release="r-1", app=f"sha256:{'0' * 64}"),
            Invalid,
            "give either release, or app and model, or none of them for the newest pair",
        ),
        (ReleaseBody(reason="x", app=f"sha256:{'0' * 64}"), NotFound, "no app image with digest sha256:000"),
    ],
    ids=["unknown release", "already live", "if_live race", "two ways at once", "unknown digest"],
)
def test_a_command_that_cannot_be_taken_says_why_and_leaves_no_entry(body, error, message):
    world = released()
    length = world.state.length
    with pytest.raises(error, match=message):
        world.commands().release("vision", "key", "bo", body)
    assert world.state.length == length


def test_a_dry_run_gives_the_plan_and_records_nothing():
    world = released("1.1")
    length = world.state.length
    answer = world.commands().release("vision", "key", "bo", ReleaseBody(reason="x", release="r-1", dry_run=True))
    assert not answer.accepted
    assert answer.message == "would be taken: releases app 2.3.0 with model 1.0"
    assert world.state.length == length


def test_an_explicit_earlier_pair_is_released_through_the_gate():
    world = released("1.1")
    world.commands().release("vision", "key", "bo", ReleaseBody(reason="the old one is faster", release="r-1"))
    world.run()
    assert phases(world)[-1] == ("r-3", "live")
    assert world.version("").model_version == "1.0"


def test_the_plan_names_the_newest_pair_and_what_waits_for_a_partner():
    world = released()
    world.ship(world.publish_model("2.0", contract="2"))
    seen = world.commands().views.plan("vision")
    assert (seen.app, seen.model) == ("2.3.0", "1.0")
    assert seen.waiting is not None
    assert seen.waiting.startswith("model 2.0 needs app contract 2, app 2.3.0 speaks 1")


def test_an_unknown_target_is_named_with_those_there_are():
    with pytest.raises(NotFound, match="there is no target 'nobody'; the targets file has: vision"):
        World().commands().views.status("nobody")


def test_a_rollback_to_a_release_whose_model_was_deleted_since_goes_live_all_the_same():
    world = released("1.1")
    world.models.delete("models", "net/1.0/manifest.json")
    world.commands().rollback("vision", "key", "bo", RollbackBody(reason="worse"))
    world.run()
    assert phases(world)[-1] == ("r-3", "live")


def test_a_good_model_is_not_blamed_for_a_live_one_that_was_deleted():
    world = released()
    world.models.delete("models", "net/1.0/manifest.json")
    world.ship(world.publish_model("1.1"))
    assert world.version("").model_version == "1.1"


def test_a_model_that_cannot_be_built_is_withdrawn_and_good_code_ships_without_it():
    world = released()
    event = world.publish_model("1.1")
    world.models.delete("models", "net/1.1/model.onnx")
    world.ship(event)
    assert world.state.release(2).ended_because == "MissingFile"
    assert not world.state.quarantine
    world.ship(world.push_app("2.3.1"))
    seen = world.version("")
    assert (seen.model_version, seen.app_version) == ("1.0", "2.3.1")
    world.ship(world.publish_model("1.1"))
    assert world.version("").model_version == "1.1"


def test_a_model_that_is_published_whole_while_its_build_misses_a_file_is_not_withdrawn() -> None:
    world = released()
    event, properties = world.publish_model("1.1"), world.models.properties
    world.models.delete("models", "net/1.1/model.onnx")
    world.tell(event)
    world.run_until_phase(Phase.PLANNED)
    missed = list[str]()

    def mending(container: str, path: str) -> Blob:
        try:
            return properties(container, path)
        except NotFound:
            missed.append(path)
            world.tell(world.publish_model("1.1"))
            another_reads(world)
            raise

    world.models.properties = mending  # type: ignore[method-assign] # for the time being
    world.run()
    assert missed == ["net/1.1/model.onnx"]
    assert world.version("").model_version == "1.1"
    assert [phase for _, phase in phases(world)] == ["retired", "live"]


def test_a_candidate_in_lasting_trouble_is_passed_by_a_newer_one():
    world = released()
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.BUILT)
    world.cluster.missing_images = {f"{world.registry.name}/vision@{world.state.release(2).image}"}  # for good
    world.run()
    assert phases(world)[-1] == ("r-2", "built")
    world.ship(world.publish_model("1.2"))
    assert phases(world)[1:] == [("r-2", "superseded"), ("r-3", "live")]
    assert world.version("").model_version == "1.2"
    assert not world.state.quarantine


def test_a_candidate_that_answers_nothing_usable_is_rejected_and_a_newer_one_ships():
    world = released()
    world.failing_models.add("1.1")
    world.ship(world.publish_model("1.1"))
    assert world.state.release(2).ended_because == "CandidateAnswerUnusable"
    world.ship(world.publish_model("1.2"))
    assert world.version("").model_version == "1.2"


def test_a_door_in_lasting_trouble_does_not_keep_the_fix_from_shipping():
    world = released()
    world.broken_doors.add("2.3.0")
    world.ship(world.push_app("2.3.1"))
    assert phases(world)[-1] == ("r-2", "live")


def test_code_that_fails_at_the_door_is_rolled_back_by_itself_and_held():
    world = released()
    world.broken_doors.add("2.3.1")
    world.ship(world.push_app("2.3.1"))
    assert phases(world) == [("r-1", "retired"), ("r-2", "rolled_back"), ("r-3", "live")]
    assert world.version("").app_version == "2.3.0"
    assert world.state.hold is not None
    assert "r-2 failed: not verified at http://door.test" in world.state.hold.reason
    world.commands().resume("vision", "key", "ana", ResumeBody(reason="seen"))
    world.run()
    assert world.version("").app_version == "2.3.0"


def test_a_rollback_during_a_rollout_undoes_what_is_rolling_out():
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


def test_a_failed_rollback_can_be_asked_for_again_and_the_status_says_what_is_wrong():
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


def test_a_hold_that_only_reached_the_ledger_keeps_the_patch_out():
    world = released()
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.INTENDED)
    world.cluster.fail("patch_deployment", Retryable("the API server is away"))
    with pytest.raises(Retryable):
        world.commands().hold("vision", "key", "ana", HoldBody(reason="stop"))
    world.run()
    assert phases(world)[-1] == ("r-2", "held")
    assert world.version("").model_version == "1.0"


def test_a_new_fence_is_taken_anew_if_a_hold_came_first():
    world = released()
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.INTENDED)
    view = world.cluster.deployment("vision", "vision")
    world.cluster.patch_deployment(
        "vision", "vision", raise_fence_patch(view, expected_fence=view.fence or 0, new_fence=10)
    )  # another Shipmate, say
    hold = HoldBody(reason="stop")
    world.ledgers.on_conflict = lambda target: (
        None if world.state.hold else world.commands().hold(target, "key-1", "ana", hold)
    )
    world.ledgers.fail_next(Fault.CONFLICT)
    world.run()
    assert phases(world)[-1] == ("r-2", "held")


def test_a_late_hold_leaves_the_fence_of_a_newer_rollout_alone():
    world = released()
    world.commands().hold("vision", "key-1", "ana", HoldBody(reason="demo"))
    world.commands().resume("vision", "key-2", "ana", ResumeBody(reason="over"))
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.INTENDED)
    world.commands().hold("vision", "key-1", "ana", HoldBody(reason="demo"))  # its first attempt came this late
    world.run()
    assert phases(world) == [("r-1", "retired"), ("r-2", "live")]


def test_a_hold_does_not_stop_a_rollback():
    world = released("1.1")
    world.commands().rollback("vision", "key", "bo", RollbackBody(reason="worse"))
    world.run_until_phase(Phase.INTENDED)
    world.commands().hold("vision", "key-2", "ana", HoldBody(reason="stop"))
    world.run()
    assert phases(world)[-1] == ("r-3", "live")
    assert world.version("").model_version == "1.0"


def test_nobody_goes_back_to_what_is_quarantined():
    world = released()
    world.ship(world.push_app("2.3.1"))
    world.commands().rollback("vision", "key", "bo", RollbackBody(reason="wrong percentages"))
    world.run()
    with pytest.raises(Conflict, match="the pair of r-2, or a half of it, is quarantined: release it instead"):
        world.commands().rollback("vision", "key-2", "bo", RollbackBody(reason="a mistake", to="r-2"))


def test_a_quarantined_pair_is_released_by_hand_only_with_an_override_on_record():
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


def test_a_command_whose_message_was_lost_is_advanced_when_it_is_repeated():
    world = released("1.1")
    world.queue.away = True
    with pytest.raises(Retryable):
        world.commands().rollback("vision", "key", "bo", RollbackBody(reason="worse"))
    world.queue.away = False
    world.commands().rollback("vision", "key", "bo", RollbackBody(reason="worse"))
    world.run()
    assert world.version("").model_version == "1.0"


def test_a_setting_that_is_wrong_is_on_record_and_mended_without_a_new_publish():
    world = released()
    world.cluster.fail("create_gate_pod", Misconfigured("Deployment vision/vision has no container 'app'"))
    world.ship(world.publish_model("1.1"))
    assert phases(world)[-1] == ("r-2", "live")
    assert "has no container 'app'" in world.story()


def test_a_team_that_just_uploads_its_model_file_gets_releases_too():
    target = msgspec.structs.replace(TARGET, model=ModelSource("models", "net", file="model.onnx"))
    world = World(target)
    world.answers["3.0"] = ("daisy", 0.9)
    blob = world.models.put("models", "net/3.0/model.onnx", b"weights")
    event = ModelPublished("event-9", "account", "models", blob.path, blob.etag, None, world.clock.now())
    world.ship(world.push_app("2.3.0"), event)
    assert phases(world) == [("r-1", "live")]
    assert world.state.release(1).pair.model == digest_of(b"weights")
    assert world.version("").model_version == "3.0"
