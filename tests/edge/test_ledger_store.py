"""Ledgers in Blob Storage where the details show: segments and their seals, lost replies, refusals, and their words."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import sleep
from typing import Any
from uuid import uuid4

import pytest
import requests
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobServiceClient, ContainerClient, ExponentialRetry

from localcloud.config import AZURITE_KEY, Cloud
from shipmate.core.events import Ignored
from shipmate.core.ledger import AnyEntry, IgnoredEvent, IllegalStep
from shipmate.core.state import State
from shipmate.edge.ledger_store import LedgerStore
from shipmate.errors import Ambiguous, Conflict, NotAllowed, Retryable
from shipmate.ports import Reading
from tests.fakes.histories import NOON
from tests.fakes.proxy import Fault, Proxy, proxy

pytestmark = pytest.mark.azurite

APPEND = "comp=appendblock"
SEALED = b'{"kind":"sealed"}\n'


@dataclass
class Storage:
    """A container of its own behind a proxy."""

    cloud: Cloud
    front: Proxy
    container: str
    stack: ExitStack

    def store(self, **options: Any) -> LedgerStore:
        """Return a store as another process would have it, with two entries a segment."""
        return LedgerStore(self.stack.enter_context(self.service(**options)), self.container, segment_entries=2)

    def service(self, key: str = AZURITE_KEY, port: int | None = None, **options: Any) -> BlobServiceClient:
        retry = ExponentialRetry(initial_backoff=0, increment_base=0, retry_total=2, random_jitter_range=0)
        return BlobServiceClient.from_connection_string(
            self.cloud.connection_string.replace(
                f":{self.cloud.blob_port}/", f":{self.front.port if port is None else port}/"
            ).replace(AZURITE_KEY, key),
            retry_policy=retry,
            **options,
        )

    @property
    def blobs(self) -> ContainerClient:
        """The container, past the proxy."""
        return self.stack.enter_context(self.service(port=self.cloud.blob_port)).get_container_client(self.container)

    def bytes(self, segment: int) -> bytes:
        data: bytes = self.blobs.download_blob(f"vision/{segment:08d}.jsonl").readall()
        return data

    def kinds(self, segment: int) -> list[str]:
        """Return what a segment's lines are."""
        return [line.partition(b'"kind":"')[2].partition(b'"')[0].decode() for line in self.bytes(segment).splitlines()]


@pytest.fixture
def storage(azurite: Cloud) -> Iterator[Storage]:
    with ExitStack() as stack:
        front = stack.enter_context(proxy(azurite.blob_port))
        storage = Storage(azurite, front, f"ledger-{uuid4().hex}", stack)
        yield storage


def entry(name: str) -> AnyEntry:
    return IgnoredEvent(
        id=f"id-{name}", at=NOON, by="worker-1", event=Ignored(name, "Stale", "for a reason", "subject")
    )


def write(store: LedgerStore, *names: str) -> Reading:
    reading = store.read("vision")
    for name in names:
        reading = store.append("vision", reading, [entry(name)])
    return reading


def ids(store: LedgerStore) -> list[str]:
    return [written.id.removeprefix("id-") for written in store.history("vision")]


# -- segments -------------------------------------------------------------------------------------------------------


def test_a_full_segment_is_sealed_and_the_next_begins_with_a_snapshot(storage: Storage) -> None:
    store = storage.store()
    write(store, *"abcde")
    assert storage.kinds(0) == ["ignored", "ignored", "sealed"]
    assert storage.kinds(1) == ["snapshot", "ignored", "ignored", "sealed"]
    assert storage.kinds(2) == ["snapshot", "ignored"]
    assert ids(store) == list("abcde")


def test_a_fresh_store_reads_the_last_segment_only(storage: Storage) -> None:
    write(storage.store(), *"abcde")
    storage.front.requests.clear()
    assert storage.store().read("vision").state.seen.keys() == set("abcde")
    read = [line for line in storage.front.requests if ".jsonl" in line]
    assert all("00000002.jsonl" in line for line in read)


