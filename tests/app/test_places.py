"""Places: how a request waits for memory and for a processor, and what it is told when there is none."""

import threading
import time

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


def test_a_crowd_waits_its_turn_before_it_is_told(impatient: Places) -> None:
    for _ in range(USERS):
        impatient.admit()
    with pytest.raises(
        ProblemError, match=r"24 requests were worked on here for 0 s\. Ask again in a moment"
    ) as raised:
        impatient.admit()
    assert_busy(raised)
    impatient.leave()
    impatient.admit()


def test_who_waits_comes_in_when_somebody_leaves() -> None:
    crowd, came = Places(processors=1), threading.Event()
    for _ in range(USERS):
        crowd.admit()

    def comes() -> None:
        crowd.admit()
        came.set()

    waiting = threading.Thread(target=comes)
    waiting.start()
    assert not came.wait(0.05)
    crowd.leave()
    assert came.wait(10)
    waiting.join(10)


def test_who_finds_a_full_line_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "WAITING", 1)
    crowd = Places(processors=1)
    for _ in range(USERS):
        crowd.admit()
    waiting = threading.Thread(target=crowd.admit)
    waiting.start()
    while crowd._waiting._value:  # until the other stands in line
        time.sleep(0.01)
    with pytest.raises(ProblemError, match=r"24 requests are being worked on here, and 1 wait\. Ask again") as raised:
        crowd.admit()
    assert_busy(raised)
    crowd.leave()
    waiting.join(10)


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
