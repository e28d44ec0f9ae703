"""A cluster of the user's own, before the demo: what is missing is told in words, and nothing of it stays changed."""

import json
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcloud import images, preflight, targets
from localcloud.access import controller_kubeconfig
from localcloud.config import Cloud
from localcloud.kubernetes import cluster as kubernetes
from localcloud.kubernetes.layout import CONTEXT, default_layout
from localcloud.making import SetupError
from localcloud.processes import StartError
from localcloud.targets import TargetCluster

# -- which cluster


def kubeconfig(path: Path, *contexts: str) -> Path:
    path.write_text(yaml.safe_dump({"contexts": [{"name": name, "context": {}} for name in contexts]}))
    return path


@pytest.fixture
def with_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))


@pytest.mark.usefixtures("with_kubectl")
def test_an_unknown_context_is_told_the_ones_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = kubeconfig(tmp_path / "first", "work"), kubeconfig(tmp_path / "second", "kind-kind", "aks")
    monkeypatch.setenv("KUBECONFIG", f"{first}{os.pathsep}{second}")
    assert targets.of_context("aks").kubeconfig == second
    with pytest.raises(StartError) as told:
        targets.of_context("prod")
    assert str(told.value) == (f"no context is called 'prod' in {first}, {second}; there are: aks, kind-kind, work")


@pytest.mark.usefixtures("with_kubectl")
def test_no_kubeconfig_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StartError, match=r"in .*/\.kube/config; it has none: set KUBECONFIG to your kubeconfig"):
        targets.of_context("prod")


@pytest.mark.usefixtures("with_kubectl")
def test_a_kubeconfig_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("contexts: [1]")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with pytest.raises(StartError, match="config is no kubeconfig that can be read"):
        targets.of_context("prod")


def test_without_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(StartError, match="kubectl is not installed; it came with your cluster's tools"):
        targets.of_context("prod")


# -- what is missing there: a kubectl that answers as told

