"""Every HTTP trigger's way out: JSON on success, an RFC 9457 problem for each of Shipmate's errors."""

import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import azure.functions as func
import msgspec

from shipmate.commands import Answer
from shipmate.errors import Ambiguous, Conflict, Invalid, NotAllowed, NotFound, Retryable, ShipmateError

_STATUS: dict[type[ShipmateError], HTTPStatus] = {
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    NotAllowed: HTTPStatus.FORBIDDEN,
    Retryable: HTTPStatus.SERVICE_UNAVAILABLE,
    Ambiguous: HTTPStatus.SERVICE_UNAVAILABLE,
    Invalid: HTTPStatus.BAD_REQUEST,
}
MAX_BODY_BYTES = 64 * 1024


def answered(make: Callable[[], Any], headers: dict[str, str] | None = None) -> func.HttpResponse:
    """Return what `make` returns as JSON, or the problem it raised; 202 for a command that was taken."""
    try:
        made = make()
    except ShipmateError as error:
        return _problem(error)
    status = HTTPStatus.ACCEPTED if isinstance(made, Answer) and made.accepted else HTTPStatus.OK
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
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"the body should be a JSON object as the API describes it: {error}") from error


def _problem(error: ShipmateError) -> func.HttpResponse:
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)
    detail = str(error)
    headers = {}
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        logging.error("a command failed", exc_info=error)  # noqa: LOG015 - the worker follows the root logger
        detail = f"{type(error).__name__}: {detail} - a fault of Shipmate's own: report it, with the log"
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(int(getattr(error, "after_seconds", None) or 2))
    body = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
    return func.HttpResponse(
        msgspec.json.encode(body), status_code=status.value, mimetype="application/problem+json", headers=headers
    )
