"""The registry client when things go wrong, on a real registry behind a proxy that fails on cue."""

import hashlib
import random
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from localcloud import registry as registries
from localcloud.config import Cloud
from shipmate.core.image import OCI_MANIFEST, Descriptor
from shipmate.core.layer import LayerFiles, LayerReader
from shipmate.core.manifest import ModelFile
from shipmate.core.refs import Digest, digest_of
from shipmate.edge import registry_http, registry_upload
from shipmate.edge.registry import Registry
from shipmate.errors import Misconfigured, NotAllowed, Rejected, Retryable
from shipmate.ports import Copied
from shipmate.stages.graft import InMemory
from tests.fakes.app_images import AppImage
from tests.fakes.http_servers import Answer, Fault, Seen, answering, failing

pytestmark = pytest.mark.registry

MIB = 1 << 20
DATA = random.Random(7).randbytes(8 * MIB)
FILE = ModelFile("model.onnx", len(DATA), hashlib.sha256(DATA).hexdigest())

type Failing = Callable[..., tuple[Registry, list[Seen]]]


@pytest.fixture
def failing_registry(registry: Cloud) -> Iterator[Failing]:
    """Yield a function that takes faults and returns a client that meets them, and the requests it makes."""
    with ExitStack() as stack:

        def make(*faults: Fault) -> tuple[Registry, list[Seen]]:
            url, requests = stack.enter_context(failing(registry.registry, list(faults)))
            return stack.enter_context(closing(Registry(url))), requests

        yield make


@pytest.fixture
def repository() -> str:
    return f"faults/{uuid.uuid4().hex}"


def layer(file: ModelFile = FILE) -> LayerReader:
    def open_file(_file: ModelFile, offset: int) -> Iterator[bytes]:
        for start in range(offset, len(DATA), MIB):
            yield DATA[start : start + MIB]

    return LayerReader(LayerFiles((file,)), open_file)


def sent(requests: list[Seen]) -> int:
    return sum(request.received for request in requests)


def sessions(cloud: Cloud, repository: str) -> list[Path]:
    """Return the upload sessions whose bytes the registry keeps; of a cancelled one a hash state may stay behind."""
    folder = registries.Registry.of(cloud).data / "docker/registry/v2/repositories" / repository / "_uploads"
    return list(folder.glob("*/data"))


def assert_stored(cloud: Cloud, repository: str, digest: Digest) -> None:
    with closing(Registry(f"http://{cloud.registry}")) as direct:
        data = direct.get_blob(repository, digest, 2 * len(DATA))
    assert digest_of(data) == digest
    assert DATA in data


# -- uploads


def test_an_upload_is_a_post_a_patch_and_a_put(failing_registry: Failing, registry: Cloud, repository: str) -> None:
    client, requests = failing_registry()
    digest = client.upload(repository, layer())
    assert [request.method for request in requests] == ["POST", "PATCH", "PUT"]
    assert requests[1].headers["Content-Length"] == str(layer().size)
    assert_stored(registry, repository, digest)
    assert not sessions(registry, repository)


def test_large_layers_go_in_few_large_patches(
    failing_registry: Failing, registry: Cloud, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_upload, "PATCH_SIZES", (3 * MIB + 1,))
    client, requests = failing_registry()
    digest = client.upload(repository, layer())
    assert [request.method for request in requests] == ["POST", "PATCH", "PATCH", "PATCH", "PUT"]
    assert sent(requests) == layer().size
    assert_stored(registry, repository, digest)


@pytest.mark.parametrize("at", [1, 2 * MIB, 7 * MIB])
def test_a_connection_dropped_in_the_middle_goes_on_at_the_servers_offset(
    failing_registry: Failing, registry: Cloud, repository: str, at: int
) -> None:
    client, requests = failing_registry(Fault("PATCH", drop_after=at))
    digest = client.upload(repository, layer())
    methods = [request.method for request in requests if request.method != "HEAD"]
    assert methods[:4] == ["POST", "PATCH", "GET", "PATCH"]
    assert sent(requests) < 1.5 * layer().size
    assert_stored(registry, repository, digest)


