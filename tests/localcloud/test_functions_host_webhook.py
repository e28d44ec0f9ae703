"""The Event Grid webhook of the real host: keys, handshakes, deliveries in both schemas and each answer."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from localcloud.functions_host.keys import webhook_url
from tests.localcloud.functions_host_process import PATIENTLY, HostProcess, running

pytestmark = pytest.mark.host

NOTIFICATION = {"aeg-event-type": "Notification", "content-type": "application/json"}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    with running(HostProcess(tmp_path_factory.mktemp("functions"))) as host:
        yield host


def event(event_id: str, **data: object) -> dict[str, Any]:
    return {
        "id": event_id,
        "topic": "/subscriptions/x",
        "subject": "/blobServices/default/containers/models/blobs/a.bin",
        "eventType": "Microsoft.Storage.BlobCreated",
        "eventTime": "2024-05-01T10:00:00.1234567Z",
        "data": data,
        "dataVersion": "",
        "metadataVersion": "1",
    }


def cloud_event(event_id: str, **data: object) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": "/subscriptions/x",
        "type": "Microsoft.Storage.BlobCreated",
        "time": "2024-05-01T10:00:00.1234567Z",
        "subject": "s",
        "data": data,
    }


def deliver(host: HostProcess, body: object, function: str = "on_event", **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    url = webhook_url(host.url, function, host.keys)
    return httpx.post(
        url,
        content=content,
        headers={**NOTIFICATION, **{k.replace("_", "-"): v for k, v in headers.items()}},
        **PATIENTLY,
    )


def test_an_event_reaches_the_function(host: HostProcess) -> None:
    answer = deliver(host, [event("e-1", api="PutBlob")])
    assert (answer.status_code, answer.content) == (202, b"")
    (seen,) = host.records("on_event", id="e-1")
    assert (seen["type"], seen["data"]) == ("Microsoft.Storage.BlobCreated", {"api": "PutBlob"})


def test_each_event_of_a_batch_is_one_invocation(host: HostProcess) -> None:
    assert deliver(host, [event("b-1"), event("b-2"), event("b-3")]).status_code == 202
    assert all(len(host.records("on_event", id=one)) == 1 for one in ("b-1", "b-2", "b-3"))


def test_one_failure_fails_the_batch(host: HostProcess) -> None:
    answer = deliver(host, [event("f-1"), event("f-2", fails=True)])
    assert (answer.status_code, answer.text) == (500, "Exception while executing function: on_event")
    assert host.records("on_event", id="f-1")


def test_cloud_events_come_singly_or_in_batches(host: HostProcess) -> None:
    assert deliver(host, cloud_event("c-1"), content_type="application/cloudevents+json").status_code == 202
    batch = [cloud_event("c-2"), cloud_event("c-3")]
    assert deliver(host, batch, content_type="application/cloudevents-batch+json").status_code == 202
    assert all(host.records("on_event", id=one) for one in ("c-1", "c-2", "c-3"))


def test_a_malformed_time_fails_before_the_function(host: HostProcess) -> None:
    assert deliver(host, [{**event("t-1"), "eventTime": "yesterday"}]).status_code == 500
    assert not host.records("on_event", id="t-1")


@pytest.mark.parametrize("body", [b"", b"no json", b"7", b'"text"', b"[]", b'[{"id": "x"}, 7]', b"\xff"])
def test_a_body_that_is_no_event_is_refused(host: HostProcess, body: bytes) -> None:
    answer = deliver(host, body)
    assert answer.status_code == 400
    assert answer.text == "the body is no event: expected a JSON object or an array of them"


def test_another_event_type_header_is_refused(host: HostProcess) -> None:
    answer = deliver(host, [event("h-1")], aeg_event_type="Surprise")
    assert (answer.status_code, answer.text) == (400, "no such aeg-event-type: 'surprise'")
    assert httpx.post(webhook_url(host.url, "on_event", host.keys), json=[event("h-2")], **PATIENTLY).status_code == 400
    assert deliver(host, [], aeg_event_type="Unsubscribe").status_code == 202


def test_an_unknown_function_is_not_found(host: HostProcess) -> None:
    for name in ("nobody", "worker"):
        answer = deliver(host, [event("u-1")], function=name)
        assert (answer.status_code, answer.text) == (404, f"cannot find function: '{name}'")


@pytest.mark.parametrize(
    ("key", "status"), [(None, 401), ("wrong", 401), ("host", 401), ("system", 202), ("master", 202)]
)
def test_only_the_system_key_and_the_master_key_deliver(host: HostProcess, key: str | None, status: int) -> None:
    keys = host.keys
    secret = {"host": keys.host["default"], "system": keys.event_grid, "master": keys.master}.get(key or "", key)
    url = f"{host.url}/runtime/webhooks/eventgrid?functionName=on_event"
    in_query = httpx.post(f"{url}&code={secret or ''}", json=[event(f"k-{key}")], headers=NOTIFICATION, **PATIENTLY)
    in_header = httpx.post(
        url, json=[event(f"k-{key}")], headers={**NOTIFICATION, "x-functions-key": secret or ""}, **PATIENTLY
    )
    assert (in_query.status_code, in_header.status_code) == (status, status)


def test_the_validation_handshake_is_answered_by_the_host(host: HostProcess) -> None:
    code = "512d38b6-c7b8-40c8-89fe-f46f9e9622b6"
    body = [{**event("v-1", validationCode=code), "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent"}]
    answer = deliver(host, body, aeg_event_type="SubscriptionValidation")
    assert (answer.status_code, answer.json()) == (200, {"validationResponse": code})
    assert not host.records("on_event", id="v-1")
    broken = deliver(host, [event("v-2")], aeg_event_type="SubscriptionValidation")
    assert broken.status_code == 400
    assert broken.text == "the body is no validation event: data.validationCode is missing"


def test_the_cloud_events_handshake_is_answered_by_the_host(host: HostProcess) -> None:
    url = webhook_url(host.url, "on_event", host.keys)
    answer = httpx.options(
        url, headers={"WebHook-Request-Origin": "eventgrid.azure.net", "WebHook-Request-Rate": "120"}, **PATIENTLY
    )
    assert answer.status_code == 200
    assert answer.headers["webhook-allowed-origin"] == "eventgrid.azure.net"
    assert answer.headers["webhook-allowed-rate"] == "120"
    without = httpx.options(url, **PATIENTLY)
    assert (without.status_code, without.text) == (400, "the header WebHook-Request-Origin is missing")
