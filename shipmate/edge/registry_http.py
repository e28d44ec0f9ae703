"""HTTP to one registry: proof of identity, patience with passing trouble, and answers turned into errors.

Used by `shipmate.edge.registry`, which knows the distribution API; this knows only HTTP. Nothing is ever sent with
credentials to another place than the registry's own origin.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import httpx
import msgspec
from azure.core.credentials import TokenCredential

from shipmate.edge.registry_auth import (
    AZURE_ROLES,
    Anonymous,
    Authorizer,
    Password,
    is_loopback,
    retry_after_seconds,
    same_origin,
)
from shipmate.errors import Misconfigured, NotAllowed, NotFound, Rejected, Retryable, ShipmateError

type Credentials = Anonymous | Password | TokenCredential

ANSWER_LIMIT = 4 << 20
"""The largest answer that is read whole, in bytes: a manifest's limit in Azure Container Registry."""
TRIES = 4
QUICK_SECONDS = 20.0
"""How long a registry may say nothing when it is asked for something small: a manifest, a token, what there is."""
BULK_SECONDS = 120.0
"""Likewise while bytes of a layer go to it or come from it: it may write all of a large one before it answers."""
_BULKY = ("PATCH", "PUT")
MOST_REDIRECTS = 5


@dataclass(frozen=True)
class Reply:
    """An answer, read whole."""

    status: int
    headers: httpx.Headers
    content: bytes
    url: httpx.URL

    @property
    def codes(self) -> frozenset[str]:
        """The error codes in the body (distribution-spec, "Error Codes")."""
        try:
            return frozenset(error.code for error in msgspec.json.decode(self.content, type=_Errors).errors)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return frozenset()

    @property
    def said(self) -> str:
        """The status and how the body begins, for a message."""
        return f"{self.status} {self.content[:300].decode(errors='replace').strip()}".strip()


class _Error(msgspec.Struct):
    code: str = ""


class _Errors(msgspec.Struct):
    errors: tuple[_Error, ...] = ()


