"""Requests to the Kubernetes API server, and what its refusals and broken connections mean for the caller.

The official client finds the server, its certificates and the credentials, and renews them; requests then go through
its connection pool as they are: its generated methods would parse each reply into models that nobody needs (a rollout
is watched by a request every quarter second) and re-serialise the bodies that the pod proxy carries. Nothing is retried
here.
"""

import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes.client import ApiClient, Configuration
from urllib3.connection import HTTPSConnection
from urllib3.util.ssl_ import create_urllib3_context

from shipmate.errors import Ambiguous, Conflict, Invalid, Misconfigured, NotAllowed, NotFound, Retryable, ShipmateError

CONNECTIONS = 32
"""Kept open to a service: as many as a Functions worker may have threads; each watches a rollout of its own."""

type Reply = tuple[int, dict[str, str], bytes]


class Late(urllib3.exceptions.HTTPError):
    """A reply began, and was not all there in time."""


class ApiServer:
    """One API server, where `find` says it is. Safe to share between threads."""

    def __init__(self, find: Callable[[], Configuration], *, timeout_seconds: float) -> None:
        """`find` says where the server is and what is trusted there.

        It is asked at the first use, and again if that failed, nobody knows the server's name any more, or the server
        shows a certificate that is not trusted.
        """
        self._find = find
        self._client: ApiClient | None = None
        self._lock = threading.Lock()
        self._timeout_seconds = timeout_seconds

    def connect(self) -> ApiClient:
        """Return the client, made without a request; raise as `find` does, and Misconfigured for a bad certificate."""
        with self._lock:
            if self._client is None:
                configuration = self._find()
                _require_certificates(configuration)
                configuration.retries = False  # a repeat is the caller's decision
                configuration.connection_pool_maxsize = CONNECTIONS
                self._client = ApiClient(configuration)
                pools = {"http": urllib3.HTTPConnectionPool, "https": _Connections}
                self._client.rest_client.pool_manager.pool_classes_by_scheme = pools
            return self._client

    def close(self) -> None:
        """Close the connections, if there are any."""
        if self._client is not None:
            self._client.rest_client.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = "application/json",
    ) -> bytes:
        """Send a request and return the body of the reply; a refusal is the error that names the next move."""
        url = f"{path}?{urlencode(query)}" if query else path
        headers = {"content-type": content_type} if body is not None else {}
        status, reply_headers, data = self.exchange(method, url, body, headers, self._timeout_seconds)
        if status < 300:
            return data
        trouble = status_of_server(data) or {"message": data[:500].decode(errors="replace")}
        raise refusal(status, reply_headers, f"{method} {path}", trouble, writes=method != "GET")

    def exchange(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout_seconds: float,
        *,
        limit: int | None = None,
    ) -> Reply:
        """Send one request as it is; raise Retryable if it cannot have arrived, Ambiguous if a write may have.

        With a limit, no more than one byte beyond it is read of the reply's body, and `timeout_seconds` are for all of
        it: what comes drop by drop ends at the first drop after them.
        """
        client = self.connect()
        configuration = client.configuration
        proof = {setting["key"]: setting["value"] for setting in configuration.auth_settings().values()}
        until = time.monotonic() + timeout_seconds
        what = f"{method} {path.partition('?')[0]} at {configuration.host}"
        try:
            reply = client.rest_client.pool_manager.request(
                method,
                configuration.host + path,
                body=body,
                headers={**headers, **proof},
                timeout=urllib3.Timeout(connect=min(5.0, timeout_seconds), read=timeout_seconds),
                redirect=False,
                preload_content=limit is None,
            )
            data = reply.data if limit is None else _read(reply, limit, until)
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as error:
            if isinstance(error, urllib3.exceptions.NameResolutionError):
                self._forget(client)  # a cluster that was made anew has another name
            raise Retryable(f"{what} did not reach the API server: {error}") from error
        except urllib3.exceptions.HTTPError as error:
            if _is_untrusted(error):
                self._forget(client)
                raise NotAllowed(
                    f"{what}: the API server's certificate is not the one the settings trust: {error}"
                ) from error
            kind = Retryable if method == "GET" else Ambiguous
            raise kind(f"{what} got no reply: {error}") from error
        return reply.status, {key.lower(): value for key, value in reply.headers.items()}, data

    def _forget(self, client: ApiClient) -> None:
        """Look for the cluster anew at the next use, unless another thread did since this client was made."""
        with self._lock:
            if self._client is client:
                self._client = None
                client.rest_client.close()


