"""The relay as a process, real webhooks, and Microsoft's own publisher client."""

import os
import re
import signal
import time
import uuid
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.core.messaging import CloudEvent

from localcloud.eventgrid import Relay
from localcloud.eventgrid.client import RelayClient, RelayError
from localcloud.eventgrid.publisher import publish_push
from localcloud.eventgrid.subscriptions import TOPICS
from tests.localcloud.eventgrid_parts import Webhook, publisher, relay_in, running, something_happened, webhook
from tests.localcloud.functions_host_process import PATIENTLY, free_port, until

pytestmark = pytest.mark.relay


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Relay:
    return relay_in(tmp_path_factory.mktemp("relay"))


@pytest.fixture(scope="module")
def running_relay(relay: Relay) -> Iterator[RelayClient]:
    with running(relay) as client:
        yield client


@pytest.fixture
def client(running_relay: RelayClient) -> Iterator[RelayClient]:
    yield running_relay
    for subscription in running_relay.subscriptions():
        running_relay.unsubscribe(subscription["name"])
    running_relay.remove_faults()


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as hook:
        yield hook


@pytest.fixture
def topic(client: RelayClient) -> str:
    """A topic of the test's own."""
    name = f"topic-{uuid.uuid4().hex[:8]}"
    client.put_topic(name, f"/topics/{name}")
    return name


# -- handshake


def test_an_endpoint_is_asked_before_it_gets_events(
    relay: Relay, client: RelayClient, topic: str, hook: Webhook
) -> None:
    hook.validates = lambda data: (503, None)
    client.subscribe("asked", topic=topic, endpoint=hook.url, wait_seconds=None)
    until(lambda: len(hook.received) >= 2)
    publisher(relay, topic).send(something_happened())
    hook.validates = lambda data: (200, {"validationResponse": data["validationCode"]})
    client.wait_until_active("asked")
    publisher(relay, topic).send(something_happened("/second"))
    assert [each.event["subject"] for each in hook.wait_for(1)] == ["/second"]
    asked = hook.received[0]
    assert asked.headers["aeg-event-type"] == "SubscriptionValidation"
    assert asked.headers["aeg-subscription-name"] == "ASKED"
    assert asked.event["eventType"] == "Microsoft.EventGrid.SubscriptionValidationEvent"
    assert asked.event["topic"] == f"/topics/{topic}"
    assert asked.event["data"].keys() == {"validationCode", "validationUrl"}


def test_an_endpoint_may_come_up_late(client: RelayClient, topic: str) -> None:
    port = free_port()
    client.subscribe("late", topic=topic, endpoint=f"http://127.0.0.1:{port}/", wait_seconds=None)
    until(lambda: has_answered_otherwise(client, "late"))
    with pytest.raises(RelayError, match=r"'late' is not validated: http://127.0.0.1:\d+/ does not answer: "):
        client.wait_until_active("late", within_seconds=0.3)
    with webhook(port):
        client.wait_until_active("late")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((202, {"validationResponse": "?"}), "the validation event was answered 202; it takes a 200"),
        ((200, {"validationResponse": "?"}), 'was not answered {"validationResponse": its data.validationCode}'),
        ((200, ["?"]), 'was not answered {"validationResponse": its data.validationCode}'),
        ((200, None), 'was not answered {"validationResponse": its data.validationCode}'),
    ],
)
def test_a_wrong_answer_does_not_validate(
    client: RelayClient, topic: str, hook: Webhook, answer: tuple[int, Any], message: str
) -> None:
    hook.validates = lambda data: answer
    client.subscribe("wrong", topic=topic, endpoint=hook.url, wait_seconds=None)
    until(lambda: has_answered_otherwise(client, "wrong"))
    with pytest.raises(RelayError, match=re.escape(message)):
        client.wait_until_active("wrong", within_seconds=0.3)


def has_answered_otherwise(client: RelayClient, subscription: str) -> bool:
    """Tell whether an endpoint was asked for its agreement and did not give it."""
    return any(each["name"] == subscription and each["error"] for each in client.subscriptions())


