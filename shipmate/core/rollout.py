"""Moving a Deployment: the patch and its fence, how far a rollout is, and the gate's pod.

Pure: `shipmate.edge.cluster` reads the API server's objects into the views here and sends the patches made here; the
pipeline decides between the two. Nothing here knows a client, a clock or the ledger.

The fence is a number that the ledger hands out, rising, to each rollout intent, rollback intent and hold. The
Deployment carries the highest one it accepted in the annotation `shipmate.dev/fence`, and every patch first tests that
the annotation still says what the caller saw. The API server evaluates those tests against the very object it replaces
and answers 422 if one fails, so a worker that slept between its decision and its patch changes nothing.
A resourceVersion would not do: it proves that nobody wrote since the read, not since the decision.
"""

import copy
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from shipmate.core.refs import PairKey
from shipmate.errors import Invalid

FENCE = "shipmate.dev/fence"
PAIR = "shipmate.dev/pair"
RELEASE = "shipmate.dev/release"
GATE = "shipmate.dev/gate"
CHANGE_CAUSE = "kubernetes.io/change-cause"
MANAGED_BY = "app.kubernetes.io/managed-by"
GATE_LABELS = {MANAGED_BY: "shipmate", "app.kubernetes.io/component": "gate"}
"""What every gate pod carries; the admission policies and the NetworkPolicy in k8s/ know them."""
GATE_SELECTOR = ",".join(f"{key}={value}" for key, value in GATE_LABELS.items())

type Object = dict[str, Any]
"""A Kubernetes object as JSON."""
type Operation = dict[str, Any]
"""One operation of a JSON Patch (RFC 6902)."""

_FENCE = re.compile(r"0|[1-9][0-9]{0,18}")
_NAME_LENGTH = 63  # a pod's name is its host name: an RFC 1123 label


class Container(msgspec.Struct, frozen=True):
    """A container of a pod template or of a pod."""

    name: str
    image: str


class Condition(msgspec.Struct, frozen=True):
    """A condition of a Deployment's status."""

    type: str
    status: str
    reason: str = ""
    message: str = ""


class DeploymentView(msgspec.Struct, frozen=True):
    """What Shipmate reads of a Deployment. Numbers are pods; `selector` is in the form a list request takes."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    generation: int
    observed_generation: int
    annotations: dict[str, str] | None
    template: Object
    template_annotations: dict[str, str] | None
    containers: tuple[Container, ...]
    match_labels: dict[str, str]
    paused: bool
    replicas: int  # wanted
    current: int  # that exist and are not being deleted, of the old and of the new template
    updated: int
    ready: int
    available: int
    conditions: tuple[Condition, ...]

    @property
    def fence(self) -> int | None:
        """The highest fence the Deployment accepted; None before Shipmate adopted it."""
        return parse_fence((self.annotations or {}).get(FENCE))

    @property
    def pair(self) -> str | None:
        """The key of the pair that the template asks for."""
        return (self.template_annotations or {}).get(PAIR)

    @property
    def release(self) -> str | None:
        """The name of the release that the template asks for."""
        return (self.template_annotations or {}).get(RELEASE)

    @property
    def selector(self) -> str:
        """The label selector of its pods."""
        return ",".join(f"{key}={value}" for key, value in sorted(self.match_labels.items()))

    def index_of(self, container: str) -> int:
        """Return the place of a container in the template; raise Invalid if there is none of that name."""
        names = [each.name for each in self.containers]
        if container not in names:
            raise Invalid(
                f"Deployment {self.namespace}/{self.name} has no container {container!r}, only {', '.join(names)}: "
                "correct deployment.container in the targets file"
            )
        return names.index(container)


class ContainerStatus(msgspec.Struct, frozen=True):
    """How a container of a pod is doing. `exit_code` and what follows it are of its last end, if it ended."""

    name: str
    ready: bool = False
    restarts: int = 0
    waiting_reason: str = ""
    waiting_message: str = ""
    exit_code: int | None = None
    ended_reason: str = ""
    ended_message: str = ""


class PodView(msgspec.Struct, frozen=True):
    """What Shipmate reads of a pod."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    phase: str
    ready: bool
    deleting: bool
    labels: dict[str, str]
    annotations: dict[str, str]
    containers: tuple[Container, ...]
    statuses: tuple[ContainerStatus, ...]
    created_at: str = ""  # RFC 3339, as the API server writes it
    reason: str = ""  # why it failed as a whole, such as DeadlineExceeded or Evicted
    message: str = ""
    unschedulable: str = ""  # what the scheduler says while no node takes it

    @property
    def pair(self) -> str | None:
        """The key of the pair that the pod was made for."""
        return self.annotations.get(PAIR)

    @property
    def release(self) -> str | None:
        """The name of the release that the pod was made for."""
        return self.annotations.get(RELEASE)