def _read(reply: urllib3.BaseHTTPResponse, limit: int, until: float) -> bytes:
    """Return a reply's body, at most one byte beyond the limit, and close it; raise Late if it comes too slowly."""
    data = bytearray()
    with closing(reply):
        while piece := reply.read1(limit + 1 - len(data)):
            data += piece
            if time.monotonic() > until and reply.length_remaining != 0:
                raise Late(f"{len(data)} bytes came in time, and not all")
    return bytes(data)


def status_of_server(data: bytes) -> dict[str, Any] | None:
    """Return the API server's own Status object, None if the bytes are something else."""
    try:
        decoded = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if isinstance(decoded, dict) and decoded.get("kind") == "Status" and decoded.get("apiVersion") == "v1":
        return decoded
    return None


def refusal(
    status: int, headers: Mapping[str, str], what: str, trouble: Mapping[str, Any], *, writes: bool
) -> ShipmateError:
    """Return the error that names the caller's next move for a reply of the API server."""
    words = str(trouble.get("message") or status)
    if len(words) > 1000:  # a refused patch quotes the whole object before it says what is wrong
        words = f"{words[:200]} … {words[-500:]}"
    message = f"{what}: {words}"
    after = headers.get("retry-after", "")
    refused = Misconfigured if writes else Invalid  # what Shipmate writes is made of its settings and the Deployment
    if status == 404:
        return NotFound(message)
    if status in (401, 403):
        return NotAllowed(message)
    if status == 422 and "ValidatingAdmissionPolicy" in message:
        return NotAllowed(message)
    if status in (409, 422):
        # 422 of a JSON Patch: a test failed ("the server rejected our request due to an error in our request")
        invalid = status == 422 and (trouble.get("details") or {}).get("causes")
        return refused(message) if invalid else Conflict(message)
    if status == 429:
        return Retryable(message, after_seconds=float(after) if after.isdigit() else None)
    if status < 500:
        return refused(message)
    return Ambiguous(message) if writes else Retryable(message)


# -- TLS -------------------------------------------------------------------------------------------------------------


def _require_certificates(configuration: Configuration) -> None:
    """Raise Misconfigured if a certificate or key of the settings cannot be read: a request would only break off."""
    if not configuration.host.startswith("https:"):
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if configuration.ssl_ca_cert or configuration.ca_cert_data:
            context.load_verify_locations(configuration.ssl_ca_cert, cadata=configuration.ca_cert_data)
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, configuration.key_file)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise Misconfigured(
            f"the certificates for the API server at {configuration.host} cannot be used: {error}; correct what "
            "SHIPMATE_CLUSTER names"
        ) from error


class _Connection(HTTPSConnection):
    """A connection that takes the certificates which Go's clients take, kubectl among them.

    For Python 3.13 and later urllib3 sets VERIFY_X509_STRICT, which refuses certificates without key identifiers; the
    CAs of older clusters have none (https://github.com/kubernetes-client/python/issues/2394). The chain and the host
    name are checked all the same.
    """

    def connect(self) -> None:
        """Connect with a TLS context of its own, as urllib3 does: certificates are loaded into it here."""
        if self.cert_reqs == ssl.CERT_REQUIRED:
            self.ssl_context = create_urllib3_context()
            self.ssl_context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            if not (self.ca_certs or self.ca_cert_data):
                self.ssl_context.load_default_certs()
        super().connect()


class _Connections(urllib3.HTTPSConnectionPool):
    """Makes such connections."""

    ConnectionCls = _Connection


def _is_untrusted(error: urllib3.exceptions.HTTPError) -> bool:
    """Whether the server's certificate was refused.

    Any other trouble with TLS may come behind a request that was sent, and urllib3 gives it the same class.
    """
    return isinstance(error, urllib3.exceptions.SSLError) and any(
        isinstance(cause, ssl.SSLCertVerificationError) for cause in error.args
    )
