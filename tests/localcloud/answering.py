"""The image that tests of the cluster run in pods (answering/main.go), and the objects that run it."""

import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from localcloud.config import cache_root
from localcloud.kubernetes import static_image
from localcloud.toolchains import ensure_go

IMAGE = "localhost/shipmate/answering:1"
SOURCES = Path(__file__).parent / "answering"


@cache
def archive() -> bytes:
    """Compile the server and return its image."""
    folder = cache_root() / "test-answering"
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / f"answering.{os.getpid()}"
    go = ensure_go(SOURCES / "go.mod")
    subprocess.run(
        [str(go), "build", "-trimpath", "-ldflags", "-s -w", "-o", str(program), "."],
        cwd=SOURCES,
        env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": "-buildvcs=false"},
        check=True,
    )
    whole = program.replace(folder / "answering")
    return static_image.image_archive(whole, name=IMAGE)


def deployment(answer: str, *, replicas: int = 2, image: str = IMAGE) -> dict[str, Any]:
    """Return a Deployment as Shipmate wants its apps: restricted, drained before it is stopped."""
    container = {
        "name": "app",
        "image": image,
        "env": [{"name": "ANSWER", "value": answer}],
        "ports": [{"containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8000}, "periodSeconds": 1},
        "lifecycle": {"preStop": {"httpGet": {"path": "/drain", "port": 8000}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "answer"},
        "spec": {
            "replicas": replicas,
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": {"app": "answer"}},
            "template": {
                "metadata": {"labels": {"app": "answer"}},
                "spec": {
                    "automountServiceAccountToken": False,
                    "terminationGracePeriodSeconds": 10,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 10001,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [container],
                },
            },
        },
    }


def service(*, port: int = 8080) -> dict[str, Any]:
    """Return the Service in front of the Deployment, with a door."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "answer"},
        "spec": {
            "type": "LoadBalancer",
            "selector": {"app": "answer"},
            "ports": [{"port": port, "targetPort": 8000}],
        },
    }