def test_a_session_that_may_have_one_byte_or_none(failing_registry: Failing, repository: str) -> None:
    client, requests = failing_registry(Fault("PATCH", drop_answer=True))
    digest = client.upload(repository, InMemory(b"x"))
    assert client.get_blob(repository, digest, 1) == b"x"
    assert sent(requests) == 2  # it was tried as empty


def test_a_connection_dropped_again_and_again_still_comes_to_an_end(
    failing_registry: Failing, registry: Cloud, repository: str
) -> None:
    client, requests = failing_registry(Fault("PATCH", drop_after=MIB, times=7))
    digest = client.upload(repository, layer())
    assert sent(requests) < 1.5 * layer().size
    assert_stored(registry, repository, digest)


def test_a_lost_session_is_begun_again(failing_registry: Failing, registry: Cloud, repository: str) -> None:
    unknown = Answer(404, b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}')
    client, requests = failing_registry(
        Fault("PATCH", drop_after=2 * MIB), Fault("GET", "/uploads/", unknown), Fault("DELETE", answer=unknown)
    )
    digest = client.upload(repository, layer())
    assert [request.method for request in requests] == ["POST", "PATCH", "GET", "POST", "PATCH", "PUT"]
    assert_stored(registry, repository, digest)


LOST = Answer(404, b'{"errors":[{"code":"BLOB_UPLOAD_INVALID"}]}')


def test_a_session_that_is_lost_although_it_answers_is_begun_again(
    failing_registry: Failing, registry: Cloud, repository: str
) -> None:
    client, requests = failing_registry(Fault("PATCH", drop_after=2 * MIB), Fault("PATCH", answer=LOST))
    digest = client.upload(repository, layer())
    methods = [request.method for request in requests]
    assert methods == ["POST", "PATCH", "GET", "PATCH", "POST", "PATCH", "PUT"]
    assert_stored(registry, repository, digest)


def test_a_session_that_has_another_offset_is_asked_and_kept(
    failing_registry: Failing, registry: Cloud, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_upload, "PATCH_SIZES", (5 * MIB,))
    client, requests = failing_registry(Fault("PATCH", drop_answer=True), Fault("PATCH", answer=Answer(416)))
    digest = client.upload(repository, layer())
    methods = [request.method for request in requests if request.method != "HEAD"]
    assert methods == ["POST", "PATCH", "GET", "PATCH", "GET", "PATCH", "PUT"]
    assert_stored(registry, repository, digest)


