"""What progress says of a rollout and of a gate's pod, and in which words."""

import pytest

from shipmate.core.progress import Complete, Failed, Progressing, explain, gate_progress, pod_failure, progress
from shipmate.core.views import Container, ContainerStatus, Object, PodView
from tests.core.cluster_objects import IMAGE, PAIR, pod, view, waiting

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
        pytest.param(
            MOVING,
            [waiting("ErrImagePull", "pull QPS exceeded")],
            "vision-1: ErrImagePull (pull QPS exceeded)",
            id="a fresh node pulls many images",
        ),
        pytest.param(MOVING, [waiting("ErrImagePull", 'Get "https://r/v2/": EOF')], 'v2/": EOF)', id="cut off"),
        pytest.param(
            MOVING,
            [waiting("ImagePullBackOff", f'Back-off pulling image "{IMAGE}"')],
            "vision-1: ImagePullBackOff (Back-off pulling image",
            id="a back-off that does not say what it is for",
        ),
        pytest.param(
            MOVING,
            [pod(ready=False, phase="Failed", reason="Evicted", message="low on memory"), pod("vision-2", ready=False)],
            "pod vision-1 was ended and is replaced: low on memory; pod vision-2 runs but is not ready",
            id="an evicted pod is replaced",
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
        pytest.param(
            MOVING,
            [waiting("ImagePullBackOff", f'Back-off pulling image "{IMAGE}": ErrImagePull: {IMAGE}: not found')],
            "ImagePullFailed",
            "not found",
            id="a back-off from an image that is not there",
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


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param('secret "x" not found', True, id="no secret"),
        pytest.param('configmap "settings" not found', True, id="no configmap"),
        pytest.param("couldn't find key token in Secret vision/x", True, id="a secret without the key"),
        pytest.param("container has runAsNonRoot and image will run as root", False, id="an image that runs as root"),
        pytest.param("", False, id="no word"),
    ],
)
def test_a_container_that_lacks_something_of_the_namespace_was_not_tried(message: str, expected: bool) -> None:
    failed = pod_failure(waiting("CreateContainerConfigError", message))
    assert failed is not None
    assert (failed.reason, failed.is_untried) == ("ContainerCreateFailed", expected)


@pytest.mark.parametrize(
    ("reason", "is_untried", "expected"),
    [
        pytest.param("CrashLoop", False, False, id="the application ends"),
        pytest.param("ContainerCreateFailed", True, True, id="the namespace lacks a secret"),
        pytest.param("ImagePullFailed", False, True, id="a pull"),
        pytest.param("ChangedByOthers", False, True, id="a person"),
        pytest.param("PodEvicted", False, True, id="a node"),
        pytest.param("PodsRefused", False, True, id="a quota"),
    ],
)
def test_what_a_pair_is_to_blame_for(reason: str, is_untried: bool, expected: bool) -> None:
    assert Failed(reason, "words", is_untried=is_untried).is_nobodys_fault is expected


def test_a_deadline_without_any_pod_still_has_words() -> None:
    conditions = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
    seen = progress(view(status=MOVING | {"conditions": conditions}), [])
    assert seen == Failed(
        "ProgressDeadline",
        "no progress within the Deployment's deadline: 1 of 2 pods are new, 2 available, 2 old",
        None,
        is_untried=True,
    )


@pytest.mark.parametrize(
    ("late", "expected"),
    [
        pytest.param(pod(ready=False, phase="Pending", unschedulable="no node"), True, id="no node has room"),
        pytest.param(waiting("ImagePullBackOff", "connection refused"), True, id="the registry is away"),
        pytest.param(pod(), True, id="ready, and others cannot be made"),
        pytest.param(pod(ready=False), False, id="it runs and is not ready"),
        pytest.param(pod(ready=False, phase="Failed", reason="Evicted"), True, id="a node ended it"),
        pytest.param(pod(ready=False, **OLD), True, id="an old pod says nothing of the new image"),
    ],
)
def test_a_late_rollout_says_whether_a_new_pod_was_tried(late: PodView, expected: bool) -> None:
    conditions = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
    seen = progress(view(status=MOVING | {"conditions": conditions}), [late])
    assert isinstance(seen, Failed)
    assert seen.is_untried is expected


def test_a_paused_deployment_says_how_to_resume_it() -> None:
    seen = progress(view(spec={"paused": True}), [])
    assert isinstance(seen, Failed)
    assert seen.reason == "DeploymentPaused"
    assert "kubectl rollout resume deployment/vision -n vision" in seen.message


def test_a_finished_rollout_waits_for_no_old_pod_that_still_finishes_its_requests() -> None:
    gone = pod("c", deleting=True, ready=False, **OLD)
    assert progress(view(), [pod("a"), pod("b"), gone]) == Complete()


def test_a_pod_of_another_image_or_another_release_is_an_old_one() -> None:
    other = pod(ready=False, phase="Failed", containers=(Container("proxy", "proxy:1"), Container("app", "x")))
    same_image = pod(ready=False, phase="Failed", **OLD)
    assert isinstance(progress(view(status=MOVING), [other, same_image]), Progressing)


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
