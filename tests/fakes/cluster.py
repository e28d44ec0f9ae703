"""A cluster in memory: `shipmate.ports.Cluster` with the API server's semantics of patches, names and preconditions.

It keeps every patch that was accepted, in order, for monitors of the fence. Each read lets its controllers take one
step, so that a rollout that is watched comes to its end. The contract suite holds it to what a real API server does.
"""

import copy
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from shipmate.core.fence import Operation
from shipmate.core.gate_pod import GATE_SELECTOR
from shipmate.core.views import FENCE, PAIR, DeploymentView, Object, PodView, parse_fence, view_deployment, view_pod
from shipmate.errors import Conflict, Misconfigured, NotAllowed, NotFound, Retryable

type Reply = tuple[int, dict[str, str], bytes]


class Asked(msgspec.Struct, frozen=True):
    """A question to a pod. Header names are lower-case."""

    pod: PodView
    port: int
    method: str
    path: str
    body: bytes
    headers: dict[str, str]


type Answering = Callable[[Asked], Reply]


class Patched(msgspec.Struct, frozen=True):
    """A patch that was accepted, with the Deployment before and after it."""

    operations: tuple[Operation, ...]
    before: DeploymentView
    after: DeploymentView


def echo(asked: Asked) -> Reply:
    """Answer with what was sent, as the echo image of the contract suite does; `/status/N` with the status N."""
    status = int(asked.path.rpartition("/")[2]) if asked.path.startswith("/status/") else 200
    kind = asked.headers.get("content-type", "application/octet-stream")
    return status, {"content-type": kind, "x-method": asked.method, "x-release": asked.pod.release or ""}, asked.body


