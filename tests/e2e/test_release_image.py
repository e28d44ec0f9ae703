"""The release image that is in the registry and runs in pods, judged by other people's tools."""

import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from localcloud.setup import ensure_crane
from tests.e2e.world import Target


def run(*command: str | Path) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def image(steady: Target) -> str:
    """Return the reference of the release image that answers users."""
    serving = steady.state().serving
    assert serving is not None
    return f"{steady.world.local.cloud.registry}/steady@{serving.image}"


def test_skopeo_inspects_it(steady: Target, image: str) -> None:
    found = json.loads(run("skopeo", "inspect", "--tls-verify=false", f"docker://{image}"))
    serving = steady.state().serving
    assert serving is not None
    labels = found["Labels"]
    assert labels["dev.shipmate.pair"] == serving.pair.key
    assert labels["dev.shipmate.app.digest"] == labels["org.opencontainers.image.base.digest"] == serving.pair.app
    assert labels["dev.shipmate.model.digest"] == serving.pair.model
    assert labels["dev.shipmate.model.version"] == serving.model_version
    assert serving.pair.tag in found["RepoTags"]
    assert found["Architecture"] == "amd64"


def test_skopeo_copies_it(image: str, tmp_path: Path) -> None:
    run("skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{image}", f"dir:{tmp_path}")
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert {layer["digest"].removeprefix("sha256:") for layer in manifest["layers"]} <= {
        file.name for file in tmp_path.iterdir()
    }
    model = [layer for layer in manifest["layers"] if layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar"]
    assert len(model) == 2


def test_crane_validates_it(image: str) -> None:
    # the full validation reads every layer as gzip, which the OCI specification does not ask for
    run(ensure_crane(), "validate", "--insecure", "--fast", "--remote", image)


def test_crane_exports_it_with_the_model_in_it(image: str, steady: Target, tmp_path: Path) -> None:
    run(ensure_crane(), "export", "--insecure", image, tmp_path / "files.tar")
    published = steady.world.models.real("lite0", "base")
    with tarfile.open(tmp_path / "files.tar") as files:
        names = set(files.getnames())
        model = files.extractfile("model/model.onnx")
        assert model is not None
        assert model.read() == (published / "model.onnx").read_bytes()
    assert {"model/manifest.json", "model/labels.txt", "model/golden/flower.jpg", "opt/app/app/web.py"} <= names


def test_the_pods_run_it(steady: Target, image: str) -> None:
    deployment = steady.kubectl("get", "deployment", "vision")
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == image
    assert deployment["status"]["readyReplicas"] == 2
    pods = steady.kubectl("get", "pods", "-l", "app.kubernetes.io/name=vision", "--field-selector=status.phase=Running")
    running = [pod for pod in pods["items"] if "deletionTimestamp" not in pod["metadata"]]
    assert len(running) == 2
    assert all(pod["status"]["containerStatuses"][0]["imageID"].endswith(image.rpartition("@")[2]) for pod in running)
