"""Who calls the HTTP API, and what their role allows.

Where App Service authentication is on, it sets the headers read here and removes what callers sent under their names;
the roles are the app roles that Microsoft Entra ID put into the token. Where it is off, the Functions host lets in
whoever has a key of the function, and such a key allows what the function does: nobody's name is known.

Sources: "Work with user identities in Azure App Service authentication"; "Work with access keys in Azure Functions".
"""

import base64
import binascii
from collections.abc import Mapping
from enum import StrEnum

import azure.functions as func
import msgspec

from shipmate.errors import Invalid, NotAllowed, NotSignedIn
from shipmate.settings import is_sign_in_on

LONGEST_AUTHOR = 200
_ROLE_CLAIMS = ("roles", "http://schemas.microsoft.com/ws/2008/06/identity/claims/role")


class Role(StrEnum):
    """What somebody may do; the names are those of the app roles."""

    READER = "reader"
    RELEASER = "releaser"


ALLOWS: Mapping[Role, frozenset[Role]] = {
    Role.READER: frozenset({Role.READER}),
    Role.RELEASER: frozenset({Role.READER, Role.RELEASER}),
}
"""For each role of a caller, the roles that it stands for."""


class Caller(msgspec.Struct, frozen=True):
    """Somebody who calls: their name if they signed in, and what they may do."""

    name: str | None
    roles: frozenset[Role]

    def may(self, role: Role) -> bool:
        """Return whether one of the caller's roles allows what this one does."""
        return any(role in ALLOWS[own] for own in self.roles)

    def check(self, role: Role) -> None:
        """Raise NotAllowed, with who can change that, unless the caller may do what the role does."""
        if not self.may(role):
            own = ", ".join(sorted(self.roles)) or "none"
            raise NotAllowed(
                f"this needs the role {role}, and {self.name} has {own}: whoever administers Shipmate's enterprise "
                "application in Microsoft Entra ID can assign it (users and groups)"
            )


class _Claim(msgspec.Struct):
    typ: str
    val: str


class _Principal(msgspec.Struct):
    claims: tuple[_Claim, ...] = ()
    role_typ: str = ""


def auth_level(environment: Mapping[str, str]) -> func.AuthLevel:
    """Return what the Functions host asks of callers: a key, unless App Service authentication asks them to sign in."""
    return func.AuthLevel.ANONYMOUS if is_sign_in_on(environment) else func.AuthLevel.FUNCTION


def caller_of(req: func.HttpRequest, *, sign_in: bool) -> Caller:
    """Return who calls. Raises NotSignedIn where authentication is on and the request names nobody."""
    if not sign_in:
        return Caller(None, frozenset({Role.RELEASER}))  # the host checked the function's key
    header = req.headers.get("x-ms-client-principal")
    name = req.headers.get("x-ms-client-principal-name") or req.headers.get("x-ms-client-principal-id")
    if not header or not name:
        raise NotSignedIn("sign in: send a token of Microsoft Entra ID for Shipmate in the header Authorization")
    try:
        principal = msgspec.json.decode(base64.b64decode(header, validate=True), type=_Principal)
    except (binascii.Error, msgspec.DecodeError, ValueError, RecursionError) as error:
        raise NotSignedIn(f"sign in again: the header X-MS-CLIENT-PRINCIPAL cannot be read ({error})") from error
    kinds = (*_ROLE_CLAIMS, principal.role_typ)
    values = {claim.val for claim in principal.claims if claim.typ in kinds}
    return Caller(_checked(name), frozenset(role for role in Role if role.value in values))


def author_of(caller: Caller, named: str | None) -> str:
    """Return who is on record for a command: the person who signed in, else whom the body names. Raises Invalid."""
    author = _checked(caller.name or named or "")
    if not author:
        raise Invalid('say who asks: sign in, or give "author" in the body')
    return author


def _checked(name: str) -> str:
    name = name.strip()
    if len(name) > LONGEST_AUTHOR or not name.isprintable():
        raise Invalid(f"an author's name has at most {LONGEST_AUTHOR} characters, and no control characters")
    return name
