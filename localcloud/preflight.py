"""Is a cluster of the user's own fit for the demo? Asked before anything of it is changed, and told in words.

The demo calls `look` first, which only asks, and `try_out` when its registry runs: that makes a namespace of its own
with a pod on each node and a Service, sees whether they get what the demo's will need, and takes the namespace away.
"""

import json
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from localcloud import debian
from localcloud.processes import StartError
from localcloud.targets import TargetCluster

OLDEST = (1, 30)
"""The first Kubernetes with ValidatingAdmissionPolicy (admissionregistration.k8s.io/v1), which the fence needs."""

RIGHTS = (
    ("create", "namespaces"),
    ("delete", "namespaces"),
    ("create", "pods"),
    ("create", "deployments.apps"),
    ("patch", "deployments.apps"),
    ("create", "services"),
    ("create", "serviceaccounts"),
    ("get", "serviceaccounts"),
    ("create", "serviceaccounts/token"),
    ("create", "networkpolicies.networking.k8s.io"),
    ("create", "poddisruptionbudgets.policy"),
    ("create", "roles.rbac.authorization.k8s.io"),
    ("create", "rolebindings.rbac.authorization.k8s.io"),
    ("create", "validatingadmissionpolicies.admissionregistration.k8s.io"),
    ("create", "validatingadmissionpolicybindings.admissionregistration.k8s.io"),
)
"""What the demo does with the context's rights; Shipmate itself gets only those of k8s/base."""

ACCOUNT_WITHIN_SECONDS = 30.0
PULL_WITHIN_SECONDS = 90.0
ADDRESS_WITHIN_SECONDS = 60.0

_PULL_FAULTS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "RegistryUnavailable"})


def look(cluster: TargetCluster, namespace: str) -> None:
    """Ask whether the cluster answers, is new enough, lets us do what the demo does, and has nodes for our image.

    The demo's target is to live in `namespace`, which must not be there or be of an earlier demo. Raises StartError
    with what is missing, and SetupError for a machine that the demo's image cannot be built on.
    """
    told = json.loads(cluster.run("version", "--output=json", "--request-timeout=10s"))["serverVersion"]
    version = int(told["major"]), int("".join(digit for digit in told["minor"] if digit.isdigit()))
    if version < OLDEST:
        raise StartError(
            f"context {cluster.context} is Kubernetes {version[0]}.{version[1]}; Shipmate needs "
            f"{OLDEST[0]}.{OLDEST[1]} or newer, whose admission policies keep releases in order"
        )
    missing = _missing_rights(cluster, namespace)
    if missing:
        raise StartError(
            f"context {cluster.context} may not: {'; '.join(missing)}. The demo needs that once, to set up what "
            "targets run on: use a context that may (cluster-admin does). Nothing was changed"
        )
    there = cluster.run("get", "namespace", namespace, "--ignore-not-found", "--output=name")
    if there and not cluster.run("get", "role", "shipmate", "-n", namespace, "--ignore-not-found", "--output=name"):
        raise StartError(
            f"context {cluster.context} has a namespace {namespace!r} that no demo made: the demo would put its own "
            f"Deployment there. Use another cluster, or if nobody needs it: kubectl delete namespace {namespace}"
        )
    ours = debian.architecture()
    others = {f"{name} is {kind}" for name, kind, _ in _nodes(cluster) if kind != ours}
    if others:
        raise StartError(
            f"the demo builds its image for {ours}, as this machine is, and pods may come to other nodes: "
            f"{', '.join(sorted(others))}. Cordon them for the demo, or run it on a machine like them"
        )


