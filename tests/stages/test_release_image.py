"""A release image made from a real storage in a real registry, judged by the tools that others use."""

import io
import json
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from azure.containerregistry import ContainerRegistryClient
from azure.storage.blob import BlobServiceClient

from localcloud.config import Cloud
from localcloud.setup import ensure_crane
from shipmate.core.image import OCI_INDEX, OCI_MANIFEST
from shipmate.core.manifest import MANIFEST_NAME, parse_manifest
from shipmate.core.refs import Pair, digest_of
from shipmate.edge import registry_upload
from shipmate.edge.blobs import BlobModels
from shipmate.edge.registry import Registry
from shipmate.stages.graft import Grafted, ModelFolder, graft, resolve_app
from tests.fakes.app_images import AppImage
from tests.fakes.guarded_registry import guarded_registry
from tests.fakes.http_servers import Answer, Fault, Seen, failing
from tests.fakes.model_folders import manifest_of

pytestmark = [pytest.mark.azurite, pytest.mark.registry]

PATCH = 1 << 19
FILES = {"model.onnx": bytes(range(256)) * 8192, "labels.txt": b"cat\n", "golden/" + "long" * 40 + "/ä.jpg": b"jpg"}


class Made:
    """A release image that is in the registry."""

    def __init__(self, host: str, repository: str, app: AppImage, manifest: bytes, grafted: Grafted) -> None:
        self.host, self.repository = host, repository
        self.reference = f"{host}/{repository}@{grafted.image}"
        self.pair = Pair(app.digest, parse_manifest(manifest).digest)
        self.tagged = f"{host}/{repository}:{self.pair.tag}"
        self.manifest = manifest
        self.grafted = grafted


def push(client: Registry, repository: str, app: AppImage, *, in_an_index: bool) -> None:
    """Push an app image, in an index as buildx does it: beside an image of another platform, and an attestation."""
    if not in_an_index:
        app.push(client, repository, "main")
        return
    platforms = {"linux/amd64": app, "linux/arm64": AppImage(config={"architecture": "arm64"}, content=b"other")}
    listed: list[dict[str, Any]] = []
    for platform, image in platforms.items():
        image.push(client, repository, platform.replace("/", "-"))
        system, _, architecture = platform.partition("/")
        listed.append({**described(image), "platform": {"os": system, "architecture": architecture}})
    about = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": app.digest}
    attestation = AppImage(content=b"attestation")
    attestation.push(client, repository, "attestation")
    unknown = {"os": "unknown", "architecture": "unknown"}
    listed.insert(0, {**described(attestation), "platform": unknown, "annotations": about})
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}
    client.put_manifest(repository, "main", json.dumps(index).encode(), OCI_INDEX)


def described(image: AppImage) -> dict[str, Any]:
    return {"mediaType": image.media_type, "digest": image.digest, "size": len(image.manifest)}


def upload(service: BlobServiceClient, name: str, manifest: bytes) -> None:
    """Publish the model in a container of this name."""
    container = service.create_container(name)
    for path, data in {**FILES, MANIFEST_NAME: manifest}.items():
        container.upload_blob(f"net/1/{path}", data)


def release(
    client: Registry, service: BlobServiceClient, name: str, repository: str, app: AppImage, manifest: bytes
) -> Grafted:
    """Graft what was uploaded and pushed under a name into a repository."""
    model = parse_manifest(manifest)
    return graft(
        client,
        BlobModels(service),
        pair=Pair(app.digest, model.digest),
        app_repository=f"{name}/app",
        release_repository=repository,
        model=model,
        folder=ModelFolder(name, "net/1"),
    )


@pytest.fixture(scope="module", params=["oci", "docker", "in an index"])
def made(request: pytest.FixtureRequest, azurite: Cloud, registry: Cloud) -> Iterator[Made]:
    name = f"graft-{uuid.uuid4().hex}"
    manifest = manifest_of(FILES)
    app = AppImage(docker=request.param == "docker")
    with (
        BlobServiceClient.from_connection_string(azurite.connection_string) as service,
        closing(Registry(f"http://{registry.registry}")) as client,
    ):
        upload(service, name, manifest)
        push(client, f"{name}/app", app, in_an_index=request.param == "in an index")
        assert resolve_app(client, f"{name}/app", "main", "linux/amd64")[0] == app.digest
        grafted = release(client, service, name, f"{name}/release", app, manifest)
        yield Made(registry.registry, f"{name}/release", app, manifest, grafted)


