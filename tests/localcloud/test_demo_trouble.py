"""Trouble on the demo's way: every one is a sentence that says where to read on."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from localcloud import demo, images
from localcloud.cloud import LocalCloud
from localcloud.config import Cloud
from localcloud.demo.api import Api, ApiError
from localcloud.demo.show import Screen
from localcloud.demo.story import DemoError, Story
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


@pytest.mark.parametrize("context", [None, "mine"])
@pytest.mark.parametrize(("system", "user"), [("Darwin", 501), ("Linux", 1000)])
def test_a_machine_that_does_not_do_is_told_its_options_before_anything_else(
    context: str | None, system: str, user: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("os.geteuid", lambda: user)
    assert demo.run(context) == 1
    told = "".join(capfd.readouterr())
    assert told.startswith("  ✗ the local cloud needs ")
    assert "make demo CONTEXT=<kubeconfig context>" in told


# -- what the demo says is checked

COST = {"uploaded": 5_439, "mounted": 47_627, "reused": 127_816_114}
UNBUILT = {"uploaded": 0, "mounted": 0, "reused": 2_100}


def history(**told: Any) -> dict[str, Any]:
    """Return a release as the API tells it."""
    release = {"number": 3, "phase": "live", "message": "no node had room", "model_version": "1.1"}
    stages = [{"stage": "rollout", "outcome": "rolled_out", "seconds": 6.5, "message": None}]
    return {"release": release, "stages": stages, "report": None, "publish_to_live_seconds": None, "cost": COST} | told


def story(api: Api, tmp_path: Path) -> Story:
    local = LocalCloud(Cloud("demo"))
    return Story(api=api, local=local, public_url="http://127.0.0.1", folder=tmp_path, screen=Screen())


def serving(told: dict[str, Any]) -> Callable[[Seen], Answer]:
    """Answer as the API does before and after the release that is told comes up."""
    before: list[list[Any]] = [[]]

    def answer(seen: Seen) -> Answer:
        body: Any = {"hold": "bo: too round", "message": "rolls back to r-2"}
        if seen.path.endswith("/releases"):
            body = before.pop() if before else [told["release"]]
        elif "/releases/" in seen.path:
            body = told
        return Answer(200, json.dumps(body).encode())

    return answer


@pytest.mark.parametrize(
    ("step", "told", "fault"),
    [
        pytest.param("code", history(), None, id="a code publish moves next to nothing"),
        pytest.param(
            "code",
            history(cost={**COST, "uploaded": 900_000}),
            "the code publish moved bytes of the model again: .*900000",
            id="photographs are the model's too",
        ),
        pytest.param(
            "code",
            history(release={"number": 3, "phase": "failed", "message": "no node had room"}),
            "code publish: r-3 is failed, expected live: no node had room",
            id="a release that ends otherwise",
        ),
        pytest.param("rollback", history(cost=UNBUILT), None, id="a rollback builds nothing"),
        pytest.param(
            "rollback", history(), "the rollback built its image again: .*5439", id="a rollback that builds its image"
        ),
    ],
)
def test_what_the_demo_says_of_a_release_is_checked(
    asks: Asks,
    step: str,
    told: dict[str, Any],
    fault: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(images, "push", lambda *_: "sha256:" + "0" * 64)
    with answering(serving(told)) as (url, _):
        taken = story(asks(url), tmp_path)
        run = taken._roll_back if step == "rollback" else lambda: taken._publish_app("an-image")
        if fault is not None:
            with pytest.raises(DemoError, match=fault):
                run()
            return
        run()
    said = {"rollback": "✔ back in 6.50 s, without a build", "code": "✔ no model byte moved: 127816114 bytes reused"}
    assert said[step] in capfd.readouterr().out
