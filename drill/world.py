"""The drill's world: how large it is, what its targets are called, and what runs for them in the cluster.

All targets live in one namespace. What runs there is made from k8s/base, with one replica each and small requests.
"""

import copy
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from drill.app_image import FIRST_REPOSITORY, USER
from localcloud.cloud import ROOT
from localcloud.config import Cloud
from localcloud.processes import StartError
from localcloud.targets import TargetCluster

NAMESPACE = "drill"
CONTAINER = "models"
CONTROLLER = "shipmate"
BASE = ROOT / "k8s" / "base"
SPARE_PODS = 60
"""Beside a pod for each target: pods of gates, pods that a rollout adds, and pods that still drain."""
DOORS_WITHIN_SECONDS = 120.0


@dataclass(frozen=True)
class Size:
    """How large a drill is, and how hard."""

    targets: int = 100
    events: int = 2000
    """Publishes in the burst, about half of them models and half of them app images."""
    kills: int = 3
    outage_seconds: float = 10.0
    """How long the API server answers nobody."""
    doors: int = 10
    """Targets whose users ask all the time."""
    instances: int = 3
    duplicates: float = 0.3
    """The share of events that are delivered twice; all others are delayed or held back for a later one."""
    late_seconds: float = 30.0
    """How much later a duplicate or a delayed event is delivered."""
    quiet_seconds: float = 10.0
    quiet_cap_seconds: float = 60.0
    lease_seconds: float = 10.0
    stalled_seconds: float = 30.0
    sweep_schedule: str = "*/30 * * * * *"
    time_scale: float = 1.0
    """A factor on the waits between attempts of the Event Grid relay."""
    within_seconds: float = 900.0
    """How long the targets may take to converge after the last fault."""
    seed: int = 1

    @property
    def drain_seconds(self) -> float:
        """How long a pod that is about to stop still answers: longer than the API server may be away."""
        return max(4.0, self.outage_seconds + 5)


def target_names(size: Size) -> list[str]:
    """Return the targets' names."""
    return [f"t-{number:03d}" for number in range(size.targets)]


def app_repository(target: str) -> str:
    """Return where the app images of a target are pushed."""
    return f"{target}-app"


def model_name(target: str) -> str:
    """Return what the model of a target is called."""
    return f"{target}-model"


def targets_yaml(size: Size, urls: dict[str, str]) -> str:
    """Return the targets file. Its deadlines outlast a machine that starts a pod a second, and an API server away."""
    return json.dumps({"version": 1, "targets": [_target(name, urls[name], size) for name in target_names(size)]})


def _target(name: str, url: str, size: Size) -> dict[str, Any]:
    return {
        "name": name,
        "app": {"repository": app_repository(name)},
        "model": {"container": CONTAINER, "name": model_name(name)},
        "release": {"repository": name},
        "deployment": {"namespace": NAMESPACE, "name": name},
        "public_url": url,
        "quiet_seconds": size.quiet_seconds,
        "quiet_cap_seconds": size.quiet_cap_seconds,
        "rollout_within_seconds": 600,
        "gate": {"ready_within_seconds": 300, "max_seconds": 30},
        "verify": {"replies": 3, "within_seconds": 120},
    }


def app_settings(size: Size) -> dict[str, str]:
    """Return the app settings that differ from a local cloud's usual ones."""
    return {
        "SHIPMATE_SWEEP_SCHEDULE": size.sweep_schedule,
        "SHIPMATE_STALLED_SECONDS": str(size.stalled_seconds),
    }


def apply(cluster: TargetCluster, cloud: Cloud, size: Size) -> None:
    """Make the namespace with everything in it. Raises StartError."""
    _check_room(cluster, size)
    file = cloud.state / "k8s" / "drill.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects(cloud, size))}))
    cluster.run("apply", "--server-side", "-f", str(file), "-f", str(BASE / "admission-policies.yaml"))


def _check_room(cluster: TargetCluster, size: Size) -> None:
    """Raise StartError if the node takes fewer pods than a drill of this size may have."""
    room = int(cluster.run("get", "nodes", "-o", "jsonpath={.items[0].status.allocatable.pods}"))
    if room < size.targets + SPARE_PODS:
        raise StartError(
            f"the node takes {room} pods, a drill with {size.targets} targets may need {size.targets + SPARE_PODS}: "
            "choose fewer targets, or, if the cluster was started by an earlier version, `make down` and try again"
        )


