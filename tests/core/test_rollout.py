"""The patch and its fence, what progress says, the gate's pod, and reading the API server's objects."""

import copy
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipmate.core.refs import Digest, Pair
from shipmate.core.rollout import (
    Complete,
    Container,
    ContainerStatus,
    DeploymentView,
    Failed,
    Object,
    PodView,
    Progressing,
    Standing,
    adopt_patch,
    classify_fence,
    explain,
    fence_patch,
    gate_name,
    gate_pod,
    gate_progress,
    parse_fence,
    progress,
    raise_fence_patch,
    view_deployment,
    view_pod,
    view_pods,
)
from shipmate.errors import Invalid

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


# -- the fence -----------------------------------------------------------------------------------------------------


def test_a_release_is_one_patch_that_tests_what_was_seen_before_it_changes_anything() -> None:
    operations = fence_patch(
        view(), expected_fence=4, new_fence=7, container="app", image=IMAGE, pair=PAIR, release="r-2"
    )
    assert operations == [
        {"op": "test", "path": "/metadata/uid", "value": "u-1"},
        {"op": "test", "path": "/metadata/annotations/shipmate.dev~1fence", "value": "4"},
        {"op": "test", "path": "/spec/template/spec/containers/1/name", "value": "app"},
        {"op": "replace", "path": "/metadata/annotations/shipmate.dev~1fence", "value": "7"},
        {"op": "replace", "path": "/spec/template/spec/containers/1/image", "value": IMAGE},
        {"op": "add", "path": "/spec/template/metadata/annotations/shipmate.dev~1pair", "value": PAIR},
        {"op": "add", "path": "/spec/template/metadata/annotations/shipmate.dev~1release", "value": "r-2"},
        {
            "op": "add",
            "path": "/metadata/annotations/kubernetes.io~1change-cause",
            "value": f"shipmate r-2: pair {PAIR[:12]}, fence 7",
        },
    ]


def test_a_template_without_annotations_gets_them_only_if_nobody_wrote_some_since() -> None:
    raw = manifest()
    del raw["spec"]["template"]["metadata"]["annotations"]
    deployment = view_deployment(raw)
    operations = fence_patch(
        deployment, expected_fence=4, new_fence=5, container="app", image=IMAGE, pair=PAIR, release="r-2"
    )
    path = "/spec/template/metadata/annotations"
    guard = operations.index({"op": "test", "path": path, "value": None})
    assert operations[guard + 1] == {"op": "add", "path": path, "value": {}}
    assert deployment.pair is None
    assert deployment.release is None


def test_a_hold_raises_the_fence_and_touches_no_template() -> None:
    assert raise_fence_patch(view(), expected_fence=4, new_fence=5) == [
        {"op": "test", "path": "/metadata/uid", "value": "u-1"},
        {"op": "test", "path": "/metadata/annotations/shipmate.dev~1fence", "value": "4"},
        {"op": "replace", "path": "/metadata/annotations/shipmate.dev~1fence", "value": "5"},
    ]


@pytest.mark.parametrize(
    ("annotations", "between"),
    [
        pytest.param(
            {"a": "b"},
            [{"op": "test", "path": "/metadata/annotations/shipmate.dev~1fence", "value": None}],
            id="annotations are there",
        ),
        pytest.param(
            None,
            [
                {"op": "test", "path": "/metadata/annotations", "value": None},
                {"op": "add", "path": "/metadata/annotations", "value": {}},
            ],
            id="none are",
        ),
    ],
)
def test_adoption_adds_fence_0_if_there_is_none(annotations: Object | None, between: list[Object]) -> None:
    deployment = view(annotations=annotations)
    assert deployment.fence is None
    assert adopt_patch(deployment) == [
        {"op": "test", "path": "/metadata/uid", "value": "u-1"},
        *between,
        {"op": "add", "path": "/metadata/annotations/shipmate.dev~1fence", "value": "0"},
    ]


