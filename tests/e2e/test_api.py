"""The HTTP API as people and pipelines use it: who may ask, what is refused and in which words, what is on record.

The target's first release is live and there is no other.
"""

from http import HTTPStatus
from typing import Any

import httpx
import pytest

from shipmate.core.ledger import HoldSet, Resumed
from tests.e2e.world import Target

WHO = {"reason": "a look", "author": "ana"}


def call(target: Target, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
    """Ask the API below /api/targets with the key, unless a header gives another."""
    local = target.world.local
    headers = {"x-functions-key": local.api_key, **{name.replace("_", "-"): value for name, value in headers.items()}}
    content = body if isinstance(body, bytes) else None
    json = None if content is not None else body
    url = f"{local.cloud.functions_url}/api/targets{path}"
    return target.world.http.request(method, url, json=json, content=content, headers=headers)


def detail(reply: httpx.Response, status: int) -> str:
    """Return the words of a problem, whose shape is that of RFC 9457."""
    assert reply.status_code == status, reply.text
    assert reply.headers["Content-Type"] == "application/problem+json"
    problem = reply.json()
    assert (problem["type"], problem["status"]) == ("about:blank", status)
    assert problem["title"] == HTTPStatus(status).phrase
    return str(problem["detail"])


@pytest.mark.parametrize("path", ["", "/steady", "/steady/releases", "/steady/releases/r-1"])
@pytest.mark.parametrize("key", ["", "wrong"])
def test_nobody_without_a_key_gets_in(steady: Target, path: str, key: str) -> None:
    reply = call(steady, "GET", path, x_functions_key=key)
    assert (reply.status_code, reply.content) == (401, b"")


def test_a_key_of_the_webhook_opens_no_api(steady: Target) -> None:
    reply = call(steady, "GET", "", x_functions_key=steady.world.local.keys.event_grid)
    assert reply.status_code == 401


def test_every_target_is_listed(steady: Target, vision: Target) -> None:
    listed = {each["target"]: each["public_url"] for each in call(steady, "GET", "").json()}
    assert listed == {"vision": vision.url, "steady": steady.url}


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("GET", "/nobody", "there is no target 'nobody'; the targets file has: steady, vision"),
        ("GET", "/nobody/releases", "there is no target 'nobody'"),
        ("POST", "/nobody/rollback", "there is no target 'nobody'"),
        ("GET", "/steady/releases/r-99", "there is no release 'r-99'; see the list of releases"),
        ("GET", "/steady/releases/latest", "there is no release 'latest'; see the list of releases"),
        ("GET", "/steady/requests/none-such", "steady knows no request 'none-such'"),
    ],
)
def test_what_is_not_there_is_said(steady: Target, method: str, path: str, words: str) -> None:
    assert words in detail(call(steady, method, path, WHO if method == "POST" else None), 404)


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("rollback", b"", "the body should be a JSON object as the API describes it"),
        ("rollback", b"[]", "Expected `object`, got `array`"),
        ("rollback", {"author": "ana"}, "missing required field `reason`"),
        ("rollback", {"reason": "", "author": "ana"}, "Expected `str` of length >= 1 - at `$.reason`"),
        ("rollback", {"reason": 5, "author": "ana"}, "Expected `str`, got `int` - at `$.reason`"),
        ("rollback", {**WHO, "to": "4"}, "at `$.to`"),
        ("rollback", {**WHO, "release": "r-1"}, "unknown field `release`"),
        ("releases", {**WHO, "app": "main"}, "at `$.app`"),
        ("releases", {**WHO, "release": "r-1", "model": "sha256:" + "0" * 64}, "give either release, or app and model"),
        ("hold", {**WHO, "dry_run": "yes"}, "Expected `bool`, got `str` - at `$.dry_run`"),
        ("hold", {"reason": "a look"}, 'say who asks: sign in, or give "author" in the body'),
        ("hold", b"{" + b" " * 70_000 + b"}", "the body has more than 65536 bytes"),
    ],
)
def test_a_wrong_body_is_refused_by_the_key_that_is_wrong(steady: Target, path: str, body: Any, words: str) -> None:
    assert words in detail(call(steady, "POST", f"/steady/{path}", body), 400)


def test_an_idempotency_key_is_short_and_visible(steady: Target) -> None:
    reply = call(steady, "POST", "/steady/hold", WHO, Idempotency_Key="two words")
    assert "the header Idempotency-Key holds up to 128 visible ASCII characters" in detail(reply, 400)


