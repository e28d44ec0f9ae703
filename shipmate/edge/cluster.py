"""The Kubernetes API server: the Deployment of a target, its pods, and the gate's pods.

The official client finds the server, its certificates and the credentials, and renews them; requests then go through
its connection pool as they are: its generated methods would parse each reply into models that nobody needs (a rollout
is watched by a request every quarter second) and re-serialise the bodies that the pod proxy carries. Every read is a
plain GET, which the API server answers from etcd's quorum; there is no cache to be stale. Nothing is retried here.
"""

import base64
import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import quote, urlencode

import httpx
import urllib3
import yaml
from azure.core.exceptions import AzureError, ClientAuthenticationError
from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from urllib3.connection import HTTPSConnection
from urllib3.util.ssl_ import create_urllib3_context

from shipmate.core.answers import LONGEST_REPLY, TOO_LONG
from shipmate.core.fence import Operation
from shipmate.core.gate_pod import GATE_SELECTOR
from shipmate.core.views import PAIR, DeploymentView, Object, PodView, view_deployment, view_pod, view_pods
from shipmate.errors import Ambiguous, Conflict, Invalid, Misconfigured, NotAllowed, NotFound, Retryable, ShipmateError

CONNECTIONS = 32
"""Kept open to a service: as many as a Functions worker may have threads; each watches a rollout of its own."""
FIELD_MANAGER = "shipmate"
AKS_SCOPE = "6dae42f8-4368-4678-94ff-3960e28e3630/.default"
"""The scope of a token for the API server of any AKS cluster with Entra ID; the id is Microsoft's AKS AAD server."""
ARM_API_VERSION = "2025-05-01"  # of Microsoft.ContainerService/managedClusters
RENEW_BEFORE_SECONDS = 300.0

type Reply = tuple[int, dict[str, str], bytes]


class Token(Protocol):
    """An access token, as azure-identity gives it."""

    @property
    def token(self) -> str:
        """The bearer token."""

    @property
    def expires_on(self) -> int:
        """When it ends, in seconds of Unix time."""


class Credential(Protocol):
    """What azure-identity's credentials are to this module."""

    def get_token(self, *scopes: str) -> Token:
        """Return an access token for the scopes."""


