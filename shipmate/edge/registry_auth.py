"""How Shipmate proves to a registry who it is: nothing, a password, or Azure's identity; tokens kept while they last.

The registry says what it wants in the challenge of a 401 (RFC 9110 section 11.6.1; distribution, "Token Authentication
Specification"): Basic, or Bearer with a realm that hands out tokens for scopes. After the first challenge a token is
sent at once. Azure Container Registry exchanges an Entra token for a refresh token of its own first.

A password goes to the registry and to the realm it names; an Entra token goes to the registry itself, never elsewhere.
"""

import base64
import re
import threading
import time
from collections.abc import Mapping
from contextlib import suppress

import httpx
import msgspec
from azure.core.credentials import TokenCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError

from shipmate.errors import NotAllowed, Retryable

ENTRA_SCOPE = "https://containerregistry.azure.net/.default"
_SHORTEST_LIFE = 60.0
"""Seconds a token lasts that does not say how long (the token specification's default)."""


AZURE_REGISTRIES = (".azurecr.io", ".azurecr.cn", ".azurecr.us")
"""What the login servers of Azure Container Registry end with, in each of Azure's clouds."""

AZURE_ROLES = (
    "in Azure, Shipmate's identity needs Container Registry Repository Writer on the registry, and AcrPush too "
    'unless the registry\'s mode is "RBAC Registry + ABAC Repository Permissions"'
)
"""What to do about a refusal, whichever role assignment permissions mode a registry is in.

In "RBAC Registry Permissions" AcrPush pushes and pulls, and the other role locks images; in "RBAC Registry + ABAC
Repository Permissions" AcrPush is not honoured and the other does all ("Azure attribute-based access control repository
permissions" of its documentation). A missing role is refused with 401 "authentication required"
(https://aka.ms/acr/authorization).
"""


class Anonymous(msgspec.Struct, frozen=True, tag=True):
    """No credentials: for registries that ask for none, or hand out tokens to everybody."""


class Password(msgspec.Struct, frozen=True, tag=True):
    """A user name and a password."""

    username: str
    password: str

    @property
    def header(self) -> str:
        """The value of the header Authorization (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()

    def __repr__(self) -> str:
        return f"Password({self.username!r}, …)"


class _Refused(NotAllowed):
    """A token endpoint answered 401."""


class Challenge(msgspec.Struct, frozen=True):
    """One challenge of a WWW-Authenticate header: the scheme in lower case, and its parameters."""

    scheme: str
    parameters: dict[str, str]


# RFC 9110 section 5.6.2 calls it a token
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'\s*({_WORD})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_WORD}))\s*(?:,|$)')
_SCHEME = re.compile(rf"[\s,]*({_WORD})(?:\s+|$)")


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """Return the challenges of a WWW-Authenticate header; what does not follow the grammar ends the list."""
    challenges: list[Challenge] = []
    position = 0
    while scheme := _SCHEME.match(header, position):
        position = scheme.end()
        parameters: dict[str, str] = {}
        while found := _PARAMETER.match(header, position):
            quoted = re.sub(r"\\(.)", r"\1", found[2]) if found[2] is not None else found[3]
            parameters[found[1].lower()] = quoted
            position = found.end()
        challenges.append(Challenge(scheme[1].lower(), parameters))
    return tuple(challenges)


class _Reply(msgspec.Struct):
    """A token endpoint's answer, of the token specification or of OAuth 2.0."""

    token: str | None = None
    access_token: str | None = None
    refresh_token: str | None = None
    expires_in: float | None = None


class _Claims(msgspec.Struct):
    exp: float
    iat: float | None = None
    nbf: float | None = None


class _Token(msgspec.Struct, frozen=True):
    text: str
    until: float  # by the monotonic clock

    @property
    def lasts(self) -> bool:
        return time.monotonic() < self.until