def test_a_digest_that_nobody_published_is_not_found(steady: Target) -> None:
    unknown = "sha256:" + "0" * 64
    reply = call(steady, "POST", "/steady/releases", {**WHO, "model": unknown})
    assert detail(reply, 404) == f"no model with digest {unknown} was published"


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("releases", {}, "r-1 is live with this pair already"),
        ("releases", {"if_live": "r-99"}, "you asked for this while r-99 is live, and r-1 is; look again, then decide"),
        ("rollback", {}, "no other release was live before: there is nothing to go back to"),
        ("rollback", {"to": "r-1"}, "r-1 is live with this pair already"),
        ("resume", {}, "steady is not held"),
    ],
)
def test_what_stands_in_the_way_is_said(steady: Target, path: str, body: dict[str, str], words: str) -> None:
    length = steady.state().length
    assert detail(call(steady, "POST", f"/steady/{path}", {**WHO, **body}), 409) == words
    assert steady.state().length == length


def test_a_dry_run_changes_nothing(steady: Target) -> None:
    before = steady.state().length, steady.fence()
    reply = call(steady, "POST", "/steady/hold", {**WHO, "dry_run": True})
    assert (reply.status_code, reply.json()["accepted"]) == (200, False)
    assert reply.json()["message"] == "would be taken: nothing new ships until somebody resumes"
    assert (steady.state().length, steady.fence()) == before


def test_a_hold_is_in_force_when_it_is_answered_and_a_repeat_changes_nothing(steady: Target) -> None:
    fence = steady.fence()
    replies = [call(steady, "POST", "/steady/hold", WHO, Idempotency_Key="ana-holds") for _ in range(2)]
    try:
        assert steady.fence() == fence + 1
        (hold,) = steady.entries(HoldSet)
        assert (hold.request, hold.author, hold.reason, hold.fence) == ("ana-holds", "ana", "a look", fence + 1)
        first, again = replies
        assert (first.status_code, again.status_code) == (202, 202)
        assert first.json()["message"] == "nothing new ships until somebody resumes"
        assert first.headers["Location"] == again.headers["Location"] == "/api/targets/steady/requests/ana-holds"
        found = call(steady, "GET", first.headers["Location"].removeprefix("/api/targets"))
        assert found.json() == {**again.json(), "request": "ana-holds", "target": "steady", "release": None}
        refused = call(steady, "POST", "/steady/hold", {"reason": "me too", "author": "bo"})
        assert detail(refused, 409) == "steady is held already by ana: a look"
        assert call(steady, "GET", "/steady").json()["hold"] == "ana: a look"
    finally:
        lifted = call(steady, "POST", "/steady/resume", {"reason": "seen", "author": "ana"})
    assert lifted.status_code == 202, lifted.text
    assert [entry.hold for entry in steady.entries(Resumed)] == [hold.id]
    assert call(steady, "GET", "/steady").json()["hold"] is None


def test_why_on_real_parts(steady: Target) -> None:
    found = call(steady, "GET", "/steady/why?of=r-1").json()
    assert (found["kind"], found["fate"], found["release"]) == ("release", "live", "r-1")
    assert [found["entries"][place]["kind"] for place in (0, -1)] == ["planned", "live"]
    pair = steady.state().release(1).pair
    for of in (pair.app, pair.model[:19], "steady-app:main", "models/steady-lite/1.0/manifest.json"):
        found = call(steady, "GET", f"/steady/why?of={of}").json()
        assert found["fate"] == "live", found
    words = detail(call(steady, "GET", "/steady/why?of=r-99"), 404)
    assert words.startswith("nothing in the ledger of steady is called 'r-99'; understood are: a digest")
    everywhere = call(steady, "GET", "/../why?of=r-1").json()
    assert "steady" in [each["target"] for each in everywhere]


def test_the_openapi_document_is_served(steady: Target) -> None:
    reply = call(steady, "GET", "/../openapi.json")
    assert (reply.status_code, reply.json()["openapi"]) == (200, "3.1.0")


def test_a_key_used_for_something_else_is_refused_and_a_resume_shows_what_ships(steady: Target) -> None:
    assert call(steady, "POST", "/steady/hold", WHO, Idempotency_Key="ana-again").status_code == 202
    try:
        other = call(steady, "POST", "/steady/resume", WHO, Idempotency_Key="ana-again")
        assert detail(other, 422).startswith("the Idempotency-Key 'ana-again' was used before for another command")
        view = call(steady, "GET", "/steady/resume").json()
        assert (view["hold"]["author"], view["ships"]) == ("ana", None)
        assert "): nothing is ready to ship: r-1 is the newest pair" in view["message"]
    finally:
        lifted = call(steady, "POST", "/steady/resume", WHO)
    assert lifted.json()["message"] == view["message"]


def test_a_signed_in_name_that_anybody_can_write_is_not_the_author(steady: Target) -> None:
    headers = {"x_ms_client_principal_name": "boss@example.org"}  # App Service authentication is off here
    reply = call(steady, "POST", "/steady/hold", WHO, **headers)
    try:
        assert reply.status_code == 202, reply.text
        assert call(steady, "GET", "/steady").json()["hold"] == "ana: a look"
    finally:
        call(steady, "POST", "/steady/resume", WHO)
