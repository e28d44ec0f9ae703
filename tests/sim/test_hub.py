"""The scheduler: actors take turns, however many there are and however deep they call."""

from tests.sim.faults import NoFaults
from tests.sim.hub import Hub


def test_an_actor_begins_no_deeper_than_the_one_before_it() -> None:
    """Its fiber counts its calls from where it is made: made one out of another, they reached Python's limit."""
    hub, done = Hub(NoFaults()), list[int]()

    def deeply(calls: int, number: int) -> None:
        if calls:
            return deeply(calls - 1, number)
        hub.pause(1.0)
        return done.append(number)

    for number in range(60):
        hub.spawn(f"actor {number}", lambda number=number: deeply(60, number))  # type: ignore[misc]
    assert hub.run(1_000)
    assert done == list(range(60))