def test_a_person_validates_by_the_address_in_the_event(client: RelayClient, topic: str, hook: Webhook) -> None:
    hook.validates = lambda data: (200, None)
    client.subscribe("by-hand", topic=topic, endpoint=hook.url, wait_seconds=None)
    until(lambda: hook.received)
    url = hook.received[0].event["data"]["validationUrl"]
    assert (
        httpx.get(url + "0", **PATIENTLY).json()["error"]["message"]
        == "no subscription of this name waits for this code"
    )
    assert httpx.get(url, **PATIENTLY).text == "The subscription is active."
    client.wait_until_active("by-hand")


def test_cloud_events_ask_by_options(client: RelayClient, topic: str, hook: Webhook) -> None:
    hook.allows = "example.org"
    endpoint, schema = hook.url, "CloudEventSchemaV1_0"
    client.subscribe("cloud", topic=topic, endpoint=endpoint, schema=schema, wait_seconds=None)
    until(lambda: has_answered_otherwise(client, "cloud"))
    with pytest.raises(RelayError, match=r"not answered with WebHook-Allowed-Origin: eventgrid.azure.net or \*"):
        client.wait_until_active("cloud", within_seconds=0.3)
    hook.allows = "*"
    client.wait_until_active("cloud")
    assert {each.method for each in hook.received} == {"OPTIONS"}
    assert hook.received[0].headers["webhook-request-origin"] == "eventgrid.azure.net"


def test_a_changed_filter_needs_no_handshake_and_a_new_endpoint_does(
    client: RelayClient, topic: str, hook: Webhook
) -> None:
    client.subscribe("changed", topic=topic, endpoint=hook.url)
    client.subscribe("changed", topic=topic, endpoint=hook.url, subject_ends_with="x", wait_seconds=0)
    assert len(hook.received) == 1
    client.subscribe("changed", topic=topic, endpoint=hook.url + "&new")
    assert len(hook.received) == 2


# -- delivery


def test_a_delivery_in_event_grid_schema(relay: Relay, client: RelayClient, hook: Webhook) -> None:
    client.subscribe("plain-1", topic="storage", endpoint=hook.url)
    event = something_happened("/subject", "Test.Happened", n=1, text="ü")
    publisher(relay).send(event)
    (got,) = hook.wait_for(1)
    assert got.headers["content-type"] == "application/json; charset=utf-8"
    assert {name: value for name, value in got.headers.items() if name.startswith("aeg-")} == {
        "aeg-event-type": "Notification",
        "aeg-subscription-name": "PLAIN-1",
        "aeg-delivery-count": "0",
        "aeg-data-version": "7",
        "aeg-metadata-version": "1",
    }
    assert isinstance(got.body, list)
    assert got.event.pop("eventTime")
    assert got.event == {
        "id": str(event.id),
        "topic": TOPICS["storage"],
        "subject": "/subject",
        "eventType": "Test.Happened",
        "data": {"n": 1, "text": "ü"},
        "dataVersion": "7",
        "metadataVersion": "1",
    }


def test_a_delivery_as_a_cloud_event(relay: Relay, client: RelayClient, topic: str, hook: Webhook) -> None:
    client.subscribe("cloud", topic=topic, endpoint=hook.url, schema="CloudEventSchemaV1_0")
    event = CloudEvent("/source", "Test.Happened", data={"n": 1}, subject="/s", extensions={"colour": "red"})
    publisher(relay, topic).send(event)
    publisher(relay, topic).send(CloudEvent("/source", "Test.Happened", data=b"\x00\xff"))
    publisher(relay, topic).send(something_happened("/plain", n=2))
    by_subject = {each.event["subject"]: each for each in hook.wait_for(3)}
    got = by_subject["/s"]
    assert got.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert got.headers["aeg-delivery-count"] == "0"
    assert got.body.pop("time")
    assert got.body == {
        "id": event.id,
        "source": "/source",
        "specversion": "1.0",
        "type": "Test.Happened",
        "subject": "/s",
        "data": {"n": 1},
        "colour": "red",
    }
    assert by_subject[""].body["data_base64"] == "AP8="
    assert "data" not in by_subject[""].body
    assert by_subject["/plain"].body["source"] == f"/topics/{topic}"
    assert by_subject["/plain"].body["data"] == {"n": 2}


