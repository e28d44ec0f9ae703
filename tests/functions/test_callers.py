"""Who calls, what their role allows, and who is on record as the author of a command."""

import base64

import azure.functions as func
import pytest

from functions.callers import LONGEST_AUTHOR, Caller, Role, auth_level, author_of, caller_of
from shipmate.errors import Invalid, NotAllowed, NotSignedIn
from tests.functions.in_process import signed_in

LONG_CLAIM = "http://schemas.microsoft.com/ws/2008/06/identity/claims/role"
NOBODY = Caller(None, frozenset())


def request(**headers: str) -> func.HttpRequest:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return func.HttpRequest(method="POST", url="/api/targets/vision/hold", body=b"", headers=named)


@pytest.mark.parametrize(
    ("headers", "roles"),
    [
        pytest.param(signed_in("cy", "reader"), {Role.READER}, id="a reader"),
        pytest.param(signed_in("cy", "releaser"), {Role.RELEASER}, id="a releaser"),
        pytest.param(signed_in("cy", "releaser", "reader", "boss"), {Role.READER, Role.RELEASER}, id="several roles"),
        pytest.param(signed_in("cy", "releaser", claim=LONG_CLAIM), {Role.RELEASER}, id="the mapped claim"),
        pytest.param(signed_in("cy", "releaser", claim="r", role_typ="r"), {Role.RELEASER}, id="the claim it names"),
        pytest.param(signed_in("cy", "releaser", claim="groups"), set(), id="another claim"),
        pytest.param(signed_in("cy", "Releaser"), set(), id="another spelling"),
        pytest.param(signed_in("cy"), set(), id="no role"),
    ],
)
def test_who_signed_in_has_the_roles_of_the_token(headers: dict[str, str], roles: set[Role]) -> None:
    assert caller_of(request(**headers), sign_in=True) == Caller("cy", frozenset(roles))


def test_a_program_that_signed_in_goes_by_its_id() -> None:
    headers = signed_in("cy", "releaser") | {"X_MS_CLIENT_PRINCIPAL_ID": "4c0e", "X_MS_CLIENT_PRINCIPAL_NAME": ""}
    assert caller_of(request(**headers), sign_in=True).name == "4c0e"


@pytest.mark.parametrize("headers", [{}, signed_in("boss", "reader")], ids=["a key alone", "forged headers"])
def test_without_sign_in_whoever_the_key_let_in_may_do_what_the_function_does(headers: dict[str, str]) -> None:
    assert caller_of(request(**headers), sign_in=False) == Caller(None, frozenset({Role.RELEASER}))


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        pytest.param({}, "sign in: send a token of Microsoft Entra ID", id="nobody"),
        pytest.param(signed_in("", "reader"), "sign in: send a token", id="nobody's name"),
        pytest.param({"X_MS_CLIENT_PRINCIPAL_NAME": "cy"}, "sign in: send a token", id="no claims"),
        pytest.param(
            {**signed_in("cy"), "X_MS_CLIENT_PRINCIPAL": "?"}, "X-MS-CLIENT-PRINCIPAL cannot be read", id="no base64"
        ),
        pytest.param(
            {**signed_in("cy"), "X_MS_CLIENT_PRINCIPAL": base64.b64encode(b"[" * 9000).decode()},
            "sign in again: the header X-MS-CLIENT-PRINCIPAL cannot be read",
            id="no object",
        ),
        pytest.param(
            {**signed_in("cy"), "X_MS_CLIENT_PRINCIPAL": base64.b64encode(b'{"claims": 5}').decode()},
            r"cannot be read \(Expected `array`, got `int` - at `\$.claims`\)",
            id="no claims in it",
        ),
        pytest.param(
            {**signed_in("cy"), "X_MS_CLIENT_PRINCIPAL": base64.b64encode(b'{"claims": "\xff"}').decode()},
            "cannot be read",
            id="no text",
        ),
    ],
)
def test_who_did_not_sign_in_is_told_to(headers: dict[str, str], words: str) -> None:
    with pytest.raises(NotSignedIn, match=words):
        caller_of(request(**headers), sign_in=True)


@pytest.mark.parametrize(
    ("own", "asked", "allowed"),
    [
        (Role.READER, Role.READER, True),
        (Role.READER, Role.RELEASER, False),
        (Role.RELEASER, Role.READER, True),
        (Role.RELEASER, Role.RELEASER, True),
    ],
)
def test_what_a_role_allows(own: Role, asked: Role, allowed: bool) -> None:
    assert Caller("cy", frozenset({own})).may(asked) is allowed


@pytest.mark.parametrize(("roles", "has"), [(set(), "none"), ({Role.READER}, "reader")])
def test_who_may_not_is_told_which_role_is_needed_and_who_gives_it(roles: set[Role], has: str) -> None:
    with pytest.raises(NotAllowed) as raised:
        Caller("cy", frozenset(roles)).check(Role.RELEASER)
    assert str(raised.value) == (
        f"this needs the role releaser, and cy has {has}: whoever administers Shipmate's enterprise application in "
        "Microsoft Entra ID can assign it (users and groups)"
    )
    Caller("cy", frozenset({Role.RELEASER})).check(Role.READER)


@pytest.mark.parametrize(
    ("caller", "named", "author"),
    [
        pytest.param("cy@example.org", "ana", "cy@example.org", id="who signed in, whatever the body says"),
        pytest.param("cy@example.org", None, "cy@example.org", id="who signed in"),
        pytest.param(None, " ana ", "ana", id="whom the body names"),
        pytest.param(None, "Zoë Ångström", "Zoë Ångström", id="letters of any language"),
        pytest.param(None, "x" * LONGEST_AUTHOR, "x" * LONGEST_AUTHOR, id="the longest"),
    ],
)
def test_the_author(caller: str | None, named: str | None, author: str) -> None:
    assert author_of(Caller(caller, frozenset()), named) == author


@pytest.mark.parametrize("named", [None, "", "  "])
def test_a_command_without_an_author_says_how_to_give_one(named: str | None) -> None:
    with pytest.raises(Invalid) as raised:
        author_of(NOBODY, named)
    assert str(raised.value) == 'say who asks: sign in, or give "author" in the body'


@pytest.mark.parametrize("name", ["x" * (LONGEST_AUTHOR + 1), "ana\n{}", "ana\x1b[2J"])
def test_a_name_that_logs_cannot_show_is_refused(name: str) -> None:
    words = "an author's name has at most 200 characters, and no control characters"
    with pytest.raises(Invalid, match=words):
        author_of(NOBODY, name)
    with pytest.raises(Invalid, match=words):
        caller_of(request(**signed_in(name, "reader")), sign_in=True)


def test_the_host_asks_for_a_key_unless_the_platform_asks_people_to_sign_in() -> None:
    assert auth_level({}) is func.AuthLevel.FUNCTION
    assert auth_level({"WEBSITE_AUTH_ENABLED": "False"}) is func.AuthLevel.FUNCTION
    assert auth_level({"WEBSITE_AUTH_ENABLED": "True"}) is func.AuthLevel.ANONYMOUS
