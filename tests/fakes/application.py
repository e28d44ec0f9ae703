"""The application of worlds in memory: its Deployment, and what its pods and its public door answer."""

import json
from collections.abc import Mapping
from functools import cache

from shipmate.core.answers import Answer, Version
from shipmate.core.views import Object, PodView


def deployment(namespace: str, name: str, replicas: int = 2) -> Object:
    """Return the manifest of a Deployment that no release came to yet."""
    labels = {"app": name}
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": {}},
                "spec": {"containers": [{"name": "app", "image": "none:none"}]},
            },
        },
    }


def headers(pod: PodView, labels: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of every reply of a pod, whose image has these labels."""
    return {
        "x-model-version": labels["dev.shipmate.model.version"],
        "x-model-digest": labels["dev.shipmate.model.digest"],
        "x-app-version": labels["org.opencontainers.image.version"],
        "x-release": pod.annotations.get("shipmate.dev/release", ""),
    }


@cache
def score(label: str, confidence: float) -> bytes:
    """Return the body of a reply that says this of one photograph."""
    return json.dumps({"result": [[[[label, confidence * 100]]], "Computed in 1 ms"]}).encode()


def answer(version: Version, label: str, confidence: float) -> Answer:
    """Return what comes of such a reply at the public door."""
    return Answer(
        version.model_digest,
        version.model_version,
        version.app_version,
        version.release,
        ((label, confidence),),
        0.01,
    )
