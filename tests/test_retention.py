"""Release images that the registry must keep: those that users are answered by, and those one may go back to."""

import dataclasses
from collections.abc import Collection

import msgspec
import pytest

from shipmate.core.refs import Digest
from shipmate.core.retention import KEPT_RELEASES, Retention, retention
from shipmate.core.targets import AppSource, ModelSource, ReleaseRepository, Target
from shipmate.errors import NotAllowed, Retryable, ShipmateError
from shipmate.pipeline import Pipeline
from tests.fakes.histories import Story, digest
from tests.world import TARGET, World


class Locks:
    """Image locks in memory, and how often they were asked for."""

    def __init__(self) -> None:
        self.locked: dict[str, set[Digest]] = {}
        self.asked = 0
        self.refused = False

    def lock(self, repository: str, keep: Collection[Digest], let_go: Collection[Digest]) -> None:
        self.asked += 1
        if self.refused:
            raise NotAllowed("no right to it")
        assert not set(keep) & set(let_go)
        self.locked[repository] = (self.locked.get(repository, set()) | set(keep)) - set(let_go)


class Keeping(World):
    """A world whose registry has locks."""

    def __init__(self) -> None:
        super().__init__()
        self.locks = Locks()
        self.others: tuple[Target, ...] = ()
        self.kept: dict[str, Retention] = {}  # of the one process there is

    def pipeline(self, worker: str = "worker-1") -> Pipeline:
        plain = super().pipeline(worker)
        targets = {**plain.targets, **{other.name: other for other in self.others}}
        context = dataclasses.replace(plain.context, locks=self.locks)
        return dataclasses.replace(plain, targets=targets, context=context, kept=self.kept)

    def release(self, version: str) -> Digest:
        """Publish a model, and return the image of its release."""
        self.ship(self.publish_model(version))
        image = self.state.releases[-1].image
        assert image is not None
        return image


@pytest.fixture
def world() -> Keeping:
    world = Keeping()
    world.tell(world.push_app("2.3.0"))
    return world


def test_what_goes_live_is_kept_with_those_before_it(world: Keeping) -> None:
    images = [world.release(f"1.{number}") for number in range(KEPT_RELEASES + 3)]
    assert world.locks.locked == {"vision": set(images[-KEPT_RELEASES - 1 :])}


@pytest.mark.parametrize(("repository", "is_kept"), [("vision", True), ("elsewhere", False)])
def test_an_image_that_another_target_serves_from_there_is_not_let_go(
    world: Keeping, repository: str, is_kept: bool
) -> None:
    first = world.release("1.0")
    apart = {"app": AppSource("vision-app", "prod"), "model": ModelSource("models", "other")}
    world.others = (msgspec.structs.replace(TARGET, name="prod", release=ReleaseRepository(repository), **apart),)
    world.ledgers.append("prod", world.ledgers.read("prod"), [*world.ledgers.history("vision")])
    images = [world.release(f"1.{number}") for number in range(1, KEPT_RELEASES + 3)]
    kept = {first} if is_kept else set()
    assert world.locks.locked == {"vision": {*images[-KEPT_RELEASES - 1 :], *kept}}


def test_what_is_rejected_is_not_kept(world: Keeping) -> None:
    live = world.release("1.0")
    world.answers["1.1"] = ("honeycomb", 0.1)
    world.ship(world.publish_model("1.1", says="honeycomb", confidence=0.1))
    assert world.state.releases[-1].phase == "rejected"
    assert world.locks.locked == {"vision": {live}}


def test_a_lock_that_failed_keeps_no_release_from_users_and_is_tried_at_each_sweep_until_it_worked(
    world: Keeping,
) -> None:
    world.locks.refused = True
    live = world.release("1.0")
    assert world.state.releases[-1].phase == "live"
    for _ in range(3):
        world.clock.sleep(3600)
        with pytest.raises(NotAllowed, match="no right to it"):
            world.pipeline().sweep()
    world.locks.refused = False
    world.pipeline().sweep()
    assert world.locks.locked == {"vision": {live}}
    asked = world.locks.asked
    world.pipeline().sweep()
    assert world.locks.asked == asked, "the registry is not asked for ever"


def test_a_new_process_asks_once_more(world: Keeping) -> None:
    live = world.release("1.0")
    world.kept, world.locks.locked = {}, {}  # somebody may have taken the locks away meanwhile
    world.pipeline().sweep()
    assert world.locks.locked == {"vision": {live}}


def test_a_sweep_tells_of_each_trouble_it_had(world: Keeping) -> None:
    world.locks.refused = True
    world.release("1.0")
    world.cluster.fail("pods", Retryable("the API server is away"))
    with pytest.raises(ShipmateError, match=r"^the API server is away; no right to it$"):
        world.pipeline().sweep()


def test_an_image_that_came_back_counts_once_and_as_the_newest() -> None:
    story = Story().ship_first()
    for number in range(2, KEPT_RELEASES + 3):
        story = story.app(f"A{number}").ship(f"A{number}", "M1")
    oldest, *others = [release.image for release in story.state.releases]
    assert retention(story.state).let_go == {oldest}
    back = story.roll_back(2, None)
    assert retention(back.state).keep == {image for image in others if image is not None}


def test_nothing_is_kept_before_the_first_release() -> None:
    assert retention(Story().state) == retention(Story().app("A1").model("M1").plan("A1", "M1").build().state)


def test_what_is_quarantined_takes_no_place_of_what_one_may_go_back_to() -> None:
    story = Story().ship_first()
    for number in range(2, KEPT_RELEASES + 3):
        story = story.app(f"A{number}").ship(f"A{number}", "M1")
    newest, *others = [release.image for release in reversed(story.state.releases)]
    back = story.roll_back(KEPT_RELEASES + 1, KEPT_RELEASES + 2, digest(f"A{KEPT_RELEASES + 2}"))
    assert retention(back.state) == Retention(frozenset(image for image in others if image), frozenset({newest}))


def test_a_live_image_is_kept_although_it_is_quarantined() -> None:
    story = Story().ship_first().app("A2").plan("A2", "M1").build().reject(digest("A1"))
    assert retention(story.state).keep == {story.state.releases[0].image}