FAULTS = {
    "a server in trouble": lambda: [Fault("PATCH", answer=Answer(500)), Fault("HEAD", answer=Answer(503))],
    "too many requests": lambda: [
        Fault("PATCH", answer=Answer(429, headers={"Retry-After": "1"})),
        Fault("POST", answer=Answer(429, headers={"Retry-After": "1"})),
    ],
    "a connection that breaks in the middle of a layer": lambda: [Fault("PATCH", drop_after=1 << 20)],
    "mounts that are not granted": lambda: [Fault("POST", "mount=", without_query=True, times=9)],
    "answers that are lost": lambda: [
        Fault("PUT", "/blobs/", drop_answer=True),
        Fault("PUT", "/manifests/", drop_answer=True),
    ],
}


def expect_the_same_layers(azurite: Cloud, host: str, faults: list[Fault]) -> list[Seen]:
    """Graft without the faults and with them, see that the images have the same layers, and return the requests."""
    name = f"graft-{uuid.uuid4().hex}"
    manifest, app = manifest_of(FILES), AppImage()
    with (
        BlobServiceClient.from_connection_string(azurite.connection_string) as service,
        failing(host, faults) as (url, requests),
        closing(Registry(f"http://{host}")) as direct,
        closing(Registry(url)) as troubled,
    ):
        upload(service, name, manifest)
        app.push(direct, f"{name}/app", "main")
        layers = []
        for number, client in enumerate((direct, troubled)):
            made = release(client, service, name, f"{name}/release-{number}", app, manifest)
            found = direct.get_manifest(f"{name}/release-{number}", made.image)
            layers.append([layer["digest"] for layer in json.loads(found.data)["layers"]])
    assert layers[0] == layers[1]
    run(ensure_crane(), "validate", "--insecure", "--fast", "--remote", f"{host}/{name}/release-1@{made.image}")
    return requests


@pytest.mark.parametrize("trouble", FAULTS)
def test_a_registry_in_passing_trouble_gets_the_same_layers(azurite: Cloud, registry: Cloud, trouble: str) -> None:
    faults = FAULTS[trouble]()
    before = sum(fault.times for fault in faults)
    expect_the_same_layers(azurite, registry.registry, faults)
    assert sum(fault.times for fault in faults) < before, "it came to the trouble"


def test_a_token_that_is_revoked_in_the_middle_of_a_layer_is_replaced_and_nothing_is_lost(
    azurite: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry is one that wants tokens of everybody."""
    monkeypatch.setattr(registry_upload, "PATCH_SIZES", (PATCH,))
    with guarded_registry(tmp_path) as guarded:
        revoked = Answer(401, headers={"WWW-Authenticate": guarded.tokens.challenge})
        faults = [Fault("PATCH", above=PATCH - 1), Fault("PATCH", above=PATCH - 1, answer=revoked)]
        requests = expect_the_same_layers(azurite, guarded.host, faults)
    patches = [seen for seen in requests if seen.method == "PATCH" and seen.headers["Content-Length"] == str(PATCH)]
    assert [seen.headers["Content-Range"] for seen in patches] == [
        f"{start}-{start + PATCH - 1}" for start in (0, PATCH, PATCH, 2 * PATCH, 3 * PATCH)
    ]
    assert [seen.received for seen in patches] == [PATCH, 0, PATCH, PATCH, PATCH]
    old, refused, *new = [seen.headers["Authorization"] for seen in patches]
    assert (refused, set(new)) == (old, {new[0]})
    assert new[0] != old


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


def test_azures_own_client_reads_it(made: Made) -> None:
    """Its lists of tags and manifests ask an API that only Azure's registries have; manifests and blobs are OCI's."""
    over_http: Any = {"enforce_https": False}
    with ContainerRegistryClient(f"http://{made.host}", audience="https://containerregistry.azure.net") as client:
        found = client.get_manifest(made.repository, made.pair.tag, **over_http)
        assert (found.digest, found.media_type) == (made.grafted.image, OCI_MANIFEST)
        assert found.manifest["annotations"]["dev.shipmate.pair"] == made.pair.key
        by_digest = client.get_manifest(made.repository, made.grafted.image, **over_http)
        assert by_digest.manifest == found.manifest
        layer = made.grafted.layers[0]
        data = b"".join(client.download_blob(made.repository, layer.digest, **over_http))
    assert digest_of(data) == layer.digest
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        model = tar.extractfile("model/model.onnx")
        assert model is not None
        assert model.read() == FILES["model.onnx"]


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
