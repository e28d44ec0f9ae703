"""The drill's world: its targets file and its objects are what Shipmate and Kubernetes take; its halves fit."""

import json
from collections import Counter
from pathlib import Path

import pytest

from drill import models, world
from drill.app_image import AppImage
from drill.publishers import burst
from drill.world import NAMESPACE, Size
from localcloud.config import Cloud
from localcloud.kubernetes.layout import MAX_PODS
from localcloud.processes import StartError
from localcloud.targets import TargetCluster
from shipmate.core.image import app_facts
from shipmate.core.manifest import parse_manifest
from shipmate.settings import parse_targets

SIZE = Size(targets=3)


def test_the_targets_file_is_one_that_shipmate_takes() -> None:
    urls = {name: f"http://127.77.0.9:{8080 + place}" for place, name in enumerate(world.target_names(SIZE))}
    targets = parse_targets(world.targets_yaml(SIZE, urls).encode(), "the targets file")
    assert list(targets) == ["t-000", "t-001", "t-002"]
    target = targets["t-001"]
    assert (target.app.repository, target.model.name) == ("t-001-app", "t-001-model")
    assert (target.deployment.namespace, target.public_url) == (NAMESPACE, "http://127.77.0.9:8081")


def test_every_target_has_a_deployment_and_a_door_and_the_controller_may_patch_it() -> None:
    made = list(world.objects(Cloud("drill"), SIZE))
    assert Counter(each["kind"] for each in made) == {
        "Namespace": 1,
        "ServiceAccount": 2,
        "Role": 1,
        "RoleBinding": 1,
        "Deployment": 3,
        "Service": 3,
    }
    assert {each["metadata"].get("namespace") for each in made if each["kind"] != "Namespace"} == {NAMESPACE}
    role = next(each for each in made if each["kind"] == "Role")
    assert role["rules"][0]["resourceNames"] == ["t-000", "t-001", "t-002"]
    for kind in ("Deployment", "Service"):
        assert [each["metadata"]["name"] for each in made if each["kind"] == kind] == ["t-000", "t-001", "t-002"]
    pod = made[-2]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "127.0.0.1:17310/drill-app:main"
    assert pod["terminationGracePeriodSeconds"] > SIZE.drain_seconds > SIZE.outage_seconds


def test_the_usual_size_fits_the_local_cluster() -> None:
    assert Size().targets + world.SPARE_PODS <= MAX_PODS


def test_a_node_without_room_is_told_before_anything_starts(tmp_path: Path) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/sh\necho 110\n")
    kubectl.chmod(0o755)
    cluster = TargetCluster(str(kubectl), tmp_path / "kubeconfig", "local")
    with pytest.raises(
        StartError, match="the node takes 110 pods, a drill with 100 targets may need 160: choose fewer"
    ):
        world.apply(cluster, Cloud("drill"), Size())


def test_a_tiny_model_is_one_that_shipmate_takes(tmp_path: Path) -> None:
    digest = models.write(tmp_path, name="t-000-model", version="1.0001")
    manifest = parse_manifest((tmp_path / "manifest.json").read_bytes())
    assert (manifest.digest, manifest.version, manifest.contract) == (digest, "1.0001", "1")
    assert (tmp_path / manifest.golden[0].file).read_bytes() == models.PHOTO
    assert sum(file.size for file in manifest.files) < 8192
    assert digest != models.write(tmp_path / "other", name="t-001-model", version="1.0001")


def test_the_image_says_what_shipmate_asks_of_it(tmp_path: Path) -> None:
    program = tmp_path / "app"
    program.write_bytes(b"a program")
    image = AppImage(program)
    config = image.config("1.0.7", "t-000-7")
    facts = app_facts(config)
    assert (facts.contract, facts.version, facts.revision) == ("1", "1.0.7", "t-000-7")
    assert json.loads(config)["rootfs"]["diff_ids"] == [image.layer_digest]
    assert json.loads(image.manifest(config))["layers"][0]["size"] == len(image.layer)


def test_a_burst_goes_round_all_targets_and_is_the_same_for_a_seed() -> None:
    targets = [f"t-{number:03d}" for number in range(10)]
    plan = burst(targets, 205, seed=7)
    assert plan == burst(targets, 205, seed=7) != burst(targets, 205, seed=8)
    assert {target for target, _ in plan[10:20]} == set(targets)
    assert set(Counter(target for target, _ in plan).values()) == {20, 21}
    assert 60 < Counter(half for _, half in plan)["model"] < 145
