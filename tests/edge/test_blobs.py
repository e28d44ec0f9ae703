"""The model storage when things go wrong, on a stand-in that answers as Azure does."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import urllib3
from azure.core.credentials import AccessToken, AzureSasCredential
from azure.storage.blob import BlobServiceClient

from localcloud.config import AZURITE_ACCOUNT, AZURITE_KEY
from shipmate.edge import blobs
from shipmate.edge.blobs import LONGEST_WAIT_SECONDS, MOST_BREAKS, SCOPE, BlobModels
from shipmate.edge.storage import PIECE_SIZE
from shipmate.errors import Conflict, NotAllowed, Retryable, ShipmateError
from shipmate.ports import Blob
from tests.fakes.certificates import shown
from tests.fakes.http_servers import Answer, Seen, answering

PROPERTIES = {
    "ETag": '"0x1"',
    "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
    "x-ms-blob-type": "BlockBlob",
    "Content-Type": "application/octet-stream",
}
DATA = bytes(range(256)) * (2 * PIECE_SIZE // 256) + b"the end"
PATH = "net/1/model.onnx"

type Answering = Callable[[Seen], Answer]
type Storage = Callable[[Answering], tuple[BlobModels, list[Seen]]]


@pytest.fixture
def storage() -> Iterator[Storage]:
    """Yield a function that takes the storage's side of the talk and returns a client of it, and what it asks."""
    with ExitStack() as stack:

        def make(answer: Answering) -> tuple[BlobModels, list[Seen]]:
            url, requests = stack.enter_context(answering(answer))
            key = {"account_name": AZURITE_ACCOUNT, "account_key": AZURITE_KEY}
            service = BlobServiceClient(f"{url}/{AZURITE_ACCOUNT}", credential=key, retry_total=0)
            return BlobModels(stack.enter_context(service)), requests

        yield make


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the least that was to be waited each time; nothing waits."""
    waited: list[float] = []
    monkeypatch.setattr(blobs, "pause", lambda _, *, at_least_seconds: waited.append(at_least_seconds))
    return waited


def serving(seen: Seen) -> Answer:
    """Answer as a storage with one blob does."""
    if seen.method == "HEAD":
        return Answer(200, headers={**PROPERTIES, "Content-Length": str(len(DATA))})
    first, last = (int(number) for number in seen.headers["Range"].removeprefix("bytes=").split("-"))
    found = DATA[first : last + 1]
    return Answer(206, found, {**PROPERTIES, "Content-Range": f"bytes {first}-{last}/{len(DATA)}"})


def breaking_off(sizes: list[int], then: Answering = serving) -> Answering:
    """Return answers that break off after so many bytes, one after the other."""

    def answer(seen: Seen) -> Answer:
        if seen.method == "HEAD" or not sizes:
            return serving(seen) if seen.method == "HEAD" else then(seen)
        whole = serving(seen)
        headers = {**whole.headers, "Content-Length": str(len(whole.body)), "Connection": "close"}
        return Answer(206, whole.body[: sizes.pop(0)], headers)

    return answer


def ranges(requests: list[Seen]) -> list[str]:
    return [seen.headers["Range"] for seen in requests if seen.method == "GET"]


def test_a_blob_is_read_piece_by_piece_by_one_request(storage: Storage) -> None:
    models, requests = storage(serving)
    pieces = list(models.open("models", PATH, offset=3))
    assert b"".join(pieces) == DATA[3:]
    assert [len(piece) for piece in pieces] == [PIECE_SIZE, PIECE_SIZE, 4]
    assert ranges(requests) == [f"bytes=3-{len(DATA) - 1}"]
    assert requests[-1].headers["If-Match"] == '"0x1"'
    assert "sig=" in requests[-1].path


def test_a_reading_that_breaks_off_goes_on_behind_the_last_piece(storage: Storage, waits: list[float]) -> None:
    sizes = [PIECE_SIZE + 5, 0, 7]
    models, requests = storage(breaking_off(list(sizes)))
    assert b"".join(models.open("models", PATH)) == DATA
    begins = [int(asked.removeprefix("bytes=").partition("-")[0]) for asked in ranges(requests)]
    assert begins[0] == 0
    assert begins[1] in (PIECE_SIZE, PIECE_SIZE + 5)
    assert begins == sorted(begins)
    assert len(begins) == 4
    assert len(waits) == 3


def test_a_storage_that_brings_nothing_is_not_asked_for_ever(storage: Storage, waits: list[float]) -> None:
    models, requests = storage(breaking_off([0] * 100))
    with pytest.raises(Retryable, match=f"reading models/{PATH} failed: "):
        list(models.open("models", PATH))
    assert len(ranges(requests)) == MOST_BREAKS + 1
    assert len(waits) == MOST_BREAKS


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer(302, headers={"Location": "http://127.0.0.1:9/sign-in"}), id="sent elsewhere"),
        pytest.param(Answer(206, headers={"Content-Range": "bytes 0-0/1"}), id="nothing"),
        pytest.param(Answer(200, b"please sign in"), id="a page"),
        pytest.param(Answer(206, DATA[5:], {"Content-Range": f"bytes 5-{len(DATA) - 1}/{len(DATA)}"}), id="elsewhere"),
    ],
)
def test_what_is_no_answer_of_a_storage_is_no_part_of_a_blob(
    answer: Answer, storage: Storage, waits: list[float]
) -> None:
    models, requests = storage(lambda seen: serving(seen) if seen.method == "HEAD" else answer)
    with pytest.raises(Retryable, match="reading models/"):
        list(models.open("models", PATH))
    assert len(ranges(requests)) == MOST_BREAKS + 1
    assert len(waits) == MOST_BREAKS


def test_a_proxy_that_knows_no_ranges_damages_nothing(storage: Storage, waits: list[float]) -> None:
    models, _ = storage(breaking_off([PIECE_SIZE], then=lambda _: Answer(200, DATA, PROPERTIES)))
    pieces = models.open("models", PATH)
    assert next(pieces) == DATA[:PIECE_SIZE]
    with pytest.raises(Retryable, match=rf"an answer 200 with the range none, not from {PIECE_SIZE}"):
        next(pieces)


def test_a_connection_that_is_damaged_is_begun_again(
    storage: Storage, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    models, requests = storage(serving)
    answer, damaged = models._answer, [True]

    def damaging(container: str, blob: Blob, offset: int) -> Iterator[bytes]:
        pieces = answer(container, blob, offset)
        yield next(pieces)
        if damaged and damaged.pop():
            raise urllib3.exceptions.SSLError("DECRYPTION_FAILED_OR_BAD_RECORD_MAC")
        yield from pieces

    monkeypatch.setattr(models, "_answer", damaging)
    assert b"".join(models.open("models", PATH)) == DATA
    assert len(ranges(requests)) == 2


def test_a_busy_storage_says_how_long_to_wait(storage: Storage, waits: list[float]) -> None:
    busy = [Answer(503, headers={"x-ms-error-code": "ServerBusy", "Retry-After": "4"}), Answer(500)]
    models, _ = storage(lambda seen: busy.pop(0) if seen.method == "GET" and busy else serving(seen))
    assert b"".join(models.open("models", PATH)) == DATA
    assert waits == [4.0, 0.0]


def test_a_storage_that_is_busy_for_long_is_asked_later(storage: Storage, waits: list[float]) -> None:
    later = int(LONGEST_WAIT_SECONDS) + 1
    models, requests = storage(
        lambda seen: serving(seen) if seen.method == "HEAD" else Answer(429, headers={"Retry-After": str(later)})
    )
    with pytest.raises(Retryable, match="reading models/") as caught:
        list(models.open("models", PATH))
    assert caught.value.after_seconds == later
    assert (len(ranges(requests)), waits) == (1, [])


def test_a_blob_that_is_overwritten_while_it_is_read(storage: Storage, waits: list[float]) -> None:
    overwritten = Answer(412, headers={"x-ms-error-code": "ConditionNotMet"})
    models, _ = storage(breaking_off([PIECE_SIZE], then=lambda _: overwritten))
    pieces = models.open("models", PATH)
    assert len(next(pieces)) == PIECE_SIZE
    with pytest.raises(Conflict, match=rf"models/{PATH} was overwritten since"):
        next(pieces)
    assert len(waits) == 1


class Identity:
    """A credential of Microsoft Entra ID."""

    def get_token(self, *scopes: str, **_: object) -> AccessToken:
        assert scopes == (SCOPE,)
        return AccessToken("a-token", int(time.time()) + 3600)


def test_an_identity_reads_with_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "server.pem"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with (
        answering(serving, tls=shown(tmp_path / "server.pem")) as (url, requests),
        BlobServiceClient(f"{url}/account", credential=Identity(), retry_total=0) as service,
    ):
        assert b"".join(BlobModels(service).open("models", PATH)) == DATA
    assert requests[-1].headers["Authorization"] == "Bearer a-token"
    assert requests[-1].headers["x-ms-version"] >= "2017-11-09"  # the first that knows tokens


@pytest.mark.parametrize("where", ["in the address", "by itself"])
def test_a_shared_access_signature_goes_along(where: str) -> None:
    sas = "sv=2024-01-01&sig=abc"
    with answering(serving) as (url, requests):
        address, credential = (
            (f"{url}/account?{sas}", None) if where == "in the address" else (f"{url}/account", AzureSasCredential(sas))
        )
        with BlobServiceClient(address, credential=credential, retry_total=0) as service:
            assert b"".join(BlobModels(service).open("models", PATH)) == DATA
    assert "sig=abc" in requests[-1].path


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
    storage: Storage, waits: list[float], answer: Answer, error: type[ShipmateError], words: str
) -> None:
    models, _ = storage(lambda _: answer)
    with pytest.raises(error, match=words):
        models.properties("models", "net/1/model.onnx")
    models, _ = storage(lambda seen: serving(seen) if seen.method == "HEAD" else answer)
    with pytest.raises(error, match=words) as caught:
        list(models.open("models", "net/1/model.onnx"))
    if isinstance(caught.value, Retryable):
        assert caught.value.after_seconds == (4 if answer.status == 503 else None)


def test_a_signature_is_not_told(waits: list[float]) -> None:
    with answering(serving) as (url, _):
        service = BlobServiceClient(f"{url}/{AZURITE_ACCOUNT}", credential=AZURITE_KEY, retry_total=0)
        models = BlobModels(service)
        blob = models.properties("models", PATH)
    with service, pytest.raises(Retryable, match=f"Max retries exceeded with url: .*{PATH}") as caught:
        list(models._pieces("models", blob, 0))
    assert "sig=" not in str(caught.value)
    assert len(waits) == MOST_BREAKS


def test_a_storage_that_is_away_is_retryable() -> None:
    with answering(serving) as (url, _):
        pass
    with BlobServiceClient(f"{url}/{AZURITE_ACCOUNT}", credential=AZURITE_KEY, retry_total=0) as service:
        with pytest.raises(Retryable, match=r"reading models/net/1/model.onnx failed: \S+"):
            BlobModels(service).properties("models", "net/1/model.onnx")
        with pytest.raises(Retryable, match=r"reading models/net/ failed"):
            list(BlobModels(service).list("models", "net/"))