def try_out(cluster: TargetCluster, image: str) -> str | None:
    """See whether every node pulls an image of the registry, and how users get in.

    Returns None where a load balancer gives Services an address, else the address of a node that this machine reaches:
    there the Service's node port is the public door. Raises StartError with what is missing and what to do.
    """
    nodes = _nodes(cluster)
    with _namespace(cluster) as namespace:
        objects = [_service(namespace), *(_pod(namespace, name, image) for name, _, _ in nodes)]
        cluster.run("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        _until_pulled(cluster, namespace, image)
        if _gets_address(cluster, namespace):
            return None
    reached = [address for _, _, addresses in nodes for address in addresses if _is_reached(address)]
    if reached:
        return reached[0]
    known = ", ".join(address for _, _, addresses in nodes for address in addresses)
    raise StartError(
        f"users would not get in: the cluster gave a Service of type LoadBalancer no address within "
        f"{ADDRESS_WITHIN_SECONDS:.0f} s, and this machine does not reach its nodes either ({known}). Give the cluster "
        "a load balancer (minikube: `minikube tunnel`; kind: cloud-provider-kind; k3s has one) and run it again"
    )


def _missing_rights(cluster: TargetCluster, namespace: str) -> list[str]:
    def missing(right: tuple[str, str]) -> str | None:
        verb, resource = right
        said = cluster.run("auth", "can-i", verb, resource, f"--namespace={namespace}", may_fail=True)
        return None if said.strip() == "yes" else f"{verb} {resource.partition('.')[0]}"

    with ThreadPoolExecutor(4) as pool:
        return [each for each in pool.map(missing, RIGHTS) if each is not None]


def _nodes(cluster: TargetCluster) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return name, architecture and addresses of the nodes that take pods. Raises StartError if there are none."""
    found = []
    for node in json.loads(cluster.run("get", "nodes", "--output=json"))["items"]:
        ready = any(each["type"] == "Ready" and each["status"] == "True" for each in node["status"]["conditions"])
        tainted = any(each["effect"] in ("NoSchedule", "NoExecute") for each in node["spec"].get("taints", ()))
        if ready and not tainted and not node["spec"].get("unschedulable", False):
            kinds = ("ExternalIP", "InternalIP")
            addresses = [each["address"] for each in node["status"].get("addresses", ()) if each["type"] in kinds]
            found.append((node["metadata"]["name"], node["status"]["nodeInfo"]["architecture"], tuple(addresses)))
    if not found:
        raise StartError(f"context {cluster.context} has no node that is ready and takes pods: kubectl get nodes")
    return found


@contextmanager
def _namespace(cluster: TargetCluster) -> Iterator[str]:
    name = f"shipmate-preflight-{secrets.token_hex(3)}"
    cluster.run("create", "namespace", name)
    try:
        _wait_for_account(cluster, name)
        yield name
    finally:
        cluster.run("delete", "namespace", name, "--wait=false")


def _wait_for_account(cluster: TargetCluster, namespace: str) -> None:
    """Return once the cluster has made the account that pods of a new namespace run under; it refuses them before."""
    deadline = time.monotonic() + ACCOUNT_WITHIN_SECONDS
    account = ("get", "serviceaccount", "default", "-n", namespace, "--ignore-not-found", "--output=name")
    while not cluster.run(*account) and time.monotonic() < deadline:
        time.sleep(0.2)


def _pod(namespace: str, node: str, image: str) -> dict[str, Any]:
    """Return a pod that pulls the image on one node. There is nothing to run in it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"pull-{secrets.token_hex(3)}", "namespace": namespace},
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "pull",
                    "image": image,
                    "command": ["/nothing"],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }


def _service(namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "door", "namespace": namespace},
        "spec": {"type": "LoadBalancer", "selector": {"app": "nobody"}, "ports": [{"port": 8080, "targetPort": 8000}]},
    }


def _until_pulled(cluster: TargetCluster, namespace: str, image: str) -> None:
    deadline = time.monotonic() + PULL_WITHIN_SECONDS
    while True:
        pods = json.loads(cluster.run("get", "pods", "-n", namespace, "--output=json"))["items"]
        for pod in pods:
            fault = _pull_fault(pod)
            if fault is not None:
                raise StartError(_cannot_pull(pod["spec"]["nodeName"], image, fault))
        waiting = [pod["spec"]["nodeName"] for pod in pods if not _is_pulled(pod)]
        if not waiting:
            return
        if time.monotonic() > deadline:
            words = f"no answer within {PULL_WITHIN_SECONDS:.0f} s"
            raise StartError(_cannot_pull(", ".join(waiting), image, words))
        time.sleep(0.2)


def _state(pod: dict[str, Any]) -> dict[str, Any]:
    statuses: Sequence[dict[str, Any]] = pod["status"].get("containerStatuses", ())
    return dict(statuses[0]["state"]) if statuses else {}


def _pull_fault(pod: dict[str, Any]) -> str | None:
    waiting = _state(pod).get("waiting", {})
    if waiting.get("reason") not in _PULL_FAULTS:
        return None
    return str(waiting.get("message") or waiting["reason"])


def _is_pulled(pod: dict[str, Any]) -> bool:
    """Whether the kubelet came as far as starting the container, which must fail: there is nothing in the image."""
    state = _state(pod)
    reason = state.get("waiting", {}).get("reason", "")
    return "terminated" in state or "running" in state or reason in ("CreateContainerError", "RunContainerError")


def _cannot_pull(node: str, image: str, words: str) -> str:
    registry = image.partition("/")[0]
    return (
        f"node {node} cannot pull from {registry}: {words[:1000]}\n"
        "It has to be a registry that this machine and every node reach by that name. The demo's own listens on this "
        "machine alone: nodes on this machine's network pull from there (k3s, kubeadm). Otherwise name one:\n"
        "  make demo CONTEXT=… REGISTRY=http://localhost:5001     kind with a local registry, as kind documents it\n"
        "  make demo CONTEXT=… REGISTRY=<name>.azurecr.io         after az acr login, the cluster attached to it\n"
        "Nothing was changed"
    )


def _gets_address(cluster: TargetCluster, namespace: str) -> bool:
    deadline = time.monotonic() + ADDRESS_WITHIN_SECONDS
    while time.monotonic() < deadline:
        if cluster.public_url(namespace, "door") is not None:
            return True
        time.sleep(0.5)
    return False


def _is_reached(address: str) -> bool:
    """Whether a node answers this machine at all: a connection that is refused is an answer."""
    try:
        socket.create_connection((address, 10250), timeout=2).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True
