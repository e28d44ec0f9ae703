"""Storage queues through the real host and a real Azurite: order of events for a message, whatever happens to it."""

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.queue import QueueClient

from localcloud.config import Cloud
from tests.localcloud.functions_host_process import HostProcess, edited_app, running, until

pytestmark = pytest.mark.azurite


class Account:
    """The queues of a host, as a client sees them."""

    def __init__(self, connection: str) -> None:
        self._connection = connection

    def client(self, name: str) -> QueueClient:
        return QueueClient.from_connection_string(self._connection, name)

    def put(self, name: str, body: str, *, encoded: bool = True) -> str:
        with self.client(name) as client:
            return client.send_message(base64.b64encode(body.encode()).decode() if encoded else body).id

    def task(self, name: str, **task: object) -> str:
        return self.put(name, json.dumps(task))

    def length(self, name: str) -> int:
        """Return how many messages there are, hidden ones too."""
        with self.client(name) as client, suppress(ResourceNotFoundError):
            return client.get_queue_properties().approximate_message_count or 0
        return 0

    def contents(self, name: str) -> list[str]:
        with self.client(name) as client, suppress(ResourceNotFoundError):
            return [message.content for message in client.peek_messages(32)]
        return []


@pytest.fixture(scope="module")
def account(azurite: Cloud) -> Account:
    return Account(azurite.connection_string)


