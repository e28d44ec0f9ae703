"""Settings that are wrong: every trigger fails, so that what came in comes again, and people are told which setting."""

from collections.abc import Iterator
from typing import Any

import azure.functions as func
import pytest

from functions import advance, image_pushed, model_published, releases, sweep
from shipmate import wiring
from shipmate.errors import Misconfigured
from shipmate.pipeline import UNCLAIMED
from tests.functions.test_events import BODY, decoded
from tests.functions.test_function_app import HTTP
from tests.world import World

APP = func.FunctionApp()  # an app lists its functions once
for module in (advance, image_pushed, model_published, releases, sweep):
    APP.register_functions(module.blueprint)
FUNCTIONS = {each.get_function_name(): each.get_user_function() for each in APP.get_functions()}
WORDS = "the setting SHIPMATE_STORAGE is missing: expected a storage connection string"


@pytest.fixture(autouse=True)
def without_storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("SHIPMATE_STORAGE", raising=False)
    for cached in (wiring.settings, wiring._shared):
        cached.cache_clear()
    yield
    for cached in (wiring.settings, wiring._shared):
        cached.cache_clear()


def mended(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    monkeypatch.setattr(wiring, "pipeline", world.pipeline)


@pytest.mark.parametrize("trigger", ["model_published", "image_pushed"])
def test_an_event_is_not_acknowledged_and_is_taken_in_when_it_comes_again(
    trigger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    with pytest.raises(Misconfigured, match=WORDS):
        FUNCTIONS[trigger](decoded(BODY))
    mended(monkeypatch, world)
    FUNCTIONS[trigger](decoded(BODY))
    assert [event for name in UNCLAIMED for event in world.ledgers.read(name).state.seen] == [BODY["id"]]


def test_a_message_is_not_taken_off_the_queue_and_its_target_is_advanced_later(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.tell(world.push_app("2.3.0"), world.publish_model("1.0"))
    message = func.QueueMessage(body=b"vision")
    with pytest.raises(Misconfigured, match=WORDS):
        FUNCTIONS["advance"](message)
    mended(monkeypatch, world)
    FUNCTIONS["advance"](message)
    assert not world.state.publications


def test_a_sweep_fails_and_the_next_one_finds_what_was_given_up_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.push_app("2.3.0")
    world.publish_model("1.0")
    with pytest.raises(Misconfigured, match=WORDS):
        FUNCTIONS["sweep"](None)
    mended(monkeypatch, world)
    FUNCTIONS["sweep"](None)
    world.run()
    assert [release.phase for release in world.state.releases] == ["live"]


@pytest.mark.parametrize("name", HTTP)
def test_who_asks_did_nothing_wrong(name: str) -> None:
    method, _ = HTTP[name]
    request: Any = func.HttpRequest(
        method=method,
        url="/",
        route_params={"target": "vision", "release": "r-1", "request": "key"},
        body=b'{"reason": "r", "author": "ana"}',
    )
    reply = FUNCTIONS[name](request)
    assert reply.status_code == 500
    assert WORDS in reply.get_body().decode()
