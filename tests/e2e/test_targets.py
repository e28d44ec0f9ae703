"""Events that never come, and two targets that are released at the same time."""

from collections.abc import Callable
from concurrent.futures import Future

import pytest

from shipmate.core.ledger import Live, Planned, Received
from tests.e2e.world import Target


def publish_model(target: Target) -> str:
    return target.publish(target.world.models.derived("dropped"))


def push_app(target: Target) -> str:
    return target.push_changed({"org.opencontainers.image.version": "8.0.9"})


@pytest.mark.parametrize(
    ("subscription", "publish"),
    [
        pytest.param("model-published-models", publish_model, id="model"),
        pytest.param("image-pushed", push_app, id="app"),
    ],
)
def test_a_publish_whose_event_never_comes_is_found_by_the_sweep(
    steady: Target, subscription: str, publish: Callable[[Target], str]
) -> None:
    relay, number = steady.world.relay, steady.next_release()
    relay.wait_until_idle()
    fault = relay.add_fault("drop", count=1, subscription=subscription)
    try:
        published = publish(steady)
        history = steady.until(number, "live")
        (dropped,) = [each["applied"] for each in relay.faults() if each["number"] == fault]
        assert dropped == 1
    finally:
        relay.remove_faults(fault)
    assert [entry.repaired for entry in received(steady, published)] == [True]
    assert history["stages"][0]["outcome"] == "repaired"
    assert steady.answered_by() == f"r-{number}"


def received(target: Target, published: str) -> list[Received]:
    """Return what is on record of the events of a blob or a digest."""
    return [
        entry
        for entry in target.entries(Received)
        if published in (getattr(entry.event, "path", ""), getattr(entry.event, "digest", ""))
    ]


def test_two_targets_are_released_at_the_same_time(
    steady: Target, vision: Target, app_images: Future[tuple[str, str]]
) -> None:
    if not vision.state().apps:
        vision.push(app_images.result()[0])
    numbers = [(target, target.next_release()) for target in (steady, vision)]
    for target, _ in numbers:
        target.publish(target.world.models.derived(f"both-{target.name}"))
    for target, number in numbers:
        target.until(number, "live")
        assert target.answered_by() == f"r-{number}"
        assert target.fence() == target.state().release(number).fence
    planned = [target.entries(Planned, release=number)[0].at for target, number in numbers]
    live = [target.entries(Live, release=number)[0].at for target, number in numbers]
    assert max(planned) < min(live), "neither waited for the other"