class Authorizer:
    """The header Authorization for one registry, by scopes. Safe to share between threads.

    `base` is the registry's origin; `client` follows no redirects.
    """

    def __init__(
        self, client: httpx.Client, base: httpx.URL, credentials: Anonymous | Password | TokenCredential
    ) -> None:
        self._client = client
        self._base = base
        self._credentials = credentials
        self._challenge: Challenge | None = None
        self._tokens: dict[frozenset[str], _Token] = {}
        self._refresh: _Token | None = None
        self._lock = threading.Lock()  # held for no longer than it takes to look something up
        self._fetching: dict[frozenset[str], threading.Lock] = {}  # held while these scopes' token is asked for
        self._exchanging = threading.Lock()

    def header(self, scopes: frozenset[str]) -> str | None:
        """Return what to send with a request that needs these scopes; None before the registry asked for anything.

        Raises NotAllowed, Retryable.
        """
        challenge = self._challenge
        return None if challenge is None else self._answer(challenge, scopes)

    def challenged(self, response: httpx.Response, scopes: frozenset[str], sent: str | None) -> str:
        """Return what to send instead, after a request with `sent` was answered 401.

        Raises NotAllowed if there is nothing better to send, Retryable.
        """
        challenge = self._pick(response)
        asked = frozenset(_ordered(scope) for scope in challenge.parameters.get("scope", "").split())
        with self._lock:
            self._challenge = challenge
            known = self._tokens.get(scopes)
            if known is not None and f"Bearer {known.text}" == sent:
                del self._tokens[scopes]
        header = self._answer(challenge, scopes, asked)
        if header == sent:
            raise NotAllowed(f"{self._base.host} refused the credentials: {_said(response)}{self._advice}")
        return header

    @property
    def _advice(self) -> str:
        """What to do about a refusal, at the end of its message."""
        return "" if isinstance(self._credentials, Anonymous | Password) else f"; {AZURE_ROLES}"

    def _pick(self, response: httpx.Response) -> Challenge:
        challenges = {challenge.scheme: challenge for challenge in parse_challenges(_challenge_of(response))}
        challenge = challenges.get("bearer") or challenges.get("basic")
        if challenge is None:
            raise NotAllowed(f"{self._base.host} answered 401 and asks for no known proof: {_challenge_of(response)!r}")
        return challenge

    def _answer(self, challenge: Challenge, scopes: frozenset[str], asked: frozenset[str] = frozenset()) -> str:
        if challenge.scheme == "basic":
            if not isinstance(self._credentials, Password):
                raise NotAllowed(f"{self._base.host} wants a user name and a password, and none are configured")
            return self._credentials.header
        with self._lock:
            turn = self._fetching.setdefault(scopes, threading.Lock())
        with turn:
            token = self._tokens.get(scopes)
            if token is None or not token.lasts:
                token = self._fetch(challenge.parameters, scopes | asked)
                with self._lock:
                    self._tokens[scopes] = token
        return f"Bearer {token.text}"

    def _fetch(self, parameters: Mapping[str, str], scopes: frozenset[str]) -> _Token:
        service = parameters.get("service", self._base.host)
        realm = self._realm(parameters)
        if not isinstance(self._credentials, Anonymous | Password):
            return self._fetch_from_azure(self._credentials, realm, service, scopes)
        headers = {"Authorization": self._credentials.header} if isinstance(self._credentials, Password) else {}
        query = [*realm.params.multi_items(), ("service", service), *(("scope", one) for one in sorted(scopes))]
        return self._access_token(self._client.build_request("GET", realm.copy_with(params=query), headers=headers))

    def _fetch_from_azure(
        self, credential: TokenCredential, realm: httpx.URL, service: str, scopes: frozenset[str]
    ) -> _Token:
        """Return a token for the kept refresh token or, if that was revoked since, for a new one."""
        if not same_origin(realm, self._base):
            raise NotAllowed(f"{self._base.host} sends for tokens to {realm.host}: an Entra token is not sent there")
        kept = self._refresh
        if kept is not None and kept.lasts:
            with suppress(_Refused):
                return self._fetch_with(kept, realm, service, scopes)
        return self._fetch_with(self._refresh_token(credential, service), realm, service, scopes)

    def _fetch_with(self, refresh: _Token, realm: httpx.URL, service: str, scopes: frozenset[str]) -> _Token:
        """Return a token for a refresh token, which is not kept if it is refused."""
        form = {
            "grant_type": "refresh_token",
            "service": service,
            "scope": " ".join(sorted(scopes)),
            "refresh_token": refresh.text,
        }
        try:
            return self._access_token(self._client.build_request("POST", realm, data=form))
        except _Refused:
            with self._exchanging:
                if self._refresh is refresh:
                    self._refresh = None
            raise

    def _realm(self, parameters: Mapping[str, str]) -> httpx.URL:
        try:
            realm = httpx.URL(parameters.get("realm", ""))
        except httpx.InvalidURL:
            realm = httpx.URL("")
        if realm.scheme == "https" or (realm.scheme == "http" and is_loopback(realm)):
            return realm
        raise NotAllowed(f"{self._base.host} sends for tokens to {str(realm)[:200]!r}, which is not https")

    def _refresh_token(self, credential: TokenCredential, service: str) -> _Token:
        """Return the registry's own refresh token for an Entra token, unless another thread just got one.

        Source: "Authenticate with a registry", `POST /oauth2/exchange`, of Azure Container Registry's documentation.
        """
        with self._exchanging:
            if self._refresh is None or not self._refresh.lasts:
                form = {"grant_type": "access_token", "service": service, "access_token": _entra_token(credential)}
                request = self._client.build_request("POST", self._base.join("/oauth2/exchange"), data=form)
                self._refresh = _token(request, self._ask(request).refresh_token, None)
            return self._refresh

    def _access_token(self, request: httpx.Request) -> _Token:
        reply = self._ask(request)
        return _token(request, reply.access_token or reply.token, reply.expires_in)

    def _ask(self, request: httpx.Request) -> _Reply:
        host = request.url.host
        try:
            response = self._client.send(request)
        except httpx.TransportError as error:
            raise Retryable(f"{host} did not hand out a token: {error!r}") from error
        if response.status_code == 429 or response.status_code >= 500:
            raise Retryable(
                f"{host} did not hand out a token: {_said(response)}",
                after_seconds=retry_after_seconds(response.headers),
            )
        if response.status_code != 200:
            kind = _Refused if response.status_code == 401 else NotAllowed
            raise kind(f"{host} hands out no token to Shipmate's identity: {_said(response)}{self._advice}")
        try:
            return msgspec.json.decode(response.content, type=_Reply)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Retryable(f"{host} answered something else than a token: {error}") from error


