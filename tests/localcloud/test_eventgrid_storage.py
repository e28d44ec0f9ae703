"""Blob events and dead letters with a real Azurite of the tests' own, which they may stop."""

import json
import os
import signal
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import httpx
import pytest
from azure.storage.blob import BlobBlock, BlobSasPermissions, BlobServiceClient, ContainerClient, generate_blob_sas

from localcloud.config import AZURITE_ACCOUNT, AZURITE_KEY
from localcloud.eventgrid import Relay
from localcloud.eventgrid.client import RelayClient
from localcloud.storage import Azurite
from tests.localcloud.eventgrid_parts import Webhook, publisher, relay_in, running, something_happened, webhook
from tests.localcloud.functions_host_process import PATIENTLY, free_port, until

pytestmark = pytest.mark.azurite

CREATED, DELETED = "Microsoft.Storage.BlobCreated", "Microsoft.Storage.BlobDeleted"


@pytest.fixture(scope="module")
def own_azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    azurite = Azurite(tmp_path_factory.mktemp("azurite"), free_port(), free_port(), free_port())
    azurite.start()
    yield azurite
    azurite.program().stop()


@pytest.fixture(scope="module")
def relay(own_azurite: Azurite, tmp_path_factory: pytest.TempPathFactory) -> Relay:
    return relay_in(
        tmp_path_factory.mktemp("relay"),
        access_log=own_azurite.program().log,
        connection_string=own_azurite.connection_string,
    )


@pytest.fixture(scope="module")
def client(relay: Relay) -> Iterator[RelayClient]:
    with running(relay) as client:
        yield client


@pytest.fixture
def container(own_azurite: Azurite) -> Iterator[ContainerClient]:
    with BlobServiceClient.from_connection_string(own_azurite.connection_string) as service:
        yield service.create_container(f"c-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def hook(client: RelayClient, container: ContainerClient) -> Iterator[Webhook]:
    """What gets the events of the test's container."""
    with webhook() as hook:
        prefix = f"/blobServices/default/containers/{container.container_name}/"
        name = container.container_name
        client.subscribe(name, topic="storage", endpoint=hook.url, subject_begins_with=prefix)
        yield hook
        client.unsubscribe(name)


def test_an_upload_is_told(container: ContainerClient, hook: Webhook) -> None:
    blob = container.upload_blob("lite/1.0/a b+ü.json", b"{}")
    (got,) = hook.wait_for(1)
    event = got.event
    assert event["eventType"] == CREATED
    assert event["topic"].endswith("/Microsoft.Storage/storageAccounts/devstoreaccount1")
    assert event["subject"] == f"/blobServices/default/containers/{container.container_name}/blobs/lite/1.0/a b+ü.json"
    data = event["data"]
    assert data["api"] == "PutBlob"
    assert data["eTag"] == blob.get_blob_properties().etag.strip('"')
    assert (data["contentType"], data["contentLength"], data["blobType"]) == (
        "application/octet-stream",
        2,
        "BlockBlob",
    )
    assert data["url"] == blob.url
    assert len(data["sequencer"]) == 48
    assert data["requestId"]
    assert data["storageDiagnostics"]["batchId"]


def test_it_is_told_soon(container: ContainerClient, hook: Webhook) -> None:
    delays = []
    for number in range(10):
        container.upload_blob(f"{number}", b"x")
        uploaded = time.time()
        delays.append(hook.wait_for(number + 1)[-1].at - uploaded)
    assert min(delays) < 0.5  # each upload follows the event of the last: a slow look at the log would show in all


def test_every_way_to_complete_a_blob_and_no_other(container: ContainerClient, hook: Webhook) -> None:
    blocks = container.get_blob_client("blocks")
    blocks.stage_block("MDAw", b"123")
    blocks.commit_block_list([BlobBlock("MDAw")])
    container.get_blob_client("copy").start_copy_from_url(blocks.url)
    append = container.get_blob_client("append")
    append.create_append_blob()
    append.append_block(b"entry")
    blocks.set_blob_metadata({"a": "b"})
    blocks.create_snapshot()
    hook.wait_for(3)
    blocks.delete_blob(delete_snapshots="include")
    until(lambda: hook.notifications[-1].event["eventType"] == DELETED)
    got = [each.event for each in hook.notifications]
    assert sorted((each["eventType"], each["data"]["api"], each["subject"].rpartition("/")[2]) for each in got) == [
        (CREATED, "CopyBlob", "copy"),
        (CREATED, "PutBlob", "append"),
        (CREATED, "PutBlockList", "blocks"),
        (DELETED, "DeleteBlob", "blocks"),
    ]
    assert {each["subject"].rpartition("/")[2]: each["data"].get("blobType") for each in got[:3]}[
        "append"
    ] == "AppendBlob"


def test_any_client_may_upload(own_azurite: Azurite, container: ContainerClient, hook: Webhook) -> None:
    expiry = datetime.now(UTC) + timedelta(hours=1)
    permission = BlobSasPermissions(create=True, write=True)
    key, name = AZURITE_KEY, container.container_name
    sas = generate_blob_sas(AZURITE_ACCOUNT, name, "b", account_key=key, permission=permission, expiry=expiry)
    reply = httpx.put(f"{container.url}/b?{sas}", content=b"x", headers={"x-ms-blob-type": "BlockBlob"}, **PATIENTLY)
    assert reply.status_code == 201
    assert hook.wait_for(1)[0].event["data"]["url"] == f"{container.url}/b"


def test_a_blob_that_is_written_often_has_rising_sequencers(container: ContainerClient, hook: Webhook) -> None:
    for number in range(20):
        container.upload_blob("same", f"{number}".encode(), overwrite=True)
    events = sorted((each.event for each in hook.wait_for(20)), key=lambda event: event["data"]["sequencer"])
    assert all(a["data"]["sequencer"] < b["data"]["sequencer"] for a, b in pairwise(events))
    assert events[-1]["data"]["eTag"] == container.get_blob_client("same").get_blob_properties().etag.strip('"')


def test_nobody_wants_the_ledger(client: RelayClient, container: ContainerClient, hook: Webhook) -> None:
    """The subscription's filter leaves appended blobs out; appended blocks raise nothing anyway."""
    ledger = container.get_blob_client("ledger/1")
    ledger.create_append_blob()
    hook.wait_for(1)
    before = client.events()[-1]["number"]
    for _ in range(20):
        ledger.append_block(b"entry")
    container.upload_blob("last", b"x")
    hook.wait_for(2)
    assert len(client.events(after=before)) == 1


def test_what_is_uploaded_while_the_relay_is_down_is_told_later(
    relay: Relay, client: RelayClient, container: ContainerClient, hook: Webhook
) -> None:
    container.upload_blob("before", b"x")
    hook.wait_for(1)
    client.wait_until_idle()  # it knows of the answer, too: else it would deliver again
    pid = relay.program().pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: relay.program().pid() is None)
    container.upload_blob("meanwhile", b"x")
    relay.start()
    got = hook.wait_for(2)
    time.sleep(0.3)
    assert [each.event["subject"].rpartition("/")[2] for each in got] == ["before", "meanwhile"]
    assert len(hook.notifications) == 2
    assert got[0].event["data"]["sequencer"] < got[1].event["data"]["sequencer"]