def test_sessions_that_are_lost_again_and_again_are_given_up(
    failing_registry: Failing, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_upload, "pause", lambda *_, **__: None)
    client, requests = failing_registry(Fault("PATCH", answer=LOST, times=99))
    with pytest.raises(Retryable, match=r"broke off: \S+ cannot take bytes from 0: 404 .*BLOB_UPLOAD_INVALID"):
        client.upload(repository, layer())
    assert [request.method for request in requests] == ["POST", "PATCH"] * 7


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of a PATCH that are small enough for a test."""
    smaller = [64 * MIB, 3 * MIB, MIB]
    monkeypatch.setattr(registry_upload, "PATCH_SIZES", tuple(smaller))
    return smaller


def patches(requests: list[Seen]) -> list[int]:
    """Return how many bytes the PATCHes announced."""
    return [int(request.headers["Content-Length"]) for request in requests if request.method == "PATCH"]


def test_what_is_too_large_for_one_request_is_sent_in_smaller_ones(
    failing_registry: Failing, registry: Cloud, repository: str, sizes: list[int]
) -> None:
    client, requests = failing_registry(Fault("PATCH", answer=Answer(413, b"too large"), above=2 * MIB, times=99))
    size = layer().size
    assert_stored(registry, repository, client.upload(repository, layer()))
    assert list(dict.fromkeys(patches(requests))) == [size, *sizes[1:], size % MIB]
    assert sent(requests) == size


@pytest.mark.parametrize("content", [DATA, b"x"], ids=["large", "small"])
def test_a_registry_that_refuses_the_smallest_piece_too_is_told(
    failing_registry: Failing, registry: Cloud, repository: str, sizes: list[int], content: bytes
) -> None:
    client, requests = failing_registry(Fault("PATCH", answer=Answer(413, b"too large"), times=99))
    words = (
        rf"refused {min(len(content), MIB)} bytes of a layer at once: 413 too large; let what stands before the "
        rf"registry pass bodies of {sizes[-1]} bytes \(nginx: client_max_body_size\), or go round it"
    )
    with pytest.raises(NotAllowed, match=words):
        client.upload(repository, InMemory(content))
    assert patches(requests)[-1] == min(len(content), MIB)
    assert not sessions(registry, repository)


def test_patches_that_break_off_twice_without_progress_get_smaller(
    failing_registry: Failing, registry: Cloud, repository: str, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_upload, "pause", lambda *_, **__: None)
    client, requests = failing_registry(Fault("PATCH", drop_after=0, above=2 * MIB, times=99))
    size = layer().size
    assert_stored(registry, repository, client.upload(repository, layer()))
    assert patches(requests) == [size, size, *[3 * MIB] * 2, *[MIB] * (size // MIB), size % MIB]
    assert sizes[1:] == [3 * MIB, MIB]


@pytest.mark.parametrize("status", [500, 502, 504])
def test_patches_that_a_front_end_gives_up_twice_get_smaller(
    failing_registry: Failing,
    registry: Cloud,
    repository: str,
    sizes: list[int],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    monkeypatch.setattr(registry_upload, "pause", lambda *_, **__: None)
    client, requests = failing_registry(Fault("PATCH", answer=Answer(status), above=4 * MIB, times=99))
    size = layer().size
    assert_stored(registry, repository, client.upload(repository, layer()))
    assert patches(requests) == [size, size, sizes[1], sizes[1], size - 2 * sizes[1]]


def test_patches_that_are_to_come_later_stay_large(
    failing_registry: Failing, registry: Cloud, repository: str, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_upload, "pause", lambda *_, **__: None)
    busy = Answer(503, headers={"Retry-After": "1"})
    client, requests = failing_registry(Fault("PATCH", answer=busy, times=3))
    assert_stored(registry, repository, client.upload(repository, layer()))
    assert patches(requests) == [layer().size] * 4
    assert sizes[0] > layer().size


def test_patches_that_break_off_and_get_on_stay_large(
    failing_registry: Failing, registry: Cloud, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_upload, "PATCH_SIZES", (3 * MIB, MIB))
    client, requests = failing_registry(Fault("PATCH", drop_answer=True, times=2))
    size = layer().size
    assert_stored(registry, repository, client.upload(repository, layer()))
    assert patches(requests) == [3 * MIB, 3 * MIB, size - 6 * MIB]


def test_patches_that_lose_their_session_when_they_break_off_get_smaller(
    failing_registry: Failing, registry: Cloud, repository: str, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_upload, "pause", lambda *_, **__: None)
    faults = [fault for _ in range(2) for fault in (Fault("PATCH", drop_after=0), Fault("PATCH", answer=LOST))]
    client, requests = failing_registry(*faults)
    size = layer().size
    assert_stored(registry, repository, client.upload(repository, layer()))
    assert patches(requests) == [size, size, size, sizes[1], sizes[1], sizes[1], size - 2 * sizes[1]]
    assert [request.method for request in requests].count("POST") == 3


def test_a_registry_that_is_busy_is_waited_for(
    failing_registry: Failing, registry: Cloud, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("shipmate.edge.registry_http.time.sleep", waited.append)
    client, _ = failing_registry(
        Fault("PATCH", answer=Answer(429, b"slow down", {"Retry-After": "1"})), Fault("PATCH", answer=Answer(500))
    )
    assert_stored(registry, repository, client.upload(repository, layer()))
    assert waited == [1.0, 0.4], "as it was told, then as the attempt says"


def test_a_registry_that_is_busy_for_long_is_left_alone(
    failing_registry: Failing, registry: Cloud, repository: str
) -> None:
    client, _ = failing_registry(Fault("PATCH", answer=Answer(503, headers={"Retry-After": "90"})))
    with pytest.raises(Retryable, match=r"an upload broke off: \S+ answered 503") as caught:
        client.upload(repository, layer())
    assert caught.value.after_seconds == 90
    assert not sessions(registry, repository)


def test_an_upload_that_never_gets_on_is_given_up(
    failing_registry: Failing, registry: Cloud, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_upload, "pause", lambda *_, **__: None)
    client, requests = failing_registry(Fault("PATCH", answer=Answer(500), times=99))
    with pytest.raises(Retryable, match=r"an upload broke off"):
        client.upload(repository, layer())
    assert patches(requests) == [layer().size] * 2 + [4 * MIB] * 6
    assert not sessions(registry, repository)


def test_a_lost_answer_to_the_last_request_is_no_second_upload(
    failing_registry: Failing, registry: Cloud, repository: str
) -> None:
    client, requests = failing_registry(Fault("PUT", drop_answer=True))
    digest = client.upload(repository, layer())
    assert [request.method for request in requests] == ["POST", "PATCH", "PUT", "HEAD"]
    assert_stored(registry, repository, digest)


def test_a_last_request_that_never_arrived_is_sent_again(
    failing_registry: Failing, registry: Cloud, repository: str
) -> None:
    client, requests = failing_registry(Fault("PUT", answer=Answer(502)))
    digest = client.upload(repository, layer())
    assert [request.method for request in requests] == ["POST", "PATCH", "PUT", "HEAD", "GET", "PUT"]
    assert_stored(registry, repository, digest)


def test_a_last_request_that_names_a_lost_session(failing_registry: Failing, registry: Cloud, repository: str) -> None:
    client, requests = failing_registry(Fault("PUT", answer=LOST))
    assert_stored(registry, repository, client.upload(repository, layer()))
    assert [request.method for request in requests] == ["POST", "PATCH", "PUT", "HEAD", "POST", "PATCH", "PUT"]


def test_a_last_request_whose_lost_answer_leaves_no_session(
    failing_registry: Failing, registry: Cloud, repository: str
) -> None:
    client, requests = failing_registry(
        Fault("PUT", drop_answer=True), Fault("HEAD", answer=Answer(404)), Fault("GET", "/uploads/", Answer(204))
    )
    assert_stored(registry, repository, client.upload(repository, layer()))
    assert sent(requests) == layer().size, "the second PUT's 404 has it look again"


def test_a_registry_that_is_away_for_a_moment_is_waited_for(
    failing_registry: Failing, registry: Cloud, repository: str
) -> None:
    away = Answer(503)
    client, _ = failing_registry(
        Fault("POST", answer=away, times=4), Fault("PUT", answer=away), Fault("HEAD", answer=away, times=4)
    )
    assert_stored(registry, repository, client.upload(repository, layer()))


@pytest.mark.parametrize(
    ("method", "status", "error"),
    [("PATCH", 400, Retryable), ("PUT", 400, Retryable), ("PATCH", 403, NotAllowed), ("PUT", 403, NotAllowed)],
)
def test_a_refused_upload_is_cancelled(
    failing_registry: Failing, registry: Cloud, repository: str, method: str, status: int, error: type[Exception]
) -> None:
    client, _ = failing_registry(Fault(method, answer=Answer(status, b"no")))
    with pytest.raises(error, match=f"{status} no"):
        client.upload(repository, layer())
    assert not sessions(registry, repository)


def test_content_that_ends_early_is_not_published(failing_registry: Failing, registry: Cloud, repository: str) -> None:
    class Short(InMemory):
        def open_at(self, offset: int) -> Iterator[bytes]:
            yield from (b"", b"ab"[offset:])

    client, _ = failing_registry()
    with pytest.raises(ValueError, match=r"the content ended at byte 2 of 4"):
        client.upload(repository, Short(b"abcd"))
    assert not sessions(registry, repository)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (ModelFile("model.onnx", len(DATA), "0" * 64), "DigestMismatch"),
        (ModelFile("model.onnx", len(DATA) - 1, FILE.sha256), "SizeMismatch"),
        (ModelFile("model.onnx", len(DATA) + 1, FILE.sha256), "SizeMismatch"),
    ],
)
def test_a_wrong_file_is_not_published_and_its_session_is_cancelled(
    failing_registry: Failing, registry: Cloud, repository: str, file: ModelFile, reason: str
) -> None:
    client, requests = failing_registry()
    with pytest.raises(Rejected) as caught:
        client.upload(repository, layer(file))
    assert caught.value.reason == reason
    assert "PUT" not in [request.method for request in requests]
    assert not sessions(registry, repository)


def test_a_cancellation_that_fails_does_not_hide_why(failing_registry: Failing, repository: str) -> None:
    client, _ = failing_registry(Fault("DELETE", answer=Answer(403)))
    with pytest.raises(Rejected) as caught:
        client.upload(repository, layer(ModelFile("model.onnx", len(DATA), "0" * 64)))
    assert caught.value.reason == "DigestMismatch"


def test_a_session_that_is_gone_needs_no_cancelling(failing_registry: Failing, repository: str) -> None:
    client, requests = failing_registry(Fault("PATCH", answer=Answer(403)), Fault("GET", answer=Answer(404)))
    with pytest.raises(NotAllowed):
        client.upload(repository, layer())
    assert [request.method for request in requests] == ["POST", "PATCH", "GET"]


def test_an_upload_is_not_sent_to_another_host(failing_registry: Failing, repository: str) -> None:
    with answering(lambda _: Answer(202)) as (elsewhere, stolen):
        client, _ = failing_registry(Fault("POST", changed={"Location": f"{elsewhere}/v2/x/blobs/uploads/1"}))
        with pytest.raises(NotAllowed, match=r"sent an upload to 127.0.0.1:\d+: refused, credentials go to"):
            client.upload(repository, layer())
        assert not stolen


def test_a_session_without_an_address_is_refused(failing_registry: Failing, repository: str) -> None:
    client, _ = failing_registry(Fault("POST", answer=Answer(202)))
    with pytest.raises(Retryable, match=r"began an upload without saying where"):
        client.upload(repository, layer())


def test_a_relative_address_is_the_registrys_own(failing_registry: Failing, registry: Cloud, repository: str) -> None:
    client, _ = failing_registry()
    begun = client._http.send(
        "POST", f"/v2/{repository}/blobs/uploads/", frozenset(), expected=frozenset({202}), content=b""
    )
    path = begun.headers["Location"].partition(client.name)[2]
    client, _ = failing_registry(Fault("POST", answer=Answer(202, headers={"Location": path})))
    assert_stored(registry, repository, client.upload(repository, layer()))


# -- mounts


def test_a_mount_that_is_not_granted_becomes_an_upload(failing_registry: Failing, repository: str) -> None:
    client, requests = failing_registry(Fault("POST", "mount=", without_query=True))
    source = f"{repository}-app"
    digest = client.upload(source, InMemory(DATA))
    blob = Descriptor("", digest, len(DATA))
    del requests[:]
    assert client.copy_blobs(repository, [blob], source=source) == Copied(uploaded=len(DATA))
    assert client.get_blob(repository, digest, len(DATA)) == DATA
    assert [request.method for request in requests[:4]] == ["HEAD", "POST", "GET", "PATCH"] or [
        request.method for request in requests[:4]
    ] == ["HEAD", "POST", "PATCH", "GET"]


def test_copying_goes_on_where_it_broke(failing_registry: Failing, repository: str) -> None:
    client, requests = failing_registry(
        Fault("POST", "mount=", without_query=True), Fault("PATCH", repository + "/", drop_after=3 * MIB)
    )
    source = f"{repository}-app"
    digest = client.upload(source, InMemory(DATA))
    del requests[:]
    assert client.copy_blobs(repository, [Descriptor("", digest, len(DATA))], source=source).uploaded == len(DATA)
    assert sent(requests) < 1.5 * len(DATA)
    assert client.get_blob(repository, digest, len(DATA)) == DATA
    again = [request for request in requests if request.method == "GET" and "Range" in request.headers]
    assert len(again) == 1


# -- reading


def test_passing_trouble_is_waited_out(failing_registry: Failing, repository: str) -> None:
    client, requests = failing_registry(Fault("HEAD", answer=Answer(500)), Fault("HEAD", answer=Answer(503)))
    app = AppImage()
    app.push(client, repository, "main")
    del requests[:]
    assert client.resolve(repository, "main").digest == app.digest
    assert len(requests) == 3


def test_lasting_trouble_is_retryable(failing_registry: Failing, repository: str) -> None:
    client, requests = failing_registry(Fault("GET", answer=Answer(500, b"disk full"), times=99))
    with pytest.raises(Retryable, match=r"answered 500 disk full"):
        client.get_manifest(repository, "main")
    assert len(requests) == 4


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_registry_says_when_to_come_back(failing_registry: Failing, repository: str, status: int) -> None:
    client, requests = failing_registry(Fault("GET", answer=Answer(status, b"later", {"Retry-After": "7"})))
    with pytest.raises(Retryable, match=f"answered {status} later") as caught:
        client.get_manifest(repository, "main")
    assert caught.value.after_seconds == 7
    assert len(requests) == 1


def test_a_registry_that_is_gone_is_retryable() -> None:
    with answering(lambda _: Answer()) as (url, _):
        pass
    with closing(Registry(url)) as client, pytest.raises(Retryable, match=r"the connection to 127\S+ broke"):
        client.resolve("vision", "main")


@pytest.mark.parametrize("ask", [Registry.resolve, Registry.get_manifest])
def test_a_registry_that_says_nothing_is_left_soon(
    ask: Callable[[Registry, str, str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_http, "QUICK_SECONDS", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        closing(Registry(f"http://127.0.0.1:{silent.getsockname()[1]}")) as client,
        pytest.raises(Retryable, match=r"ReadTimeout"),
    ):
        ask(client, "vision", "main")
    assert registry_http.TRIES * 20.0 < 90, "a sweep asks about target after target"


def test_silence_is_long_only_where_a_layer_is_on_its_way(failing_registry: Failing, repository: str) -> None:
    client, _ = failing_registry(Fault("POST", "mount=", without_query=True))
    silences: dict[tuple[str, str], set[float]] = {}

    def note(request: httpx.Request) -> None:
        what = next(part for part in ("/manifests/", "/uploads/", "/blobs/") if part in request.url.path)
        silences.setdefault((request.method, what), set()).add(request.extensions["timeout"]["read"])

    client._http._client.event_hooks["request"].append(note)
    app = AppImage()
    app.push(client, f"{repository}-app", "main")
    client.resolve(f"{repository}-app", "main")
    client.get_manifest(f"{repository}-app", "main")
    digest = client.upload(f"{repository}-app", InMemory(b"small"))
    assert client.get_blob(f"{repository}-app", digest, 5) == b"small"
    assert silences.pop(("GET", "/blobs/")) == {20.0}
    client.copy_blobs(repository, [Descriptor("", digest, 5)], source=f"{repository}-app")
    assert silences == {
        ("HEAD", "/manifests/"): {20.0},
        ("GET", "/manifests/"): {20.0},
        ("PUT", "/manifests/"): {120.0},
        ("HEAD", "/blobs/"): {20.0},
        ("POST", "/uploads/"): {20.0},
        ("PATCH", "/uploads/"): {120.0},
        ("PUT", "/uploads/"): {120.0},
        ("GET", "/blobs/"): {120.0},
    }


def test_the_identity_may_not_be_allowed(failing_registry: Failing, repository: str) -> None:
    client, _ = failing_registry(Fault("GET", answer=Answer(403, b"denied")))
    with pytest.raises(NotAllowed) as caught:
        client.get_manifest(repository, "main")
    assert str(caught.value) == (
        f"{client.name} refused GET /v2/{repository}/manifests/main: 403 denied; in Azure, Shipmate's identity needs "
        "Container Registry Repository Writer on the registry, and AcrPush too unless the registry's mode is "
        '"RBAC Registry + ABAC Repository Permissions"'
    )


def test_an_image_that_is_locked_is_told_with_the_way_to_unlock_it(failing_registry: Failing, repository: str) -> None:
    body = b'{"errors":[{"code":"REGISTRY_DISALLOWED_OPERATION","message":"The operation is disallowed"}]}'
    client, _ = failing_registry(Fault("PUT", "/manifests/", Answer(405, body)))
    with pytest.raises(NotAllowed) as caught:
        AppImage().push(client, repository, "main")
    said, _, words = str(caught.value).partition("; ")
    assert said == f"{client.name} refused PUT /v2/{repository}/manifests/main: 405 {body.decode()}"
    assert words == (
        "the image, its tag or the repository is locked: unlock it by `az acr repository update --name 127 "
        f"--image {repository}@<digest> --write-enabled true`, or with --image {repository}:<tag>, or "
        f"--repository {repository}"
    )


def test_another_405_is_no_lock(failing_registry: Failing, repository: str) -> None:
    client, _ = failing_registry(Fault("PUT", "/manifests/", Answer(405, b"read only")))
    with pytest.raises(Retryable, match=r"answered PUT \S+ with 405 read only"):
        AppImage().push(client, repository, "main")


def test_other_bytes_than_asked_for_are_not_taken(failing_registry: Failing, repository: str) -> None:
    client, _ = failing_registry(
        Fault("GET", "/manifests/", Answer(200, b"{}", {"Content-Type": OCI_MANIFEST})),
        Fault("GET", "/blobs/", Answer(200, b"{}")),
    )
    digest = digest_of(b"what was asked for")
    with pytest.raises(Retryable, match=r"it is asked again"):
        client.get_manifest(repository, digest)
    with pytest.raises(Retryable, match=r"it is asked again"):
        client.get_blob(repository, digest, 100)


def test_a_registry_need_not_say_digest_and_size(failing_registry: Failing, repository: str) -> None:
    client, _ = failing_registry(Fault("HEAD", answer=Answer(200)))
    app = AppImage()
    app.push(client, repository, "main")
    assert client.resolve(repository, "main") == Descriptor(OCI_MANIFEST, app.digest, len(app.manifest))


def test_a_registry_that_stores_something_else_is_noticed(failing_registry: Failing, repository: str) -> None:
    other = {"Docker-Content-Digest": digest_of(b"something else")}
    client, _ = failing_registry(Fault("PUT", "/manifests/", changed=other))
    with pytest.raises(Retryable, match=r"it is sent again"):
        AppImage().push(client, repository, "main")


def test_an_endless_answer_is_not_read_to_its_end(failing_registry: Failing, repository: str) -> None:
    client, _ = failing_registry(Fault("GET", answer=Answer(200, bytes(4 * MIB + 1))))
    with pytest.raises(Rejected, match=r"has more than 4194304 bytes; that is too large"):
        client.get_manifest(repository, "main")


def test_blobs_kept_elsewhere_are_fetched_without_credentials(failing_registry: Failing, repository: str) -> None:
    with answering(lambda _: Answer(200, DATA)) as (elsewhere, requests):
        away = Answer(307, headers={"Location": f"{elsewhere}/blob?sig=x"})
        client, _ = failing_registry(Fault("GET", answer=away), Fault("GET", answer=away))
        client._http._authorizer.header = lambda _: "Bearer secret"  # type: ignore[method-assign, assignment]
        assert client.get_blob(repository, digest_of(DATA), len(DATA)) == DATA
        with pytest.raises(Rejected, match=r"has more than 10 bytes"):
            client.get_blob(repository, digest_of(DATA), 10)
    assert [request.path for request in requests] == ["/blob?sig=x"] * 2
    assert all("Authorization" not in request.headers for request in requests)


def test_a_registry_that_redirects_in_circles_is_left(failing_registry: Failing, repository: str) -> None:
    with answering(lambda seen: Answer(307, headers={"Location": seen.path})) as (elsewhere, _):
        client, _ = failing_registry(Fault("GET", answer=Answer(307, headers={"Location": elsewhere})))
        with pytest.raises(Retryable, match=r"redirects more than 5 times"):
            client.get_blob(repository, digest_of(b""), 10)


def test_blobs_are_not_fetched_in_the_open(failing_registry: Failing, repository: str) -> None:
    away = Answer(307, headers={"Location": "http://blobs.example/x"})
    client, _ = failing_registry(Fault("GET", answer=away))
    with pytest.raises(NotAllowed, match=r"keeps blobs at blobs.example without https"):
        client.get_blob(repository, digest_of(b""), 10)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://registry.example", "plain http: that is for registries on this machine only, use https"),
        ("https://registry.example/path", "expected a login server"),
        ("ftp://registry.example", "expected a login server"),
        ("", "expected a login server"),
        ("https://registry.example:port", "is no registry: Invalid port"),
    ],
)
def test_an_address_that_is_no_registrys(url: str, words: str) -> None:
    with pytest.raises(Misconfigured, match=words):
        Registry(url)


def test_a_login_server_is_spoken_to_by_https() -> None:
    with closing(Registry("name.azurecr.io")) as client:
        assert client.name == "name.azurecr.io"
        assert str(client._http.base) == "https://name.azurecr.io"