class Progressing(msgspec.Struct, frozen=True, tag="progressing"):
    """The rollout moves, or waits for something that may still come."""

    message: str


class Complete(msgspec.Struct, frozen=True, tag="complete"):
    """Every wanted pod is of the new template and available; `draining` old ones still finish their last requests."""

    draining: int = 0


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The rollout will not succeed by waiting. `pod` is one whose log may say more."""

    reason: str
    message: str
    pod: str | None = None


type Progress = Progressing | Complete | Failed


class Standing(StrEnum):
    """How an intent's fence stands to the one a Deployment carries."""

    UNADOPTED = "unadopted"  # the Deployment has no fence yet: send `adopt_patch` first
    APPLIED = "applied"
    SUPERSEDED = "superseded"
    PATCHABLE = "patchable"


# -- the fence -----------------------------------------------------------------------------------------------------


def parse_fence(text: str | None) -> int | None:
    """Return the number in a fence annotation; raise Invalid if it is something else."""
    if text is None:
        return None
    if not _FENCE.fullmatch(text):
        raise Invalid(
            f"the annotation {FENCE} says {text!r}, which is no fence: somebody else wrote it. Set it to the number "
            "the ledger says (shipmate why TARGET), or remove it to let Shipmate adopt the Deployment again"
        )
    return int(text)


def classify_fence(current: int | None, mine: int) -> Standing:
    """Return what a Deployment's fence means for the intent that holds the fence `mine`."""
    if current is None:
        return Standing.UNADOPTED
    if current == mine:
        return Standing.APPLIED
    return Standing.SUPERSEDED if current > mine else Standing.PATCHABLE


def adopt_patch(deployment: DeploymentView) -> list[Operation]:
    """Return the patch that puts a Deployment under the fence, at 0, unless somebody did so since.

    The template is not touched: the API server would not keep an empty map of annotations.
    """
    fence = f"/metadata/annotations/{_escape(FENCE)}"
    absent = [_test(fence, None)]
    if deployment.annotations is None:
        absent = _add_map("/metadata/annotations")
    return [_test("/metadata/uid", deployment.uid), *absent, _add(fence, "0")]


def fence_patch(
    deployment: DeploymentView,
    *,
    expected_fence: int,
    new_fence: int,
    container: str,
    image: str,
    pair: PairKey,
    release: str,
) -> list[Operation]:
    """Return the patch that brings a release to a Deployment and raises its fence, or changes nothing.

    `image` is a reference by digest. Raises Invalid for a fence that does not rise, an image without a digest or an
    unknown container.
    """
    _must_rise(expected_fence, new_fence)
    if "@sha256:" not in image:
        raise Invalid(f"{image!r} names no digest: a release is only ever deployed as repository@sha256:…")
    index = deployment.index_of(container)
    spot = f"/spec/template/spec/containers/{index}"
    annotations = "/spec/template/metadata/annotations"
    missing = _add_map(annotations) if deployment.template_annotations is None else []
    cause = f"shipmate {release}: pair {pair[:12]}, fence {new_fence}"
    return [
        _test("/metadata/uid", deployment.uid),
        _test(f"/metadata/annotations/{_escape(FENCE)}", str(expected_fence)),
        _test(f"{spot}/name", container),
        *missing,
        _replace(f"/metadata/annotations/{_escape(FENCE)}", str(new_fence)),
        _replace(f"{spot}/image", image),
        _add(f"{annotations}/{_escape(PAIR)}", pair),
        _add(f"{annotations}/{_escape(RELEASE)}", release),
        _add(f"/metadata/annotations/{_escape(CHANGE_CAUSE)}", cause),
    ]


