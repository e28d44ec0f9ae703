"""Commands that cannot be taken, and what is true once they said so."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from shipmate.commands import HoldBody, ReleaseBody, ResumeBody, RollbackBody
from shipmate.core.ledger import Phase
from shipmate.core.refs import Digest
from shipmate.errors import Conflict, NotFound, Retryable, ShipmateError
from tests.world import World, released

NOBODYS = Digest(f"sha256:{'0' * 64}")


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


def later(world: World) -> None:
    world.clock.advance_to(world.clock.now() + timedelta(seconds=100))


def intended() -> World:
    """Return a world with r-1 live, and r-2 about to be patched in."""
    world = released()
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.INTENDED)
    return world


def fence(world: World) -> int:
    return world.cluster.deployment("vision", "vision").fence or 0


def only_an_app(world: World) -> None:
    world.ship(world.push_app("2.3.0"))


def one_release(world: World) -> None:
    world.ship(world.push_app("2.3.0"), world.publish_model("1.0"))


def two_releases(world: World) -> None:
    one_release(world)
    world.ship(world.publish_model("1.1"))


def one_rejected(world: World) -> None:
    one_release(world)
    world.ship(world.publish_model("1.1", says="honeycomb"))


def one_on_its_way_back(world: World) -> None:
    two_releases(world)
    world.commands().rollback("vision", "key-0", "ana", RollbackBody(reason="worse"))
    world.run_until_phase(Phase.INTENDED)


def held_and_an_older_pair_wanted(world: World) -> None:
    two_releases(world)
    world.commands().hold("vision", "key-0", "ana", HoldBody(reason="a demo is on"))


@pytest.mark.parametrize(
    ("before", "body", "error", "message"),
    [
        (only_an_app, ReleaseBody(reason="x"), Conflict, "there is nothing to release: no model was published yet"),
        (only_an_app, ReleaseBody(reason="x", app=NOBODYS), Conflict, "no model was published yet"),
        (
            one_release,
            ReleaseBody(reason="x", model=NOBODYS),
            NotFound,
            "no model with digest sha256:000.* was publish",
        ),
        (
            held_and_an_older_pair_wanted,
            ReleaseBody(reason="x", release="r-1"),
            Conflict,
            r"a hold by ana is in force: resume first \(a demo is on\)",
        ),
        (only_an_app, RollbackBody(reason="x"), Conflict, "nothing is live yet: there is nothing to roll back"),
        (one_release, RollbackBody(reason="x"), Conflict, "no other release was live before: there is nothing to go"),
        (one_release, RollbackBody(reason="x", to="r-1"), Conflict, "r-1 is live with this pair already"),
        (one_rejected, RollbackBody(reason="x", to="r-2"), Conflict, "r-2 was never live: release it instead, so that"),
        (
            one_on_its_way_back,
            RollbackBody(reason="x"),
            Conflict,
            "r-3 is rolling back to r-1 already: wait until it is done",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_asked_for_now_says_why_and_leaves_no_entry(
    before: Callable[[World], None], body: ReleaseBody | RollbackBody, error: type[ShipmateError], message: str
) -> None:
    world = World()
    before(world)
    length = world.state.length
    commands = world.commands()
    ask: Callable[..., object] = commands.release if isinstance(body, ReleaseBody) else commands.rollback
    with pytest.raises(error, match=message):
        ask("vision", "key-1", "bo", body)
    assert world.state.length == length


def test_a_hold_on_a_deployment_that_never_rests_says_that_it_is_on_record() -> None:
    world = released()
    for _ in range(5):
        world.cluster.fail("patch_deployment", Conflict("a test of the patch failed"))
    with pytest.raises(Retryable, match="the hold is on record, but the Deployment changes faster than its fence can"):
        world.commands().hold("vision", "key-1", "ana", HoldBody(reason="stop"))
    assert world.state.hold is not None
