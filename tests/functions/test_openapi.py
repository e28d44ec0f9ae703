"""The published OpenAPI document is current, and it and the Function App have the same routes."""

import json
import re

import schemathesis

from functions.callers import Role
from functions.openapi import ROUTES, document
from tests.functions.in_process import ROOT, api
from tests.functions.test_function_app import HTTP
from tests.world import World
from tools.openapi_document import DOCUMENT, openapi_document


def test_the_document_is_up_to_date() -> None:
    assert DOCUMENT.read_text() == openapi_document(), "run: .venv/bin/python -m tools.openapi_document"


def test_every_function_is_a_route_of_the_document_and_the_other_way_round() -> None:
    assert {route.function: (route.method, route.path) for route in ROUTES} == HTTP
    operations = {
        operation["operationId"]: (method.upper(), path.removeprefix("/api/"))
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
    }
    assert operations == HTTP


def test_reading_needs_a_reader_and_a_command_a_releaser() -> None:
    assert {(route.method, route.role) for route in ROUTES} == {("GET", Role.READER), ("POST", Role.RELEASER)}


def test_the_document_keeps_the_rules_of_openapi() -> None:
    schema = schemathesis.openapi.from_dict(json.loads(DOCUMENT.read_text()))
    schema.validate()
    assert len(list(schema.get_all_operations())) == len(ROUTES)


def test_the_api_serves_it() -> None:
    with api(World()) as client:
        assert client.get("openapi.json").json() == json.loads(DOCUMENT.read_text())


def test_the_document_says_both_that_403_may_mean() -> None:
    row = re.search(r"^\| 403 \| (.+) \|$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert row is not None
    said = {
        operation["responses"]["403"]["description"]
        for methods in document()["paths"].values()
        for operation in methods.values()
    }
    assert said == {row[1][0].upper() + row[1][1:]}


def test_every_key_of_a_command_and_every_field_of_an_answer_says_what_it_is_for() -> None:
    schemas = document()["components"]["schemas"]
    keys = {
        f"{name}.{key}": field
        for name, schema in schemas.items()
        for key, field in schema.get("properties", {}).items()
    }
    assert {"ReleaseBody.override", "HoldBody.scope", "ResumeBody.reason", "Status.next", "Row.live"} <= keys.keys()
    assert [key for key, field in keys.items() if not field.get("description")] == []
