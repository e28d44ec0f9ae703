"""What HTTP callers get: JSON, or a problem that names the next move."""

import json
from typing import Any, NoReturn

import azure.functions as func
import msgspec
import pytest

from functions.problems import MAX_BODY_BYTES, answered, read_body, taken
from shipmate.commands import HoldBody, ReleaseBody
from shipmate.core.ledger import IllegalStep
from shipmate.errors import (
    Ambiguous,
    Conflict,
    Invalid,
    Misconfigured,
    NotAllowed,
    NotFound,
    NotSignedIn,
    Rejected,
    Retryable,
    Reused,
    ShipmateError,
)
from shipmate.views import Answer


def request(body: bytes = b"", **headers: str) -> func.HttpRequest:
    return func.HttpRequest(method="POST", url="/api/targets/vision/hold", body=body, headers=headers)


def problem(error: ShipmateError) -> func.HttpResponse:
    def fail() -> NoReturn:
        raise error

    return taken(fail, "/never")


@pytest.mark.parametrize(
    ("error", "status", "title", "wait"),
    [
        (NotFound("no such thing"), 404, "Not Found", None),
        (Conflict("no such thing"), 409, "Conflict", None),
        (NotAllowed("no such thing"), 403, "Forbidden", None),
        (NotSignedIn("no such thing"), 401, "Unauthorized", None),
        (Reused("no such thing"), 422, "Unprocessable Content", None),
        (Invalid("no such thing"), 400, "Bad Request", None),
        (Rejected("NotAnImage", "no such thing"), 400, "Bad Request", None),
        (Ambiguous("no such thing"), 503, "Service Unavailable", "2"),
        (Retryable("no such thing"), 503, "Service Unavailable", "2"),
        (Retryable("no such thing", after_seconds=7.5), 503, "Service Unavailable", "7"),
    ],
)
def test_each_error_is_a_problem(error: ShipmateError, status: int, title: str, wait: str | None) -> None:
    reply = problem(error)
    assert reply.status_code == status
    assert reply.mimetype == "application/problem+json"
    assert json.loads(reply.get_body()) == {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": "no such thing",
    }
    assert reply.headers.get("Retry-After") == wait
    assert "Location" not in reply.headers
    assert reply.headers.get("WWW-Authenticate") == ("Bearer" if status == 401 else None)


@pytest.mark.parametrize("error", [IllegalStep("built after live"), ShipmateError("built after live")])
def test_a_fault_of_shipmates_own_is_told_and_logged(error: ShipmateError, caplog: pytest.LogCaptureFixture) -> None:
    reply = problem(error)
    assert reply.status_code == 500
    found = json.loads(reply.get_body())
    assert found["title"] == "Internal Server Error"
    name = type(error).__name__
    assert found["detail"] == f"{name}: built after live - a fault of Shipmate's own: report it, with the log"
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[1] is error


def test_what_is_set_up_wrongly_is_no_fault_of_who_asks_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    error = Misconfigured("the setting SHIPMATE_REGISTRY is missing")
    reply = problem(error)
    assert reply.status_code == 500
    assert json.loads(reply.get_body())["detail"] == (
        "Shipmate is set up wrongly; ask whoever runs it to correct this: the setting SHIPMATE_REGISTRY is missing"
    )
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[1] is error


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        answered(lambda: 1 // 0)


TAKEN = Answer(accepted=True, message="m", request="k", target="vision")


@pytest.mark.parametrize("made", [{"a": 1}, TAKEN])
def test_what_is_read_is_json(made: Any) -> None:
    reply = answered(lambda: made)
    assert (reply.status_code, reply.mimetype, "Location" in reply.headers) == (200, "application/json", False)
    assert json.loads(reply.get_body()) == msgspec.to_builtins(made)


@pytest.mark.parametrize(
    ("made", "status", "location"),
    [(TAKEN, 202, "/there"), (msgspec.structs.replace(TAKEN, accepted=False), 200, None)],
)
def test_a_command_that_is_on_record_says_where_to_look(made: Answer, status: int, location: str | None) -> None:
    reply = taken(lambda: made, "/there")
    assert (reply.status_code, reply.headers.get("Location")) == (status, location)
    assert json.loads(reply.get_body()) == msgspec.to_builtins(made)


def test_a_body_is_read() -> None:
    assert read_body(request(b'{"reason": "r", "author": "ana"}'), HoldBody) == HoldBody(reason="r", author="ana")
    whole = b'{"reason": "r"}'
    assert read_body(request(whole.ljust(MAX_BODY_BYTES)), HoldBody).reason == "r"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b" " * (MAX_BODY_BYTES + 1), f"the body has more than {MAX_BODY_BYTES} bytes"),
        (b"", "the body should be a JSON object as the API describes it: "),
        (b"{", "the body should be a JSON object"),
        (b'{"reason": "\xff"}', "the body should be a JSON object"),
        (b"[]", "Expected `object`"),
        (b"[" * 60_000, "the body should be a JSON object"),
        (b'{"reason": ' + b'{"a":' * 12_000, "Expected `str`, got `object`"),
        (rb'{"reason": "\ud800"}', "the body should be a JSON object"),
        (b"{}", "missing required field `reason`"),
        (b'{"reason": ""}', r"at `\$.reason`"),
        (b'{"reason": "r", "authro": "ana"}', "unknown field `authro`"),
        (b'{"reason": "r", "release": "42"}', r"at `\$.release`"),
    ],
)
def test_a_body_that_is_wrong_names_the_key(body: bytes, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        read_body(request(body), ReleaseBody)
