"""Trouble on the way, over in-memory ports: what is lost, refused or away, and what people see of it."""

import dataclasses
import json
from datetime import timedelta

import msgspec
import pytest

from shipmate.commands import HoldBody, ResumeBody
from shipmate.core.events import ImagePushed
from shipmate.core.image import OCI_INDEX, OCI_MANIFEST
from shipmate.core.ledger import Phase
from shipmate.core.views import PodView
from shipmate.errors import Misconfigured, NotFound, Retryable, ShipmateError
from shipmate.ports import Blob, Manifest
from tests.situations import another_reads, clean_up, later, phases, refusing, rolled_back, shipped, users_meet
from tests.world import World, released


def test_an_image_that_was_cleaned_away_under_a_hold_is_built_again_to_the_same_digest() -> None:
    world = released()
    world.commands().hold("vision", "key-1", "ana", HoldBody(reason="a long holiday"))
    world.ship(world.publish_model("1.1"))
    image = clean_up(world)
    world.commands().resume("vision", "key-2", "ana", ResumeBody(reason="back again"))
    world.run()
    assert phases(world)[-1] == ("r-2", "live")
    assert image in world.registry.manifests["vision"]


class AllBut(set[str]):
    """Every image but one."""

    def __init__(self, good: str) -> None:
        super().__init__()
        self._good = good

    def __contains__(self, image: object) -> bool:
        return image != self._good


def test_a_pair_is_not_quarantined_for_an_image_that_could_not_be_pulled() -> None:
    world = released()
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.INTENDED)
    world.cluster.missing_images = AllBut(f"{world.registry.name}/vision@{world.state.release(1).image}")
    world.run()
    assert phases(world)[1:] == [("r-2", "rolled_back"), ("r-3", "live")]
    assert world.state.release(2).ended_because == "ImagePullFailed"
    assert not world.state.quarantine


def test_an_image_that_would_not_become_the_same_again_is_not_gated() -> None:
    world = World()
    world.tell(world.push_app("2.3.0"), world.publish_model("1.0"))
    world.run_until_phase(Phase.BUILT)
    clean_up(world)
    world.registry.name = "moved.example"  # it is in the image's label of its base
    world.run()
    assert phases(world) == [("r-1", "rejected")]
    assert "release the pair by hand" in (world.state.release(1).message or "")


def test_an_image_that_was_cleaned_away_before_its_gate_is_built_again() -> None:
    world = World()
    world.tell(world.push_app("2.3.0"), world.publish_model("1.0"))
    world.run_until_phase(Phase.BUILT)
    image = clean_up(world)
    world.run()
    assert phases(world) == [("r-1", "live")]
    assert image in world.registry.manifests["vision"]


def test_an_image_that_cannot_be_pulled_is_trouble_and_no_verdict_and_newer_code_passes_it() -> None:
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
    world.cluster.patch_deployment = patch  # type: ignore[method-assign, assignment] # somebody granted it
    world.run()
    assert [phase for _, phase in phases(world)] == ["retired", "retired", "live"]
    assert world.version("").app_version == "2.4.1"


def an_index(world: World, app: str) -> tuple[ImagePushed, ImagePushed]:
    """Push an app's image and an index that lists it, and return the events of both."""
    image = world.push_app(app)
    size = len(world.registry.get_manifest("vision-app", image.digest).data)
    platform = {"os": "linux", "architecture": "amd64"}
    listed = [{"mediaType": OCI_MANIFEST, "digest": image.digest, "size": size, "platform": platform}]
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}).encode()
    pushed = world.registry.put_manifest("vision-app", "main", index, OCI_INDEX)
    return image, msgspec.structs.replace(image, event_id="event-of-the-index", digest=pushed)


def test_an_index_whose_image_was_purged_is_skipped_after_a_minute_and_read_when_it_is_pushed_again() -> None:
    world = released()
    image, index = an_index(world, "2.4.0")
    manifest = world.registry.manifests["vision-app"].pop(image.digest)
    world.ship(index)
    said = world.commands().views.why("vision", "vision-app:main")
    assert (said.fate, said.reason, said.next) == ("skipped", "ImageIncomplete", "push it again")
    assert len(world.story().splitlines()) < 30
    assert world.pipeline().sweep() == {"vision": 0}
    world.registry.manifests["vision-app"][image.digest] = manifest
    world.ship(msgspec.structs.replace(index, event_id="event-of-another-push"))
    assert users_meet(world) == ("2.4.0", "1.0")


