"""Reading the API server's objects."""

import json

import pytest

from shipmate.core.refs import Digest
from shipmate.core.views import ContainerStatus, Object, view_deployment, view_pod, view_pods
from tests.core.cluster_objects import IMAGE, PAIR, manifest, view


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


@pytest.mark.parametrize(
    ("release", "image", "asked_for"),
    [
        ("r-1", Digest(IMAGE.rpartition("@")[2]), True),
        ("r-1", None, True),
        ("r-1", Digest("sha256:" + "2" * 64), False),
        ("r-2", None, False),
    ],
)
def test_a_deployment_asks_for_a_release_by_its_name_and_its_image(
    release: str, image: Digest | None, asked_for: bool
) -> None:
    assert view().asks_for(release, image) is asked_for


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
