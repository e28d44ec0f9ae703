"""What the queue promises, in memory and on Storage Queues: a message is a target's name, due after its delay."""

import base64
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from uuid import uuid4

import pytest
from azure.storage.queue import ExponentialRetry, QueueClient, TextBase64EncodePolicy

from localcloud.config import Cloud
from shipmate.edge.queue import LONGEST_DELAY_SECONDS, StorageQueue
from shipmate.errors import Retryable
from shipmate.ports import Queue
from tests.fakes.ledgers import FakeClock, FakeQueue
from tests.fakes.proxy import Fault, Proxy, proxy


@dataclass
class Bench:
    """A kind of queue: how its messages are taken out, and how time passes for it."""

    queue: Queue
    take: Callable[[], str | None]  # the message that is due, if one is
    sleep: Callable[[float], None]
    away: Callable[[bool], None]


def in_memory(_: pytest.FixtureRequest, __: ExitStack) -> Bench:
    clock = FakeClock()
    queue = FakeQueue(clock)

    def take() -> str | None:
        due = queue.next_due()
        return queue.take() if due is not None and due <= clock.now() else None

    return Bench(queue, take, clock.sleep, lambda away: setattr(queue, "away", away))


def client(cloud: Cloud, port: int, name: str) -> QueueClient:
    return QueueClient.from_connection_string(
        cloud.connection_string.replace(f":{cloud.queue_port}/", f":{port}/"),
        name,
        message_encode_policy=TextBase64EncodePolicy(),
        retry_policy=ExponentialRetry(initial_backoff=0, increment_base=0, retry_total=2, random_jitter_range=0),
    )


def on_storage(request: pytest.FixtureRequest, stack: ExitStack) -> Bench:
    cloud: Cloud = request.getfixturevalue("azurite")
    front: Proxy = stack.enter_context(proxy(cloud.queue_port))
    name = f"advance-{uuid4().hex}"
    raw = stack.enter_context(QueueClient.from_connection_string(cloud.connection_string, name))

    def take() -> str | None:
        message = raw.receive_message()
        if message is None:
            return None
        raw.delete_message(message)
        return base64.b64decode(message.content, validate=True).decode()  # as the Functions trigger reads it

    def away(is_away: bool) -> None:
        front.server_port = 1 if is_away else cloud.queue_port

    queue = StorageQueue(stack.enter_context(client(cloud, front.port, name)))
    queue.enqueue("made by the first message")
    assert take() == "made by the first message"
    return Bench(queue, take, time.sleep, away)


@pytest.fixture(
    params=[
        pytest.param(in_memory, id="in memory"),
        pytest.param(on_storage, id="on storage", marks=pytest.mark.azurite),
    ]
)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield request.param(request, stack)


def test_a_message_is_a_targets_name(bench: Bench) -> None:
    bench.queue.enqueue("vision")
    assert bench.take() == "vision"
    assert bench.take() is None


def test_every_message_is_delivered(bench: Bench) -> None:
    for name in ("vision", "vision", "beta"):
        bench.queue.enqueue(name)
    assert sorted(str(bench.take()) for _ in range(3)) == ["beta", "vision", "vision"]


def test_a_message_is_not_due_before_its_delay(bench: Bench) -> None:
    bench.queue.enqueue("vision", 3.7)
    assert bench.take() is None
    bench.sleep(5.1)  # storage counts whole seconds and rounds up
    assert bench.take() == "vision"


def test_a_delay_that_is_over_is_none(bench: Bench) -> None:
    bench.queue.enqueue("vision", -5)
    assert bench.take() == "vision"


def test_a_long_delay_is_taken(bench: Bench) -> None:
    bench.queue.enqueue("vision", 30 * 24 * 3600)
    assert bench.take() is None


def test_a_queue_that_is_away_is_tried_again_later(bench: Bench) -> None:
    bench.away(True)
    with pytest.raises(Retryable, match=r"the queue .*took no message: "):
        bench.queue.enqueue("vision")
    bench.away(False)
    bench.queue.enqueue("vision")
    assert bench.take() == "vision"


@pytest.mark.azurite
def test_delays_are_cut_to_what_storage_takes(azurite: Cloud) -> None:
    with client(azurite, azurite.queue_port, f"advance-{uuid4().hex}") as queue:
        StorageQueue(queue).enqueue("vision", 10 * LONGEST_DELAY_SECONDS)
        assert queue.get_queue_properties().approximate_message_count == 1


@pytest.mark.azurite
def test_a_message_whose_reply_is_lost_may_come_twice_but_comes(azurite: Cloud) -> None:
    name = f"advance-{uuid4().hex}"
    with proxy(azurite.queue_port) as front, client(azurite, front.port, name) as queue:
        StorageQueue(queue).enqueue("vision")
        front.on_next("POST", Fault.LOSE_REPLY)
        StorageQueue(queue).enqueue("vision")
        assert queue.get_queue_properties().approximate_message_count == 3


@pytest.mark.azurite
def test_two_who_make_the_queue_at_once_both_send(azurite: Cloud) -> None:
    name = f"advance-{uuid4().hex}"
    with (
        proxy(azurite.queue_port) as front,
        client(azurite, front.port, name) as first,
        client(azurite, azurite.queue_port, name) as second,
    ):
        front.on_next("PUT", lambda: StorageQueue(second).enqueue("vision"))
        StorageQueue(first).enqueue("vision")
        assert first.get_queue_properties().approximate_message_count == 2