def test_a_subscription_gets_what_its_filter_wants(
    relay: Relay, client: RelayClient, topic: str, hook: Webhook
) -> None:
    wanted = {"event_types": ["Test.Wanted"], "subject_begins_with": "/Models/", "subject_ends_with": ".json"}
    client.subscribe("filtered", topic=topic, endpoint=hook.url, api_in=["PutBlob", "PutBlockList"], **wanted)
    publisher(relay, topic).send(
        [
            something_happened("/models/a/MANIFEST.JSON", "Test.Wanted", api="putblob"),
            something_happened("/models/a/manifest.json", "Test.Other", api="PutBlob"),
            something_happened("/other/a/manifest.json", "Test.Wanted", api="PutBlob"),
            something_happened("/models/a/manifest.txt", "Test.Wanted", api="PutBlob"),
            something_happened("/models/a/manifest.json", "Test.Wanted", api="CreateFile"),
            something_happened("/models/b/manifest.json", "Test.Wanted", api="PutBlockList"),
        ]
    )
    client.wait_until_idle()
    assert sorted(each.event["subject"] for each in hook.notifications) == [
        "/models/a/MANIFEST.JSON",
        "/models/b/manifest.json",
    ]


def test_a_failed_delivery_is_repeated_by_the_schedule(
    relay: Relay, client: RelayClient, topic: str, hook: Webhook
) -> None:
    client.subscribe("retried", topic=topic, endpoint=hook.url)
    hook.statuses = [500, 404, 503]
    publisher(relay, topic).send(something_happened())
    got = hook.wait_for(4)
    assert [each.headers["aeg-delivery-count"] for each in got] == ["0", "1", "2", "3"]
    waits = [later.at - earlier.at for earlier, later in pairwise(got)]
    for wait, scheduled in zip(waits, (10, 30, 60), strict=True):
        assert wait >= scheduled * 0.01
    client.wait_until_idle()
    (delivery,) = client.deliveries("retried")
    assert delivery["state"] == "delivered"
    assert [each["outcome"] for each in delivery["attempts"]] == [
        "InternalServerError",
        "NotFound",
        "Busy",
        "Delivered",
    ]


def test_an_endpoint_that_never_takes_it_is_given_up(
    relay: Relay, client: RelayClient, topic: str, hook: Webhook
) -> None:
    client.subscribe("hopeless", topic=topic, endpoint=hook.url, max_attempts=3)
    hook.status = 500
    publisher(relay, topic).send(something_happened())
    client.wait_until_idle()
    (delivery,) = client.deliveries("hopeless")
    assert (delivery["state"], delivery["reason"]) == ("dropped", "MaxDeliveryAttemptsExceeded")
    assert len(hook.notifications) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 413])
def test_some_answers_end_it_at_once(relay: Relay, client: RelayClient, topic: str, hook: Webhook, status: int) -> None:
    client.subscribe(f"refused-{status}", topic=topic, endpoint=hook.url)
    hook.status = status
    publisher(relay, topic).send(something_happened())
    client.wait_until_idle()
    time.sleep(0.2)
    (delivery,) = client.deliveries(f"refused-{status}")
    assert delivery["state"] == "dropped"
    assert delivery["reason"].startswith("UndeliverableDueToHttp")
    assert [each.headers["aeg-delivery-count"] for each in hook.notifications] == ["0"]


@pytest.mark.parametrize("status", [200, 201, 202, 203, 204])
def test_success(relay: Relay, client: RelayClient, topic: str, hook: Webhook, status: int) -> None:
    client.subscribe(f"taken-{status}", topic=topic, endpoint=hook.url)
    hook.status = status
    publisher(relay, topic).send(something_happened())
    client.wait_until_idle()
    assert client.deliveries(f"taken-{status}")[0]["state"] == "delivered"