NODE: dict[str, Any] = {
    "metadata": {"name": "node-1"},
    "spec": {},
    "status": {
        "conditions": [{"type": "Ready", "status": "True"}],
        "addresses": [{"type": "InternalIP", "address": "255.255.255.255"}, {"type": "Hostname", "address": "n"}],
        "nodeInfo": {"architecture": "amd64"},
    },
}
FIT = {
    "version": {"serverVersion": {"major": "1", "minor": "30+"}},
    "get nodes": {"items": [NODE]},
    "get pods": {"items": [{"spec": {"nodeName": "node-1"}, "status": {"phase": "Pending"}}]},
    "get service": {
        "status": {"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}},
        "spec": {"ports": [{"port": 8080}]},
    },
    "get serviceaccount": "serviceaccount/default",
    "auth can-i": "yes",
}
PULLED = {"waiting": {"reason": "CreateContainerError", "message": "no such file"}}

type Told = Callable[..., TargetCluster]


@pytest.fixture
def cluster(tmp_path: Path) -> Told:
    """Return who makes a cluster whose kubectl answers as told; what it was asked is in `asked`."""

    def make(**answers: Any) -> TargetCluster:
        program = tmp_path / "kubectl"
        lines = ["#!/bin/sh", "shift 2", f'echo "$*" >>{tmp_path}/asked', 'case "$*" in']
        told = FIT | {words.replace("_", " "): answer for words, answer in answers.items()}
        for number, (words, answer) in enumerate(sorted(told.items(), reverse=True)):  # the longer words first
            (tmp_path / f"answer-{number}").write_text(answer if isinstance(answer, str) else json.dumps(answer))
            lines.append(f'"{words}"*) cat {tmp_path}/answer-{number};;')
        program.write_text("\n".join([*lines, "esac"]))
        program.chmod(0o755)
        return TargetCluster(str(program), tmp_path / "config", "theirs")

    return make


def node(**changes: Any) -> dict[str, Any]:
    """Return the list of one node that differs in its spec or status."""
    return {"items": [{**NODE, **{key: {**NODE[key], **value} for key, value in changes.items()}}]}


def pods(state: dict[str, Any]) -> dict[str, Any]:
    return {"items": [{"spec": {"nodeName": "node-1"}, "status": {"containerStatuses": [{"state": state}]}}]}


def test_a_cluster_that_is_fit(cluster: Told, tmp_path: Path) -> None:
    theirs = cluster(get_pods=pods(PULLED), get_namespace="namespace/vision", get_role="role/shipmate")
    preflight.look(theirs, "vision")
    assert preflight.try_out(theirs, "registry.test/x@sha256:1") is None
    asked = (tmp_path / "asked").read_text().splitlines()
    begin = next(place for place, line in enumerate(asked) if line.startswith("create namespace shipmate-preflight-"))
    assert asked[begin + 1].startswith("get serviceaccount default"), "pods are refused before it is there"
    assert asked[begin + 2].startswith("apply")
    assert asked[-1].startswith("delete namespace shipmate-preflight-")


def test_an_account_that_the_cluster_makes_late_is_waited_for(cluster: Told, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(preflight, "ACCOUNT_WITHIN_SECONDS", 0.5)
    theirs = cluster(get_pods=pods(PULLED), get_serviceaccount="")
    assert preflight.try_out(theirs, "registry.test/x@sha256:1") is None
    assert (tmp_path / "asked").read_text().count("get serviceaccount default") > 1


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (
            {"version": {"serverVersion": {"major": "1", "minor": "27"}}},
            "context theirs is Kubernetes 1.27; Shipmate needs 1.30 or newer",
        ),
        ({"auth_can-i": "no"}, "context theirs may not: create namespaces; delete namespaces; create pods; "),
        ({"auth_can-i": "no"}, "use a context that may (cluster-admin does). Nothing was changed"),
        ({"get_nodes": {"items": []}}, "context theirs has no node that is ready and takes pods: kubectl get nodes"),
        ({"get_nodes": node(spec={"unschedulable": True})}, "has no node that is ready"),
        ({"get_nodes": node(spec={"taints": [{"effect": "NoSchedule"}]})}, "has no node that is ready"),
        ({"get_nodes": node(status={"conditions": [{"type": "Ready", "status": "Unknown"}]})}, "has no node that is"),
        (
            {"get_nodes": node(status={"nodeInfo": {"architecture": "s390x"}})},
            "pods may come to other nodes: node-1 is s390x. Cordon them for the demo",
        ),
        (
            {"get_namespace": "namespace/vision"},
            "context theirs has a namespace 'vision' that no demo made: the demo would put its own Deployment there",
        ),
    ],
)
def test_what_is_missing_is_told_before_anything_is_made(
    cluster: Told, answers: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(StartError) as told:
        preflight.look(cluster(**answers), "vision")
    assert words in str(told.value)
    assert not any(line.startswith(("create", "apply")) for line in (tmp_path / "asked").read_text().splitlines())


def test_a_machine_that_no_image_is_built_on_is_told_which_will_do(
    cluster: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "ppc64le")
    with pytest.raises(SetupError, match=r"x86_64 \(amd64\) and aarch64 \(arm64\), and this one is ppc64le: run it on"):
        preflight.look(cluster(get_namespace="namespace/vision", get_role="role/shipmate"), "vision")


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
def test_a_node_that_cannot_pull_is_named_with_the_ways_out(cluster: Told, reason: str, tmp_path: Path) -> None:
    state = {"waiting": {"reason": reason, "message": "dial tcp 127.0.0.1:17010: connection refused"}}
    with pytest.raises(StartError) as told:
        preflight.try_out(cluster(get_pods=pods(state)), "127.0.0.1:17010/x@sha256:1")
    text = str(told.value)
    assert text.startswith("node node-1 cannot pull from 127.0.0.1:17010: dial tcp 127.0.0.1:17010: connection refused")
    assert "REGISTRY=http://localhost:5001" in text
    assert "REGISTRY=<name>.azurecr.io" in text
    assert (tmp_path / "asked").read_text().splitlines()[-1].startswith("delete namespace shipmate-preflight-")


def test_a_pull_that_never_ends_is_not_waited_for(cluster: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "PULL_WITHIN_SECONDS", 0.1)
    with pytest.raises(StartError, match=r"node node-1 cannot pull from registry\.test: no answer within 0 s"):
        preflight.try_out(cluster(), "registry.test/x@sha256:1")


def test_without_a_load_balancer_users_come_in_by_a_node(cluster: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "ADDRESS_WITHIN_SECONDS", 0.1)
    service = {"status": {}, "spec": {"ports": [{"port": 8080, "nodePort": 30123}]}}
    near = node(status={"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]})
    theirs = cluster(get_pods=pods(PULLED), get_service=service, get_nodes=near)
    assert preflight.try_out(theirs, "registry.test/x@sha256:1") == "127.0.0.1"
    assert theirs.node_port("vision") == 30123


def test_without_a_load_balancer_and_with_nodes_out_of_reach_nobody_gets_in(
    cluster: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "ADDRESS_WITHIN_SECONDS", 0.1)
    theirs = cluster(get_pods=pods(PULLED), get_service={"status": {}})
    with pytest.raises(StartError) as told:
        preflight.try_out(theirs, "registry.test/x@sha256:1")
    assert "this machine does not reach its nodes either (255.255.255.255)" in str(told.value)
    assert "minikube: `minikube tunnel`; kind: cloud-provider-kind" in str(told.value)


# -- the local Kubernetes, as if it were somebody else's


@pytest.fixture(scope="module")
def local() -> TargetCluster:
    kubernetes.up()
    return TargetCluster(kubernetes.kubectl()[0], default_layout().kubeconfig, CONTEXT)


@pytest.fixture
def left_over(local: TargetCluster) -> Iterator[None]:
    """Nothing of a preflight is left when the test is over, but a namespace that is going."""
    yield
    phases = local.run("get", "namespaces", "-o", "jsonpath={range .items[*]}{.metadata.name} {.status.phase} {end}")
    words = phases.split()
    assert all(
        phase == "Terminating"
        for name, phase in zip(words[::2], words[1::2], strict=True)
        if name.startswith("shipmate-preflight-")
    )


@pytest.mark.cluster
@pytest.mark.usefixtures("left_over")
def test_the_local_kubernetes_is_fit(local: TargetCluster, registry: Cloud) -> None:
    preflight.look(local, "vision")
    kubernetes.add_registry_mirror(registry.registry)
    name = f"{registry.registry}/preflight-{secrets.token_hex(4)}"
    digest = images.push(images.build_empty(), f"{name}:latest")
    assert preflight.try_out(local, f"{name}@{digest}") is None


@pytest.mark.cluster
@pytest.mark.usefixtures("left_over")
def test_the_local_kubernetes_cannot_pull_from_a_registry_that_is_not_there(local: TargetCluster) -> None:
    with pytest.raises(StartError, match=r"node .* cannot pull from 127\.0\.0\.1:9: (.|\n)*connection refused"):
        preflight.try_out(local, f"127.0.0.1:9/x@sha256:{'0' * 64}")


@pytest.mark.cluster
def test_the_controllers_own_account_may_not_set_up_a_demo(local: TargetCluster, tmp_path: Path) -> None:
    namespace = f"preflight-{secrets.token_hex(4)}"
    local.apply_target(Cloud("test"), namespace)
    try:
        setting = controller_kubeconfig(local.kubeconfig, namespace, tmp_path / "kubeconfig", context=local.context)
        path, _, context = setting.removeprefix("kubeconfig:").partition("#")
        with pytest.raises(StartError, match="may not: create namespaces; delete namespaces; "):
            preflight.look(TargetCluster(local.kubectl, Path(path), context), namespace)
    finally:
        local.run("delete", "namespace", namespace, "--wait=false")