class FakeCluster:
    """A cluster with one controller account. `missing_images` cannot be pulled, `crashing_images` end at once."""

    def __init__(self, *, registry: str = "registry.test", answering: Answering = echo) -> None:
        self.registry = registry
        self.answering = answering
        self.missing_images: set[str] = set()
        self.crashing_images: dict[str, str] = {}  # image: its last words
        self.history: list[Patched] = []
        self.deleted: list[PodView] = []
        self._deployments: dict[tuple[str, str], Object] = {}
        self._pods: dict[tuple[str, str], Object] = {}
        self._faults: defaultdict[str, deque[tuple[str, Exception]]] = defaultdict(deque)
        self._version = 0
        self._made = 0

    # -- what tests do to it -------------------------------------------------------------------------------------

    def add_deployment(self, manifest: Object) -> None:
        """Create or replace a Deployment, as a person with kubectl would."""
        raw = copy.deepcopy(manifest)
        raw["metadata"].setdefault("namespace", "default")
        raw["metadata"] |= {"uid": self._new_uid(), "generation": 1, "resourceVersion": self._new_version()}
        raw["status"] = {}
        self._deployments[raw["metadata"]["namespace"], raw["metadata"]["name"]] = raw

    def fail(self, method: str, error: Exception, *, after: bool = False) -> None:
        """Let the next call of a method raise; `after` it took effect, as when a reply is lost."""
        self._faults[method].append(("after" if after else "before", error))

    # -- the port ------------------------------------------------------------------------------------------------

    def deployment(self, namespace: str, name: str) -> DeploymentView:
        self._fault("deployment", "before")
        raw = self._deployment(namespace, name)
        self._step(raw)
        return view_deployment(copy.deepcopy(raw))

    def patch_deployment(self, namespace: str, name: str, operations: Sequence[Operation]) -> DeploymentView:
        self._fault("patch_deployment", "before")
        before = self._deployment(namespace, name)
        after = copy.deepcopy(before)
        for operation in operations:
            _apply(after, operation)
        _drop_empty_annotations(after)
        if "image" not in after["spec"]["template"]["spec"]["containers"][0]:
            raise Misconfigured("spec.template.spec.containers[0].image: Required value")
        _admit(before, after)
        if after != before:
            after["metadata"]["generation"] += 1  # for annotations too, as Deployments have it
            after["metadata"]["resourceVersion"] = self._new_version()
            self._deployments[namespace, name] = after
        views = view_deployment(copy.deepcopy(before)), view_deployment(copy.deepcopy(after))
        self.history.append(Patched(tuple(operations), *views))
        self._fault("patch_deployment", "after")
        return views[1]

    def pods(self, namespace: str, selector: str) -> tuple[PodView, ...]:
        self._fault("pods", "before")
        wanted = dict(each.split("=", 1) for each in selector.split(","))
        found = []
        for (where, _), raw in sorted(self._pods.items()):
            if where == namespace and wanted.items() <= raw["metadata"]["labels"].items():
                found.append(view_pod(copy.deepcopy(raw)))
        return tuple(found)

    def pod_logs(self, namespace: str, pod: str, *, container: str | None = None, tail: int = 20) -> str:
        self._fault("pod_logs", "before")
        image = self._pod(namespace, pod)["spec"]["containers"][0]["image"]
        return "\n".join(self.crashing_images.get(image, "").splitlines()[-tail:])

    def create_gate_pod(self, namespace: str, manifest: Object) -> PodView:
        self._fault("create_gate_pod", "before")
        name = manifest["metadata"]["name"]
        if (namespace, name) in self._pods:
            there = self.gate_pod(namespace, name)
            mine = manifest["metadata"]["annotations"][PAIR]
            if there.pair != mine:
                raise Conflict(f"pod {namespace}/{name} is there for pair {there.pair}, not for {mine}")
            return there
        raw = self._new_pod(namespace, name, manifest["metadata"], manifest["spec"])
        self._fault("create_gate_pod", "after")
        return view_pod(copy.deepcopy(raw))

    def gate_pod(self, namespace: str, name: str) -> PodView:
        self._fault("gate_pod", "before")
        raw = self._pod(namespace, name)
        self._start(raw)
        return view_pod(copy.deepcopy(raw))

    def list_gate_pods(self, namespace: str) -> tuple[PodView, ...]:
        return self.pods(namespace, GATE_SELECTOR)

    def delete_gate_pod(self, namespace: str, name: str, uid: str) -> None:
        self._fault("delete_gate_pod", "before")
        raw = self._pods.get((namespace, name))
        if raw is None:
            return
        if raw["metadata"]["uid"] != uid:
            raise Conflict(f"pod {namespace}/{name} is another one by now: its uid is {raw['metadata']['uid']}")
        self.deleted.append(view_pod(self._pods.pop((namespace, name))))
        self._fault("delete_gate_pod", "after")

    def ask_pod(
        self,
        namespace: str,
        pod: str,
        port: int,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = 10.0,
    ) -> Reply:
        self._fault("ask_pod", "before")
        if not pod.startswith("gate-"):
            raise NotAllowed("the controller asks the pods of its gates and no others")
        view = view_pod(self._pod(namespace, pod))
        if view.phase != "Running":
            raise Retryable(f"pod {namespace}/{pod} has no address yet")
        sent = {key.lower(): value for key, value in (headers or {}).items()}
        return self.answering(Asked(view, port, method, path, body or b"", sent))

    # -- inside --------------------------------------------------------------------------------------------------

    def _fault(self, method: str, when: str) -> None:
        waiting = self._faults[method]
        if waiting and waiting[0][0] == when:
            raise waiting.popleft()[1]

    def _deployment(self, namespace: str, name: str) -> Object:
        if (namespace, name) not in self._deployments:
            raise NotFound(f'deployments.apps "{name}" not found in namespace {namespace}')
        return self._deployments[namespace, name]

    def _pod(self, namespace: str, name: str) -> Object:
        if (namespace, name) not in self._pods:
            raise NotFound(f'pods "{name}" not found in namespace {namespace}')
        return self._pods[namespace, name]

    def _new_version(self) -> str:
        self._version += 1
        return str(self._version)

    def _new_uid(self) -> str:
        self._made += 1
        return f"00000000-0000-0000-0000-{self._made:012}"

    def _new_pod(self, namespace: str, name: str, metadata: Object, spec: Object) -> Object:
        raw = {
            "metadata": {
                "namespace": namespace,
                "name": name,
                "uid": self._new_uid(),
                "resourceVersion": self._new_version(),
                "labels": dict(metadata.get("labels") or {}),
                "annotations": dict(metadata.get("annotations") or {}),
            },
            "spec": copy.deepcopy(spec),
            "status": {"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}]},
        }
        self._pods[namespace, name] = raw
        return raw

    def _start(self, raw: Object) -> bool:
        """Let a pod's container start, or say why it cannot; return whether that changed anything."""
        if raw["status"].get("phase") == "Failed":  # a pod that ended stays as it ended
            return False
        image = raw["spec"]["containers"][0]["image"]
        status: dict[str, Any] = {"name": raw["spec"]["containers"][0]["name"], "ready": False, "restartCount": 0}
        phase = "Pending"
        if image in self.missing_images:
            status["state"] = {"waiting": {"reason": "ErrImagePull", "message": f"{image}: not found"}}
        elif image in self.crashing_images:
            ended = {"exitCode": 1, "reason": "Error", "message": self.crashing_images[image]}
            if raw["spec"].get("restartPolicy") == "Never":
                phase = "Failed"
                status["state"] = {"terminated": ended}
            else:
                phase = "Running"
                status |= {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": ended}}
        else:
            phase = "Running"
            status |= {"state": {"running": {}}, "ready": True}
        ready = "True" if status["ready"] else "False"
        fresh = {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": ready}],
            "containerStatuses": [status],
        }
        changed: bool = raw["status"] != fresh
        raw["status"] = fresh
        return changed

    def _step(self, deployment: Object) -> None:
        """Let the deployment controller and the kubelet do one thing each."""
        metadata, spec = deployment["metadata"], deployment["spec"]
        wanted = spec.get("replicas", 1)
        mine = [raw for raw in self._pods.values() if self._owns(deployment, raw)]
        new = [raw for raw in mine if raw["metadata"]["template"] == spec["template"]]
        old = [raw for raw in mine if raw["metadata"]["template"] != spec["template"]]
        moved = sum(self._start(raw) for raw in new)  # every one of them, so not any()
        if moved == 0 and not spec.get("paused"):
            ready = sum(view_pod(raw).ready for raw in new)
            if len(new) < wanted and len(mine) <= wanted:
                name = f"{metadata['name']}-{self._new_version()}"
                raw = self._new_pod(metadata["namespace"], name, spec["template"]["metadata"], spec["template"]["spec"])
                raw["metadata"]["template"] = copy.deepcopy(spec["template"])
                new.append(raw)
            elif old and (ready + len(old) > wanted or wanted == 0):
                gone = old.pop(0)
                del self._pods[gone["metadata"]["namespace"], gone["metadata"]["name"]]
        ready = sum(view_pod(raw).ready for raw in [*new, *old])
        deployment["status"] = {
            "observedGeneration": metadata["generation"],
            "replicas": len(new) + len(old),
            "updatedReplicas": len(new),
            "readyReplicas": ready,
            "availableReplicas": ready,
        }

    def _owns(self, deployment: Object, pod: Object) -> bool:
        labels = deployment["spec"]["selector"]["matchLabels"].items()
        return (
            "template" in pod["metadata"]
            and pod["metadata"]["namespace"] == deployment["metadata"]["namespace"]
            and labels <= pod["metadata"]["labels"].items()
        )


def _admit(before: Object, after: Object) -> None:
    """Refuse what the admission policies of k8s/base refuse to the controller."""
    fences = [parse_fence((raw["metadata"].get("annotations") or {}).get(FENCE)) for raw in (before, after)]
    images = [[each["image"] for each in raw["spec"]["template"]["spec"]["containers"]] for raw in (before, after)]
    if fences[0] is None:
        return
    if fences[1] is None or fences[1] < fences[0]:
        raise NotAllowed(f"the annotation {FENCE} never falls or goes: it is {fences[0]}")
    if images[0] != images[1] and fences[1] <= fences[0]:
        raise NotAllowed(f"a release needs a fence above {fences[0]}: an image may not change under the same one")


def _drop_empty_annotations(raw: Object) -> None:
    """Forget empty maps, as the API server does when it stores an object."""
    for metadata in (raw["metadata"], raw["spec"]["template"].get("metadata", {})):
        if metadata.get("annotations") == {}:
            del metadata["annotations"]


@lru_cache(maxsize=256)
def _parts(pointer: str) -> tuple[str, ...]:
    """Return the parts of a JSON pointer (RFC 6901)."""
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])


def _apply(document: Object, operation: Operation) -> None:
    """Apply one operation of a JSON Patch (RFC 6902: test, add, replace, remove); raise Conflict if it does not fit."""
    *parents, last = _parts(operation["path"])
    where: Any = document
    try:
        for part in parents:
            where = where[int(part)] if isinstance(where, list) else where[part]
        key: Any = int(last) if isinstance(where, list) else last
        if operation["op"] == "add" and isinstance(where, dict):
            where[key] = value if isinstance(value := operation["value"], str) else copy.deepcopy(value)
            return
        if operation["op"] == "test" and operation["value"] is None and isinstance(where, dict) and key not in where:
            return  # not RFC 6902's way, but the API server's
        present = where[key]
        if operation["op"] == "test" and present == operation["value"]:
            return
        if operation["op"] == "replace":
            where[key] = value if isinstance(value := operation["value"], str) else copy.deepcopy(value)
            return
        if operation["op"] == "remove":
            del where[key]
            return
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise Conflict(f"the patch does not fit: {operation['path']} is not there") from error
    raise Conflict(f"the patch does not fit: {operation}")
