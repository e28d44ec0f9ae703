"""A release image made from a real storage in a real registry, judged by the tools that others use."""

import io
import json
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient

from localcloud.config import Cloud
from localcloud.setup import ensure_crane
from shipmate.core.manifest import MANIFEST_NAME, parse_manifest
from shipmate.core.refs import Pair
from shipmate.edge.blobs import BlobModels
from shipmate.edge.registry import Registry
from shipmate.stages.graft import Grafted, ModelFolder, graft
from tests.fakes.app_images import AppImage
from tests.fakes.model_folders import manifest_of

pytestmark = [pytest.mark.azurite, pytest.mark.registry]

FILES = {"model.onnx": bytes(range(256)) * 8192, "labels.txt": b"cat\n", "golden/" + "long" * 40 + "/ä.jpg": b"jpg"}


class Made:
    """A release image that is in the registry."""

    def __init__(self, host: str, repository: str, app: AppImage, manifest: bytes, grafted: Grafted) -> None:
        self.reference = f"{host}/{repository}@{grafted.image}"
        self.pair = Pair(app.digest, parse_manifest(manifest).digest)
        self.tagged = f"{host}/{repository}:{self.pair.tag}"
        self.manifest = manifest
        self.grafted = grafted


@pytest.fixture(scope="module", params=["oci", "docker"])
def made(request: pytest.FixtureRequest, azurite: Cloud, registry: Cloud) -> Iterator[Made]:
    name = f"graft-{uuid.uuid4().hex}"
    manifest = manifest_of(FILES)
    app = AppImage(docker=request.param == "docker")
    with (
        BlobServiceClient.from_connection_string(azurite.connection_string) as service,
        closing(Registry(f"http://{registry.registry}")) as client,
    ):
        container = service.create_container(name)
        for path, data in {**FILES, MANIFEST_NAME: manifest}.items():
            container.upload_blob(f"net/1/{path}", data)
        app.push(client, f"{name}/app", "main")
        model = parse_manifest(manifest)
        grafted = graft(
            client,
            BlobModels(service),
            pair=Pair(app.digest, model.digest),
            app_repository=f"{name}/app",
            release_repository=f"{name}/release",
            model=model,
            folder=ModelFolder(name, "net/1"),
        )
        yield Made(registry.registry, f"{name}/release", app, manifest, grafted)


def run(*command: str | Path) -> bytes:
    return subprocess.run([*map(str, command)], check=True, capture_output=True, timeout=60).stdout


def test_skopeo_inspects_it(made: Made) -> None:
    seen = json.loads(run("skopeo", "inspect", "--tls-verify=false", f"docker://{made.tagged}"))
    assert seen["Digest"] == made.grafted.image
    assert seen["Labels"]["dev.shipmate.pair"] == made.pair.key
    assert seen["Layers"][-1] == made.grafted.layers[-1].digest
    config = json.loads(run("skopeo", "inspect", "--config", "--tls-verify=false", f"docker://{made.reference}"))
    assert len(config["rootfs"]["diff_ids"]) == 4


@pytest.mark.parametrize("kind", ["oci", "dir", "docker-archive"])
def test_skopeo_copies_it(made: Made, tmp_path: Path, kind: str) -> None:
    target = {"oci": f"oci:{tmp_path}/out", "dir": f"dir:{tmp_path}/out"}.get(kind, f"{kind}:{tmp_path}/out.tar:x:y")
    run("skopeo", "copy", "--insecure-policy", "--src-tls-verify=false", f"docker://{made.reference}", target)


def test_crane_finds_it_valid(made: Made) -> None:
    run(ensure_crane(), "validate", "--insecure", "--fast", "--remote", made.reference)


def test_the_model_is_in_its_file_system(made: Made) -> None:
    exported = run(ensure_crane(), "export", "--insecure", made.reference, "-")
    with tarfile.open(fileobj=io.BytesIO(exported)) as tar:
        files = {member.name: tar.extractfile(member) for member in tar.getmembers() if member.isreg()}
        content = {name: file.read() for name, file in files.items() if file is not None}
    expected = {f"model/{path}": data for path, data in {**FILES, MANIFEST_NAME: made.manifest}.items()}
    assert {name: data for name, data in content.items() if name.startswith("model/")} == expected
    assert content["app/0.txt"] == b"app"