class Cluster:
    """One Kubernetes cluster, seen with Shipmate's own rights.

    Every method raises NotFound, NotAllowed, Conflict, Retryable, Misconfigured if there is no such cluster, and, where
    it writes, Ambiguous when the request may have taken effect although no reply said so.
    """

    def __init__(self, find: Callable[[], Configuration], *, registry: str, timeout_seconds: float = 10.0) -> None:
        """`find` says where the cluster is and what it trusts.

        It is asked at the first use, and again if that failed or the server shows a certificate that is not trusted.
        """
        self.registry = registry
        self._find = find
        self._client: ApiClient | None = None
        self._lock = threading.Lock()
        self._timeout_seconds = timeout_seconds

    @classmethod
    def connect(
        cls, setting: str, *, registry: str, credential: Credential | None = None, timeout_seconds: float = 10.0
    ) -> Self:
        """Return the cluster that a setting names.

        `kubeconfig:<path>#<context>`, `in-cluster`, or `aks:<resource id>`, which needs a credential. Raises
        Misconfigured for another form, a file that cannot be read and a context that is not in it. Azure is asked where
        an AKS cluster is when it is used first: without Azure Resource Manager, events are taken in all the same.
        `registry` is the login server that image references name, as the cluster's nodes pull them.
        """
        kind, _, rest = setting.partition(":")
        if kind == "aks" and rest and credential is not None:
            return cls(lambda: aks_configuration(rest, credential), registry=registry, timeout_seconds=timeout_seconds)
        find: Callable[[], Configuration]
        if kind == "kubeconfig" and rest:
            find = partial(_from_kubeconfig, rest)
        elif setting == "in-cluster":
            find = _from_pod
        else:
            raise Misconfigured(
                f"SHIPMATE_CLUSTER is {setting!r}, which names no cluster: expected kubeconfig:<path>#<context>, "
                "in-cluster or aks:<resource id> (with a credential)"
            )
        cluster = cls(find, registry=registry, timeout_seconds=timeout_seconds)
        cluster._connected()  # without a request: what is wrong with these settings is told at the start
        return cluster

    def close(self) -> None:
        """Close the connections, if there are any."""
        if self._client is not None:
            self._client.rest_client.close()

    # -- the Deployment ------------------------------------------------------------------------------------------

    def deployment(self, namespace: str, name: str) -> DeploymentView:
        """Return a Deployment as it is now."""
        return view_deployment(self._send("GET", _deployment_path(namespace, name)))

    def patch_deployment(self, namespace: str, name: str, operations: Sequence[Operation]) -> DeploymentView:
        """Apply a JSON Patch and return the Deployment after it; Conflict, and no change, if one of its tests fails.

        An admission policy that refuses it is NotAllowed; what makes no Deployment is Misconfigured.
        """
        reply = self._send(
            "PATCH",
            _deployment_path(namespace, name),
            query={"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"},
            body=json.dumps(list(operations)).encode(),
            content_type="application/json-patch+json",
        )
        return view_deployment(reply)

    # -- pods ----------------------------------------------------------------------------------------------------

    def pods(self, namespace: str, selector: str) -> tuple[PodView, ...]:
        """Return the pods that a label selector finds, by name."""
        return view_pods(self._send("GET", _pods_path(namespace), query={"labelSelector": selector}))

    def pod_logs(self, namespace: str, pod: str, *, container: str | None = None, tail: int = 20) -> str:
        """Return the last lines of a container's log; empty while it has not started.

        A container that ended and was started again gives the log of the run that ended.
        """
        query = {"tailLines": str(tail)} | ({"container": container} if container else {})
        for previous in ("true", "false"):
            try:
                log = self._send("GET", f"{_pods_path(namespace, pod)}/log", query=query | {"previous": previous})
            except Invalid:  # 400: no earlier run, or not started yet
                continue
            return log.decode(errors="replace")
        return ""

    # -- the gate's pods -----------------------------------------------------------------------------------------

    def create_gate_pod(self, namespace: str, manifest: Object) -> PodView:
        """Create the gate's pod, or return the one that an earlier try made; Conflict if another pair has its name."""
        name = manifest["metadata"]["name"]
        try:
            return view_pod(
                self._send(
                    "POST",
                    _pods_path(namespace),
                    query={"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"},
                    body=json.dumps(manifest).encode(),
                )
            )
        except Conflict:  # AlreadyExists: ask the server which one, never a cache
            there = self.gate_pod(namespace, name)
        mine = manifest["metadata"]["annotations"][PAIR]
        if there.pair != mine:
            raise Conflict(f"pod {namespace}/{name} is there for pair {there.pair}, not for {mine}")
        return there

    def gate_pod(self, namespace: str, name: str) -> PodView:
        """Return one of the gate's pods as it is now."""
        return view_pod(self._send("GET", _pods_path(namespace, name)))

    def list_gate_pods(self, namespace: str) -> tuple[PodView, ...]:
        """Return all gate pods of a namespace: what a clean-up compares with the ledger, having listed first."""
        return self.pods(namespace, GATE_SELECTOR)

    def delete_gate_pod(self, namespace: str, name: str, uid: str) -> None:
        """Delete this very pod; Conflict if another one has its name by now. One that is gone already is fine."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        try:
            self._send("DELETE", _pods_path(namespace, name), body=json.dumps(options).encode())
        except NotFound:
            return

    def ask_pod(  # noqa: PLR0917 - where, then what, in the order HTTP says it
        self,
        namespace: str,
        pod: str,
        port: int,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = 10.0,
    ) -> Reply:
        """Ask a pod over HTTP through the API server's proxy and return its status, headers (lower-case) and body.

        `timeout` is in seconds.

        Bytes go and come as they are. Any status of the application's own is a reply; Retryable means that the pod
        could not be asked, or answered with more than `LONGEST_REPLY`.

        Each question has a connection of its own: on one that stays open, Go's HTTP server closes the body of the
        question when the answer begins, at which its proxy may still look for more of it, and then cuts the answer
        (https://github.com/golang/go/issues/40747; 6 of 100 answers of 300 KB, see the contract test).
        """
        url = f"{_pods_path(namespace, f'{pod}:{port}')}/proxy/{path.lstrip('/')}"
        sent = {**(headers or {}), "connection": "close"}
        try:
            status, reply_headers, data = self._exchange(method, url, body, sent, timeout, limit=LONGEST_REPLY)
        except Ambiguous as error:  # a question changes nothing: it may be asked again
            raise Retryable(str(error)) from error
        if len(data) > LONGEST_REPLY:
            raise Retryable(f"{method} {path} of pod {namespace}/{pod} has a reply of {TOO_LONG}")
        trouble = _status_of_server(data) if status >= 400 else None
        if trouble is not None:
            raise _error(status, reply_headers, f"{method} {path} of pod {namespace}/{pod}", trouble, writes=False)
        return status, reply_headers, data

    # -- requests ------------------------------------------------------------------------------------------------

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = "application/json",
    ) -> bytes:
        url = f"{path}?{urlencode(query)}" if query else path
        headers = {"content-type": content_type} if body is not None else {}
        status, reply_headers, data = self._exchange(method, url, body, headers, self._timeout_seconds)
        if status < 300:
            return data
        trouble = _status_of_server(data) or {"message": data[:500].decode(errors="replace")}
        raise _error(status, reply_headers, f"{method} {path}", trouble, writes=method != "GET")

    def _connected(self) -> ApiClient:
        with self._lock:
            if self._client is None:
                configuration = self._find()
                configuration.retries = False  # a repeat is the caller's decision
                configuration.connection_pool_maxsize = CONNECTIONS
                self._client = ApiClient(configuration)
                pools = {"http": urllib3.HTTPConnectionPool, "https": _Connections}
                self._client.rest_client.pool_manager.pool_classes_by_scheme = pools
            return self._client

    def _forget(self, client: ApiClient) -> None:
        """Look for the cluster anew at the next use, unless another thread did since this client was made."""
        with self._lock:
            if self._client is client:
                self._client = None
                client.rest_client.close()

    def _exchange(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        timeout_seconds: float,
        *,
        limit: int | None = None,
    ) -> Reply:
        """Send one request as it is; raise Retryable if it cannot have arrived, Ambiguous if a write may have.

        With a limit, no more than one byte beyond it is read of the reply's body.
        """
        client = self._connected()
        configuration = client.configuration
        for setting in configuration.auth_settings().values():
            headers[setting["key"]] = setting["value"]
        what = f"{method} {path.partition('?')[0]} at {configuration.host}"
        try:
            reply = client.rest_client.pool_manager.request(
                method,
                configuration.host + path,
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(connect=min(5.0, timeout_seconds), read=timeout_seconds),
                redirect=False,
                preload_content=limit is None,
            )
            data = reply.data if limit is None else reply.read(limit + 1)
            reply.close() if limit is not None and len(data) > limit else reply.release_conn()
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as error:
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


def _deployment_path(namespace: str, name: str) -> str:
    return f"/apis/apps/v1/namespaces/{quote(namespace, safe='')}/deployments/{quote(name, safe='')}"


def _pods_path(namespace: str, name: str | None = None) -> str:
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods"
    return path if name is None else f"{path}/{quote(name, safe=':')}"


def _status_of_server(data: bytes) -> dict[str, Any] | None:
    """Return the API server's own Status object, None if the bytes are something else."""
    try:
        decoded = json.loads(data)
    except ValueError:
        return None
    if isinstance(decoded, dict) and decoded.get("kind") == "Status" and decoded.get("apiVersion") == "v1":
        return decoded
    return None


def _error(
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


# -- where the cluster is, and who we are there ----------------------------------------------------------------------


def _from_kubeconfig(place: str) -> Configuration:
    path, _, context = place.partition("#")
    try:
        path = str(Path(path).expanduser())
    except RuntimeError as error:
        raise Misconfigured(
            f"SHIPMATE_CLUSTER names {path}, and there is no such home directory: write it out"
        ) from error
    if not Path(path).is_file():
        raise Misconfigured(f"there is no kubeconfig at {path}: correct SHIPMATE_CLUSTER, or start the cluster")
    configuration = Configuration()
    try:
        config.load_kube_config(
            config_file=path, context=context or None, client_configuration=configuration, persist_config=False
        )
    except config.ConfigException as error:
        words = f"the kubeconfig {path} cannot be used with context {context!r}: {error}; correct SHIPMATE_CLUSTER"
        raise Misconfigured(words) from error
    return configuration


def _from_pod() -> Configuration:
    configuration = Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException as error:
        raise Misconfigured(
            f"SHIPMATE_CLUSTER is in-cluster, and this is no pod with a service account: {error}"
        ) from error
    return configuration


def aks_configuration(
    resource_id: str,
    credential: Credential,
    *,
    resource_manager: str = "https://management.azure.com",
    now: Callable[[], float] = time.time,
) -> Configuration:
    """Return how to reach an AKS cluster with Entra ID: its address and CA from Azure Resource Manager, our own token.

    The user in the credentials that Resource Manager gives is dropped: it calls a program (kubelogin). Tokens are
    renewed five minutes before they end. Raises NotAllowed, Retryable, and Misconfigured if there is no such cluster:
    NotFound would say to the caller that what it asked the cluster for is not there.
    """
    cluster = _aks_cluster(resource_id, credential, resource_manager)
    configuration = Configuration(host=cluster["server"])
    configuration.ca_cert_data = base64.b64decode(cluster["certificate-authority-data"]).decode()
    token: Token | None = None

    def renew(target: Configuration) -> None:
        nonlocal token
        if token is None or token.expires_on - RENEW_BEFORE_SECONDS <= now():
            token = _granted(credential, AKS_SCOPE)
            target.api_key["authorization"] = f"Bearer {token.token}"

    renew(configuration)  # the client calls its hook only once there is a key
    configuration.refresh_api_key_hook = renew  # type: ignore[assignment]  # the client declares it as None
    return configuration


def _granted(credential: Credential, scope: str) -> Token:
    """Return a token; raise NotAllowed if this identity gets none, Retryable if Entra ID is in trouble."""
    try:
        return credential.get_token(scope)
    except ClientAuthenticationError as error:
        raise NotAllowed(f"Azure gives Shipmate no token for the cluster: {error.message}") from error
    except (AzureError, OSError) as error:
        raise Retryable(f"Azure gave no token for the cluster: {error}") from error


def _aks_cluster(resource_id: str, credential: Credential, resource_manager: str) -> dict[str, str]:
    """Return server and CA of an AKS cluster.

    Managed Clusters - List Cluster User Credentials, Azure REST reference.
    """
    url = f"{resource_manager}/{resource_id.strip('/')}/listClusterUserCredential"
    token = _granted(credential, "https://management.azure.com/.default")
    try:
        reply = httpx.post(
            url,
            params={"api-version": ARM_API_VERSION},
            headers={"authorization": f"Bearer {token.token}"},
            timeout=20.0,
        )
    except httpx.HTTPError as error:
        raise Retryable(f"Azure Resource Manager did not answer about {resource_id}: {error}") from error
    if reply.status_code != 200:
        raise _resource_manager_error(reply, resource_id)
    try:
        kubeconfig = yaml.safe_load(base64.b64decode(reply.json()["kubeconfigs"][0]["value"]))
        cluster: dict[str, str] = kubeconfig["clusters"][0]["cluster"]
        return {key: cluster[key] for key in ("server", "certificate-authority-data")}
    except (ValueError, LookupError, TypeError, yaml.YAMLError) as error:
        raise Misconfigured(
            f"Azure Resource Manager gave no usable credentials of {resource_id}: {error!r}; correct SHIPMATE_CLUSTER"
        ) from error


def _resource_manager_error(reply: httpx.Response, resource_id: str) -> ShipmateError:
    message = f"Azure Resource Manager answered {reply.status_code} about {resource_id}: {reply.text[:300]}"
    if reply.status_code in (401, 403):
        return NotAllowed(f"{message}; give the identity the role Azure Kubernetes Service Cluster User Role")
    if reply.status_code == 429 or reply.status_code >= 500:
        after = reply.headers.get("retry-after", "")
        return Retryable(message, after_seconds=float(after) if after.isdigit() else None)
    return Misconfigured(f"{message}; correct SHIPMATE_CLUSTER")
