"""A Deployment and its pods, to change a little."""

from typing import Any

import msgspec

from shipmate.core.refs import Digest, Pair
from shipmate.core.views import Container, ContainerStatus, DeploymentView, Object, PodView, view_deployment

PAIR = Pair(Digest("sha256:" + "a" * 64), Digest("sha256:" + "b" * 64)).key
IMAGE = "registry.test/vision@sha256:" + "1" * 64


def manifest(**changes: Any) -> Object:
    """A Deployment as the API server sends it: two pods wanted, rolled out, under fence 4."""
    raw: Object = {
        "metadata": {
            "namespace": "vision",
            "name": "vision",
            "uid": "u-1",
            "resourceVersion": "77",
            "generation": 3,
            "annotations": {"shipmate.dev/fence": "4"},
        },
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "vision"}},
            "template": {
                "metadata": {
                    "labels": {"app": "vision"},
                    "annotations": {"shipmate.dev/pair": PAIR, "shipmate.dev/release": "r-1"},
                },
                "spec": {
                    "containers": [
                        {"name": "proxy", "image": "proxy:1"},
                        {
                            "name": "app",
                            "image": IMAGE,
                            "readinessProbe": {"httpGet": {"path": "/readyz"}, "periodSeconds": 9},
                            "livenessProbe": {},
                            "startupProbe": {},
                            "lifecycle": {"preStop": {}},
                        },
                    ],
                    "topologySpreadConstraints": [{}],
                    "nodeSelector": {"gpu": "yes"},
                },
            },
        },
        "status": {
            "observedGeneration": 3,
            "replicas": 2,
            "updatedReplicas": 2,
            "readyReplicas": 2,
            "availableReplicas": 2,
            "conditions": [{"type": "Available", "status": "True"}],
        },
    }
    raw["status"] |= changes.pop("status", {})
    raw["spec"] |= changes.pop("spec", {})
    raw["metadata"] |= changes
    return raw


def view(**changes: Any) -> DeploymentView:
    return view_deployment(manifest(**changes))


def pod(name: str = "vision-1", **changes: Any) -> PodView:
    """A ready pod of the manifest's template."""
    whole = PodView(
        namespace="vision",
        name=name,
        uid="p-1",
        resource_version="1",
        phase="Running",
        ready=True,
        deleting=False,
        labels={"app": "vision"},
        annotations={"shipmate.dev/pair": PAIR, "shipmate.dev/release": "r-1", "other": "x"},
        containers=(Container("proxy", "proxy:1"), Container("app", IMAGE)),
        statuses=(ContainerStatus("app", ready=True),),
    )
    return msgspec.structs.replace(whole, **changes)


def waiting(reason: str, message: str = "") -> PodView:
    status = ContainerStatus("app", waiting_reason=reason, waiting_message=message)
    return pod(ready=False, phase="Pending", statuses=(status,))