@pytest.mark.parametrize(
    ("since", "found", "segments"),
    [
        pytest.param(NOON - timedelta(days=3650), "abcde", ["0", "1", "2"], id="before all"),
        pytest.param(NOON + timedelta(days=36500), "e", ["2"], id="after all: the last segment may still grow"),
    ],
)
def test_a_history_since_an_instant_leaves_out_what_was_full_by_then(
    storage: Storage, since: datetime, found: str, segments: list[str]
) -> None:
    write(storage.store(), *"abcde")
    storage.front.requests.clear()
    assert "".join(written.id.removeprefix("id-") for written in storage.store().history("vision", since)) == found
    read = [line for line in storage.front.requests if ".jsonl" in line]
    assert [line.partition(".jsonl")[0][-1] for line in read] == segments


def test_a_history_since_an_instant_has_the_segment_of_that_instant(storage: Storage) -> None:
    write(storage.store(), *"ab")
    sleep(1.1)  # the storage tells seconds
    instant = datetime.now(UTC)
    sleep(1.1)
    write(storage.store(), *"cde")
    assert [written.id for written in storage.store().history("vision", instant)] == [f"id-{name}" for name in "abcde"]
    sleep(1.1)
    assert [written.id for written in storage.store().history("vision", datetime.now(UTC))] == ["id-e"]


def test_a_store_that_read_before_reads_on_from_there(storage: Storage) -> None:
    store = storage.store()
    write(store, "a")
    storage.front.requests.clear()
    store.read("vision")
    assert len(storage.front.requests) == 1


def test_after_a_crash_between_seal_and_create(storage: Storage) -> None:
    store = storage.store()
    reading = write(store, "a", "b")
    storage.front.on_next("PUT", lambda: None, 403)  # the seal passes, creating the next segment does not
    with pytest.raises(NotAllowed):
        store.append("vision", reading, [entry("c")])
    assert storage.kinds(0) == ["ignored", "ignored", "sealed"]
    for other in (storage.store(), store):
        assert other.read("vision") == Reading(reading.state, 1)
    write(storage.store(), "c")
    assert ids(storage.store()) == ["a", "b", "c"]
    assert store.read("vision") == storage.store().read("vision")


def test_after_a_crash_between_create_and_snapshot(storage: Storage) -> None:
    reading = write(storage.store(), "a", "b")
    storage.blobs.get_blob_client("vision/00000000.jsonl").append_block(SEALED)
    storage.blobs.get_blob_client("vision/00000001.jsonl").create_append_blob()
    store = storage.store()
    assert store.read("vision") == Reading(reading.state, 1)
    write(store, "c", "d", "e")
    assert storage.kinds(1) == ["snapshot", "ignored", "ignored", "sealed"]
    assert ids(storage.store()) == list("abcde")


@pytest.mark.parametrize("step", ["comp=appendblock", "00000001.jsonl"], ids=["at the seal", "at the create"])
def test_of_two_who_roll_at_once_one_wins(storage: Storage, step: str) -> None:
    ana, bo = storage.store(), storage.store()
    write(ana, "a", "b")
    seen_by_ana, seen_by_bo = ana.read("vision"), bo.read("vision")
    storage.front.on_next(step, lambda: bo.append("vision", seen_by_bo, [entry("bo")]))
    with pytest.raises(Conflict, match="somebody else wrote to the ledger of vision first"):
        ana.append("vision", seen_by_ana, [entry("ana")])
    write(ana, "ana")
    assert ids(storage.store()) == ["a", "b", "bo", "ana"]
    assert storage.kinds(0) == ["ignored", "ignored", "sealed"]
    assert storage.kinds(1) == ["snapshot", "ignored", "ignored"]


def test_a_zombie_cannot_write_behind_a_seal(storage: Storage) -> None:
    zombie = storage.store()
    write(zombie, "a")
    old = zombie.read("vision")
    write(storage.store(), "b", "c")
    before = storage.bytes(0)
    with pytest.raises(Conflict):
        zombie.append("vision", old, [entry("zombie")])
    assert storage.bytes(0) == before
    assert before.endswith(SEALED)
    assert write(zombie, "d") == storage.store().read("vision")


def test_bytes_behind_a_seal_are_a_fault_and_say_so(storage: Storage) -> None:
    write(storage.store(), "a")
    blob = storage.blobs.get_blob_client("vision/00000000.jsonl")
    blob.append_block(SEALED)
    blob.append_block(b'{"kind":"ignored"}\n')
    with pytest.raises(IllegalStep, match=r"the ledger holds an entry that cannot be read: .*sealed"):
        storage.store().read("vision")


