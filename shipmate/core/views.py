"""What Shipmate reads of a Deployment and of a pod, and the names of its annotations.

Pure: `shipmate.edge.cluster` makes these views of what the API server sends; `core.fence`, `core.progress` and
`core.gate_pod` decide by them. Nothing here knows a client.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from shipmate.core.refs import Digest
from shipmate.errors import Misconfigured

FENCE = "shipmate.dev/fence"
PAIR = "shipmate.dev/pair"
RELEASE = "shipmate.dev/release"

type Object = dict[str, Any]
"""A Kubernetes object as JSON."""

_FENCE = re.compile(r"0|[1-9][0-9]{0,17}")


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

    def asks_for(self, release: str, image: Digest | None) -> bool:
        """Return whether the template is that of a release: by its name, and by its image where that is known."""
        has_image = image is None or any(each.image.endswith(f"@{image}") for each in self.containers)
        return has_image and self.release == release

    @property
    def selector(self) -> str:
        """The label selector of its pods."""
        return ",".join(f"{key}={value}" for key, value in sorted(self.match_labels.items()))

    def index_of(self, container: str) -> int:
        """Return the place of a container in the template; raise Misconfigured if there is none of that name."""
        names = [each.name for each in self.containers]
        if container not in names:
            raise Misconfigured(
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


def parse_fence(text: str | None) -> int | None:
    """Return the number in a fence annotation; raise Misconfigured if it is something else."""
    if text is None:
        return None
    if not _FENCE.fullmatch(text):
        raise Misconfigured(
            f"the annotation {FENCE} says {text!r}, which is no fence: somebody else wrote it. Remove it, and Shipmate "
            "adopts the Deployment again"
        )
    return int(text)


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