@pytest.fixture(scope="module")
def host(azurite: Cloud, account: Account, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    folder = tmp_path_factory.mktemp("functions")
    app = edited_app(folder / "app", {"functionTimeout": "00:00:03"})
    with running(HostProcess(folder / "host", azurite.connection_string, instances=2, app=app)) as host:
        until(lambda: is_there(account, host.work_queue))
        yield host


def is_there(account: Account, name: str) -> bool:
    with account.client(name) as client:
        try:
            client.get_queue_properties()
        except ResourceNotFoundError:
            return False
    return True


def done(host: HostProcess, task: str) -> Callable[[], list[dict[str, object]]]:
    return lambda: host.records("worker done", id=task)


def test_a_message_is_worked_on_once_and_deleted(host: HostProcess, account: Account) -> None:
    message = account.task(host.work_queue, id="once")
    until(done(host, "once"))
    until(lambda: account.length(host.work_queue) == 0)
    (seen,) = host.records("worker", id="once")
    assert (seen["message"], seen["tries"]) == (message, 1)
    inserted, expires, next_visible = (
        datetime.fromisoformat(seen[key]) for key in ("inserted", "expires", "next_visible")
    )
    assert expires - inserted == timedelta(days=7)
    assert next_visible - inserted >= timedelta(minutes=10)
    assert seen["receipt"]
    assert f"INFO [{seen['invocation']}] works on once" in host.log.read_text()
    assert f"Executed 'Functions.worker' (Succeeded, Id={seen['invocation']}, Duration=" in host.log.read_text()


def test_a_message_is_picked_up_soon(host: HostProcess, account: Account) -> None:
    time.sleep(1.5)  # until the host is idle
    waits = []
    for number in range(5):
        put_at = time.time()
        account.task(host.work_queue, id=f"soon-{number}")
        waits.append(until(done(host, f"soon-{number}"))[0]["at"] - put_at)  # type: ignore[operator]
    assert sorted(waits)[2] < 2


def test_outputs_reach_their_queue(host: HostProcess) -> None:
    body = {"one": "out-1", "many": ["out-2", '{"id": "out-3"}']}
    assert host.ask("POST", "/api/fill", json=body).status_code == 202
    assert host.ask("POST", "/api/fill", json={}).status_code == 202
    for task in ("out-1", "out-2", "out-3"):
        until(done(host, task))


def test_a_returned_value_is_an_output(host: HostProcess, account: Account) -> None:
    account.put(host.copy_queue, "copied ä")
    until(done(host, "copied ä"))


def test_a_failure_is_tried_again(host: HostProcess, account: Account) -> None:
    account.task(host.work_queue, id="twice", fails=1)
    until(lambda: len(host.records("worker done", id="twice")) == 2)
    assert [seen["tries"] for seen in host.records("worker", id="twice")] == [1, 2]


def test_what_fails_too_often_is_poison(host: HostProcess, account: Account) -> None:
    message = account.task(host.work_queue, id="poison", fails=99)
    poison = f"{host.work_queue}-poison"
    content = base64.b64encode(json.dumps({"id": "poison", "fails": 99}).encode()).decode()
    until(lambda: content in account.contents(poison))
    until(lambda: account.length(host.work_queue) == 0)
    assert [seen["tries"] for seen in host.records("worker", id="poison")] == [1, 2, 3]
    assert f"message {message} was tried 3 times: to {poison}" in host.log.read_text()
    assert host.log.read_text().count("ValueError: poison fails") == 3


def test_what_is_not_base64_is_poison_at_once(host: HostProcess, account: Account) -> None:
    account.put(host.work_queue, "plain text!", encoded=False)
    until(lambda: "plain text!" in account.contents(f"{host.work_queue}-poison"))
    assert f"a message of the queue {host.work_queue} is not base64" in host.log.read_text()


def test_messages_are_worked_on_at_once(host: HostProcess, account: Account) -> None:
    tasks = [f"at-once-{number}" for number in range(6)]
    for task in tasks:
        account.task(host.work_queue, id=task, seconds=2)
    begun = [until(partial(host.records, "worker", id=task))[0]["at"] for task in tasks]
    ended = [until(done(host, task))[0]["at"] for task in tasks]
    at_work = max(sum(begin <= moment < end for begin, end in zip(begun, ended, strict=True)) for moment in begun)
    assert at_work > host.instances


def test_a_timeout_counts_as_a_try(host: HostProcess, account: Account) -> None:
    account.task(host.work_queue, id="late", seconds=4, slow_tries=1)
    until(lambda: host.records("worker", id="late", tries=2))
    assert "the function ran longer than functionTimeout, 3 s" in host.log.read_text()


def test_an_output_that_cannot_be_sent_fails_the_invocation(tmp_path: Path) -> None:
    with running(HostProcess(tmp_path / "host")) as host:
        assert host.ask("POST", "/api/fill", json={"one": "x"}).status_code == 500
        assert f"the output one could not be sent to the queue {host.work_queue}" in host.log.read_text()


def test_a_queue_that_was_deleted_is_made_again(host: HostProcess, account: Account) -> None:
    with account.client(host.copy_queue) as client:
        client.delete_queue()
    until(lambda: is_there(account, host.copy_queue))


def test_visibility_encoding_and_lease_follow_the_settings(azurite: Cloud, account: Account, tmp_path: Path) -> None:
    """A failed message waits for visibilityTimeout; a message longer than its lease is still worked on only once."""
    changes = {"queues.visibilityTimeout": "00:00:02", "queues.messageEncoding": "none"}
    app = edited_app(
        tmp_path / "app",
        {"functionTimeout": "00:00:30", **{f"extensions.{key}": value for key, value in changes.items()}},
    )
    host = HostProcess(
        tmp_path / "host", azurite.connection_string, instances=2, app=app, arguments=("--lease-seconds", "10")
    )
    with running(host):
        until(lambda: is_there(account, host.work_queue))
        account.put(host.work_queue, '{"id": "later", "fails": 2}', encoded=False)
        account.put(host.work_queue, '{"id": "long", "seconds": 14}', encoded=False)
        until(lambda: len(host.records("worker done", id="later")) == 3)
        begins = [seen["at"] for seen in host.records("worker", id="later")]
        assert all(after - before >= 2 for before, after in pairwise(begins))
        until(done(host, "long"))
        until(lambda: account.length(host.work_queue) == 0)
        assert [seen["tries"] for seen in host.records("worker", id="long")] == [1]


class Door:
    """A port that leads to another one while it is open."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._connections: list[socket.socket] = []
        self._listening = socket.socket()
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listening.bind(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]

    def open(self) -> None:
        self._listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                inside, _ = self._listening.accept()
            except OSError:
                return
            outside = socket.create_connection(("127.0.0.1", self._to))
            self._connections += [inside, outside]
            for source, sink in ((inside, outside), (outside, inside)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


def test_storage_may_come_late_and_go_away(azurite: Cloud, account: Account, tmp_path: Path) -> None:
    door = Door(azurite.queue_port)
    connection = azurite.connection_string.replace(f":{azurite.queue_port}/", f":{door.port}/")
    with running(HostProcess(tmp_path / "host", connection)) as host:
        until(lambda: f"the queue {host.work_queue} does not answer, trying until it does" in host.log.read_text())
        door.open()
        until(lambda: is_there(account, host.work_queue))
        account.task(host.work_queue, id="before")
        until(done(host, "before"))
        account.task(host.work_queue, id="during", seconds=1.5)
        until(lambda: host.records("worker", id="during"))
        door.close()
        until(lambda: host.log.read_text().count(f"the queue {host.work_queue} does not answer") == 2)
        assert host.ask("GET", "/api/whoami").status_code == 200
        assert host.log.read_text().count(f"the queue {host.work_queue} answers again") == 1
        until(done(host, "during"))
