"""The Kubernetes cluster: the Deployment of a target, its pods, and the gate's pods.

Every read is a plain GET, which the API server answers from etcd's quorum; there is no cache to be stale.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Self
from urllib.parse import quote

import urllib3
from kubernetes.client import Configuration

from shipmate.core.answers import LONGEST_REPLY, TOO_LONG
from shipmate.core.fence import Operation
from shipmate.core.gate_pod import GATE_SELECTOR
from shipmate.core.views import PAIR, DeploymentView, Object, PodView, view_deployment, view_pod, view_pods
from shipmate.edge.api_server import ApiServer, Late, Reply, refusal, status_of_server
from shipmate.edge.cluster_address import Credential, finder
from shipmate.errors import Ambiguous, Conflict, Invalid, NotFound, Retryable, Silent, Unusable

FIELD_MANAGER = "shipmate"


class Cluster:
    """One Kubernetes cluster, seen with Shipmate's own rights.

    Every method raises NotFound, NotAllowed, Conflict, Retryable, Misconfigured if there is no such cluster, and, where
    it writes, Ambiguous when the request may have taken effect although no reply said so.
    """

    def __init__(self, find: Callable[[], Configuration], *, registry: str, timeout_seconds: float = 10.0) -> None:
        """`find` says where the cluster is and what is trusted there, as often as the API server asks it."""
        self.registry = registry
        self._server = ApiServer(find, timeout_seconds=timeout_seconds)

    @classmethod
    def connect(
        cls, setting: str, *, registry: str, credential: Credential | None = None, timeout_seconds: float = 10.0
    ) -> Self:
        """Return the cluster that a setting names; see `finder` for its forms.

        Raises Misconfigured for what is wrong with these settings. Azure is asked where an AKS cluster is when it is
        used first: without Azure Resource Manager, events are taken in all the same. `registry` is the login server
        that image references name, as the cluster's nodes pull them.
        """
        cluster = cls(finder(setting, credential), registry=registry, timeout_seconds=timeout_seconds)
        if not setting.startswith("aks:"):
            cluster._server.connect()
        return cluster

    def close(self) -> None:
        """Close the connections, if there are any."""
        self._server.close()

    # -- the Deployment ------------------------------------------------------------------------------------------

    def deployment(self, namespace: str, name: str) -> DeploymentView:
        """Return a Deployment as it is now."""
        return view_deployment(self._server.send("GET", _deployment_path(namespace, name)))

    def patch_deployment(self, namespace: str, name: str, operations: Sequence[Operation]) -> DeploymentView:
        """Apply a JSON Patch and return the Deployment after it; Conflict, and no change, if one of its tests fails.

        An admission policy that refuses it is NotAllowed; what makes no Deployment is Misconfigured.
        """
        reply = self._server.send(
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
        return view_pods(self._server.send("GET", _pods_path(namespace), query={"labelSelector": selector}))

    def pod_logs(self, namespace: str, pod: str, *, container: str | None = None, tail: int = 20) -> str:
        """Return the last lines of a container's log; empty while it has not started.

        A container that ended and was started again gives the log of the run that ended.
        """
        query = {"tailLines": str(tail)} | ({"container": container} if container else {})
        for previous in ("true", "false"):
            try:
                log = self._server.send(
                    "GET", f"{_pods_path(namespace, pod)}/log", query=query | {"previous": previous}
                )
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
                self._server.send(
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
        return view_pod(self._server.send("GET", _pods_path(namespace, name)))

    def list_gate_pods(self, namespace: str) -> tuple[PodView, ...]:
        """Return all gate pods of a namespace: what a clean-up compares with the ledger, having listed first."""
        return self.pods(namespace, GATE_SELECTOR)

    def delete_gate_pod(self, namespace: str, name: str, uid: str) -> None:
        """Delete this very pod; Conflict if another one has its name by now. One that is gone already is fine."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        try:
            self._server.send("DELETE", _pods_path(namespace, name), body=json.dumps(options).encode())
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

        `timeout` is in seconds, for the whole answer.

        Bytes go and come as they are. Any status of the application's own is a reply; Retryable means that the pod
        could not be asked, Silent that its answer was not there in time, and Unusable that it answered with more than
        `LONGEST_REPLY`.

        Each question has a connection of its own: on one that stays open, Go's HTTP server closes the body of the
        question when the answer begins, at which its proxy may still look for more of it, and then cuts the answer
        (https://github.com/golang/go/issues/40747; 6 of 100 answers of 300 KB, see the contract test).
        """
        url = f"{_pods_path(namespace, f'{pod}:{port}')}/proxy/{path.lstrip('/')}"
        sent = {**(headers or {}), "connection": "close"}
        started = time.monotonic()
        try:
            status, reply_headers, data = self._server.exchange(method, url, body, sent, timeout, limit=LONGEST_REPLY)
        except (Ambiguous, Retryable) as error:  # a question changes nothing: it may be asked again
            waited = time.monotonic() - started  # a TLS handshake that is not answered ends sooner, by the same name
            if isinstance(error.__cause__, urllib3.exceptions.ReadTimeoutError | Late) and waited >= timeout:
                what = f"{method} {path} of pod {namespace}/{pod}"
                raise Silent(f"{what} was not answered within {timeout:g} s") from error
            raise Retryable(str(error)) from error
        if len(data) > LONGEST_REPLY:
            raise Unusable(f"{method} {path} of pod {namespace}/{pod} has a reply of {TOO_LONG}")
        trouble = status_of_server(data) if status >= 400 else None
        if trouble is not None:
            raise refusal(status, reply_headers, f"{method} {path} of pod {namespace}/{pod}", trouble, writes=False)
        return status, reply_headers, data


def _deployment_path(namespace: str, name: str) -> str:
    return f"/apis/apps/v1/namespaces/{quote(namespace, safe='')}/deployments/{quote(name, safe='')}"


def _pods_path(namespace: str, name: str | None = None) -> str:
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods"
    return path if name is None else f"{path}/{quote(name, safe=':')}"