def raise_fence_patch(deployment: DeploymentView, *, expected_fence: int, new_fence: int) -> list[Operation]:
    """Return the patch of a hold: it raises the fence, restarts nothing, and shuts out every intent before it."""
    _must_rise(expected_fence, new_fence)
    fence = f"/metadata/annotations/{_escape(FENCE)}"
    return [
        _test("/metadata/uid", deployment.uid),
        _test(fence, str(expected_fence)),
        _replace(fence, str(new_fence)),
    ]


def _must_rise(expected: int, new: int) -> None:
    if new <= expected:
        raise Invalid(f"the fence must rise: {new} does not outrank {expected}")


def _add_map(path: str) -> list[Operation]:
    """Return what creates a map that was not there, and does not empty one that came since.

    The API server's JSON Patch takes a test for null as a test for absence; RFC 6902 would let it fail.
    """
    return [_test(path, None), _add(path, {})]


def _test(path: str, value: object) -> Operation:
    return {"op": "test", "path": path, "value": value}


def _add(path: str, value: object) -> Operation:
    return {"op": "add", "path": path, "value": value}


def _replace(path: str, value: object) -> Operation:
    return {"op": "replace", "path": path, "value": value}


def _escape(key: str) -> str:
    """Return a key as one segment of a JSON pointer (RFC 6901, section 3)."""
    return key.replace("~", "~0").replace("/", "~1")


# -- progress ------------------------------------------------------------------------------------------------------

_PULL = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"})
_CREATE = frozenset({"CreateContainerError", "CreateContainerConfigError", "RunContainerError"})
_TRANSIENT = re.compile(
    r"connection (refused|reset)|timeout|timed out|deadline exceeded|unexpected EOF|no such host|too many requests|"
    r"temporar|unavailable|status code 5\d\d|unexpected status.{0,60}: 5\d\d",
    re.IGNORECASE,
)
_PERMANENT = re.compile(r"not found|manifest unknown|unauthorized|denied|forbidden|invalid reference", re.IGNORECASE)


def progress(deployment: DeploymentView, pods: Iterable[PodView]) -> Progress:
    """Return how far the rollout of a Deployment's current template is.

    `pods` are those that its selector finds. A failure that waiting does not mend is told at once; the rest is bounded
    by the Deployment's own progressDeadlineSeconds.
    """
    pods = tuple(pods)
    if deployment.observed_generation < deployment.generation:
        return Progressing("waiting for the deployment controller to see the change")
    if deployment.paused:
        name = f"{deployment.namespace}/{deployment.name}"
        return Failed(
            "DeploymentPaused",
            f"Deployment {name} is paused, so its pods do not change: kubectl rollout resume deployment/"
            f"{deployment.name} -n {deployment.namespace}",
        )
    new = [pod for pod in pods if not pod.deleting and _is_new(deployment, pod)]
    if deployment.updated == deployment.current == deployment.available == deployment.replicas:
        return Complete(draining=sum(not _is_new(deployment, pod) or pod.deleting for pod in pods))
    for pod in new:
        failure = pod_failure(pod)
        if failure is not None:
            return failure
    return _by_conditions(deployment, new) or Progressing(_movement(deployment, new))


def pod_failure(pod: PodView) -> Failed | None:
    """Return why a pod will not become ready by waiting, None if it may."""
    if pod.phase == "Failed":
        return _ended(pod)
    for status in pod.statuses:
        where = f"container {status.name} of pod {pod.name}"
        reason, message = status.waiting_reason, status.waiting_message
        if reason in _PULL and not (_TRANSIENT.search(message) and not _PERMANENT.search(message)):
            return Failed("ImagePullFailed", f"{where} cannot pull its image: {message or reason}", pod.name)
        if reason in _CREATE:
            return Failed("ContainerCreateFailed", f"{where} cannot be created: {message or reason}", pod.name)
        if reason == "CrashLoopBackOff":
            return Failed("CrashLoop", f"{where} ends as soon as it starts: {_end(status)}", pod.name)
    return None


