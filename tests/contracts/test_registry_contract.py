"""What Shipmate relies on in a registry, asked of the fake and of distribution."""

import json
import uuid
from collections.abc import Iterator
from contextlib import closing

import pytest

from shipmate.core.image import OCI_INDEX, OCI_MANIFEST, Descriptor
from shipmate.core.refs import Digest, digest_of
from shipmate.edge.registry import Registry as RealRegistry
from shipmate.errors import NotFound, Rejected, Retryable
from shipmate.ports import Copied, Registry
from shipmate.stages.graft import InMemory
from tests.fakes.app_images import AppImage
from tests.fakes.registry import FakeRegistry

NOBODY = Digest("sha256:" + "0" * 64)


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.registry)])
def any_registry(request: pytest.FixtureRequest) -> Iterator[Registry]:
    if request.param == "fake":
        yield FakeRegistry()
        return
    with closing(RealRegistry(f"http://{request.getfixturevalue('registry').registry}")) as real:
        yield real


@pytest.fixture
def repository() -> str:
    return f"contract/{uuid.uuid4().hex}"


def test_an_image_comes_back_byte_for_byte(any_registry: Registry, repository: str) -> None:
    app = AppImage()
    assert app.push(any_registry, repository, "main") == app.digest
    for reference in ("main", app.digest):
        found = any_registry.get_manifest(repository, reference)
        assert (found.data, found.media_type, found.digest) == (app.manifest, OCI_MANIFEST, app.digest)
        resolved = any_registry.resolve(repository, reference)
        assert resolved == Descriptor(OCI_MANIFEST, app.digest, len(app.manifest))
    assert any_registry.get_blob(repository, digest_of(app.config), 1 << 20) == app.config


def test_a_docker_image_keeps_its_media_type(any_registry: Registry, repository: str) -> None:
    app = AppImage(docker=True)
    app.push(any_registry, repository, "main")
    assert any_registry.resolve(repository, "main").media_type == app.media_type


def test_an_index_is_kept_as_one(any_registry: Registry, repository: str) -> None:
    app = AppImage()
    app.push(any_registry, repository)
    listed = {"mediaType": OCI_MANIFEST, "digest": app.digest, "size": len(app.manifest)}
    data = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [listed]}).encode()
    digest = any_registry.put_manifest(repository, "multi", data, OCI_INDEX)
    assert digest == digest_of(data)
    assert any_registry.get_manifest(repository, "multi").media_type == OCI_INDEX


def test_a_tag_points_to_what_was_pushed_last(any_registry: Registry, repository: str) -> None:
    AppImage(content=b"one").push(any_registry, repository, "main")
    second = AppImage(content=b"two").push(any_registry, repository, "main")
    assert any_registry.resolve(repository, "main").digest == second


def test_pushing_the_same_twice_does_no_harm(any_registry: Registry, repository: str) -> None:
    app = AppImage()
    assert app.push(any_registry, repository, "main") == app.push(any_registry, repository, "main")


@pytest.mark.parametrize("reference", ["nothing", NOBODY])
def test_what_is_not_there_is_not_found(any_registry: Registry, repository: str, reference: str) -> None:
    with pytest.raises(NotFound):
        any_registry.resolve(repository, reference)
    with pytest.raises(NotFound):
        any_registry.get_manifest(repository, reference)
    with pytest.raises(NotFound):
        any_registry.get_blob(repository, NOBODY, 100)
    assert not any_registry.has_blob(repository, NOBODY)


def test_a_manifest_needs_its_blobs(any_registry: Registry, repository: str) -> None:
    app = AppImage()
    with pytest.raises(Retryable):
        any_registry.put_manifest(repository, "main", app.manifest, OCI_MANIFEST)


@pytest.mark.parametrize("size", [0, 1, 2])
def test_the_smallest_blobs_are_blobs(any_registry: Registry, repository: str, size: int) -> None:
    digest = any_registry.upload(repository, InMemory(bytes(size)))
    assert any_registry.has_blob(repository, digest)
    assert any_registry.get_blob(repository, digest, size) == bytes(size)


def test_a_blob_larger_than_its_limit_is_not_read(any_registry: Registry, repository: str) -> None:
    digest = any_registry.upload(repository, InMemory(b"four"))
    with pytest.raises(Rejected, match=r"has more than 3 bytes") as caught:
        any_registry.get_blob(repository, digest, 3)
    assert caught.value.reason == "BlobTooLarge"


def test_blobs_of_another_repository_are_mounted_once(any_registry: Registry, repository: str) -> None:
    app = AppImage()
    app.push(any_registry, repository)
    blobs = [Descriptor("", digest_of(layer), len(layer)) for layer in app.layers]
    size = sum(blob.size for blob in blobs)
    target = f"{repository}-release"
    assert any_registry.copy_blobs(target, blobs, source=repository) == Copied(mounted=size)
    assert any_registry.copy_blobs(target, blobs, source=repository) == Copied(reused=size)
    assert any_registry.get_blob(target, blobs[0].digest, 1 << 20) == app.layers[0]


def test_a_blob_that_the_source_does_not_have_is_not_found(any_registry: Registry, repository: str) -> None:
    with pytest.raises(NotFound):
        any_registry.copy_blobs(f"{repository}-release", [Descriptor("", NOBODY, 5)], source=repository)


class Spoilt:
    """Content that turns out wrong while it is read."""

    size = 1 << 20
    digest = NOBODY

    def open_at(self, offset: int) -> Iterator[bytes]:
        yield bytes(1 << 19)
        raise Rejected("DigestMismatch", "it is not what was listed")


def test_content_that_turns_out_wrong_is_not_published(any_registry: Registry, repository: str) -> None:
    with pytest.raises(Rejected, match=r"not what was listed"):
        any_registry.upload(repository, Spoilt())
    assert not any_registry.has_blob(repository, NOBODY)


class Lying(InMemory):
    """Content that is not what its digest says."""

    def __init__(self) -> None:
        super().__init__(b"some bytes")
        self.digest = NOBODY


def test_other_bytes_than_the_digest_says_are_refused(any_registry: Registry, repository: str) -> None:
    with pytest.raises(Retryable, match=r"received other bytes than sha256:0000"):
        any_registry.upload(repository, Lying())
    assert not any_registry.has_blob(repository, NOBODY)
