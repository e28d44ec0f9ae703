"""Turns and room: how a request waits for a processor and for memory, and what it is told when it waits too long."""

import pytest

from app import lifecycle
from app.lifecycle import Lifecycle
from app.problems import ProblemError
from app.settings import Settings


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Lifecycle:
    monkeypatch.setattr(lifecycle, "WAIT_SECONDS", 0.01)
    return Lifecycle(Settings())


def test_as_many_turns_as_processors(impatient: Lifecycle) -> None:
    turns = [impatient.turn() for _ in range(impatient.cpus)]
    for turn in turns:
        turn.__enter__()
    with pytest.raises(ProblemError, match=r"No processor became free in 0 s\. Ask again, with fewer") as raised:
        impatient.turn().__enter__()
    assert raised.value.problem.status == 503
    assert raised.value.problem.headers == {"Retry-After": "2"}
    turns[0].__exit__(None, None, None)
    with impatient.turn():
        pass


def test_two_large_requests_at_once_and_any_number_of_small_ones(impatient: Lifecycle) -> None:
    large = lifecycle.LARGE_REQUEST_BYTES + 1
    with impatient.room(large), impatient.room(None):
        with pytest.raises(ProblemError, match="No place for a large request became free"):
            impatient.room(large).__enter__()
        with impatient.room(1000), impatient.room(1000), impatient.room(1000):
            pass
    with impatient.room(large):
        pass