def gate_progress(pod: PodView) -> Progress:
    """Return whether a gate's pod can be asked: Complete when it is ready."""
    if pod.deleting:
        return Failed("GatePodDeleted", f"somebody deletes the gate's pod {pod.name}", pod.name)
    failure = pod_failure(pod)
    if failure is not None:
        return failure
    if pod.phase == "Succeeded":
        return Failed("CandidateEnded", f"the container of pod {pod.name} ended instead of serving", pod.name)
    return Complete() if pod.ready else Progressing(_pod_words(pod))


def explain(failed: Failed, *, readiness: str = "", log: str = "") -> Failed:
    """Return the failure with what the container itself said: the reply of its readiness check, its last log lines."""
    words = [failed.message]
    if readiness.strip():
        words.append(f"it says: {readiness.strip()[:500]}")
    if log.strip() and log.strip().splitlines()[-1] not in failed.message:  # a crash is told with its last lines
        words.append("last lines of its log:\n" + "\n".join(log.strip().splitlines()[-10:])[-2000:])
    return msgspec.structs.replace(failed, message="; ".join(words))


def _is_new(deployment: DeploymentView, pod: PodView) -> bool:
    """Return whether a pod was made from the Deployment's current template."""
    wanted = deployment.template_annotations or {}
    images = {each.name: each.image for each in pod.containers}
    return all(pod.annotations.get(key) == value for key, value in wanted.items()) and all(
        images.get(each.name) == each.image for each in deployment.containers
    )


def _by_conditions(deployment: DeploymentView, new: list[PodView]) -> Failed | None:
    """Return the failure that the deployment controller reports, None if it reports none."""
    for condition in deployment.conditions:
        if condition.type == "ReplicaFailure" and condition.status == "True" and "forbidden" in condition.message:
            return Failed("PodsRefused", f"the cluster refuses the new pods: {condition.message}")
        if condition.type == "Progressing" and condition.reason == "ProgressDeadlineExceeded":
            stuck = [pod for pod in new if not pod.ready]
            return Failed(
                "ProgressDeadline",
                f"no progress within the Deployment's deadline: {_movement(deployment, new)}",
                stuck[0].name if stuck else None,
            )
    return None


def _movement(deployment: DeploymentView, new: list[PodView]) -> str:
    text = f"{deployment.updated} of {deployment.replicas} pods are new, {deployment.available} available"
    waiting = [_pod_words(pod) for pod in new if not pod.ready]
    old = deployment.current - deployment.updated
    if old > 0:
        text += f", {old} old"
    return "; ".join([text, *waiting])


def _pod_words(pod: PodView) -> str:
    """Return in words what a pod that is not ready waits for."""
    if pod.unschedulable:
        return f"pod {pod.name} waits for a node: {pod.unschedulable}"
    for status in pod.statuses:
        if status.waiting_reason:
            message = f" ({status.waiting_message})" if status.waiting_message else ""
            return f"pod {pod.name}: {status.waiting_reason}{message}"
        if status.exit_code is not None:
            return f"pod {pod.name} restarted {status.restarts} times: {_end(status)}"
    return f"pod {pod.name} runs but is not ready" if pod.phase == "Running" else f"pod {pod.name} is starting"


def _ended(pod: PodView) -> Failed:
    """Return the failure of a pod whose containers ended for good."""
    if pod.reason:  # DeadlineExceeded, Evicted: the pod as a whole, not its container
        return Failed(f"Pod{pod.reason}", f"pod {pod.name} was ended: {pod.message or pod.reason}", pod.name)
    ends = [f"container {each.name}: {_end(each)}" for each in pod.statuses if each.exit_code]
    return Failed("CandidateEnded", f"pod {pod.name} failed: {'; '.join(ends) or 'no container says why'}", pod.name)