def remove(cluster: TargetCluster, *, wait: bool) -> None:
    """Delete the namespace."""
    waits = f"--wait={str(wait).lower()}"
    cluster.run("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=180s", waits)


def public_urls(cluster: TargetCluster, size: Size) -> dict[str, str]:
    """Return where users ask each target, once every Service has its door. Raises StartError."""
    deadline = time.monotonic() + DOORS_WITHIN_SECONDS
    while True:
        found = json.loads(cluster.run("get", "services", "-n", NAMESPACE, "-o", "json"))["items"]
        urls = {
            service["metadata"]["name"]: f"http://{ingress[0]['ip']}:{service['spec']['ports'][0]['port']}"
            for service in found
            if (ingress := service["status"].get("loadBalancer", {}).get("ingress"))
        }
        if len(urls) == size.targets:
            return urls
        if time.monotonic() > deadline:
            raise StartError(f"{size.targets - len(urls)} Services have no address; read the load balancer's log")
        time.sleep(0.5)


def objects(cloud: Cloud, size: Size) -> Iterator[dict[str, Any]]:
    """Yield what runs in the cluster: the namespace, the accounts, the controller's rights, each target's own."""
    namespace = _read(BASE.parent / "overlays" / "local" / "namespace.yaml")[0]
    namespace["metadata"]["name"] = NAMESPACE
    yield namespace
    for account in _read(BASE / "service-accounts.yaml"):
        yield _in_namespace(account)
    role, binding = _read(BASE / "controller-role.yaml")
    role["rules"][0]["resourceNames"] = target_names(size)
    binding["subjects"][0]["namespace"] = NAMESPACE
    yield _in_namespace(role)
    yield _in_namespace(binding)
    (deployment,), (service,) = _read(BASE / "deployment.yaml"), _read(BASE / "service.yaml")
    for name in target_names(size):
        yield _deployment(deployment, name, cloud, size)
        yield _service(service, name)


def _read(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(file.read_text()))


def _in_namespace(document: dict[str, Any]) -> dict[str, Any]:
    document["metadata"]["namespace"] = NAMESPACE
    return document


def _deployment(base: dict[str, Any], name: str, cloud: Cloud, size: Size) -> dict[str, Any]:
    """Return a target's Deployment: that of k8s/base, with one small replica that is probed less often."""
    made = _in_namespace(copy.deepcopy(base))
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "drill"}
    made["metadata"] |= {"name": name, "labels": labels}
    spec = made["spec"]
    spec |= {"replicas": 1, "revisionHistoryLimit": 50, "progressDeadlineSeconds": 600}
    spec["selector"]["matchLabels"] = {"app.kubernetes.io/name": name}
    spec["template"]["metadata"]["labels"] = labels
    pod = spec["template"]["spec"]
    pod["terminationGracePeriodSeconds"] = int(size.drain_seconds) + 15
    pod["securityContext"] |= {"runAsUser": USER, "runAsGroup": USER}
    pod.pop("volumes")
    container = pod["containers"][0]
    container.pop("volumeMounts")
    container["image"] = f"{cloud.registry}/{FIRST_REPOSITORY}:main"
    container["env"].append({"name": "DRAIN_SECONDS", "value": str(size.drain_seconds)})
    container["resources"] = {"requests": {"cpu": "1m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}}
    container["startupProbe"]["failureThreshold"] = 600
    container["readinessProbe"] |= {"periodSeconds": 5, "timeoutSeconds": 10, "failureThreshold": 6}
    container["livenessProbe"] |= {"periodSeconds": 30, "timeoutSeconds": 20}
    container["lifecycle"] = {"preStop": {"httpGet": {"path": "/drain", "port": "http"}}}
    return made


def _service(base: dict[str, Any], name: str) -> dict[str, Any]:
    made = _in_namespace(copy.deepcopy(base))
    made["metadata"] |= {"name": name, "labels": {"app.kubernetes.io/name": name}}
    made["spec"]["selector"] = {"app.kubernetes.io/name": name}
    return made