@pytest.mark.parametrize(
    ("current", "mine", "standing"),
    [
        (None, 1, Standing.UNADOPTED),
        (4, 4, Standing.APPLIED),
        (5, 4, Standing.SUPERSEDED),
        (3, 4, Standing.PATCHABLE),
    ],
)
def test_how_an_intent_stands(current: int | None, mine: int, standing: Standing) -> None:
    assert classify_fence(current, mine) is standing


@given(st.integers(0, 10**18))
def test_every_fence_is_read_as_it_is_written(fence: int) -> None:
    assert parse_fence(str(fence)) == fence


@pytest.mark.parametrize("text", ["", "x", "-1", "007", "1.0", "1" * 20, " 1"])
def test_a_fence_that_somebody_else_wrote_is_refused_with_a_way_out(text: str) -> None:
    with pytest.raises(Invalid, match=r"which is no fence: somebody else wrote it\. Set it to the number"):
        parse_fence(text)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"new_fence": 4}, "the fence must rise: 4 does not outrank 4"),
        ({"image": "registry.test/vision:main"}, "'registry.test/vision:main' names no digest"),
        ({"container": "web"}, "vision/vision has no container 'web', only proxy, app: correct deployment.container"),
    ],
)
def test_patches_that_must_not_be_made(changes: dict[str, Any], words: str) -> None:
    wanted: dict[str, Any] = {"expected_fence": 4, "new_fence": 5, "container": "app", "image": IMAGE, **changes}
    with pytest.raises(Invalid, match=words):
        fence_patch(view(), pair=PAIR, release="r-2", **wanted)


# -- progress ------------------------------------------------------------------------------------------------------

MOVING = {"updatedReplicas": 1, "replicas": 3, "availableReplicas": 2}
OLD = {"annotations": {"shipmate.dev/pair": PAIR, "shipmate.dev/release": "r-0"}}