def test_a_slow_endpoint_and_one_that_is_away_are_tried_again(tmp_path: Path) -> None:
    relay = relay_in(tmp_path, timeout_seconds=1.0)
    with running(relay) as client:
        with webhook() as hook:
            client.subscribe("slow", topic="storage", endpoint=hook.url)
            hook.answer_seconds = 5
            publisher(relay).send(something_happened())
            until(lambda: client.deliveries("slow")[0]["attempts"])

        def outcomes() -> list[str]:
            return [each["outcome"] for each in client.deliveries("slow")[0]["attempts"]]

        until(lambda: "SocketError" in outcomes())
        with webhook(hook.port) as again:
            again.wait_for(1)
            client.wait_until_idle()
        assert outcomes()[0] == "TimedOut"
        assert set(outcomes()[1:-1]) <= {"TimedOut", "SocketError"}
        assert outcomes()[-1] == "Delivered"


def test_a_deleted_subscription_gets_nothing_more(relay: Relay, client: RelayClient, topic: str, hook: Webhook) -> None:
    client.subscribe("deleted", topic=topic, endpoint=hook.url)
    hook.status = 500
    publisher(relay, topic).send(something_happened())
    hook.wait_for(1)
    client.unsubscribe("deleted")
    client.wait_until_idle()
    assert client.deliveries("deleted")[0]["reason"] == "SubscriptionDeleted"


# -- durability


def test_what_was_accepted_outlives_a_killed_relay(tmp_path: Path, hook: Webhook) -> None:
    relay = relay_in(tmp_path, time_scale=0.05)
    hook.status = 503
    with running(relay) as client:
        client.subscribe("durable", topic="storage", endpoint=hook.url)
        publisher(relay).send([something_happened(f"/{n}") for n in range(5)])
        hook.wait_for(5)
        until(lambda: all(each["attempts"] for each in client.deliveries("durable")))  # the relay knows of it, too
        pid = relay.program().pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: relay.program().pid() is None)
    hook.status = 202
    with running(relay) as client:
        client.wait_until_idle()
        assert client.subscriptions()[0]["active"]
        assert {each["state"] for each in client.deliveries("durable")} == {"delivered"}
    goes_on = [each for each in hook.notifications if each.headers["aeg-delivery-count"] != "0"]
    assert {each.event["subject"] for each in goes_on} == {f"/{n}" for n in range(5)}
    assert len(hook.notifications) - len(goes_on) == 5
    assert sum(each.kind == "SubscriptionValidation" for each in hook.received) == 1


def test_a_configuration_file(tmp_path: Path, hook: Webhook) -> None:
    config = tmp_path / "eventgrid.yaml"
    config.write_text(
        f"topics: {{mine: /mine}}\n"
        f"subscriptions:\n"
        f"  - {{name: from-file, topic: mine, endpointUrl: '{hook.url}', filter: {{subjectBeginsWith: /a}}}}\n"
    )
    relay = relay_in(tmp_path, config=config)
    with running(relay) as client:
        client.wait_until_active("from-file")
        publisher(relay, "mine").send([something_happened("/a"), something_happened("/b")])
        assert hook.wait_for(1)[0].event["topic"] == "/mine"


# -- faults


def test_duplicate(relay: Relay, client: RelayClient, topic: str, hook: Webhook) -> None:
    client.subscribe("twice", topic=topic, endpoint=hook.url)
    client.add_fault("duplicate", count=1, seconds=0.2, subscription="twice")
    began = time.time()
    publisher(relay, topic).send([something_happened("/1"), something_happened("/2")])
    client.wait_until_idle()
    got = hook.notifications
    assert sorted(each.event["subject"] for each in got) == ["/1", "/1", "/2"]
    first, second = (each for each in got if each.event["subject"] == "/1")
    assert first.body == second.body
    assert second.at - began > 0.15
    assert client.stats()["counters"]["fault.duplicate"] == 1
    assert [each["over"] for each in client.faults()] == [True]