def test_an_image_that_a_registrys_copy_has_later_than_its_index_is_waited_for() -> None:
    world = released()
    image, index = an_index(world, "2.4.0")
    manifest = world.registry.manifests["vision-app"].pop(image.digest)
    world.tell(index)
    world.run(within=timedelta(seconds=10))
    world.registry.manifests["vision-app"][image.digest] = manifest
    world.run()
    assert users_meet(world) == ("2.4.0", "1.0")


def test_an_image_that_a_registrys_copy_has_only_some_time_after_an_outage_is_waited_for() -> None:
    world = released()
    image, index = an_index(world, "2.4.0")
    manifest = world.registry.manifests["vision-app"].pop(image.digest)
    resolve = world.registry.resolve
    world.registry.resolve = lambda *_: (_ for _ in ()).throw(Retryable("the registry is away"))  # type: ignore[method-assign]
    world.tell(index)
    world.run(within=timedelta(minutes=15))
    world.registry.resolve = resolve  # type: ignore[method-assign]
    due = world.queue.next_due()
    assert due is not None
    world.run(within=due - world.clock.now() + timedelta(seconds=20))  # one look, with a copy behind that lags
    world.registry.manifests["vision-app"][image.digest] = manifest
    world.run()
    assert users_meet(world) == ("2.4.0", "1.0")


def test_an_index_whose_image_is_still_missing_a_minute_after_an_outage_is_skipped() -> None:
    world = released()
    image, index = an_index(world, "2.4.0")
    del world.registry.manifests["vision-app"][image.digest]
    resolve = world.registry.resolve
    world.registry.resolve = lambda *_: (_ for _ in ()).throw(Retryable("the registry is away"))  # type: ignore[method-assign]
    world.tell(index)
    world.run(within=timedelta(minutes=15))
    world.registry.resolve = resolve  # type: ignore[method-assign]
    world.run(within=timedelta(minutes=3))
    assert world.commands().views.why("vision", "vision-app:main").reason == "ImageIncomplete"


def test_trouble_outside_is_recorded_and_tried_again() -> None:
    world = released()
    world.cluster.fail("create_gate_pod", Retryable("the API server is away"))
    world.ship(world.publish_model("1.1"))
    assert phases(world)[-1] == ("r-2", "live")
    assert "the API server is away" in world.story()


def test_a_lost_reply_to_the_patch_makes_no_second_patch() -> None:
    world = released()
    before = len(world.cluster.history)
    world.cluster.fail("patch_deployment", Retryable("connection reset"), after=True)
    world.ship(world.publish_model("1.1"))
    assert phases(world)[-1] == ("r-2", "live")
    assert len(world.cluster.history) == before + 1


def test_a_good_model_is_not_blamed_for_a_live_one_that_was_deleted() -> None:
    world = released()
    world.models.delete("models", "net/1.0/manifest.json")
    world.ship(world.publish_model("1.1"))
    assert world.version("").model_version == "1.1"


def test_a_model_that_cannot_be_built_is_withdrawn_and_good_code_ships_without_it() -> None:
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


def test_a_fault_of_shipmates_own_is_on_record_and_in_the_log_and_is_passed_by_what_is_newer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = released()
    look, bad = world.cluster.gate_pod, world.state.next_number

    def stumbles(namespace: str, name: str) -> PodView:
        pod = look(namespace, name)
        if pod.release == f"r-{bad}":
            raise KeyError("metadata")
        return pod

    monkeypatch.setattr(world.cluster, "gate_pod", stumbles)
    world.tell(world.publish_model("1.1"))
    world.run(within=timedelta(minutes=3))
    assert world.state.release(bad).message == (
        "a fault of Shipmate's own: KeyError: 'metadata'; the log of the Function App has the rest"
    )
    assert "Traceback" in caplog.text
    world.ship(world.publish_model("1.2"))
    assert phases(world)[-1] == ("r-3", "live")
    assert phases(world)[-2] == ("r-2", "superseded")


def test_a_candidate_in_lasting_trouble_is_passed_by_a_newer_one() -> None:
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


def test_a_door_in_lasting_trouble_does_not_keep_the_fix_from_shipping() -> None:
    world = released()
    world.broken_doors.add("2.3.0")
    world.ship(world.push_app("2.3.1"))
    assert phases(world)[-1] == ("r-2", "live")


def test_code_that_fails_at_the_door_is_rolled_back_by_itself_and_held() -> None:
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


def test_a_setting_that_is_wrong_is_on_record_and_mended_without_a_new_publish() -> None:
    world = released()
    world.cluster.fail("create_gate_pod", Misconfigured("Deployment vision/vision has no container 'app'"))
    world.ship(world.publish_model("1.1"))
    assert phases(world)[-1] == ("r-2", "live")
    assert "has no container 'app'" in world.story()


