"""What Shipmate relies on in a model storage, asked of the fake and of Azurite."""

import random
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from azure.storage.blob import BlobServiceClient

from shipmate.core.manifest import MANIFEST_LIMIT
from shipmate.edge.blobs import BlobModels
from shipmate.edge.storage import PIECE_SIZE
from shipmate.errors import Conflict, NotFound, Rejected
from shipmate.ports import Blob, Models
from tests.fakes.models import FakeModels

DATA = random.Random(1).randbytes(3 * PIECE_SIZE + 5)

type Put = Callable[[str, bytes], object]
type Touch = Callable[[str], object]


class Storage:
    """A storage to read, and the publisher's way into one container of it."""

    def __init__(self, models: Models, container: str, put: Put, touch: Touch) -> None:
        self.models = models
        self.container = container
        self.put = put
        self.touch = touch


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.azurite)])
def storage(request: pytest.FixtureRequest) -> Iterator[Storage]:
    container = f"contract-{uuid.uuid4().hex}"
    if request.param == "fake":
        fake = FakeModels(chunk=PIECE_SIZE)
        yield Storage(
            fake, "models", lambda path, data: fake.put("models", path, data), lambda path: fake.touch("models", path)
        )
        return
    with BlobServiceClient.from_connection_string(request.getfixturevalue("azurite").connection_string) as service:
        client = service.create_container(container)
        yield Storage(
            BlobModels(service),
            container,
            lambda path, data: client.upload_blob(path, data, overwrite=True),
            lambda path: client.get_blob_client(path).set_blob_metadata({"reviewed": "yes"}),
        )


def test_a_blob_has_size_etag_and_instant(storage: Storage) -> None:
    storage.put("net/1/model.onnx", b"weights")
    first = storage.models.properties(storage.container, "net/1/model.onnx")
    assert (first.path, first.size) == ("net/1/model.onnx", 7)
    assert '"' not in first.etag
    assert first.modified_at.tzinfo is not None
    storage.put("net/1/model.onnx", b"weights")
    assert storage.models.properties(storage.container, "net/1/model.onnx").etag != first.etag


def test_bytes_are_as_old_as_their_upload_whatever_becomes_of_the_metadata(storage: Storage) -> None:
    def found() -> Blob:
        blob = storage.models.properties(storage.container, "net/1/manifest.json")
        assert list(storage.models.list(storage.container, "net/")) == [blob]
        return blob

    storage.put("net/1/manifest.json", b"{}")
    first = found()
    assert first.created_at == first.modified_at
    time.sleep(1.1)  # both are told in whole seconds
    storage.touch("net/1/manifest.json")
    touched = found()
    assert touched.created_at == first.created_at
    assert touched.modified_at > first.modified_at
    assert touched.etag != first.etag
    storage.put("net/1/manifest.json", b"{}")
    assert found().created_at > first.created_at


@pytest.mark.parametrize("size", [0, 1, PIECE_SIZE - 1, PIECE_SIZE, 3 * PIECE_SIZE + 5])
@pytest.mark.parametrize("offset", [0, 1, PIECE_SIZE + 3])
def test_a_blob_is_read_in_order_from_any_offset(storage: Storage, size: int, offset: int) -> None:
    data = DATA[:size]
    storage.put("big", data)
    chunks = list(storage.models.open(storage.container, "big", offset=offset))
    assert b"".join(chunks) == data[offset:]
    assert all(len(chunk) <= PIECE_SIZE for chunk in chunks)


def test_reading_may_end_early(storage: Storage) -> None:
    storage.put("big", bytes(4 * PIECE_SIZE))
    chunks = storage.models.open(storage.container, "big")
    assert next(chunks)
    del chunks


def test_a_manifest_is_read_whole(storage: Storage) -> None:
    storage.put("net/1/manifest.json", b"{}")
    etag = storage.models.properties(storage.container, "net/1/manifest.json").etag
    assert storage.models.read_manifest(storage.container, "net/1/manifest.json", etag) == b"{}"
    assert storage.models.read_manifest(storage.container, "net/1/manifest.json") == b"{}"


def test_what_is_too_large_for_a_manifest_is_refused(storage: Storage) -> None:
    storage.put("net/1/manifest.json", bytes(MANIFEST_LIMIT + 1))
    with pytest.raises(Rejected, match=r"larger than 1 MiB") as caught:
        storage.models.read_manifest(storage.container, "net/1/manifest.json")
    assert caught.value.reason == "ManifestUnreadable"


@pytest.mark.parametrize("data", [b"new", b""])
def test_what_was_overwritten_since_is_not_read(storage: Storage, data: bytes) -> None:
    storage.put("net/1/manifest.json", b"old")
    etag = storage.models.properties(storage.container, "net/1/manifest.json").etag
    storage.put("net/1/manifest.json", data)
    with pytest.raises(Conflict, match=r"overwritten since"):
        storage.models.read_manifest(storage.container, "net/1/manifest.json", etag)
    with pytest.raises(Conflict, match=r"overwritten since"):
        list(storage.models.open(storage.container, "net/1/manifest.json", etag=etag))


@pytest.mark.parametrize("container", ["nowhere", None])
def test_what_is_not_there_is_not_found(storage: Storage, container: str | None) -> None:
    container = container or storage.container
    with pytest.raises(NotFound, match=r"there is no blob \S+/net/9/manifest.json"):
        storage.models.properties(container, "net/9/manifest.json")
    with pytest.raises(NotFound):
        storage.models.read_manifest(container, "net/9/manifest.json")
    with pytest.raises(NotFound):
        list(storage.models.open(container, "net/9/manifest.json"))


def test_blobs_are_listed_by_the_beginning_of_their_path(storage: Storage) -> None:
    for path in ("net/1/manifest.json", "net/1/model.onnx", "net/2/manifest.json", "network/1/manifest.json"):
        storage.put(path, b"{}")
    found = {blob.path: blob for blob in storage.models.list(storage.container, "net/")}
    assert sorted(found) == ["net/1/manifest.json", "net/1/model.onnx", "net/2/manifest.json"]
    assert found["net/1/model.onnx"] == storage.models.properties(storage.container, "net/1/model.onnx")
    assert not list(storage.models.list(storage.container, "other/"))


def test_a_container_that_is_not_there_cannot_be_listed(storage: Storage) -> None:
    with pytest.raises(NotFound):
        list(storage.models.list("nowhere", "net/"))


@pytest.mark.azurite
def test_the_clock_is_the_storages(azurite: object, storage: Storage) -> None:
    storage.put("now", b"")
    written = storage.models.properties(storage.container, "now")
    assert storage.models.properties(storage.container, "now").modified_at == written.modified_at
    assert datetime.now(UTC) - written.modified_at > timedelta(seconds=-5)
