"""The users behind "0 requests failed": a bad answer, none and a late one are counted, each by its name."""

import time
from collections import Counter
from collections.abc import Callable
from queue import Empty, SimpleQueue

from localcloud.demo.users import SLOW_SECONDS, Users
from tests.fakes.http_servers import Answer, Dropped, Seen, answering
from tests.localcloud.functions_host_process import free_port, until

LATE_SECONDS = SLOW_SECONDS + 0.1


def from_release(name: str) -> Answer:
    return Answer(200, b"{}", {"X-Release": name})


def dropped() -> Answer:
    raise Dropped


def late() -> Answer:
    time.sleep(LATE_SECONDS)
    return from_release("r-2")


def users_of(url: str, *, patience_seconds: float = 30) -> Users:
    """Return two users who are asking: one on new connections, one on a kept-alive one."""
    users = Users(url, b"{}", each_kind=1, pause_seconds=0.01, patience_seconds=patience_seconds)
    users.start()
    return users


def test_what_goes_wrong_is_counted() -> None:
    next_answers: SimpleQueue[Callable[[], Answer]] = SimpleQueue()

    def answer(_: Seen) -> Answer:
        try:
            given = next_answers.get_nowait()
        except Empty:
            return from_release("r-1")
        return given()

    with answering(answer) as (url, requests):
        users = users_of(url)
        until(lambda: users.count().requests > 10)
        before = users.count()
        assert (before.failed, before.faults, before.by_release) == (0, {}, {"r-1": before.requests})
        assert before.slowest_seconds > 0
        assert (before.slow > 0) is (before.slowest_seconds > SLOW_SECONDS)  # the machine may be busy
        for each in (lambda: Answer(503, b"", {"X-Release": "r-1"}), dropped, late):
            next_answers.put(each)
        until(lambda: users.count().by_release["r-2"])
        seen = users.stop()
    assert {(each.method, each.path, each.body) for each in requests} == {("POST", "/score", b"{}")}
    assert seen.requests == len(requests)
    assert seen.failed == 2
    assert seen.faults == {"status 503": 1, "RemoteDisconnected": 1}
    assert seen.by_release == {"r-1": seen.requests - 3, "r-2": 1}
    assert seen.slow > before.slow
    assert seen.slowest_seconds > LATE_SECONDS
    assert seen.served == seen.requests - seen.slow - 2


def test_one_user_keeps_a_connection_and_the_other_opens_one_for_each_request() -> None:
    with answering(lambda _: from_release("r-1")) as (url, requests):
        users = users_of(url)
        until(lambda: users.count().requests > 10)
        seen = users.stop()
    *each_its_own, kept = sorted(Counter(each.port for each in requests).values())
    assert kept > 1
    assert len(each_its_own) > 1
    assert set(each_its_own) == {1}
    assert kept + len(each_its_own) == seen.requests


def test_a_connection_that_broke_is_opened_again() -> None:
    with answering(lambda seen: dropped() if len(requests) <= 4 else from_release("r-1")) as (url, requests):
        users = users_of(url)
        until(lambda: users.count().by_release["r-1"] > 4)
        seen = users.stop()
    assert (seen.failed, seen.faults) == (4, {"RemoteDisconnected": 4})
    assert seen.by_release == {"r-1": seen.requests - 4}


def test_an_answer_that_does_not_come_in_time_has_failed() -> None:
    def answer(_: Seen) -> Answer:
        time.sleep(0.5)
        return from_release("r-1")

    with answering(answer) as (url, _):
        users = users_of(url, patience_seconds=0.1)
        until(lambda: users.count().requests > 1)
        seen = users.stop()
    assert (seen.failed, seen.faults) == (seen.requests, {"TimeoutError": seen.requests})
    assert (seen.slow, seen.by_release) == (0, {})


def test_a_door_that_nobody_opens_has_failed() -> None:
    users = users_of(f"http://127.0.0.1:{free_port()}")
    until(lambda: users.count().requests > 1)
    seen = users.stop()
    assert (seen.failed, seen.faults) == (seen.requests, {"ConnectionRefusedError": seen.requests})
    assert seen.served == 0