def test_an_image_that_is_lost_for_good_before_users_met_it_needs_no_rollback_and_no_hold() -> None:
    world = released()
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.INTENDED)
    clean_up(world)
    world.registry.name = "moved.example"
    world.run()
    assert shipped(world) == ["r-1 2.3.0+1.0 live", "r-2 2.3.0+1.1 rejected"]
    assert (world.state.release(2).ended_because, world.state.hold) == ("ImageGone", None)


def delete_folder(world: World, folder: str) -> None:
    for blob in list(world.models.list("models", f"{folder}/")):
        world.models.delete("models", blob.path)


def test_a_model_that_is_at_two_places_is_found_at_the_first_where_the_second_is_deleted() -> None:
    world = released()
    later(world)
    world.ship(world.publish_model("1.0", folder="1.0-copy"))
    delete_folder(world, "net/1.0-copy")
    world.ship(world.push_app("2.4.0"))
    assert world.pipeline().advance("vision").startswith("LiveHalfGone")
    world.pipeline().sweep()
    world.run()
    assert users_meet(world) == ("2.4.0", "1.0")
    length = world.state.length
    world.pipeline().sweep()
    world.run()
    assert world.state.length == length


def test_a_model_that_is_at_two_places_is_found_at_the_first_also_if_that_is_told_of_late() -> None:
    world = World()
    first = world.publish_model("1.0")
    later(world)
    second = world.publish_model("1.0", folder="1.0-copy")
    world.ship(world.push_app("2.3.0"), second, first)
    world.pipeline().sweep()
    delete_folder(world, "net/1.0-copy")
    comes_to_rest(world)
    world.ship(world.push_app("2.4.0"))
    assert world.pipeline().advance("vision").startswith("LiveHalfGone")
    world.pipeline().sweep()
    world.run()
    assert users_meet(world) == ("2.4.0", "1.0")
    comes_to_rest(world)


def test_the_live_model_is_found_once_it_is_restored_although_a_newer_one_that_is_quarantined_is_there() -> None:
    world = released("1.1")
    rolled_back(world, reason="1.1 is worse")
    world.models.delete("models", "net/1.0/manifest.json")
    world.ship(world.push_app("2.4.0"))
    assert world.pipeline().advance("vision").startswith("LiveHalfGone")
    comes_to_rest(world)
    world.models.undelete("models", "net/1.0/manifest.json")
    world.pipeline().sweep()
    world.run()
    assert users_meet(world) == ("2.4.0", "1.0")
    comes_to_rest(world)


def comes_to_rest(world: World) -> None:
    """Assert that a sweep finds nothing, after one that may have."""
    for _ in range(2):
        length = world.state.length
        world.pipeline().sweep()
        world.run()
    assert world.state.length == length


def test_where_another_model_was_before_is_looked_at_once_for_the_lost_live_one() -> None:
    world = released()
    first = world.publish_model("1.1")
    later(world)
    second = world.publish_model("1.1", folder="1.1-copy")
    world.ship(second, first)
    rolled_back(world, reason="1.1 is worse")
    world.models.delete("models", "net/1.0/manifest.json")
    world.ship(world.push_app("2.4.0"))
    comes_to_rest(world)


def test_a_model_that_is_found_where_it_was_first_is_no_older_than_it_was_live() -> None:
    world = released()
    later(world)
    world.ship(world.publish_model("1.1"))
    later(world)
    world.ship(world.publish_model("1.0", folder="1.0-copy"))
    assert users_meet(world) == ("2.3.0", "1.0")
    delete_folder(world, "net/1.0-copy")
    world.ship(world.push_app("2.4.0"))
    for _ in range(2):
        world.pipeline().sweep()
        world.run()
    assert users_meet(world) == ("2.4.0", "1.0"), "1.1 is older than what was live"


def test_a_registry_that_is_silent_keeps_no_target_from_being_woken() -> None:
    world = released()
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.BUILT)
    world.clock.sleep(100)  # the worker is dead for long enough
    waiting = list[int]()

    def silent(*_: object) -> Manifest:
        waiting.append(len(world.queue))
        raise Retryable("the registry says nothing")

    world.registry.resolve = silent  # type: ignore[method-assign, assignment] # from here on
    other = msgspec.structs.replace(world.target, name="other")
    before = len(world.queue)
    with pytest.raises(ShipmateError, match="the registry says nothing"):
        dataclasses.replace(world.pipeline(), targets={"other": other, "vision": world.target}).sweep()
    assert waiting == [before + 1, before + 1]
