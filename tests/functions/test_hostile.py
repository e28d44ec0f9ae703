"""Bad input of every kind against the published document: always an answer in words, and nothing on record.

Schemathesis makes requests that the document allows and requests that it does not, always the same ones; the API
answers in this process, behind the routes and keys of the local Functions host. Here a releaser asks, with a host key;
`test_hostile_callers` has those who may not.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import schemathesis
from schemathesis.specs.openapi import checks

from tests.functions.in_process import HOST_KEY, api, application
from tests.functions.test_api import detail
from tests.world import World, released
from tools.openapi_document import DOCUMENT

CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]


def schema(examples: int, *, corners: bool, sign_in: bool = False, **parameters: str) -> schemathesis.BaseSchema:
    """Return the document, to make so many requests a route from, with these values for parameters.

    `corners` adds the requests that are at, and just beyond, each limit that the document has.
    """
    config = {
        "generation": {
            "max-examples": examples,
            "deterministic": True,
            "database": "none",
            "with-security-parameters": False,
        },
        "phases": {"coverage": {"enabled": corners, "unexpected-methods": []}},  # other methods are the host's
        "parameters": parameters,
    }
    loaded = schemathesis.openapi.from_dict(
        json.loads(DOCUMENT.read_text()), config=schemathesis.Config.from_dict(config)
    )
    loaded.app = application(sign_in=sign_in)
    return loaded


@pytest.fixture(scope="module", autouse=True)
def world() -> Iterator[World]:
    """Yield the world that all requests of this module meet, one after the other."""
    world = released("1.1")
    with api(world):
        yield world


def status_of(case: schemathesis.Case[Any], headers: Mapping[str, str]) -> int | None:
    """Ask with these headers, and return the status of an answer that is as the document has it; None: not a route."""
    reply = case.call(headers=dict(headers))
    sent = unquote(urlsplit(reply.request.url).path)
    if "\n" in sent or sent.count("/") != case.path.count("/"):  # that is another path, here as in Azure
        assert reply.status_code == 404
        return None
    excluded = []
    if not str(dict(case.headers or ()).get("Idempotency-Key", "x")).strip():
        excluded = [checks.negative_data_rejection]  # a header without a value is none to the host
    case.validate_response(reply, checks=[each for each in CHECKS if each not in excluded])
    if reply.status_code >= 400:
        problem = reply.json()
        assert set(problem) == {"type", "title", "status", "detail"}
        assert len(problem["detail"]) > 15
    return reply.status_code


def check(case: schemathesis.Case[Any], world: World) -> None:
    before = world.state.length
    if status_of(case, {"x-functions-key": HOST_KEY}) != 202:
        assert world.state.length == before


@schema(8, corners=False).parametrize()
def test_every_request_is_answered_in_words(case: schemathesis.Case[Any], world: World) -> None:
    check(case, world)


@schema(16, corners=True, **{"path.target": "vision", "path.release": "r-2"}).parametrize()
def test_every_request_about_a_target_is_answered_in_words(case: schemathesis.Case[Any], world: World) -> None:
    check(case, world)


HOSTILE = {
    "nothing": b"",
    "no JSON": b"\x00\xff",
    "an array": b"[]",
    "null": b"null",
    "a number that is none": b"NaN",
    "half of a surrogate pair": rb'{"reason": "\ud800", "author": "ana"}',
    "no text": b'{"reason": "\xc3\x28", "author": "ana"}',
    "another encoding": '{"reason": "r", "author": "ana"}'.encode("utf-16"),
    "too deep": b'{"reason": ' + b"[" * 30_000,
    "too deep where nothing should be": b'{"reason": "r", "author": "ana", "x": ' + b'{"x":' * 12_000,
    "too long": b'{"reason": "r", "author": "ana"}' + b" " * 70_000,
    "a reason too long": b'{"reason": "' + b"r" * 501 + b'", "author": "ana"}',
    "an author too long": b'{"reason": "r", "author": "' + b"a" * 201 + b'"}',
    "an author that clears the screen": rb'{"reason": "r", "author": "\u001b[2J"}',
    "a key that is foreign": b'{"reason": "r", "author": "ana", "__proto__": {}}',
    "a reason that is no text": b'{"reason": {"$ne": null}, "author": "ana"}',
    "a reason given twice, then wrong": b'{"reason": "r", "reason": 5, "author": "ana"}',
    "two bodies": b'{"reason": "r", "author": "ana"}{"reason": "r", "author": "ana"}',
    "a truth as a text": b'{"reason": "r", "author": "ana", "dry_run": "false"}',
    "a release as a number": b'{"reason": "r", "author": "ana", "if_live": 1}',
}


@pytest.mark.parametrize("verb", ["releases", "rollback", "hold", "resume"])
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_body_is_refused_in_words_and_leaves_no_entry(world: World, verb: str, body: bytes) -> None:
    before = world.state.length
    with api(world) as client:
        assert detail(client.post(f"targets/vision/{verb}", body), 400)
    assert world.state.length == before