def test_delay(relay: Relay, client: RelayClient, topic: str, hook: Webhook) -> None:
    client.subscribe("later", topic=topic, endpoint=hook.url)
    client.add_fault("delay", count=1, seconds=1.5)
    began = time.time()
    publisher(relay, topic).send([something_happened("/1"), something_happened("/2")])
    client.wait_until_idle()
    at = {each.event["subject"]: each.at - began for each in hook.notifications}
    assert at["/1"] >= 1.5
    assert at["/1"] > at["/2"]


def test_reorder(relay: Relay, client: RelayClient, topic: str, hook: Webhook) -> None:
    client.subscribe("mixed", topic=topic, endpoint=hook.url)
    client.add_fault("reorder", count=1, seconds=600)
    publisher(relay, topic).send(something_happened("/1"))
    publisher(relay, topic).send(something_happened("/2"))
    assert [each.event["subject"] for each in hook.wait_for(2)] == ["/2", "/1"]
    client.add_fault("reorder", count=1, seconds=0.3)
    publisher(relay, topic).send(something_happened("/3"))
    hook.wait_for(3)  # with nothing behind it, it goes after its seconds


def test_drop(relay: Relay, client: RelayClient, topic: str, hook: Webhook) -> None:
    client.subscribe("lossy", topic=topic, endpoint=hook.url)
    number = client.add_fault("drop", probability=0.5, seed=3)
    publisher(relay, topic).send([something_happened(f"/{n}") for n in range(40)])
    client.wait_until_idle()
    lost = [each["subject"] for each in client.deliveries("lossy") if each["state"] == "dropped"]
    assert 10 <= len(lost) <= 30
    assert len(hook.notifications) == 40 - len(lost)
    client.remove_faults(number)
    client.add_fault("drop", probability=0.5, seed=3)
    publisher(relay, topic).send([something_happened(f"/{n}") for n in range(40)])
    again = [each["subject"] for each in client.deliveries("lossy")[40:] if each["state"] == "dropped"]
    assert again == lost  # the same seed, the same choices


# -- publishing and the control API


def test_publishing_needs_the_key_and_a_topic(relay: Relay, client: RelayClient) -> None:
    with pytest.raises(ClientAuthenticationError, match="the header aeg-sas-key is missing or wrong"):
        publisher(relay, key="wrong").send(something_happened())
    with pytest.raises(ResourceNotFoundError):
        publisher(relay, topic="nowhere").send(something_happened())
    reply = httpx.post(f"{relay.url}/topics/nowhere/api/events", json=[], **PATIENTLY)
    assert reply.json() == {"error": {"code": "NotFound", "message": "there is no topic 'nowhere'"}}


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "the body is no JSON"),
        (b"[]", 400, "the array is empty: send at least one event"),
        (b"[7]", 400, "events[0] is no JSON object"),
        (b'[{"id": "1", "subject": "s"}]', 400, "events[0] has no eventType: EventGridSchema needs it"),
        (
            b'[{"id": "1", "subject": "s", "eventType": "t", "eventTime": "yesterday", "data": 1}]',
            400,
            "events[0].eventTime is no RFC 3339 time: 'yesterday'",
        ),
        (
            b'[{"id": "1", "subject": "s", "eventType": "t", "eventTime": "2026-01-01T00:00:00Z", "data": 1, "a": 1}]',
            400,
            "events[0] has properties that EventGridSchema does not know: a",
        ),
        (
            b'[{"id": "1", "subject": "s", "eventType": "t", "eventTime": "2026-01-01T00:00:00Z"}]',
            400,
            "events[0] needs data, and dataVersion must be a string",
        ),
        (
            b'[{"id": "1", "subject": "s", "eventType": "t", "eventTime": "2026-01-01T00:00:00Z", "topic": "/x"}]',
            400,
            "events[0].topic must be left out or be this topic's id, /subscriptions/",
        ),
        (b'{"specversion": "0.3", "id": "1"}', 400, "events[0].specversion must be '1.0'"),
        (b'{"specversion": "1.0", "id": "1", "type": "t"}', 400, "events[0] has no source: CloudEvents 1.0 needs it"),
        (
            b'{"specversion": "1.0", "id": "1", "type": "t", "source": "s", "subject": 1}',
            400,
            "events[0]: subject and time must be strings",
        ),
        (b'["' + b"x" * 1024 * 1024 + b'"]', 413, "1048576 are allowed: send fewer events at once"),
    ],
)
def test_what_is_no_event_is_refused(relay: Relay, client: RelayClient, body: bytes, status: int, message: str) -> None:
    url = f"{relay.url}/topics/storage/api/events"
    reply = httpx.post(url, content=body, headers={"aeg-sas-key": "local-development-key"}, **PATIENTLY)
    assert reply.status_code == status
    assert message in reply.json()["error"]["message"]


