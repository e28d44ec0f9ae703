"""How far a rollout or a gate's pod is: it moves, it is complete, or waiting will not mend it.

Pure: the stages `rollout` and `gate` ask here about what they read of the cluster.
"""

import re
from collections.abc import Iterable

import msgspec

from shipmate.core.views import ContainerStatus, DeploymentView, PodView

_PULL = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"})
_CREATE = frozenset({"CreateContainerError", "CreateContainerConfigError", "RunContainerError"})
_MISSING = re.compile(r"(secret|configmap) \".*\" not found|couldn't find key", re.IGNORECASE)
"""What the kubelet says where the namespace lacks something that the Deployment's template names."""
_TRANSIENT = re.compile(
    r"connection (refused|reset)|timeout|timed out|deadline exceeded|\bEOF\b|no such host|too many requests|"
    r"QPS exceeded|temporar|unavailable|status code 5\d\d|unexpected status.{0,60}: 5\d\d|"
    r"^Back-off pulling image \S+$",
    re.IGNORECASE,
)
"""Pulls that the kubelet repeats with some hope. Before Kubernetes 1.32 its back-off does not say what it is for; what
the pull itself failed of is told between two waits."""
_PERMANENT = re.compile(r"not found|manifest unknown|unauthorized|denied|forbidden|invalid reference", re.IGNORECASE)
_NOBODYS_FAULT = frozenset({"ImagePullFailed", "ChangedByOthers", "DeploymentPaused", "GatePodDeleted"})
"""Reasons of failures that are not the pair's, beside those that begin with Pod."""


class Progressing(msgspec.Struct, frozen=True, tag="progressing"):
    """The rollout moves, or waits for something that may still come."""

    message: str


class Complete(msgspec.Struct, frozen=True, tag="complete"):
    """Every wanted pod is of the new template and available; old ones may still finish their last requests."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The rollout will not succeed by waiting. `pod` is one whose log may say more."""

    reason: str
    message: str
    pod: str | None = None
    is_untried: bool = False  # the image was kept from running, or runs well: it is not known to be bad

    @property
    def is_nobodys_fault(self) -> bool:
        """Whether it failed for what the pair is not to blame for: nodes, deadlines, pulls, people, quotas, secrets."""
        return self.is_untried or self.reason in _NOBODYS_FAULT or self.reason.startswith("Pod")


type Progress = Progressing | Complete | Failed


def progress(deployment: DeploymentView, pods: Iterable[PodView]) -> Progress:
    """Return how far the rollout of a Deployment's current template is.

    `pods` are those that its selector finds. A failure that waiting does not mend is told at once; the rest is bounded
    by the Deployment's own progressDeadlineSeconds.
    """
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
        return Complete()
    for pod in new:
        failure = pod_failure(pod)
        if failure is not None and not _is_replaced(pod):
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
            missing = _MISSING.search(message) is not None
            words = f"{where} cannot be created: {message or reason}"
            return Failed("ContainerCreateFailed", words, pod.name, is_untried=missing)
        if reason == "CrashLoopBackOff":
            return Failed("CrashLoop", f"{where} ends as soon as it starts: {_end(status)}", pod.name)
    return None


def _is_replaced(pod: PodView) -> bool:
    """Whether a pod was ended as a whole, by its node or an eviction: its ReplicaSet makes another."""
    return pod.phase == "Failed" and bool(pod.reason)


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
            stuck = [pod for pod in new if not pod.ready and not _is_replaced(pod)]
            return Failed(
                "ProgressDeadline",
                f"no progress within the Deployment's deadline: {_movement(deployment, new)}",
                stuck[0].name if stuck else None,
                is_untried=is_untried(deployment, new),
            )
    return None


def is_untried(deployment: DeploymentView, pods: Iterable[PodView]) -> bool:
    """Return whether a rollout waits for no new pod that runs: for nodes, pulls or quotas, not for the application."""
    tried = (pod for pod in pods if pod.phase != "Pending" and not pod.ready and not _is_replaced(pod))
    return not any(_is_new(deployment, pod) for pod in tried)


def _movement(deployment: DeploymentView, new: list[PodView]) -> str:
    text = f"{deployment.updated} of {deployment.replicas} pods are new, {deployment.available} available"
    waiting = [_pod_words(pod) for pod in new if not pod.ready]
    old = deployment.current - deployment.updated
    if old > 0:
        text += f", {old} old"
    return "; ".join([text, *waiting])


def _pod_words(pod: PodView) -> str:
    """Return in words what a pod that is not ready waits for."""
    if _is_replaced(pod):
        return f"pod {pod.name} was ended and is replaced: {pod.message or pod.reason}"
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
