"""Every HTTP trigger's way out: JSON on success, an RFC 9457 problem for each of Shipmate's errors."""

import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import azure.functions as func
import msgspec

from shipmate.errors import (
    Ambiguous,
    Conflict,
    Invalid,
    Misconfigured,
    NotAllowed,
    NotFound,
    NotSignedIn,
    Retryable,
    Reused,
    ShipmateError,
)
from shipmate.views import Answer

_STATUS: dict[type[ShipmateError], HTTPStatus] = {
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    NotSignedIn: HTTPStatus.UNAUTHORIZED,
    NotAllowed: HTTPStatus.FORBIDDEN,
    Retryable: HTTPStatus.SERVICE_UNAVAILABLE,
    Ambiguous: HTTPStatus.SERVICE_UNAVAILABLE,
    Reused: HTTPStatus.UNPROCESSABLE_ENTITY,  # draft-ietf-httpapi-idempotency-key-header, section 2.7
    Invalid: HTTPStatus.BAD_REQUEST,
    Misconfigured: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""The first that an error is one of counts."""
MAX_BODY_BYTES = 64 * 1024


class Problem(msgspec.Struct, frozen=True):
    """Why a request was not served (RFC 9457): `detail` is a sentence for the person who meets it."""

    type: str
    title: str
    status: int
    detail: str


def answered(make: Callable[[], Any]) -> func.HttpResponse:
    """Return what `make` returns as JSON, or the problem it raised."""
    return _answered(make, lambda _: (HTTPStatus.OK, {}))


def taken(make: Callable[[], Answer], location: str) -> func.HttpResponse:
    """Return the answer to a command, or the problem it raised; 202, and where to look, for one that is on record."""
    return _answered(
        make, lambda answer: (HTTPStatus.ACCEPTED, {"Location": location}) if answer.accepted else (HTTPStatus.OK, {})
    )


def _answered[Made](
    make: Callable[[], Made], told: Callable[[Made], tuple[HTTPStatus, dict[str, str]]]
) -> func.HttpResponse:
    try:
        made = make()
    except ShipmateError as error:
        return _problem(error)
    status, headers = told(made)
    return func.HttpResponse(
        msgspec.json.encode(made), status_code=status.value, mimetype="application/json", headers=headers
    )


def read_body[Body: msgspec.Struct](request: func.HttpRequest, kind: type[Body]) -> Body:
    """Return the request's body; raise Invalid with the key that is wrong and what it should be."""
    data = request.get_body()
    if len(data) > MAX_BODY_BYTES:
        raise Invalid(f"the body has more than {MAX_BODY_BYTES} bytes")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"the body should be a JSON object as the API describes it: {error}") from error


def _problem(error: ShipmateError) -> func.HttpResponse:
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)
    detail = str(error)
    headers = {}
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        logging.error("a command failed", exc_info=error)  # noqa: LOG015 - the worker follows the root logger
        if isinstance(error, Misconfigured):
            detail = f"Shipmate is set up wrongly; ask whoever runs it to correct this: {detail}"
        else:
            detail = f"{type(error).__name__}: {detail} - a fault of Shipmate's own: report it, with the log"
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(int(getattr(error, "after_seconds", None) or 2))
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    problem = Problem("about:blank", status.phrase, status.value, detail)
    return func.HttpResponse(
        msgspec.json.encode(problem), status_code=status.value, mimetype="application/problem+json", headers=headers
    )