def _entra_token(credential: TokenCredential) -> str:
    try:
        return credential.get_token(ENTRA_SCOPE).token
    except ClientAuthenticationError as error:
        raise NotAllowed(f"Azure gives Shipmate no token for the registry: {error.message}") from error
    except AzureError as error:
        raise Retryable(f"Azure gave no token for the registry: {error.message}") from error


def _token(request: httpx.Request, text: str | None, expires_in: float | None) -> _Token:
    if not text:
        raise Retryable(f"{request.url.host} answered something else than a token")
    life = expires_in or _life_of(text) or _SHORTEST_LIFE
    return _Token(text, time.monotonic() + life - min(60.0, life / 4))


def _life_of(token: str) -> float | None:
    """Return for how many seconds a JSON Web Token was issued (RFC 7519); None if it does not say, or is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(parts[1] + "=="), type=_Claims)
    except (ValueError, msgspec.DecodeError):
        return None
    issued_at = claims.iat or claims.nbf or time.time()
    return max(0.0, claims.exp - issued_at)


def _ordered(scope: str) -> str:
    """Return a scope with its actions in order: distribution names them in a different one each time."""
    resource, colon, actions = scope.rpartition(":")
    return f"{resource}{colon}{','.join(sorted(actions.split(',')))}"


def _challenge_of(response: httpx.Response) -> str:
    return ", ".join(response.headers.get_list("www-authenticate"))


def _said(response: httpx.Response) -> str:
    return f"{response.status_code} {response.text[:300].strip()}"


def retry_after_seconds(headers: httpx.Headers) -> float | None:
    """Return how long an answer asks to wait, if it says so in seconds (RFC 9110 section 10.2.3)."""
    said = headers.get("Retry-After", "")
    return float(said) if said.isascii() and said.isdecimal() else None


def same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Return whether two addresses have scheme, host and port in common (RFC 6454)."""
    return _origin(one) == _origin(other)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def is_loopback(url: httpx.URL) -> bool:
    """Return whether an address is on this machine."""
    return url.host in ("localhost", "::1") or re.fullmatch(r"127(\.\d+){3}", url.host) is not None