@pytest.mark.parametrize(
    ("status", "pods", "message"),
    [
        pytest.param({"observedGeneration": 2}, [], "waiting for the deployment controller to see", id="unseen"),
        pytest.param(
            MOVING, [pod("old", **OLD)], "1 of 2 pods are new, 2 available, 2 old", id="old pods are not waited for"
        ),
        pytest.param(
            {"updatedReplicas": 2, "availableReplicas": 1},
            [pod(ready=False)],
            "2 of 2 pods are new, 1 available; pod vision-1 runs but is not ready",
            id="not ready",
        ),
        pytest.param(MOVING, [pod(ready=False, phase="Pending", statuses=())], "vision-1 is starting", id="starting"),
        pytest.param(
            MOVING,
            [pod(ready=False, unschedulable="0/3 nodes: Insufficient cpu")],
            "pod vision-1 waits for a node: 0/3 nodes: Insufficient cpu",
            id="no node yet, one may come",
        ),
        pytest.param(
            MOVING,
            [waiting("ImagePullBackOff", "dial tcp 127.0.0.1:5000: connect: connection refused")],
            "vision-1: ImagePullBackOff (dial tcp",
            id="the registry is in trouble, the image is not to blame",
        ),
        pytest.param(MOVING, [waiting("ContainerCreating")], "vision-1: ContainerCreating", id="creating"),
        pytest.param(
            MOVING,
            [pod(ready=False, statuses=(ContainerStatus("app", restarts=1, exit_code=1, ended_message="no model"),))],
            "vision-1 restarted 1 times: exit code 1: no model",
            id="ended once, tried again",
        ),
        pytest.param(
            MOVING
            | {
                "conditions": [
                    {"type": "ReplicaFailure", "status": "True", "message": "failed calling webhook: timeout"},
                    {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"},
                ]
            },
            [],
            "1 of 2 pods are new",
            id="a webhook is in trouble",
        ),
    ],
)
def test_a_rollout_that_may_still_succeed_says_what_it_waits_for(
    status: Object, pods: list[PodView], message: str
) -> None:
    seen = progress(view(status=status), pods)
    assert isinstance(seen, Progressing)
    assert message in seen.message


@pytest.mark.parametrize(
    ("status", "pods", "reason", "message"),
    [
        pytest.param(
            MOVING,
            [waiting("ErrImagePull", f"failed to resolve {IMAGE}: not found")],
            "ImagePullFailed",
            "container app of pod vision-1 cannot pull its image: failed to resolve",
            id="no such image",
        ),
        pytest.param(
            MOVING,
            [waiting("ImagePullBackOff", "unexpected status: 403 Forbidden, after a timeout")],
            "ImagePullFailed",
            "403 Forbidden",
            id="may not pull",
        ),
        pytest.param(MOVING, [waiting("InvalidImageName")], "ImagePullFailed", "InvalidImageName", id="no reference"),
        pytest.param(
            MOVING,
            [waiting("CreateContainerConfigError", 'secret "x" not found')],
            "ContainerCreateFailed",
            'secret "x" not found',
            id="cannot be created",
        ),
        pytest.param(
            MOVING,
            [
                pod(
                    ready=False,
                    statuses=(
                        ContainerStatus("proxy"),
                        ContainerStatus(
                            "app", False, 2, "CrashLoopBackOff", "back-off 10s", 137, "OOMKilled", "allocating\n"
                        ),
                    ),
                )
            ],
            "CrashLoop",
            "container app of pod vision-1 ends as soon as it starts: exit code 137 (OOMKilled): allocating",
            id="crashes",
        ),
        pytest.param(
            MOVING,
            [waiting("CrashLoopBackOff", "back-off 10s restarting")],
            "CrashLoop",
            "back-off 10s restarting",
            id="crashes without a word",
        ),
        pytest.param(
            MOVING,
            [waiting("CrashLoopBackOff")],
            "CrashLoop",
            "it does not say why",
            id="crashes without any word",
        ),
        pytest.param(
            MOVING
            | {
                "conditions": [
                    {
                        "type": "ReplicaFailure",
                        "status": "True",
                        "reason": "FailedCreate",
                        "message": 'pods "x" is forbidden: violates PodSecurity "restricted"',
                    }
                ]
            },
            [],
            "PodsRefused",
            "the cluster refuses the new pods: pods",
            id="refused",
        ),
        pytest.param(
            MOVING | {"conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]},
            [pod("vision-2"), pod(ready=False)],
            "ProgressDeadline",
            "no progress within the Deployment's deadline: 1 of 2 pods are new, 2 available, 2 old; pod vision-1 runs",
            id="deadline",
        ),
    ],
)
def test_a_rollout_that_failed_is_not_waited_for(
    status: Object, pods: list[PodView], reason: str, message: str
) -> None:
    seen = progress(view(status=status), pods)
    assert isinstance(seen, Failed)
    assert seen.reason == reason
    assert message in seen.message
    assert seen.pod == ("vision-1" if pods else None)


def test_a_deadline_without_any_pod_still_has_words() -> None:
    conditions = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
    seen = progress(view(status=MOVING | {"conditions": conditions}), [])
    assert seen == Failed(
        "ProgressDeadline",
        "no progress within the Deployment's deadline: 1 of 2 pods are new, 2 available, 2 old",
        None,
    )


def test_a_paused_deployment_says_how_to_resume_it() -> None:
    seen = progress(view(spec={"paused": True}), [])
    assert isinstance(seen, Failed)
    assert seen.reason == "DeploymentPaused"
    assert "kubectl rollout resume deployment/vision -n vision" in seen.message


def test_a_finished_rollout_counts_the_old_pods_that_still_finish_their_requests() -> None:
    assert progress(view(), [pod("a"), pod("b")]) == Complete(draining=0)
    gone = pod("c", deleting=True, ready=False, **OLD)
    assert progress(view(), [pod("a"), pod("b"), gone]) == Complete(draining=1)


def test_a_pod_of_another_image_or_another_release_is_an_old_one() -> None:
    other = pod(ready=False, phase="Failed", containers=(Container("proxy", "proxy:1"), Container("app", "x")))
    same_image = pod(ready=False, phase="Failed", **OLD)
    assert isinstance(progress(view(status=MOVING), [other, same_image]), Progressing)


# -- the gate's pod ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(pod(), Complete(), id="ready"),
        pytest.param(pod(ready=False), Progressing("pod vision-1 runs but is not ready"), id="running"),
        pytest.param(
            pod(deleting=True),
            Failed("GatePodDeleted", "somebody deletes the gate's pod vision-1", "vision-1"),
            id="deleted",
        ),
        pytest.param(
            pod(ready=False, phase="Succeeded"),
            Failed("CandidateEnded", "the container of pod vision-1 ended instead of serving", "vision-1"),
            id="ended well",
        ),
        pytest.param(
            pod(ready=False, phase="Failed", statuses=(ContainerStatus("app", exit_code=3, ended_reason="Error"),)),
            Failed("CandidateEnded", "pod vision-1 failed: container app: exit code 3", "vision-1"),
            id="ended badly",
        ),
        pytest.param(
            pod(ready=False, phase="Failed", statuses=()),
            Failed("CandidateEnded", "pod vision-1 failed: no container says why", "vision-1"),
            id="ended without a word",
        ),
        pytest.param(
            pod(ready=False, phase="Failed", reason="DeadlineExceeded", message="Pod was active too long"),
            Failed("PodDeadlineExceeded", "pod vision-1 was ended: Pod was active too long", "vision-1"),
            id="too long",
        ),
        pytest.param(
            pod(ready=False, phase="Failed", reason="Evicted"),
            Failed("PodEvicted", "pod vision-1 was ended: Evicted", "vision-1"),
            id="evicted",
        ),
    ],
)
def test_what_a_gates_pod_says(seen: PodView, expected: object) -> None:
    assert gate_progress(seen) == expected


