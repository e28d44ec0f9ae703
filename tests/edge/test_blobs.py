"""The model storage when things go wrong, on a stand-in that answers as Azure does."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from azure.storage.blob import BlobServiceClient

from localcloud.config import AZURITE_ACCOUNT, AZURITE_KEY
from shipmate.edge.blobs import RANGE_SIZE, BlobModels
from shipmate.errors import Conflict, NotAllowed, Retryable, ShipmateError
from tests.fakes.http_servers import Answer, Seen, answering

PROPERTIES = {
    "ETag": '"0x1"',
    "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
    "x-ms-blob-type": "BlockBlob",
    "Content-Type": "application/octet-stream",
}
SIZE = RANGE_SIZE + 10

type Storage = Callable[[Callable[[Seen], Answer]], tuple[BlobModels, list[Seen]]]


@pytest.fixture
def storage() -> Iterator[Storage]:
    """Yield a function that takes the storage's side of the talk and returns a client of it, and what it asks."""
    with ExitStack() as stack:

        def make(answer: Callable[[Seen], Answer]) -> tuple[BlobModels, list[Seen]]:
            url, requests = stack.enter_context(answering(answer))
            key = {"account_name": AZURITE_ACCOUNT, "account_key": AZURITE_KEY}
            service = BlobServiceClient(f"{url}/{AZURITE_ACCOUNT}", credential=key, retry_total=0)
            return BlobModels(stack.enter_context(service)), requests

        yield make


def serving(seen: Seen) -> Answer:
    """Answer as a storage with one blob does."""
    if seen.method == "HEAD":
        return Answer(200, headers={**PROPERTIES, "Content-Length": str(SIZE)})
    first, last = (int(number) for number in seen.headers["x-ms-range"].removeprefix("bytes=").split("-"))
    return Answer(206, bytes(last - first + 1), {**PROPERTIES, "Content-Range": f"bytes {first}-{last}/{SIZE}"})


def test_every_range_is_of_the_same_blob(storage: Storage) -> None:
    models, requests = storage(serving)
    assert [len(chunk) for chunk in models.open("models", "net/1/model.onnx", offset=3)] == [RANGE_SIZE, 7]
    ranges = [seen for seen in requests if seen.method == "GET"]
    assert sorted(seen.headers["x-ms-range"] for seen in ranges) == [
        f"bytes=3-{RANGE_SIZE + 2}",
        f"bytes={RANGE_SIZE + 3}-{SIZE - 1}",
    ]
    assert [seen.headers["If-Match"] for seen in ranges] == ['"0x1"', '"0x1"']


def test_a_blob_that_is_overwritten_while_it_is_read(storage: Storage) -> None:
    def answer(seen: Seen) -> Answer:
        late = seen.headers.get("x-ms-range", "").startswith(f"bytes={RANGE_SIZE}-")
        return Answer(412, headers={"x-ms-error-code": "ConditionNotMet"}) if late else serving(seen)

    models, _ = storage(answer)
    chunks = models.open("models", "net/1/model.onnx")
    assert len(next(chunks)) == RANGE_SIZE
    with pytest.raises(Conflict, match=r"models/net/1/model.onnx was overwritten since"):
        next(chunks)


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        pytest.param(
            Answer(403, headers={"x-ms-error-code": "AuthorizationPermissionMismatch"}),
            NotAllowed,
            r"refused \(403 .*Storage Blob Data Reader",
            id="not allowed",
        ),
        pytest.param(
            Answer(503, headers={"x-ms-error-code": "ServerBusy", "Retry-After": "4"}),
            Retryable,
            "reading models/net/1/model.onnx failed",
            id="busy",
        ),
        pytest.param(Answer(500), Retryable, "reading models/net/1/model.onnx failed", id="in trouble"),
    ],
)
def test_what_the_storage_refuses_names_the_next_move(
    storage: Storage, answer: Answer, error: type[ShipmateError], words: str
) -> None:
    models, _ = storage(lambda _: answer)
    with pytest.raises(error, match=words):
        models.properties("models", "net/1/model.onnx")
    models, _ = storage(lambda seen: serving(seen) if seen.method == "HEAD" else answer)
    with pytest.raises(error, match=words) as caught:
        list(models.open("models", "net/1/model.onnx"))
    if isinstance(caught.value, Retryable):
        assert caught.value.after_seconds == (4 if answer.status == 503 else None)


def test_a_storage_that_is_away_is_retryable() -> None:
    with answering(serving) as (url, _):
        pass
    with BlobServiceClient(f"{url}/{AZURITE_ACCOUNT}", credential=AZURITE_KEY, retry_total=0) as service:
        with pytest.raises(Retryable, match=r"reading models/net/1/model.onnx failed: \S+"):
            BlobModels(service).properties("models", "net/1/model.onnx")
        with pytest.raises(Retryable, match=r"reading models/net/ failed"):
            list(BlobModels(service).list("models", "net/"))
