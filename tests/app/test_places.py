"""Places: how a request waits for memory and for a processor, and what it is told when there is none."""

import threading

import pytest

from app import places
from app.places import LARGE_REQUEST_BYTES, USERS, Places
from app.problems import ProblemError


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.setattr(places, "WAIT_SECONDS", 0.01)
    return Places(processors=2)


def assert_busy(raised: pytest.ExceptionInfo[ProblemError]) -> None:
    assert (raised.value.problem.status, raised.value.problem.kind) == (503, "busy")
    assert raised.value.problem.headers == {"Retry-After": "2"}


def test_as_many_are_served_as_there_are_processors(impatient: Places) -> None:
    with impatient.serving(1, bytes):
        with (
            impatient.serving(1, bytes),
            pytest.raises(ProblemError, match="No processor became free in 0 s") as raised,
        ):
            impatient.serving(1, bytes).__enter__()
        assert_busy(raised)
        with impatient.serving(1, lambda: b"body") as body:
            assert body == b"body"


@pytest.mark.parametrize("size", [LARGE_REQUEST_BYTES + 1, None])
def test_two_large_requests_are_read_at_once_and_any_number_of_small_ones(impatient: Places, size: int | None) -> None:
    with impatient.serving(size, bytes), impatient.serving(size, bytes):
        with pytest.raises(ProblemError, match="No place for a large request became free in 0 s") as raised:
            impatient.serving(size, lambda: pytest.fail("was read")).__enter__()
        assert_busy(raised)
        small: list[int] = []
        with pytest.raises(ProblemError, match="No processor"):
            impatient.serving(LARGE_REQUEST_BYTES, lambda: small.append(1)).__enter__()
        assert small == [1]
    with impatient.serving(size, bytes):
        pass


def test_who_is_slow_to_send_has_no_turn_and_gives_its_room_back(impatient: Places) -> None:
    def slow() -> bytes:
        with impatient.serving(1, bytes), impatient.serving(1, bytes):  # others have all turns meanwhile
            raise ConnectionResetError

    for _ in range(3):
        with pytest.raises(ConnectionResetError):
            impatient.serving(None, slow).__enter__()


def test_a_crowd_is_told_at_once() -> None:
    crowd = Places(processors=1)
    for _ in range(USERS):
        crowd.admit()
    with pytest.raises(ProblemError, match=r"24 requests are being worked on here\. Ask again in a moment") as raised:
        crowd.admit()
    assert_busy(raised)
    crowd.leave()
    crowd.admit()


def test_some_of_those_that_are_refused_are_read() -> None:
    crowd = Places(processors=1)
    inside = threading.Barrier(places.REFUSALS + 1)
    done = threading.Event()

    def refused() -> None:
        with crowd.refusing() as may_be_read:
            assert may_be_read
            inside.wait(10)
            done.wait(10)

    threads = [threading.Thread(target=refused) for _ in range(places.REFUSALS)]
    for thread in threads:
        thread.start()
    inside.wait(10)
    with crowd.refusing() as may_be_read:
        assert not may_be_read
    done.set()
    for thread in threads:
        thread.join(10)
    with crowd.refusing() as may_be_read:
        assert may_be_read