def test_a_failure_is_told_with_what_the_container_said() -> None:
    failed = Failed("CrashLoop", "it ends", "vision-1")
    assert explain(failed) == failed
    told = explain(failed, readiness=" the model is not here \n", log="\n".join(str(line) for line in range(20)))
    assert told.message == (
        "it ends; it says: the model is not here; last lines of its log:\n" + "\n".join(map(str, range(10, 20)))
    )
    assert (told.reason, told.pod) == ("CrashLoop", "vision-1")


def test_the_gates_pod_is_the_deployments_template_outside_its_selector() -> None:
    deployment = view()
    before = copy.deepcopy(deployment.template)
    made = gate_pod(
        deployment, name="gate-1", container="app", image="r/x@sha256:2", pair=PAIR, active_deadline_seconds=60
    )
    assert made["metadata"] == {
        "name": "gate-1",
        "namespace": "vision",
        "labels": {
            "app.kubernetes.io/managed-by": "shipmate",
            "app.kubernetes.io/component": "gate",
            "shipmate.dev/gate": PAIR[:12],
        },
        "annotations": {"shipmate.dev/pair": PAIR, "shipmate.dev/release": "gate"},
    }
    assert made["spec"] == {
        "containers": [
            {"name": "proxy", "image": "proxy:1"},
            {
                "name": "app",
                "image": "r/x@sha256:2",
                "readinessProbe": {"httpGet": {"path": "/readyz"}, "periodSeconds": 1, "initialDelaySeconds": 0},
            },
        ],
        "nodeSelector": {"gpu": "yes"},
        "restartPolicy": "Never",
        "activeDeadlineSeconds": 60,
        "terminationGracePeriodSeconds": 1,
    }
    assert deployment.template == before


