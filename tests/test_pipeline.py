"""The way of the data over in-memory ports: what people would see of each publish."""

from collections.abc import Sequence
from datetime import timedelta

import msgspec
import pytest

from shipmate.commands import HoldBody, ReleaseBody, ResumeBody
from shipmate.core.events import ModelPublished
from shipmate.core.ledger import AnyEntry, Phase, Progressed
from shipmate.core.refs import Digest, digest_of
from shipmate.core.targets import ModelSource
from shipmate.errors import Retryable
from shipmate.ports import Readable, Reading
from tests.fakes.ledgers import Fault
from tests.situations import another_reads, clean_up, outcomes, phases, shipped, users_meet
from tests.world import TARGET, World, released


def test_a_model_and_an_app_published_together_make_one_release_that_users_are_answered_by() -> None:
    world = World()
    for event in (world.push_app("2.3.0"), world.publish_model("1.0")):
        assert world.pipeline().intake(event) == ("vision",)
    world.run()
    assert phases(world) == [("r-1", "live")]
    seen = world.version("")
    assert (seen.model_version, seen.app_version, seen.release) == ("1.0", "2.3.0", "r-1")


def test_a_new_model_goes_live_and_moves_no_app_bytes() -> None:
    world = released()
    world.ship(world.publish_model("1.1"))
    assert phases(world) == [("r-1", "retired"), ("r-2", "live")]
    assert world.version("").model_version == "1.1"
    first, cost = (release.cost for release in world.state.releases)
    assert first is not None
    assert cost is not None
    assert (cost.mounted, cost.reused) == (0, first.mounted)  # the app's layers, there already


def test_new_code_goes_live_and_reuses_the_model_layers() -> None:
    world = released()
    world.ship(world.push_app("2.3.1"))
    assert phases(world)[-1] == ("r-2", "live")
    cost = world.state.release(2).cost
    assert cost is not None
    assert cost.reused > 0
    assert world.version("").app_version == "2.3.1"


def test_a_worse_model_is_rejected_and_quarantined_and_users_never_meet_it() -> None:
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


def test_good_code_ships_with_the_old_model_after_a_model_was_rejected() -> None:
    world = released()
    world.ship(world.publish_model("1.1", says="honeycomb"))
    world.ship(world.push_app("2.3.1"))
    seen = world.version("")
    assert (seen.model_version, seen.app_version) == ("1.0", "2.3.1")


def both_published(world: World, **model: object) -> None:
    """Publish code and a model so close together that they are tried as one pair."""
    world.ship(world.push_app("2.4.0"), world.publish_model("1.1", **model))


def test_when_code_and_model_came_together_the_bad_model_alone_is_blamed_and_the_code_ships() -> None:
    world = released()
    both_published(world, says="honeycomb")
    assert outcomes(world) == [("2.4.0", "1.1", "rejected"), ("2.3.0", "1.1", "rejected"), ("2.4.0", "1.0", "live")]
    bad = world.state.release(2).pair
    assert world.state.quarantine == {bad.key, bad.model}


def test_when_code_and_model_came_together_the_bad_code_alone_is_blamed_and_the_model_ships() -> None:
    world = released()
    world.failing_apps.add("2.4.0")
    both_published(world)
    assert outcomes(world) == [("2.4.0", "1.1", "rejected"), ("2.3.0", "1.1", "live"), ("2.4.0", "1.0", "rejected")]
    bad = world.state.release(2).pair
    assert world.state.quarantine == {bad.key, bad.app}
    assert world.version("").model_version == "1.1"
    assert world.cluster.list_gate_pods("vision") == ()


def test_when_both_are_bad_both_are_blamed_and_nothing_ships() -> None:
    world = released()
    world.failing_apps.add("2.4.0")
    both_published(world, says="honeycomb")
    bad = world.state.release(2).pair
    assert world.state.quarantine == {bad.key, bad.model, bad.app}
    assert world.state.serving == world.state.release(1)


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


@pytest.mark.parametrize("gone", ["1.0", "1.1"], ids=["live", "new"])
def test_code_ships_once_a_model_that_was_deleted_by_mistake_is_restored(gone: str) -> None:
    world = released()
    if gone == "1.1":
        world.tell(world.publish_model("1.1"))
    world.tell(world.push_app("2.4.0"))
    world.run_until_phase(Phase.PLANNED)
    paths = [blob.path for blob in world.models.list("models", f"net/{gone}/")]
    for path in paths:
        world.models.delete("models", path)
    world.run()
    assert [each.ended_because for each in world.state.releases if each.phase is Phase.REJECTED] == ["Gone"]
    for path in paths:
        world.models.undelete("models", path)
    for found in (1, 0):
        assert world.pipeline().sweep() == {"vision": found}
        world.run()
    assert users_meet(world) == ("2.4.0", gone)


