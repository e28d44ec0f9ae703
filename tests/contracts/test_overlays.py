"""What kustomize makes of k8s/overlays, without a cluster."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from localcloud.setup import ensure_kubernetes
from shipmate.core.targets import GateThresholds, Target

K8S = Path(__file__).parents[2] / "k8s"
PLACEHOLDER = "00000000-0000-0000-0000-000000000000"
OBJECT_ID = "0f7c1f3e-2f3b-4a53-9f0e-6a8a2a1d9c55"


def rendered(folder: Path) -> str:
    command = [str(ensure_kubernetes() / "kubectl"), "kustomize", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def one(text: str, kind: str, name: str) -> Any:
    return next(each for each in yaml.safe_load_all(text) if (each["kind"], each["metadata"]["name"]) == (kind, name))


@pytest.mark.cluster
@pytest.mark.parametrize("overlay", ["aks", "aks-released"])
def test_the_object_id_of_the_controller_is_set_in_one_file(tmp_path: Path, overlay: str) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")
    overlays = tmp_path / "k8s" / "overlays"
    identity = overlays / "aks" / "controller-identity.yaml"
    identity.write_text(identity.read_text().replace(PLACEHOLDER, OBJECT_ID))
    text = rendered(overlays / overlay)
    assert PLACEHOLDER not in text
    assert one(text, "RoleBinding", "shipmate")["subjects"][0]["name"] == OBJECT_ID
    fence = one(text, "ValidatingAdmissionPolicy", "shipmate-fence")["spec"]["variables"]
    pods = one(text, "ValidatingAdmissionPolicy", "shipmate-gate-pods")["spec"]["matchConditions"]
    questions = one(text, "ValidatingAdmissionPolicy", "shipmate-gate-questions")["spec"]["matchConditions"]
    by_its_name = f"request.userInfo.username == '{OBJECT_ID}'"
    assert next(each for each in fence if each["name"] == "byController")["expression"] == by_its_name
    assert pods == questions == [{"name": "by-the-controller", "expression": by_its_name}]


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("  variables:\n", "  variables:\n    - name: later\n      expression: 'true'\n", id="a variable"),
        pytest.param("    - name: by-the-controller", "    - name: by-whom", id="a condition"),
    ],
)
def test_the_controller_is_not_named_where_something_else_stands_by_now(
    tmp_path: Path, before: str, after: str
) -> None:
    """The patches of k8s/overlays/aks go by position."""
    shutil.copytree(K8S, tmp_path / "k8s")
    policies = tmp_path / "k8s" / "base" / "admission-policies.yaml"
    text = policies.read_text()
    policies.write_text(text.replace(before, after, 1))
    assert policies.read_text() != text
    with pytest.raises(subprocess.CalledProcessError) as refused:
        rendered(tmp_path / "k8s" / "overlays" / "aks")
    assert "/name" in refused.value.stderr


@pytest.mark.cluster
@pytest.mark.parametrize("overlay", sorted(each.name for each in (K8S / "overlays").iterdir()))
def test_a_pod_has_as_long_in_a_rollout_as_in_its_gate(overlay: str) -> None:
    """Otherwise a pod that is slow and right passes the gate, fails every rollout, and is blamed for it."""
    defaults = {each.name: each.default for kind in (GateThresholds, Target) for each in msgspec.structs.fields(kind)}
    spec = one(rendered(K8S / "overlays" / overlay), "Deployment", "vision")["spec"]
    probe = spec["template"]["spec"]["containers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= defaults["ready_within_seconds"]
    assert spec["progressDeadlineSeconds"] >= defaults["rollout_within_seconds"] >= defaults["ready_within_seconds"]


@pytest.mark.cluster
@pytest.mark.parametrize("overlay", sorted(each.name for each in (K8S / "overlays").iterdir()))
def test_a_target_is_hardened_and_loses_no_user(overlay: str) -> None:
    documents = list(yaml.safe_load_all(rendered(K8S / "overlays" / overlay)))
    namespace, kinds = "vision", {(each["kind"], each["metadata"]["name"]) for each in documents}
    assert {
        ("PodDisruptionBudget", "vision"),
        ("Service", "vision"),
        ("ServiceAccount", "vision"),
        ("Role", "shipmate"),
        ("RoleBinding", "shipmate"),
        ("ValidatingAdmissionPolicyBinding", "shipmate-fence"),
        ("ValidatingAdmissionPolicyBinding", "shipmate-gate-pods"),
        ("ValidatingAdmissionPolicyBinding", "shipmate-gate-questions"),
    } <= kinds
    assert "NetworkPolicy" in {kind for kind, _ in kinds}
    found = {(each["kind"], each["metadata"]["name"]): each for each in documents}
    labels = found["Namespace", namespace]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    spec = found["Deployment", "vision"]["spec"]
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    pod = spec["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    (app,) = pod["containers"]
    assert app["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert app["lifecycle"]["preStop"]["exec"]["command"] == ["python3", "-m", "app.drain"]
    assert {"cpu", "memory"} <= app["resources"]["limits"].keys()
    assert found["PodDisruptionBudget", "vision"]["spec"]["selector"] == spec["selector"]


@pytest.mark.cluster
@pytest.mark.parametrize("overlay", sorted(each.name for each in (K8S / "overlays").iterdir()))
def test_pods_may_be_asked_and_call_nobody(overlay: str) -> None:
    documents = yaml.safe_load_all(rendered(K8S / "overlays" / overlay))
    policies = [each["spec"] for each in documents if each["kind"] == "NetworkPolicy"]
    assert policies
    for policy in policies:
        assert "Egress" in policy["policyTypes"]
        assert not policy.get("egress")


@pytest.mark.cluster
@pytest.mark.parametrize("overlay", ["aks", "aks-released"])
def test_the_door_in_azure_is_private_by_one_line(tmp_path: Path, overlay: str) -> None:
    annotation = "service.beta.kubernetes.io/azure-load-balancer-internal"
    shutil.copytree(K8S, tmp_path / "k8s")
    overlays = tmp_path / "k8s" / "overlays"
    assert "annotations" not in one(rendered(overlays / overlay), "Service", "vision")["metadata"]
    file = overlays / "aks" / "kustomization.yaml"
    before = file.read_text()
    file.write_text(before.replace("  # - path: private-door.yaml", "  - path: private-door.yaml"))
    assert file.read_text() != before
    service = one(rendered(overlays / overlay), "Service", "vision")
    assert service["metadata"]["annotations"] == {annotation: "true"}
    assert service["spec"]["ports"] == [{"name": "http", "port": 8080, "targetPort": "http"}]