def test_storage_may_restart_and_its_log_be_cut(
    own_azurite: Azurite, client: RelayClient, container: ContainerClient, hook: Webhook
) -> None:
    own_azurite.program().stop()
    own_azurite.start()
    container.upload_blob("restarted", b"x")
    hook.wait_for(1)
    os.truncate(own_azurite.program().log, 0)
    time.sleep(0.2)
    container.upload_blob("cut", b"x")
    assert hook.wait_for(2)[1].event["subject"].endswith("/cut")


def test_a_blob_that_is_gone_before_it_was_looked_at(
    relay: Relay, client: RelayClient, container: ContainerClient, hook: Webhook
) -> None:
    relay.program().stop()
    container.upload_blob("short", b"x")
    container.delete_blob("short")
    relay.start()
    (got,) = hook.wait_for(1)
    assert got.event["eventType"] == DELETED
    assert client.stats()["counters"]["azurite.gone_before_seen"] == 1


# -- dead letters


@pytest.mark.parametrize(
    ("status", "reason", "outcome", "attempts"),
    [
        (500, "MaxDeliveryAttemptsExceeded", "InternalServerError", 2),
        (403, "UndeliverableDueToHttpForbidden", "Forbidden", 1),
    ],
)
def test_what_cannot_be_delivered_is_a_dead_letter(
    relay: Relay,
    client: RelayClient,
    container: ContainerClient,
    status: int,
    reason: str,
    outcome: str,
    attempts: int,
) -> None:
    with webhook() as hook:
        name = f"dead-{status}-{uuid.uuid4().hex[:6]}"
        client.put_topic(name, "/mine")
        letters = container.container_name
        client.subscribe(name, topic=name, endpoint=hook.url, max_attempts=2, dead_letter_container=letters)
        hook.status = status
        event = something_happened("/s", n=1)
        publisher(relay, name).send(event)
        client.wait_until_idle()
        (delivery,) = client.deliveries(name)
        assert (delivery["state"], delivery["reason"]) == ("dead_lettered", reason)
        (blob,) = container.list_blob_names()
        assert blob.startswith(f"{name.upper()}/{datetime.now(UTC):%Y}/")
        (letter,) = json.loads(container.download_blob(blob).readall())
        assert letter["id"] == str(event.id)
        assert (letter["subject"], letter["data"], letter["topic"]) == ("/s", {"n": 1}, "/mine")
        assert (letter["deadLetterReason"], letter["deliveryAttempts"]) == (reason, attempts)
        assert (letter["lastDeliveryOutcome"], letter["lastHttpStatusCode"]) == (outcome, status)
        assert letter["publishTime"] <= letter["lastDeliveryAttemptTime"]


def test_a_dead_letter_waits_for_storage(
    own_azurite: Azurite, relay: Relay, client: RelayClient, container: ContainerClient
) -> None:
    with webhook() as hook:
        client.put_topic("waits", "/mine")
        letters = container.container_name
        client.subscribe("waits", topic="waits", endpoint=hook.url, dead_letter_container=letters)
        hook.status = 400
        own_azurite.program().stop()
        publisher(relay, "waits").send(something_happened())
        until(lambda: client.stats()["counters"].get("dead_letter.retried"))
        own_azurite.start()
        client.wait_until_idle()
        assert len(list(container.list_blob_names())) == 1


def test_without_the_container_a_dead_letter_is_dropped(relay: Relay, client: RelayClient) -> None:
    with webhook() as hook:
        client.put_topic("nowhere", "/mine")
        client.subscribe("nowhere", topic="nowhere", endpoint=hook.url, dead_letter_container="is-not-there")
        hook.status = 400
        publisher(relay, "nowhere").send(something_happened())
        client.wait_until_idle()
        (delivery,) = client.deliveries("nowhere")
        assert (delivery["state"], delivery["reason"]) == ("dropped", "DeadLetterContainerNotFound")
