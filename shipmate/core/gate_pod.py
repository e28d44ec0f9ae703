"""The gate's pod: the candidate beside the Deployment, where no Service and no controller finds it.

Pure: the stage `gate` has it created, and the sweep finds by its name what may be removed.
"""

import copy
import hashlib

from shipmate.core.refs import PairKey
from shipmate.core.views import PAIR, RELEASE, DeploymentView, Object
from shipmate.errors import Misconfigured

GATE = "shipmate.dev/gate"
MANAGED_BY = "app.kubernetes.io/managed-by"
GATE_LABELS = {MANAGED_BY: "shipmate", "app.kubernetes.io/component": "gate"}
"""What every gate pod carries; the admission policies and the NetworkPolicy in k8s/ know them."""
GATE_SELECTOR = ",".join(f"{key}={value}" for key, value in GATE_LABELS.items())

_NAME_LENGTH = 63  # a pod's name is its host name: an RFC 1123 label


def gate_name(target: str, pair: PairKey, release: int, attempt: int) -> str:
    """Return the name of a gate's pod: the same for the same target, release and attempt, and a valid host name.

    A pair may have several releases, and the pod of an earlier one may still be there, of another template.
    """
    return _fitting(target, f"-{pair[:12]}-r{release}-a{attempt}")


def former_gate_name(target: str, pair: PairKey, attempt: int) -> str:
    """Return how earlier builds named a gate's pod, of which one may be left behind at the upgrade."""
    return _fitting(target, f"-{pair[:12]}-a{attempt}")


def _fitting(target: str, tail: str) -> str:
    room = _NAME_LENGTH - len("gate-") - len(tail)
    if len(target) > room:
        target = f"{target[: room - 7]}-{hashlib.sha256(target.encode()).hexdigest()[:6]}"
    return f"gate-{target}{tail}"


def gate_pod(
    deployment: DeploymentView,
    *,
    name: str,
    container: str,
    image: str,
    pair: PairKey,
    release: str = "gate",
    active_deadline_seconds: int = 300,
) -> Object:
    """Return the manifest of the pod in which a candidate is asked its golden questions.

    It is the Deployment's own template, so that what is gated is what would run, with labels that no Service and no
    controller selects, and an end of its own. Raises Misconfigured if the Deployment's selector would match it all the
    same.
    """
    labels = {**GATE_LABELS, GATE: pair[:12]}
    if all(labels.get(key) == value for key, value in deployment.match_labels.items()):
        raise Misconfigured(
            f"Deployment {deployment.namespace}/{deployment.name} selects its pods by "
            f"{deployment.selector or 'no label of its own'}, which a gate's pod carries too: let its "
            "selector.matchLabels name a label of the application"
        )
    index = deployment.index_of(container)
    spec: Object = copy.deepcopy(deployment.template["spec"])
    for each in spec["containers"]:
        # nobody is served by this pod: it needs no drain before its end, and the gate watches its start itself
        for key in ("lifecycle", "livenessProbe", "startupProbe"):
            each.pop(key, None)
        if "readinessProbe" in each:
            each["readinessProbe"] |= {"periodSeconds": 1, "initialDelaySeconds": 0}
    spec["containers"][index]["image"] = image
    spec.pop("topologySpreadConstraints", None)
    spec |= {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": active_deadline_seconds,
        "terminationGracePeriodSeconds": 1,
    }
    annotations = {**(deployment.template_annotations or {}), PAIR: pair, RELEASE: release}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": deployment.namespace,
            "labels": labels,
            "annotations": annotations,
        },
        "spec": spec,
    }