# -- lost replies ---------------------------------------------------------------------------------------------------


def test_ones_own_entry_behind_a_412_is_found(storage: Storage) -> None:
    store = storage.store()
    write(store, "a")
    storage.front.on_next(APPEND, Fault.SEND_TWICE)
    reading = write(store, "b")
    assert ids(store) == ["a", "b"]
    assert reading == storage.store().read("vision")


def test_ones_own_seal_behind_a_412_is_found(storage: Storage) -> None:
    store = storage.store()
    write(store, "a", "b")
    storage.front.on_next(APPEND, Fault.SEND_TWICE)
    write(store, "c")
    assert storage.kinds(0) == ["ignored", "ignored", "sealed"]
    assert ids(store) == ["a", "b", "c"]


def test_ones_own_entry_is_found_though_others_wrote_behind_it(storage: Storage) -> None:
    store, other = storage.store(), storage.store()
    before = write(store, "a")
    written = store.append("vision", before, [entry("b")])
    write(other, "c", "d")
    found = store.append("vision", before, [entry("b")])
    assert found.state.length == 4
    assert found.state.length > written.state.length
    assert ids(store) == list("abcd")


@pytest.mark.parametrize("word", ["PUT", "appendblock"])
@pytest.mark.parametrize("fault", [Fault.LOSE_REPLY, Fault.LOSE_REQUEST, 503], ids=str)
def test_a_ledger_is_begun_once_whatever_is_lost(storage: Storage, word: str, fault: Any) -> None:
    store = storage.store()
    storage.front.on_next(word, fault)
    before = store.read("vision")
    try:
        store.append("vision", before, [entry("a")])
    except Ambiguous as error:
        assert str(error).startswith("writing to the ledger of vision may or may not have worked: ")  # noqa: PT017
        store.append("vision", before, [entry("a")])
    assert ids(store) == ["a"]


def test_an_append_is_never_repeated_by_the_sdk(storage: Storage) -> None:
    store = storage.store()
    reading = write(store, "a")
    for fault in (503, Fault.LOSE_REQUEST):
        storage.front.requests.clear()
        storage.front.on_next(APPEND, fault)
        with pytest.raises(Ambiguous):
            store.append("vision", reading, [entry("b")])
        assert [line for line in storage.front.requests if APPEND in line] == []


def test_an_outcome_that_cannot_be_found_out_is_told_as_unknown(storage: Storage) -> None:
    store = storage.store()
    reading = write(store, "a")
    storage.front.on_next(APPEND, Fault.LOSE_REPLY)
    storage.front.on_next("GET", 503, 503, 503)
    with pytest.raises(Ambiguous, match="writing to the ledger of vision may or may not have worked: "):
        store.append("vision", reading, [entry("b")])
    assert ids(store) == ["a", "b"]
    assert store.append("vision", reading, [entry("b")]).state.length == 2


def test_a_412_that_cannot_be_looked_into_is_told_as_unknown(storage: Storage) -> None:
    store = storage.store()
    before = store.read("vision")
    write(storage.store(), "a")
    storage.front.on_next("GET", 503, 503, 503)
    with pytest.raises(Ambiguous):
        store.append("vision", before, [entry("b")])


class BreaksTls(RequestsTransport):  # type: ignore[misc] # the SDK hides its type behind a lazy import
    """Sends each append, and says what `requests` says of a TLS connection that broke before the reply."""

    def send(self, request: Any, **kwargs: Any) -> Any:
        reply = super().send(request, **kwargs)
        if APPEND in request.url:
            reply.internal_response.close()
            raise ServiceRequestError("EOF occurred in violation of protocol", error=requests.exceptions.SSLError())
        return reply


class MayNotCreateContainers(RequestsTransport):  # type: ignore[misc] # likewise
    """Answers as Azure does where an identity has rights on the container alone."""

    def send(self, request: Any, **kwargs: Any) -> Any:
        if request.method == "PUT" and "restype=container" in request.url:
            request.headers["Authorization"] = "SharedKey devstoreaccount1:d3Jvbmc="
        return super().send(request, **kwargs)


