"""Trouble on the demo's way: every one is a sentence that says where to read on."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from localcloud import demo
from localcloud.demo.api import Api, ApiError
from tests.fakes.http_servers import Answer, Seen, answering
from tests.localcloud.functions_host_process import free_port

type Asks = Callable[[str], Api]


@pytest.fixture
def asks() -> Iterator[Asks]:
    """Return who makes an `Api`, which is closed in the end."""
    with ExitStack() as stack:

        def make(url: str) -> Api:
            api = Api(url, "key", "vision")
            stack.callback(api.close)
            return api

        yield make


def test_a_part_that_does_not_answer_is_named_with_where_to_read(
    asks: Asks, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setattr(demo, "_run", lambda *_: asks(url).get())
    assert demo.run(None) == 1
    assert (
        f"{url}/api/targets/vision/ does not answer ([Errno 111] Connection refused): `make status` tells what runs, "
        "and names the logs"
    ) in "".join(capfd.readouterr())


def test_an_answer_without_a_word_is_told_with_where_to_read(asks: Asks) -> None:
    with answering(lambda _: Answer(500, b"")) as (url, _), pytest.raises(ApiError) as told:
        asks(url).post("/rollback", {"reason": "x"})
    assert str(told.value) == ("the API answers 500 without a word: `make status` tells what runs, and names the logs")


def test_a_problem_is_told_by_its_detail(asks: Asks) -> None:
    def answer(seen: Seen) -> Answer:
        assert (seen.method, seen.path) == ("GET", "/api/targets/vision/releases/r-9")
        return Answer(404, json.dumps({"detail": "there is no release r-9"}).encode())

    with answering(answer) as (url, _), pytest.raises(ApiError) as told:
        asks(url).get("/releases/r-9")
    assert str(told.value) == "there is no release r-9"
