"""Commands that cannot be taken, are repeated or only tried: why, and what is on record of them."""

from collections.abc import Callable

import pytest

from shipmate.commands import HoldBody, ReleaseBody, RollbackBody
from shipmate.core.ledger import Phase
from shipmate.core.refs import Digest
from shipmate.errors import Conflict, Invalid, NotFound, Retryable, ShipmateError
from tests.world import World, released


def test_a_repeated_command_and_a_repeated_event_change_nothing() -> None:
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
    ids=["unknown release", "already live", "another release is live", "two ways at once", "unknown digest"],
)
def test_a_command_that_cannot_be_taken_says_why_and_leaves_no_entry(
    body: ReleaseBody, error: type[ShipmateError], message: str
) -> None:
    world = released()
    length = world.state.length
    with pytest.raises(error, match=message):
        world.commands().release("vision", "key", "bo", body)
    assert world.state.length == length


def test_a_dry_run_gives_the_plan_and_records_nothing() -> None:
    world = released("1.1")
    length = world.state.length
    answer = world.commands().release("vision", "key", "bo", ReleaseBody(reason="x", release="r-1", dry_run=True))
    assert not answer.accepted
    assert answer.message == "would be taken: releases app 2.3.0 with model 1.0"
    assert world.state.length == length


def test_an_unknown_target_is_named_with_those_there_are() -> None:
    with pytest.raises(NotFound, match="there is no target 'nobody'; the targets file has: vision"):
        World().commands().views.status("nobody")


def test_a_command_whose_message_was_lost_is_advanced_when_it_is_repeated() -> None:
    world = released("1.1")
    world.queue.away = True
    with pytest.raises(Retryable):
        world.commands().rollback("vision", "key", "bo", RollbackBody(reason="worse"))
    world.queue.away = False
    world.commands().rollback("vision", "key", "bo", RollbackBody(reason="worse"))
    world.run()
    assert world.version("").model_version == "1.0"


NOBODYS = Digest(f"sha256:{'0' * 64}")


def only_an_app(world: World) -> None:
    world.ship(world.push_app("2.3.0"))


def one_release(world: World) -> None:
    world.ship(world.push_app("2.3.0"), world.publish_model("1.0"))


def one_rejected(world: World) -> None:
    one_release(world)
    world.ship(world.publish_model("1.1", says="honeycomb"))


def two_releases(world: World) -> None:
    one_release(world)
    world.ship(world.publish_model("1.1"))


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
        (one_on_its_way_back, ReleaseBody(reason="x", release="r-1"), Conflict, "r-3 brings this pair already: wait"),
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


@pytest.mark.parametrize(
    ("phase", "body"),
    [
        (Phase.PLANNED, ReleaseBody(reason="now, please")),
        (Phase.BUILT, ReleaseBody(reason="now, please", dry_run=True)),
        (Phase.INTENDED, ReleaseBody(reason="now, please", if_live="r-1")),
        (Phase.ROLLED_OUT, ReleaseBody(reason="now, please", override=True)),
    ],
)
def test_a_pair_on_its_way_is_not_released_a_second_time(phase: Phase, body: ReleaseBody) -> None:
    world = released()
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(phase)
    length = world.state.length
    with pytest.raises(Conflict, match="r-2 brings this pair already: wait until it is done"):
        world.commands().release("vision", "key", "ana", body)
    assert world.state.length == length
    world.run()
    assert [release.phase for release in world.state.releases] == [Phase.RETIRED, Phase.LIVE]