def test_a_tls_connection_that_broke_behind_an_append_is_looked_into(storage: Storage) -> None:
    store = storage.store(transport=BreaksTls())
    assert write(store, "a").state.length == 1
    assert ids(store) == ["a"]


# -- refusals, and storage that is away -----------------------------------------------------------------------------


def test_nobody_listens(storage: Storage) -> None:
    reading = write(storage.store(), "a")
    store = storage.store(port=1)
    words = "storage did not serve the ledger of vision: .*Connection refused"
    for attempt in (
        lambda: store.read("vision"),
        lambda: list(store.history("vision")),
        lambda: store.append("vision", reading, [entry("b")]),
    ):
        with pytest.raises(Retryable, match=words):
            attempt()


@pytest.mark.parametrize(
    "attempt",
    [
        pytest.param(lambda store, reading: store.read("vision"), id="read"),
        pytest.param(lambda store, reading: list(store.history("vision")), id="history"),
        pytest.param(lambda store, reading: store.append("vision", reading, [entry("b")]), id="append"),
    ],
)
def test_a_wrong_key_is_told_with_the_way_out(
    storage: Storage, attempt: Callable[[LedgerStore, Reading], object]
) -> None:
    reading = write(storage.store(), "a")
    words = r"storage refused access to the ledger of .* \(403\): give Shipmate's identity the role Storage Blob Data C"
    with pytest.raises(NotAllowed, match=words):
        attempt(storage.store(key="d3Jvbmc="), reading)
    assert ids(storage.store()) == ["a"]


class NoIdentity:
    """A credential that has none."""

    def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        raise ClientAuthenticationError("no managed identity is there")


def test_a_missing_identity_is_told_with_the_way_out(storage: Storage) -> None:
    service = storage.stack.enter_context(
        BlobServiceClient("https://127.0.0.1:1/account", credential=NoIdentity(), retry_total=0)
    )
    with pytest.raises(NotAllowed, match=r"\(no managed identity is there\): give Shipmate's identity the role"):
        LedgerStore(service, "ledger").read("vision")


def test_a_ledger_without_its_container_is_empty_until_something_is_written(storage: Storage) -> None:
    store = storage.store()
    assert store.read("vision") == Reading(State())
    assert list(store.history("vision")) == []
    assert not storage.blobs.exists()
    write(store, "a")
    write(storage.store(), "b")
    assert ids(store) == ["a", "b"]


def test_two_writers_create_the_container_at_once(storage: Storage) -> None:
    one, other = storage.store(), storage.store()
    reading = other.read("vision")
    storage.front.on_next("PUT /devstoreaccount1/" + storage.container + "?restype=container", lambda: write(one, "a"))
    with pytest.raises(Conflict):
        other.append("vision", reading, [entry("b")])
    assert ids(one) == ["a"]


def test_a_container_that_went_away_is_made_again(storage: Storage) -> None:
    store = storage.store()
    reading = write(store, "a")
    storage.blobs.delete_container()
    with pytest.raises(Retryable, match="container does not exist"):
        store.append("vision", reading, [entry("b")])
    assert store.read("vision") == Reading(State())
    write(store, "c")
    assert ids(store) == ["c"]


def test_an_identity_that_may_not_create_the_container_is_told_what_to_do(storage: Storage) -> None:
    store = storage.store(transport=MayNotCreateContainers())
    words = rf"there is no container '{storage.container}' for the ledgers, .* may not create it: create it, and give"
    with pytest.raises(NotAllowed, match=words):
        store.append("vision", store.read("vision"), [entry("a")])
    storage.blobs.create_container()
    assert write(store, "a").state.length == 1


def test_a_ledger_that_was_wiped_is_begun_anew_by_a_store_that_knew_it(storage: Storage) -> None:
    store = storage.store()
    old = write(store, "a", "b")
    storage.blobs.delete_blob("vision/00000000.jsonl")
    with pytest.raises(Retryable):
        store.append("vision", old, [entry("c")])
    assert store.read("vision") == Reading(State())
    old = write(store, "a", "b")
    storage.blobs.delete_blob("vision/00000000.jsonl")
    write(storage.store(), "x")
    with pytest.raises(Conflict):
        store.append("vision", old, [entry("c")])
    assert store.read("vision").state.seen.keys() == {"x"}