def test_what_a_person_released_stays_although_the_pair_before_was_gone_for_a_while() -> None:
    world = released("1.1")
    older, newer = (ReleaseBody(reason="for now", release=name) for name in ("r-1", "r-2"))
    world.commands().release("vision", "key-1", "ana", older)
    world.run()
    world.models.delete("models", "net/1.1/manifest.json")
    clean_up(world, 1)
    world.commands().release("vision", "key-2", "ana", newer)
    world.run()
    assert shipped(world)[-1] == "r-4 2.3.0+1.1 rejected"
    world.models.undelete("models", "net/1.1/manifest.json")
    assert world.pipeline().sweep() == {"vision": 1}
    world.run()
    assert world.pipeline().advance("vision") == "AlreadyReleased: the newest pair was r-2, retired"


def test_an_older_upload_of_the_live_model_that_is_told_of_late_makes_nothing_older_the_newest() -> None:
    world = World()
    late, older = world.publish_model("1.0"), world.publish_model("1.1")
    newest = world.publish_model("1.0", folder="1.0-again")
    world.ship(world.push_app("2.3.0"), newest)
    world.ship(late, older)
    assert phases(world) == [("r-1", "live")]
    assert world.version("").model_version == "1.0"


def building_longer_than_a_turn() -> World:
    """Return a world where each upload of a build takes 250 s, and a model was published."""
    world = released()
    upload = world.registry.upload

    def slow(repository: str, content: Readable) -> Digest:
        if content.size > 600:
            world.clock.sleep(250)
        return upload(repository, content)

    world.registry.upload = slow  # type: ignore[method-assign] # from here on
    world.tell(world.publish_model("1.1"))
    return world


def test_what_takes_longer_than_a_turn_goes_on_at_once_in_the_next() -> None:
    world = building_longer_than_a_turn()
    began = world.clock.now()
    world.run()
    assert users_meet(world) == ("2.3.0", "1.1")
    assert (world.clock.now() - began).total_seconds() == pytest.approx(500, abs=10)
    signs = [entry for entry in world.ledgers.history("vision") if isinstance(entry, Progressed)]
    assert [entry.message for entry in signs[-2:]] == [
        "a turn is over; it goes on in the next one",
        "goes on where the turn before was over",
    ]
    assert signs[-2].by != signs[-1].by


def test_of_two_workers_that_find_a_stage_handed_over_one_takes_it() -> None:
    world = building_longer_than_a_turn()
    assert world.pipeline("worker-7").advance(world.queue.take()) == "goes on in the next turn"
    assert world.commands().views.status("vision").next == "gate: r-2, which goes on"
    world.ledgers.fail_next(Fault.CONFLICT)

    def claims(target: str) -> None:
        context = world.pipeline("worker-8").context
        sign = Progressed(**context.stamp(), release=2, stage="gate", message="goes on where the turn before was over")
        world.ledgers.append(target, world.ledgers.read(target), [sign])

    world.ledgers.on_conflict = claims
    assert world.pipeline("worker-9").advance("vision") == "waits 60 s: another worker has it"


def test_a_worker_that_was_overtaken_hands_nothing_over() -> None:
    world = building_longer_than_a_turn()
    append = world.ledgers.append

    def overtaken(target: str, reading: Reading, entries: Sequence[AnyEntry]) -> Reading:
        if any(getattr(entry, "hands_over", False) for entry in entries):
            world.ledgers.append = append  # type: ignore[method-assign] # once
            sign = Progressed(**world.pipeline("worker-8").context.stamp(), release=2, stage="gate", message="mine now")
            append(target, world.ledgers.read(target), [sign])
        return append(target, reading, entries)

    world.ledgers.append = overtaken  # type: ignore[method-assign] # for the time being
    assert world.pipeline("worker-7").advance(world.queue.take()) == "goes on in the next turn"
    assert world.state.last_stage_by == "worker-8"


def test_an_app_without_contract_label_is_skipped_with_words() -> None:
    world = released()
    world.ship(world.push_app("2.3.1", contract=None))
    assert phases(world) == [("r-1", "live")]
    assert "NoContractLabel" in world.story()


def test_a_pair_that_does_not_fit_waits_and_ships_when_its_partner_comes() -> None:
    world = released()
    world.ship(world.publish_model("2.0", contract="2"))
    assert phases(world) == [("r-1", "live")]
    assert "needs app contract 2" in world.commands().views.status("vision").next
    world.ship(world.push_app("3.0.0", contract="2"))
    seen = world.version("")
    assert (seen.model_version, seen.app_version) == ("2.0", "3.0.0")


def test_what_no_event_told_us_is_found_by_the_sweep() -> None:
    world = World()
    world.push_app("2.3.0")
    world.publish_model("1.0")
    assert world.pipeline().sweep() == {"vision": 2}
    world.run()
    assert phases(world) == [("r-1", "live")]
    assert world.pipeline().sweep() == {"vision": 0}


def test_a_change_of_an_older_models_metadata_publishes_nothing() -> None:
    world = released()
    world.ship(world.publish_model("1.1"))
    world.models.touch("models", "net/1.0/manifest.json")
    assert world.pipeline().sweep() == {"vision": 0}
    world.run()
    assert (phases(world), world.version("").model_version) == ([("r-1", "retired"), ("r-2", "live")], "1.1")


