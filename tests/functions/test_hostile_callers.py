"""The same bad input, with sign-in on, from callers who may not: a problem in words, and only refusals on record.

Schemathesis makes the requests, as in `test_hostile`; nobody asks with a token, somebody without a role, and a reader.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import schemathesis

from shipmate.commands import REFUSAL_KEPT
from shipmate.core.ledger import AnyEntry, Refused
from tests.functions.in_process import api, signed_in
from tests.functions.test_api import detail
from tests.functions.test_hostile import HOSTILE, schema, status_of
from tests.world import World, released

CALLERS = {"": {}, "di": signed_in("di"), "cy": signed_in("cy", "reader")}
"""By their names: nobody, somebody without a role, a reader."""
NOBODY, NO_ROLE, _READER = CALLERS
callers = pytest.mark.parametrize("caller", CALLERS, ids=["nobody", "no role", "reader"])


@pytest.fixture(scope="module", autouse=True)
def world() -> Iterator[World]:
    """Yield the world that all requests of this module meet, one after the other."""
    world = released("1.1")
    with api(world, sign_in=True):
        yield world


def allowed(caller: str, method: str) -> set[int]:
    """Return the statuses that a caller may be answered with."""
    if caller == NOBODY:
        return {401}
    if method == "POST":
        return {400, 403}
    return {403} if caller == NO_ROLE else {200, 400, 404}


def check_on_record(new: list[AnyEntry], caller: str, status: int | None) -> None:
    """Assert that a refused command, and nothing else, is on record, under the name of who signed in."""
    authors = [entry.author for entry in new if isinstance(entry, Refused)]
    assert len(authors) == len(new), "more than refusals is on record"
    assert authors == [] or (status, authors) == (403, [caller])


def check(case: schemathesis.Case[Any], world: World, caller: str) -> None:
    world.clock.advance_to(world.clock.now() + REFUSAL_KEPT)  # each refusal may be recorded anew
    before, queued, fence = world.state.length, len(world.queue), world.state.fence
    status = status_of(case, headers(CALLERS[caller]))
    assert status is None or status in allowed(caller, case.method)
    check_on_record(list(world.ledgers.history("vision"))[before:], caller, status)
    assert (len(world.queue), world.state.fence) == (queued, fence)
    target = str((case.path_parameters or {}).get("target", "nobody"))
    assert target == "vision" or list(world.ledgers.history(target)) == []


def headers(given: Mapping[str, str]) -> dict[str, str]:
    """Return headers by the names that they have on the wire."""
    return {name.replace("_", "-"): value for name, value in given.items()}


@callers
@schema(2, corners=False, sign_in=True).parametrize()
def test_whoever_asks_is_answered_in_words(case: schemathesis.Case[Any], world: World, caller: str) -> None:
    check(case, world, caller)


@callers
@schema(4, corners=True, sign_in=True, **{"path.target": "vision", "path.release": "r-2"}).parametrize()
def test_whoever_asks_about_a_target_is_answered_in_words(
    case: schemathesis.Case[Any], world: World, caller: str
) -> None:
    check(case, world, caller)


@callers
@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_body_of_who_may_not_leaves_at_most_a_refusal(world: World, body: bytes, caller: str) -> None:
    world.clock.advance_to(world.clock.now() + REFUSAL_KEPT)
    with api(world, sign_in=True) as client:
        for verb in ("releases", "rollback", "hold", "resume"):
            before = world.state.length
            reply = client.post(f"targets/vision/{verb}", body, **CALLERS[caller])
            assert reply.status_code in allowed(caller, "POST")
            assert detail(reply, reply.status_code)
            check_on_record(list(world.ledgers.history("vision"))[before:], caller, reply.status_code)
