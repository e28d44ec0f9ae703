"""The gate's pod: the Deployment's template, where nothing selects it."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipmate.core.gate_pod import gate_name, gate_pod
from shipmate.core.views import Object
from shipmate.errors import Misconfigured
from tests.core.cluster_objects import IMAGE, PAIR, view


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
    with pytest.raises(
        Misconfigured, match=f"{words}, which a gate's pod carries too: let its selector.matchLabels name"
    ):
        gate_pod(deployment, name="g", container="app", image=IMAGE, pair=PAIR)


@given(st.text("abcz09-", min_size=1, max_size=60), st.integers(1, 1_000_000), st.integers(1, 10_000))
def test_a_gates_name_fits_a_host_name_and_is_one_for_each_target(target: str, release: int, attempt: int) -> None:
    name = gate_name(target, PAIR, release, attempt)
    assert len(name) <= 63
    assert name.startswith("gate-")
    assert name.endswith(f"-{PAIR[:12]}-r{release}-a{attempt}")
    assert gate_name(target + "x", PAIR, release, attempt) != name
    assert gate_name(target, PAIR, release + 1, attempt) != name


def test_long_names_that_begin_alike_stay_apart() -> None:
    names = {gate_name("a" * 50 + end, PAIR, 1, 1) for end in "xyz"}
    assert [len(name) for name in names] == [63, 63, 63]


def test_a_gates_name_says_what_it_is() -> None:
    assert gate_name("vision", PAIR, 7, 2) == f"gate-vision-{PAIR[:12]}-r7-a2"
