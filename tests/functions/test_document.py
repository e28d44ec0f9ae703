"""docs/api.md: its routes are those of the API, and its examples run, one after the other."""

import re
import shlex
from typing import get_args

import pytest

from functions.openapi import ROUTES
from shipmate.core.fates import Fate
from tests.functions.in_process import HOST_KEY, ROOT, Client, api
from tests.world import released

PAGE = ROOT / "docs" / "api.md"
TEXT = PAGE.read_text()


def examples() -> list[str]:
    blocks = re.findall(r"^```\n(curl.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def run(client: Client, command: str) -> int:
    """Ask as a curl command does, and return the status."""
    method, headers, body, url = "GET", {}, b"", ""
    words = iter(shlex.split(command.replace("$KEY", HOST_KEY)))
    assert next(words) == "curl"
    for word in words:
        if word == "-X":
            method = next(words)
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word == "-d":
            body = next(words).encode()
        else:
            url = word
    assert url.startswith("$API/")
    return client.ask(method, url.removeprefix("$API/"), headers=headers, content=body).status_code


def test_every_example_is_answered() -> None:
    world = released("1.1")
    with api(world) as client:
        for command in examples():
            expected = 202 if "-X POST" in command and "dry_run" not in command else 200
            assert run(client, command) == expected, command
            world.run()
    assert [release.name for release in world.state.releases] == ["r-1", "r-2", "r-3"]


def test_the_table_of_routes_is_that_of_the_api() -> None:
    rows = re.findall(r"^\| `(GET|POST) ([^`]+)` \| `(\w+)` \| (\w+) \|", TEXT, re.MULTILINE)
    assert sorted(rows) == sorted((route.method, route.path, route.function, route.role.value) for route in ROUTES)


def test_a_readers_key_is_set_for_every_function_that_reads() -> None:
    found = re.search(r"for function in (.+); do", TEXT)
    assert found is not None
    assert sorted(found[1].split()) == sorted(route.function for route in ROUTES if route.method == "GET")


def test_every_fate_is_explained() -> None:
    table = TEXT.partition("| fate |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1] for row in table.splitlines()[2:]]
    assert {name for row in rows for name in re.findall(r"`([a-z ]+)`", row)} == set(get_args(Fate.__value__))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 500, 503])
def test_every_status_of_a_problem_is_explained(status: int) -> None:
    assert f"\n| {status} |" in TEXT