@pytest.mark.parametrize(
    ("selector", "words"),
    [
        ({"matchLabels": {"app.kubernetes.io/managed-by": "shipmate"}}, "by app.kubernetes.io/managed-by=shipmate"),
        ({"matchExpressions": []}, "by no label of its own"),
    ],
)
def test_a_selector_that_would_take_the_gates_pod_is_refused(selector: Object, words: str) -> None:
    deployment = view(spec={"selector": selector})
    with pytest.raises(Invalid, match=f"{words}, which a gate's pod carries too: let its selector.matchLabels name"):
        gate_pod(deployment, name="g", container="app", image=IMAGE, pair=PAIR)


@given(st.text("abcz09-", min_size=1, max_size=60), st.integers(1, 10_000))
def test_a_gates_name_fits_a_host_name_and_is_one_for_each_target(target: str, attempt: int) -> None:
    name = gate_name(target, PAIR, attempt)
    assert len(name) <= 63
    assert name.startswith("gate-")
    assert name.endswith(f"-{PAIR[:12]}-a{attempt}")
    assert gate_name(target + "x", PAIR, attempt) != name


def test_long_names_that_begin_alike_stay_apart() -> None:
    names = {gate_name("a" * 50 + end, PAIR, 1) for end in "xyz"}
    assert [len(name) for name in names] == [63, 63, 63]


def test_a_gates_name_says_what_it_is() -> None:
    assert gate_name("vision", PAIR, 2) == f"gate-vision-{PAIR[:12]}-a2"


# -- reading the API server's objects ------------------------------------------------------------------------------


def test_a_new_deployment_without_status_is_read() -> None:
    raw = manifest()
    del raw["status"], raw["spec"]["replicas"]
    raw["spec"]["selector"] = {"matchExpressions": []}
    seen = view_deployment(json.dumps(raw).encode())
    assert (seen.replicas, seen.current, seen.observed_generation, seen.conditions) == (1, 0, 0, ())
    assert seen.selector == ""
    assert seen.fence == 4


def test_a_deployments_selector_is_written_as_a_list_request_takes_it() -> None:
    assert view(spec={"selector": {"matchLabels": {"b": "2", "a": "1"}}}).selector == "a=1,b=2"


def test_a_pod_is_read_with_what_its_containers_say() -> None:
    raw: Object = {
        "metadata": {
            "namespace": "n",
            "name": "p",
            "uid": "u",
            "resourceVersion": "1",
            "deletionTimestamp": "2026-11-23T00:00:00Z",
            "creationTimestamp": "2026-11-22T00:00:00Z",
            "annotations": {"shipmate.dev/pair": PAIR, "shipmate.dev/release": "r-9"},
        },
        "spec": {"containers": [{"name": "app", "image": IMAGE}]},
        "status": {
            "phase": "Pending",
            "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"},
                {"type": "Ready", "status": "False"},
            ],
            "initContainerStatuses": [{"name": "init", "state": {"terminated": {"exitCode": 0}}}],
            "containerStatuses": [
                {
                    "name": "app",
                    "restartCount": 3,
                    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                    "lastState": {"terminated": {"exitCode": 2, "reason": "Error", "message": "bad model"}},
                }
            ],
        },
    }
    seen = view_pod(raw)
    assert seen.statuses == (
        ContainerStatus("init", exit_code=0),
        ContainerStatus("app", False, 3, "CrashLoopBackOff", "back-off", 2, "Error", "bad model"),
    )
    assert (seen.deleting, seen.unschedulable, seen.pair, seen.release) == (True, "no node", PAIR, "r-9")
    bare = {"metadata": {"namespace": "n", "name": "a", "uid": "v", "resourceVersion": "2"}, "spec": raw["spec"]}
    assert [each.name for each in view_pods({"items": [raw, bare]})] == ["a", "p"]
    assert view_pod(bare).pair is None
    assert (view_pod(bare).phase, view_pod(bare).ready) == ("Pending", False)