def test_a_change_of_the_newest_models_metadata_is_no_news_of_it() -> None:
    world = released()
    world.models.touch("models", "net/1.0/manifest.json")
    for found in (1, 0):
        assert world.pipeline().sweep() == {"vision": found}
        world.run()
    assert phases(world) == [("r-1", "live")]
    assert "the same bytes are known as 1.0" in world.story()


def test_a_model_that_no_event_told_of_is_found_behind_one_whose_metadata_was_changed() -> None:
    world = released()
    world.publish_model("1.1")
    world.models.touch("models", "net/1.0/manifest.json")
    assert world.pipeline().sweep() == {"vision": 1}
    world.run()
    assert world.version("").model_version == "1.1"


def test_a_model_that_was_uploaded_again_without_an_event_is_the_newest() -> None:
    world = released()
    world.ship(world.publish_model("1.1"))
    world.publish_model("1.0")
    assert world.pipeline().sweep() == {"vision": 1}
    world.run()
    assert world.version("").model_version == "1.0"


def test_the_plan_names_the_newest_pair_and_what_waits_for_a_partner() -> None:
    world = released()
    world.ship(world.publish_model("2.0", contract="2"))
    seen = world.commands().views.plan("vision")
    assert (seen.app, seen.model) == ("2.3.0", "1.0")
    assert seen.waiting is not None
    assert seen.waiting.startswith("model 2.0 needs app contract 2, app 2.3.0 speaks 1")


def test_a_candidate_that_answers_nothing_usable_is_rejected_and_a_newer_one_ships() -> None:
    world = released()
    world.failing_models.add("1.1")
    world.ship(world.publish_model("1.1"))
    assert world.state.release(2).ended_because == "CandidateAnswerUnusable"
    world.ship(world.publish_model("1.2"))
    assert world.version("").model_version == "1.2"


def test_a_team_that_just_uploads_its_model_file_gets_releases_too() -> None:
    target = msgspec.structs.replace(TARGET, model=ModelSource("models", "net", file="model.onnx"))
    world = World(target)
    world.answers["3.0"] = ("daisy", 0.9)
    blob = world.models.put("models", "net/3.0/model.onnx", b"weights")
    event = ModelPublished("event-9", "account", "models", blob.path, blob.etag, None, world.clock.now())
    world.ship(world.push_app("2.3.0"), event)
    assert phases(world) == [("r-1", "live")]
    assert world.state.release(1).pair.model == digest_of(b"weights")
    assert world.version("").model_version == "3.0"


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


def of_one_second(world: World, *versions: str) -> list[ModelPublished]:
    """Publish models that storage's clock cannot tell apart; return their events."""
    events = [world.publish_model(version) for version in versions]
    blobs = world.models._containers["models"]
    at = blobs[events[0].path][0].modified_at
    for event in events:
        blob, data = blobs[event.path]
        blobs[event.path] = msgspec.structs.replace(blob, created_at=at, modified_at=at), data
    return events


@pytest.mark.parametrize("told", [True, False], ids=["by an event", "by the sweep"])
def test_a_model_of_the_same_second_is_newer_by_the_numbers_in_its_path(told: bool) -> None:
    world = released()
    first, second = of_one_second(world, "1.9", "1.10")
    world.ship(first)
    if told:
        world.ship(second)
    world.pipeline().sweep()
    world.run()
    assert users_meet(world) == ("2.3.0", "1.10")


def test_a_live_model_that_is_restored_is_found_and_is_no_newer_than_one_of_its_second_was() -> None:
    world = released()
    first, second = of_one_second(world, "1.9", "1.10")
    world.ship(first)
    world.commands().hold("vision", "key-1", "ana", HoldBody(reason="audit", scope="model"))
    world.ship(second)
    world.models.delete("models", "net/1.9/manifest.json")
    world.ship(world.push_app("2.4.0"))
    assert users_meet(world) == ("2.3.0", "1.9")
    world.models.undelete("models", "net/1.9/manifest.json")
    assert world.pipeline().sweep() == {"vision": 1}
    world.run()
    assert users_meet(world) == ("2.4.0", "1.9")
    assert world.pipeline().sweep() == {"vision": 0}
    world.commands().resume("vision", "key-2", "ana", ResumeBody(reason="done"))
    world.run()
    assert users_meet(world) == ("2.4.0", "1.10")


def test_a_model_of_the_same_second_does_not_take_the_place_of_the_live_one_that_is_deleted() -> None:
    world = released()
    world.ship(*of_one_second(world, "1.9", "1.10"))
    world.models.delete("models", "net/1.10/manifest.json")
    world.ship(world.push_app("2.4.0"))
    assert users_meet(world) == ("2.3.0", "1.10")
    assert world.pipeline().advance("vision").startswith("LiveHalfGone: model 1.10 is live and is gone")
    world.models.undelete("models", "net/1.10/manifest.json")
    world.pipeline().sweep()
    world.run()
    assert users_meet(world) == ("2.4.0", "1.10")
