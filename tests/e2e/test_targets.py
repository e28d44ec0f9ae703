"""Events that never come, and two targets that are released at the same time."""

from concurrent.futures import Future

from shipmate.core.ledger import Live, Planned, Received
from tests.e2e.world import Target


def received(target: Target, blob: str) -> list[Received]:
    """Return what is on record of the events of a blob."""
    return [entry for entry in target.entries(Received) if getattr(entry.event, "path", "") == blob]


def test_a_publish_whose_event_never_comes_is_found_by_the_sweep(steady: Target) -> None:
    relay, number = steady.world.relay, steady.next_release()
    fault = relay.add_fault("drop", probability=1.0, subscription="model-published-models")
    try:
        blob = steady.publish(steady.world.models.derived("dropped"))
        history = steady.until(number, "live")
        (dropped,) = [each["applied"] for each in relay.faults() if each["number"] == fault]
        assert dropped > 0
    finally:
        relay.remove_faults(fault)
    assert [entry.repaired for entry in received(steady, blob)] == [True]
    assert history["stages"][0]["outcome"] == "repaired"
    assert steady.answered_by() == f"r-{number}"


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
