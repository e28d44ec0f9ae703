"""The HTTP API as an OpenAPI 3.1 document, made from the route table here and from the classes of bodies and answers.

Served at /api/openapi.json and kept as schema/openapi.json (`python -m tools.openapi_document` writes it). Tests
compare the table with the routes of the Function App, and the document with what the API really answers.
"""

from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from typing import Any

import msgspec

from functions.answer_fields import ANSWER_FIELDS
from functions.callers import Role
from functions.problems import MAX_BODY_BYTES, Problem
from shipmate.commands import HoldBody, ReleaseBody, ResumeBody, RollbackBody
from shipmate.core.history import ReleaseHistory
from shipmate.core.state import Release
from shipmate.core.why import LONGEST_NAME, UNDERSTOOD, Explanation
from shipmate.views import Answer, PlanView, ResumeView, Status

PREFIX = "/api/"
KEY = r"^[!$&-.0->@-\[\]-~]{1,128}$"
"""An Idempotency-Key: visible ASCII, but for what is no part of a path as it stands; requests are looked up by it."""
_SCHEMAS = "#/components/schemas/{name}"


class Route(msgspec.Struct, frozen=True):
    """One function of the HTTP API: its name, where it answers, what for, and with what."""

    function: str
    path: str  # below /api/
    summary: str
    answer: Any
    body: type | None = None  # a command: the method is POST
    of: bool = False  # it takes the query parameter `of`

    @property
    def method(self) -> str:
        """The HTTP method."""
        return "GET" if self.body is None else "POST"

    @property
    def role(self) -> Role:
        """The role that a caller needs."""
        return Role.READER if self.body is None else Role.RELEASER


ROUTES = (
    Route("targets", "targets", "Where every target stands", tuple[Status, ...]),
    Route("target", "targets/{target}", "Where a target stands, and what happens next", Status),
    Route("releases", "targets/{target}/releases", "A target's releases, newest first", tuple[Release, ...]),
    Route("release", "targets/{target}/releases/{release}", "A release with its stages and report", ReleaseHistory),
    Route("plan", "targets/{target}/plan", "The newest pair that may ship, and what happens next", PlanView),
    Route("request", "targets/{target}/requests/{request}", "What became of a command", Answer),
    Route("before_resume", "targets/{target}/resume", "The hold, and what ships if it is lifted", ResumeView),
    Route("why", "targets/{target}/why", "What became of anything that a target knows", Explanation, of=True),
    Route("why_anywhere", "why", "The same, from every ledger that knows it", tuple[Explanation, ...], of=True),
    Route("openapi", "openapi.json", "This document", dict[str, Any]),
    Route("request_release", "targets/{target}/releases", "Release the newest pair, or another", Answer, ReleaseBody),
    Route("request_rollback", "targets/{target}/rollback", "Go back, and stay there", Answer, RollbackBody),
    Route("hold", "targets/{target}/hold", "Let nothing new ship, or no new app or model", Answer, HoldBody),
    Route("resume", "targets/{target}/resume", "Lift the hold", Answer, ResumeBody),
)
"""Every route of the HTTP API. Those with a body are commands, which need the role releaser; the others reader."""

_IN_PATH: Mapping[str, tuple[str, str, str]] = {
    "target": ("a target's name", "vision", r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$"),  # as in core/targets.py
    "release": ("a release's name", "r-42", r"^r-[1-9][0-9]{0,9}$"),
    "request": ("the Idempotency-Key of a command", "rollback-1", KEY),
}
_PROBLEMS: Mapping[int, str] = {
    400: "The request is wrong; the detail names the key and what it should be",
    401: "Nobody signed in, where that is asked for. Without a key that opens this, the host says so without a body",
    403: "The caller's role does not allow this; or Shipmate's own identity lacks a right, which the detail names",
    404: "There is no such target, release or request, or nothing goes by that name",
    409: "Something stands in the way; the detail says what",
    422: "The Idempotency-Key was used before for something else",
    500: "Shipmate is set up wrongly, and the detail names the setting; or it has a fault, to be reported",
    503: "Storage or the cluster is in trouble, or the outcome is unknown: ask again with the same Idempotency-Key",
}
_OF_COMMANDS = (409, 422)


@cache
def document() -> dict[str, Any]:
    """Return the whole document."""
    kinds = {route.answer for route in ROUTES} | {route.body for route in ROUTES if route.body is not None} | {Problem}
    ordered = sorted(kinds, key=str)
    found, components = msgspec.json.schema_components(ordered, ref_template=_SCHEMAS)
    schemas = dict(zip(ordered, found, strict=True))
    for name, words in ANSWER_FIELDS.items():
        for field, description in words.items():
            components[name]["properties"][field]["description"] = description
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Shipmate",
            "version": "1",
            "description": "What people ask of a release controller, and what they are shown.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}, {"sign_in": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "x-functions-key"},
                "sign_in": {"type": "http", "scheme": "bearer", "description": "Microsoft Entra ID, with an app role"},
            },
        },
    }


def _operation(route: Route, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    names = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
    parameters = [_parameter("path", name, *_IN_PATH[name]) for name in names]
    if route.of:
        asked = _parameter("query", "of", f"what is asked for: {UNDERSTOOD}", "r-42", r"\S")
        parameters.append({**asked, "schema": {**asked["schema"], "maxLength": LONGEST_NAME}})
    operation: dict[str, Any] = {
        "operationId": route.function,
        "summary": route.summary,
        "description": f"Needs the role {route.role}.",
        "parameters": parameters,
        "responses": {"200": _json(_described(route), schemas[route.answer])},
    }
    problems = [status for status in _PROBLEMS if route.body is not None or status not in _OF_COMMANDS]
    for status in problems:
        kind = "application/problem+json"
        operation["responses"][str(status)] = _json(_PROBLEMS[status], schemas[Problem], kind)
    if route.body is not None:
        key = _parameter("header", "Idempotency-Key", "a repeat with the same key is taken once", "rollback-1", KEY)
        operation["parameters"].append({**key, "required": False})
        operation["requestBody"] = {
            "required": True,
            "description": f"At most {MAX_BODY_BYTES} bytes.",
            "content": {"application/json": {"schema": schemas[route.body]}},
        }
        accepted = _json("The command is on record; Location says where to see what becomes of it", schemas[Answer])
        location = {"schema": {"type": "string"}, "description": "GET it to see what became of the command"}
        operation["responses"]["202"] = {**accepted, "headers": {"Location": location}}
    return operation


def _described(route: Route) -> str:
    return "What would be done: a dry run changes nothing" if route.body is not None else HTTPStatus.OK.phrase


def _json(description: str, schema: Any, kind: str = "application/json") -> dict[str, Any]:
    return {"description": description, "content": {kind: {"schema": schema}}}


def _parameter(where: str, name: str, description: str, example: str, pattern: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": where,
        "required": True,
        "description": description,
        "schema": {"type": "string", "pattern": pattern},
        "example": example,
    }