def test_the_client_gets_the_refusal(relay: Relay, client: RelayClient) -> None:
    with pytest.raises(HttpResponseError, match="events\\[0\\] has no id"):
        publisher(relay).send([{"id": "", "eventType": "t"}])


@pytest.mark.parametrize(
    ("method", "path", "document", "message"),
    [
        (
            "PUT",
            "/subscriptions/abc",
            {"topic": "none", "endpointUrl": "http://127.0.0.1/"},
            "there is no topic 'none'",
        ),
        (
            "PUT",
            "/subscriptions/abc",
            {"topic": "storage", "endpointUrl": "https://example.org/"},
            "is not on this machine: the relay delivers to http://127.0.0.1:PORT/… only",
        ),
        ("PUT", "/subscriptions/abc", {"topic": "storage", "endpointUrl": 1}, "Expected `str`, got `int`"),
        ("PUT", "/subscriptions/a", {"topic": "storage", "endpointUrl": "http://localhost/"}, "no subscription: "),
        ("PUT", "/subscriptions/abc", [], "no subscription: Expected `object`"),
        ("PUT", "/topics/abc", {}, 'send {"id": "/subscriptions/…"}'),
        ("POST", "/faults", {"kind": "drop"}, "say how often, by `count`, `probability` or both"),
        ("POST", "/faults", {"kind": "burn", "count": 1}, "Invalid enum value 'burn'"),
        ("POST", "/sources/registry", {"hello": 1}, "no envelope of registry notifications"),
        ("GET", "/events?limit=x", None, "limit must be a number, and is 'x'"),
    ],
)
def test_mistakes_are_told(
    relay: Relay, client: RelayClient, method: str, path: str, document: Any, message: str
) -> None:
    reply = httpx.request(method, f"{relay.url}{path}", json=document, **PATIENTLY)
    assert reply.status_code == 400
    assert message in reply.json()["error"]["message"]


def test_a_wrong_configuration_file_is_named(tmp_path: Path) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text("subscriptions: [{name: abc, topic: storage, endpointUrl: 'http://example.org/'}]")
    relay = relay_in(tmp_path, config=config)
    with pytest.raises(Exception, match=r"wrong.yaml: the endpoint 'http://example.org/' is not on this machine"):
        relay.start()


# -- a registry that does not know the relay


def test_a_push_that_is_told_by_hand_arrives_as_azures_registry_tells_it(
    relay: Relay, client: RelayClient, hook: Webhook
) -> None:
    kind = "Microsoft.ContainerRegistry.ImagePushed"
    client.subscribe("pushes", topic="registry", endpoint=hook.url, event_types=[kind])
    publish_push(relay.url, "vision-app", "main", "sha256:" + "1" * 64)
    (told,) = hook.wait_for(1)
    assert (told.event["topic"], told.event["subject"]) == (TOPICS["registry"], "vision-app:main")
    assert told.event["data"]["target"] == {
        "repository": "vision-app",
        "tag": "main",
        "digest": "sha256:" + "1" * 64,
    }
