"""A light cluster for many runs: the patches of `tests.fakes.cluster`, and pods whose states follow from virtual time.

The contract suite holds `tests.fakes.cluster.FakeCluster` to a real API server; `test_cluster.py` holds this one to it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from shipmate.core.fence import Operation
from shipmate.core.views import PAIR, Container, ContainerStatus, DeploymentView, Object, PodView
from shipmate.errors import Conflict, Misconfigured, NotFound, Retryable
from tests.fakes import application
from tests.fakes.cluster import _admit, _apply, _drop_empty_annotations
from tests.sim.history import Patch

NEVER = 1e15

type Reply = tuple[int, dict[str, str], bytes]


@dataclasses.dataclass(frozen=True, slots=True)
class PodFate:
    """How a pod will do: ready after so many seconds or never; `crashes` with an exit code; whether nodes can pull."""

    seconds: float = 1.0
    crashes: bool = False
    pullable: bool = True


@dataclasses.dataclass(slots=True)
class _Pod:
    view: PodView  # as it was made
    made_at: float
    ready_at: float
    crashes: bool
    pullable: bool
    gone_at: float = NEVER
    ends_at: float = NEVER
    seen: PodView | None = None  # the latest view of it
    seen_as: str = ""

    def stage(self, now: float) -> str:
        if now >= self.ends_at:
            return "ended"
        if not self.pullable:
            return "pull"
        if self.crashes:
            return "crash"
        return "ready" if now >= self.ready_at else "starting"


@dataclasses.dataclass(slots=True)
class _Deployment:
    doc: Object
    pods: list[_Pod]
    patches: list[Patch]
    view: DeploymentView | None = None
    view_until: float = 0.0  # when a pod changes next, if nobody patches before


class LightCluster:
    """A cluster with one controller account. `guarded`: the admission policies of k8s/base are installed."""

    registry = "registry.sim"

    def __init__(
        self,
        *,
        now: Callable[[], float],
        instant: Callable[[], datetime],
        fate: Callable[[str, str], PodFate],
        is_there: Callable[[str], bool],
        answering: Callable[[PodView, str], Reply],
        guarded: bool,
    ) -> None:
        self._now = now
        self._instant = instant
        self._fate = fate  # of a pod, by its name and image
        self._is_there = is_there  # whether the registry has an image
        self._answering = answering
        self._guarded = guarded
        self._deployments: dict[tuple[str, str], _Deployment] = {}
        self._gates: dict[tuple[str, str], _Pod] = {}
        self._made = 0
        self.created_gate_pods: list[PodView] = []
        self.who: Callable[[], str] = str
        self.entries: Callable[[str], int] = len  # of the ledger of a Deployment's target

    # -- what the world does to it

    def add_deployment(self, namespace: str, name: str, replicas: int = 2) -> None:
        """Create a Deployment without pods, as a person with kubectl would."""
        self._made += 1
        doc = application.deployment(namespace, name, replicas)
        doc["metadata"] |= {"uid": f"uid-{self._made}", "generation": 1, "resourceVersion": str(self._made)}
        self._deployments[namespace, name] = _Deployment(doc, [], [])

    def patches(self, namespace: str, name: str) -> list[Patch]:
        """Return the patches that a Deployment accepted, in order."""
        return self._deployments[namespace, name].patches

    def present_gate_pods(self, namespace: str) -> tuple[PodView, ...]:
        """Return the gate pods that are there."""
        return tuple(self._view(pod) for (where, _), pod in sorted(self._gates.items()) if where == namespace)

    def images(self) -> set[str]:
        """Return the images that Deployments ask for or that pods run."""
        now = self._now()
        found = set()
        for deployment in self._deployments.values():
            found.add(deployment.doc["spec"]["template"]["spec"]["containers"][0]["image"])
            found.update(pod.view.containers[0].image for pod in deployment.pods if pod.gone_at > now)
        return found

    def serving(self, namespace: str, name: str) -> list[PodView]:
        """Return the pods of a Deployment that the door may lead to."""
        now = self._now()
        pods = self._deployments[namespace, name].pods
        return [self._view(pod) for pod in pods if pod.gone_at > now and pod.stage(now) == "ready"]

    # -- the port: Deployments

    def deployment(self, namespace: str, name: str) -> DeploymentView:
        return self._deployment_view(self._deployment(namespace, name))

    def patch_deployment(self, namespace: str, name: str, operations: Sequence[Operation]) -> DeploymentView:
        found = self._deployment(namespace, name)
        before, doc = self._deployment_view(found), _copied(found.doc)
        for operation in operations:
            _apply(doc, operation)
        _drop_empty_annotations(doc)
        if "image" not in doc["spec"]["template"]["spec"]["containers"][0]:
            raise Misconfigured("spec.template.spec.containers[0].image: Required value")
        if self._guarded:
            _admit(found.doc, doc)
        if doc != found.doc:
            self._made += 1
            doc["metadata"]["generation"] += 1
            doc["metadata"]["resourceVersion"] = str(self._made)
            rolls = doc["spec"]["template"] != found.doc["spec"]["template"]
            found.doc, found.view = doc, None
            if rolls:
                self._roll(found)
        after = self._deployment_view(found)
        there = self._is_there(after.containers[0].image)
        patch = Patch(self._instant(), self.who(), tuple(operations), before, after, self.entries(name), there)
        found.patches.append(patch)
        return after

    def _roll(self, found: _Deployment) -> None:
        """Make the pods of a new template; old ones go as new ones become ready."""
        now, doc = self._now(), found.doc
        old = [pod for pod in found.pods if pod.gone_at > now]
        template = doc["spec"]["template"]
        new = [
            self._new_pod(doc["metadata"]["namespace"], doc["metadata"]["name"], template["metadata"], template["spec"])
            for _ in range(doc["spec"]["replicas"])
        ]
        ready = sorted(pod.ready_at for pod in new)
        for pod in old:
            pod.gone_at = ready.pop(0) if ready and pod.stage(now) == "ready" else now
        found.pods = old + new

    def pods(self, namespace: str, selector: str) -> tuple[PodView, ...]:
        now = self._now()
        found = self._deployments.get((namespace, selector.removeprefix("app=")))
        if found is None:
            return ()
        return tuple(self._view(pod) for pod in found.pods if pod.gone_at > now)

    def pod_logs(self, namespace: str, pod: str, *, container: str | None = None, tail: int = 20) -> str:
        return "the container's last words"

    # -- the port: gate pods

    def create_gate_pod(self, namespace: str, manifest: Object) -> PodView:
        metadata, spec = manifest["metadata"], manifest["spec"]
        name, pair = metadata["name"], metadata["annotations"][PAIR]
        there = self._gates.get((namespace, name))
        if there is not None:
            if there.view.pair != pair:
                raise Conflict(f"pod {namespace}/{name} is there for pair {there.view.pair}, not for {pair}")
            return self._view(there)
        pod = self._new_pod(namespace, name, metadata, spec)
        pod.ends_at = self._now() + spec["activeDeadlineSeconds"]
        self._gates[namespace, name] = pod
        self.created_gate_pods.append(pod.view)
        return self._view(pod)

    def gate_pod(self, namespace: str, name: str) -> PodView:
        return self._view(self._gate(namespace, name))

    def list_gate_pods(self, namespace: str) -> tuple[PodView, ...]:
        return self.present_gate_pods(namespace)

    def delete_gate_pod(self, namespace: str, name: str, uid: str) -> None:
        found = self._gates.get((namespace, name))
        if found is None:
            return
        if found.view.uid != uid:
            raise Conflict(f"pod {namespace}/{name} is another one by now: its uid is {found.view.uid}")
        del self._gates[namespace, name]

    def ask_pod(
        self, namespace: str, pod: str, port: int, method: str, path: str, *sent: object, **how: object
    ) -> Reply:
        found = self._gate(namespace, pod)
        if found.stage(self._now()) not in ("ready", "starting"):
            raise Retryable(f"pod {namespace}/{pod} has no address yet")
        return self._answering(self._view(found), path)

    # -- inside

    def _deployment(self, namespace: str, name: str) -> _Deployment:
        found = self._deployments.get((namespace, name))
        if found is None:
            raise NotFound(f'deployments.apps "{name}" not found in namespace {namespace}')
        return found

    def _gate(self, namespace: str, name: str) -> _Pod:
        found = self._gates.get((namespace, name))
        if found is None:
            raise NotFound(f'pods "{name}" not found in namespace {namespace}')
        return found

    def _new_pod(self, namespace: str, name: str, metadata: Object, spec: Object) -> _Pod:
        self._made += 1
        if "name" not in metadata:
            name = f"{name}-{self._made}"
        container = spec["containers"][0]
        view = PodView(
            namespace=namespace,
            name=name,
            uid=f"uid-{self._made}",
            resource_version=str(self._made),
            phase="Pending",
            ready=False,
            deleting=False,
            labels=metadata.get("labels") or {},
            annotations=metadata.get("annotations") or {},
            containers=(Container(container["name"], container["image"]),),
            statuses=(),
        )
        fate, now = self._fate(name, container["image"]), self._now()
        pullable = fate.pullable and self._is_there(container["image"])
        ready_at = now + fate.seconds if pullable and not fate.crashes else NEVER
        return _Pod(view, now, ready_at, fate.crashes, pullable)

    def _view(self, pod: _Pod) -> PodView:
        stage = pod.stage(self._now())
        if pod.seen is None or pod.seen_as != stage:
            pod.seen, pod.seen_as = _seen(pod.view, stage), stage
        return pod.seen

    def _deployment_view(self, found: _Deployment) -> DeploymentView:
        doc, now = found.doc, self._now()
        if found.view is not None and now < found.view_until:
            return found.view
        metadata, spec = doc["metadata"], doc["spec"]
        template = spec["template"]
        annotations = template["metadata"].get("annotations")
        updated = ready = current = 0
        found.view_until = NEVER
        for pod in found.pods:
            if pod.gone_at > now:
                changes_at = pod.ready_at if pod.ready_at > now else pod.gone_at
                found.view_until = min(found.view_until, changes_at, pod.gone_at)
                current += 1
                ready += pod.stage(now) == "ready"
                updated += pod.view.annotations == (annotations or {})
        found.view = DeploymentView(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            resource_version=metadata["resourceVersion"],
            generation=metadata["generation"],
            observed_generation=metadata["generation"],
            annotations=metadata.get("annotations"),
            template=template,
            template_annotations=annotations,
            containers=(Container("app", template["spec"]["containers"][0]["image"]),),
            match_labels=spec["selector"]["matchLabels"],
            paused=False,
            replicas=spec["replicas"],
            current=current,
            updated=updated,
            ready=ready,
            available=ready,
            conditions=(),
        )
        return found.view


def _copied(doc: Object) -> Object:
    """Return a copy of a Deployment, down to what a patch of ours may change."""
    spec = doc["spec"]
    template = spec["template"]
    containers = [{**each} for each in template["spec"]["containers"]]
    inner = {"metadata": _metadata(template), "spec": {**template["spec"], "containers": containers}}
    return {"metadata": _metadata(doc), "spec": {**spec, "template": inner}}


def _metadata(of: Object) -> Object:
    """Return a copy of the metadata of a Deployment or of its template."""
    metadata: Object = {**of["metadata"]}
    if "annotations" in metadata:
        metadata["annotations"] = {**metadata["annotations"]}
    return metadata


def _seen(made: PodView, stage: str) -> PodView:
    """Return a pod as it looks at a stage of its life."""
    name = made.containers[0].name
    fields: dict[str, Any]
    if stage == "ready":
        fields = {"phase": "Running", "ready": True, "statuses": (ContainerStatus(name, ready=True),)}
    elif stage == "starting":
        fields = {"phase": "Running", "statuses": (ContainerStatus(name),)}
    elif stage == "pull":
        words = f"{made.containers[0].image}: not found"
        fields = {"statuses": (ContainerStatus(name, waiting_reason="ErrImagePull", waiting_message=words),)}
    elif stage == "ended":
        fields = {"phase": "Failed", "reason": "DeadlineExceeded", "message": "it was active for too long"}
    else:
        status = ContainerStatus(name, restarts=2, waiting_reason="CrashLoopBackOff", exit_code=1)
        fields = {"phase": "Running", "statuses": (status,)}
    return replace(made, **fields)
