"""Several instances of the real host: who does what, and what is left when some are killed."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from localcloud.config import Cloud
from tests.localcloud.functions_host_process import HostProcess, edited_app, running, until
from tests.localcloud.test_functions_host_queues import Account, is_there

pytestmark = pytest.mark.host

TICKING = {"AzureWebJobs.tick.Disabled": "false"}


def is_gone(pid: int) -> bool:
    """Tell whether the process is gone, or dead and not yet collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    with running(HostProcess(tmp_path_factory.mktemp("functions"), instances=3, settings=TICKING)) as host:
        yield host


@pytest.fixture
def trio(started: HostProcess) -> HostProcess:
    """Return a host with three instances that serve, whatever the test before did to it."""
    if not started.is_running():
        started.start()
        started.wait_until_ready()
    return started


def pid_of_ticks(host: HostProcess, since: int) -> Callable[[], set[int]]:
    """Return the instances that ran the last ticks, once there are three more."""

    def ask() -> set[int]:
        ticks = host.records("tick")[since:]
        return {tick["pid"] for tick in ticks[-3:]} if len(ticks) >= 3 else set()

    return ask


def serving(host: HostProcess) -> set[int]:
    with ThreadPoolExecutor(12) as callers:
        answers = list(callers.map(lambda _: host.ask("GET", "/api/slow?seconds=0.1"), range(48)))
    assert {answer.status_code for answer in answers} == {200}
    return {answer.json()["pid"] for answer in answers}


def test_every_instance_serves_and_one_runs_the_timers(trio: HostProcess) -> None:
    instances = set(trio.children())
    assert len(instances) == 3
    seen: set[int] = set()
    until(lambda: seen.update(serving(trio)) or seen == instances)  # type: ignore[func-returns-value]
    (timekeeper,) = until(pid_of_ticks(trio, 0))
    dues = [tick["status"]["Next"] for tick in trio.records("tick")]
    assert len(dues) == len(set(dues)), "a tick was run twice"
    assert trio.records("at_start", pid=timekeeper)
    assert trio.said().count("this instance runs the timers: tick, at_start") == 1


def test_a_killed_instance_is_replaced_and_its_timers_taken_over(trio: HostProcess) -> None:
    (victim,) = until(pid_of_ticks(trio, len(trio.records("tick"))))
    readied = trio.said().count("is ready")
    os.kill(victim, signal.SIGKILL)
    assert serving(trio) <= set(trio.children())
    until(lambda: f"(pid {victim}) ended by SIGKILL: starting it again" in trio.said())
    until(lambda: trio.said().count("is ready") == readied + 1)
    assert len(trio.children()) == 3
    assert victim not in trio.children()
    (heir,) = until(pid_of_ticks(trio, len(trio.records("tick"))))
    assert heir != victim
    assert heir in trio.children()


def test_a_killed_host_leaves_nothing_behind(trio: HostProcess) -> None:
    children, keys = trio.children(), trio.keys
    trio.kill()
    trio.start()
    until(lambda: all(is_gone(child) for child in children))
    trio.wait_until_ready()
    assert trio.ask("GET", "/api/whoami").json()["pid"] in trio.children()
    assert trio.keys == keys
    assert len(until(pid_of_ticks(trio, len(trio.records("tick"))))) == 1


def test_sigterm_lets_those_at_work_finish(trio: HostProcess) -> None:
    children, before = trio.children(), len(trio.records("slow"))
    with ThreadPoolExecutor(1) as caller:
        answer = caller.submit(trio.ask, "GET", "/api/slow?seconds=1.5")
        until(lambda: len(trio.records("slow")) > before)
        assert trio.process is not None
        trio.process.terminate()
        assert trio.wait_for_end() == 0
        assert answer.result().status_code == 200
    assert all(is_gone(child) for child in children)
    assert trio.said().rstrip().endswith("host stopped")
    assert "Traceback" not in trio.said()


@pytest.mark.azurite
def test_a_message_of_a_killed_instance_is_finished_by_another(azurite: Cloud, tmp_path: Path) -> None:
    account = Account(azurite.connection_string)
    app = edited_app(tmp_path / "app", {"functionTimeout": "00:01:00"})
    host = HostProcess(
        tmp_path / "host", azurite.connection_string, instances=2, app=app, arguments=("--lease-seconds", "2")
    )
    with running(host):
        until(lambda: is_there(account, host.work_queue))
        account.task(host.work_queue, id="orphan", seconds=60, slow_tries=1)
        (seen,) = until(lambda: host.records("worker", id="orphan"))
        os.kill(seen["pid"], signal.SIGKILL)
        (again,) = until(lambda: host.records("worker", id="orphan", tries=2))
        assert again["pid"] != seen["pid"]
        until(lambda: account.length(host.work_queue) == 0)


@pytest.mark.azurite
def test_a_message_that_kills_its_instance_is_poison_in_the_end(azurite: Cloud, tmp_path: Path) -> None:
    account = Account(azurite.connection_string)
    app = edited_app(tmp_path / "app", {"extensions.queues.maxDequeueCount": 2})
    host = HostProcess(tmp_path / "host", azurite.connection_string, app=app, arguments=("--lease-seconds", "2"))
    with running(host):
        until(lambda: is_there(account, host.work_queue))
        account.task(host.work_queue, id="deadly", kills=True)
        until(lambda: account.length(f"{host.work_queue}-poison") == 1)
        assert [seen["tries"] for seen in host.records("worker", id="deadly")] == [1, 2]
        until(lambda: account.length(host.work_queue) == 0)