def _end(status: ContainerStatus) -> str:
    if status.exit_code is None:
        return status.waiting_message or "it does not say why"
    text = f"exit code {status.exit_code}"
    if status.ended_reason and status.ended_reason != "Error":
        text += f" ({status.ended_reason})"
    return f"{text}: {status.ended_message.strip()[-1000:]}" if status.ended_message.strip() else text


# -- the gate's pod ------------------------------------------------------------------------------------------------


def gate_name(target: str, pair: PairKey, attempt: int) -> str:
    """Return the name of a gate's pod: the same for the same target, pair and attempt, and a valid host name."""
    tail = f"-{pair[:12]}-a{attempt}"
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
    controller selects, and an end of its own. Raises Invalid if the Deployment's selector would match it all the same.
    """
    labels = {**GATE_LABELS, GATE: pair[:12]}
    if all(labels.get(key) == value for key, value in deployment.match_labels.items()):
        raise Invalid(
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


# -- reading the API server's objects ------------------------------------------------------------------------------


def view_deployment(data: bytes | Object) -> DeploymentView:
    """Return the view of a Deployment as the API server sends it."""
    raw = _decode(data)
    metadata, spec, status = raw["metadata"], raw["spec"], raw.get("status") or {}
    template = spec["template"]
    return DeploymentView(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        generation=metadata.get("generation", 0),
        observed_generation=status.get("observedGeneration", 0),
        annotations=metadata.get("annotations"),
        template=template,
        template_annotations=template.get("metadata", {}).get("annotations"),
        containers=_containers(template["spec"]),
        match_labels=spec["selector"].get("matchLabels") or {},
        paused=spec.get("paused", False),
        replicas=spec.get("replicas", 1),
        current=status.get("replicas", 0),
        updated=status.get("updatedReplicas", 0),
        ready=status.get("readyReplicas", 0),
        available=status.get("availableReplicas", 0),
        conditions=tuple(
            Condition(each["type"], each["status"], each.get("reason", ""), each.get("message", ""))
            for each in status.get("conditions") or ()
        ),
    )


def view_pod(data: bytes | Object) -> PodView:
    """Return the view of a pod as the API server sends it."""
    raw = _decode(data)
    metadata, status = raw["metadata"], raw.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled", {})
    return PodView(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        phase=status.get("phase", "Pending"),
        ready=conditions.get("Ready", {}).get("status") == "True",
        deleting="deletionTimestamp" in metadata,
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
        containers=_containers(raw["spec"]),
        statuses=tuple(
            _container_status(each)
            for each in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
        ),
        created_at=metadata.get("creationTimestamp") or "",
        reason=status.get("reason", ""),
        message=status.get("message", ""),
        unschedulable=scheduled.get("message", "") if scheduled.get("reason") == "Unschedulable" else "",
    )


def view_pods(data: bytes | Object) -> tuple[PodView, ...]:
    """Return the views of a list of pods, by name."""
    return tuple(sorted((view_pod(each) for each in _decode(data)["items"]), key=lambda pod: pod.name))


def _decode(data: bytes | Object) -> Object:
    decoded: Object = json.loads(data) if isinstance(data, bytes) else data
    return decoded


def _containers(spec: Mapping[str, Any]) -> tuple[Container, ...]:
    return tuple(Container(each["name"], each["image"]) for each in spec["containers"])


def _container_status(raw: Object) -> ContainerStatus:
    state, last = raw.get("state") or {}, raw.get("lastState") or {}
    waiting = state.get("waiting") or {}
    ended = state.get("terminated") or last.get("terminated") or {}
    return ContainerStatus(
        name=raw["name"],
        ready=raw.get("ready", False),
        restarts=raw.get("restartCount", 0),
        waiting_reason=waiting.get("reason", ""),
        waiting_message=waiting.get("message", ""),
        exit_code=ended.get("exitCode"),
        ended_reason=ended.get("reason", ""),
        ended_message=ended.get("message", ""),
    )