class Interrupted(Exception):
    """A request broke off or met passing trouble: send it again, or ask how far it came and go on there."""

    def __init__(self, message: str, after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.after_seconds = after_seconds


class BrokeOff(Interrupted):
    """The connection broke before there was an answer, or a 5xx that names no time to come back stood for one.

    A front end that loses the registry, or has not the patience for a large request, answers 502 or 504.
    """


class RegistryHttp:
    """HTTP to one registry. Safe to share between threads."""

    def __init__(self, url: str, credentials: Credentials) -> None:
        self.base = _base(url)
        self._client = httpx.Client(
            headers={"User-Agent": "shipmate", "Accept-Encoding": "identity"},
            timeout=_silence(QUICK_SECONDS),
            limits=httpx.Limits(keepalive_expiry=30),
            trust_env=not is_loopback(self.base),
        )
        self._authorizer = Authorizer(self._client, self.base, credentials)

    @property
    def name(self) -> str:
        """The registry as image references spell it."""
        return self.base.netloc.decode()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def own(self, location: str, current: httpx.URL) -> httpx.URL:
        """Return an address that the registry sent us to; raise NotAllowed if it is not its own."""
        url = current.join(location)
        if not same_origin(url, self.base):
            raise NotAllowed(
                f"{self.name} sent an upload to {url.host}:{url.port}: refused, credentials go to {self.name} alone; "
                "make the registry answer with its own address (behind a proxy: its relative-URL setting)"
            )
        return url

    def send(
        self,
        method: str,
        url: httpx.URL | str,
        scopes: frozenset[str],
        *,
        expected: frozenset[int] = frozenset({200}),
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> Reply:
        """Send a request that may be repeated without harm, until it is answered with an expected status.

        Raises NotFound, NotAllowed, Retryable.
        """
        full = self.base.join(url)
        reply = self.patiently(lambda: self.send_once(method, full, scopes, headers=headers, body=lambda: content))
        if reply.status not in expected:
            raise self.translated(reply, method)
        return reply

    def exists(self, url: str, scopes: frozenset[str]) -> bool:
        """Return whether there is something at an address. Raises NotAllowed, Retryable."""
        return self.send("HEAD", url, scopes, expected=frozenset({200, 302, 307, 404})).status != 404

    def patiently[T](self, request: Callable[[], T]) -> T:
        """Return a request's answer, repeating it while it is interrupted; raise Retryable when that does not help."""
        for attempt in range(TRIES):
            try:
                return request()
            except Interrupted as error:
                if attempt == TRIES - 1 or error.after_seconds is not None:
                    raise Retryable(str(error), after_seconds=error.after_seconds) from error
                pause(attempt)
        raise AssertionError("unreachable")

    def send_once(
        self,
        method: str,
        url: httpx.URL,
        scopes: frozenset[str],
        *,
        headers: Mapping[str, str] | None,
        body: Callable[[], bytes | Iterator[bytes] | None],
    ) -> Reply:
        """Send a request, whose body may be streamed, and return the answer: whatever its status, but not 429 or 5xx.

        Raises Interrupted when the same may succeed later, BrokeOff if there was no answer of the registry's own; what
        `body` raises, goes through.
        """
        timeout = _silence(BULK_SECONDS if method in _BULKY else QUICK_SECONDS)
        try:
            with self._authorized(method, url, scopes, headers, body, timeout=timeout) as response:
                self._not_now(response)
                return _read(response)
        except httpx.TransportError as error:
            raise BrokeOff(f"the connection to {self.name} broke: {error!r}") from error

    @contextmanager
    def stream(
        self, url: str, scopes: frozenset[str], headers: Mapping[str, str], *, silence_seconds: float
    ) -> Iterator[httpx.Response]:
        """Send a GET whose answer is read piece by piece, also from another host that the registry sends us to.

        Raises NotFound, NotAllowed, and Interrupted, also when the connection breaks while the answer is read, or
        nothing comes for so long.
        """
        timeout = _silence(silence_seconds)
        try:
            at = self.base.join(url)
            with self._authorized("GET", at, scopes, headers, lambda: None, timeout=timeout) as response:
                if not response.is_redirect:
                    yield self._successful(response)
                    return
            for _ in range(MOST_REDIRECTS):
                target = self._elsewhere(response)
                with self._client.stream("GET", target, headers=dict(headers), timeout=timeout) as response:
                    if not response.is_redirect:
                        yield self._successful(response)
                        return
        except httpx.TransportError as error:
            raise Interrupted(f"the connection to {self.name} broke: {error!r}") from error
        raise Retryable(f"{self.name} redirects more than {MOST_REDIRECTS} times")

    def _successful(self, response: httpx.Response) -> httpx.Response:
        self._not_now(response)
        if response.status_code not in (200, 206):
            raise self.translated(_read(response), "GET")
        return response

    def _not_now(self, response: httpx.Response) -> None:
        if response.status_code == 429 or response.status_code >= 500:
            reply = _read(response)
            after_seconds = retry_after_seconds(reply.headers)
            kind = BrokeOff if response.status_code >= 500 and after_seconds is None else Interrupted
            raise kind(f"{self.name} answered {reply.said}", after_seconds)

    def _elsewhere(self, response: httpx.Response) -> httpx.URL:
        """Return where a blob is to be had instead; the address is its own permission, credentials stay here."""
        target = response.url.join(response.headers.get("Location", ""))
        if target.scheme != "https" and not (is_loopback(target) and is_loopback(self.base)):
            raise NotAllowed(f"{self.name} keeps blobs at {target.host} without https: they are not fetched from there")
        return target

    @contextmanager
    def _authorized(
        self,
        method: str,
        url: httpx.URL,
        scopes: frozenset[str],
        headers: Mapping[str, str] | None,
        body: Callable[[], bytes | Iterator[bytes] | None],
        *,
        timeout: httpx.Timeout,
    ) -> Iterator[httpx.Response]:
        """Send a request, once more with better proof if the registry wants it."""

        def ask(proof: str | None) -> AbstractContextManager[httpx.Response]:
            return self._client.stream(method, url, headers=_with(headers, proof), content=body(), timeout=timeout)

        sent = self._authorizer.header(scopes)
        with ask(sent) as response:
            if response.status_code != 401:
                yield response
                return
            response.read()
        better = self._authorizer.challenged(response, scopes, sent)
        with ask(better) as response:
            yield response

    def translated(self, reply: Reply, method: str) -> ShipmateError:
        """Return the error that an answer means."""
        what = f"{method} {reply.url.path}"
        said = reply.said
        if reply.status == 404:
            return NotFound(f"{self.name} has no {reply.url.path.removeprefix('/v2/')}: {said}")
        if reply.status == 401:
            return NotAllowed(f"{self.name} does not accept Shipmate's credentials for {what}: {said}; {AZURE_ROLES}")
        if reply.status == 403:
            return NotAllowed(f"{self.name} refused {what}: {said}; {AZURE_ROLES}")
        if method != "GET" and "REGISTRY_DISALLOWED_OPERATION" in reply.codes:  # 405, by Azure's registry alone
            repository = re.sub("/(manifests|blobs)/.*", "", reply.url.path.removeprefix("/v2/"))
            return NotAllowed(
                f"{self.name} refused {what}: {said}; the image, its tag or the repository is locked: unlock it by "
                f"`az acr repository update --name {self.base.host.partition('.')[0]} --image {repository}@<digest> "
                f"--write-enabled true`, or with --image {repository}:<tag>, or --repository {repository}"
            )
        return Retryable(f"{self.name} answered {what} with {said}")


def pause(attempt: int, *, at_least_seconds: float = 0.0) -> None:
    """Wait a moment before an attempt is repeated, longer each time: 0.1 s, 0.2 s … 3.2 s."""
    time.sleep(max(at_least_seconds, 0.1 * 2.0 ** min(attempt, 5)))


def _base(url: str) -> httpx.URL:
    try:
        base = httpx.URL(url if "://" in url else f"https://{url}")
    except httpx.InvalidURL as error:
        raise Misconfigured(f"{url!r} is no registry: {error}") from error
    if not base.host or base.scheme not in ("http", "https") or base.path != "/":
        raise Misconfigured(f"{url!r} is no registry: expected a login server such as <name>.azurecr.io")
    if base.scheme == "http" and not is_loopback(base):
        raise Misconfigured(f"{url!r} is plain http: that is for registries on this machine only, use https")
    return base


def _silence(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(seconds, connect=5)


def _with(headers: Mapping[str, str] | None, authorization: str | None) -> dict[str, str]:
    return {**(headers or {}), **({"Authorization": authorization} if authorization else {})}


def _read(response: httpx.Response) -> Reply:
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > ANSWER_LIMIT:
            raise Rejected("BlobTooLarge", f"{response.url.path} has more than {ANSWER_LIMIT} bytes; that is too large")
    return Reply(response.status_code, response.headers, bytes(content), response.url)
