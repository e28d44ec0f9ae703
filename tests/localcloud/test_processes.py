"""Programs in the background: what they are told of the machine's proxy, and what is said when one cannot start."""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from localcloud import processes
from localcloud.config import without_proxy
from localcloud.kubernetes.layout import NETWORK
from localcloud.loadbalancer import NETWORK as DOORS
from localcloud.processes import Program, StartError, answers
from localcloud.registry import Registry
from localcloud.storage import Azurite
from tests.fakes.http_servers import Answer, answering

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
EXCEPTIONS = "127.0.0.1,localhost,127.0.0.0/8,10.213.0.0/16"


@pytest.fixture
def dead_proxy(monkeypatch: pytest.MonkeyPatch) -> str:
    """Have a proxy in the environment that answers nobody, and no exceptions from it."""
    proxy = "http://127.0.0.1:9"
    for name in PROXIES:
        monkeypatch.setenv(name, proxy)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    return proxy


# -- the machine's proxy


@pytest.mark.parametrize(
    ("environment", "exceptions"),
    [
        ({}, EXCEPTIONS),
        ({"NO_PROXY": "work.test"}, f"work.test,{EXCEPTIONS}"),
        ({"NO_PROXY": "work.test, 127.0.0.1", "no_proxy": "home.test"}, f"home.test,work.test,{EXCEPTIONS}"),
        ({"no_proxy": EXCEPTIONS, "NO_PROXY": EXCEPTIONS}, EXCEPTIONS),
        ({"no_proxy": "*"}, "*"),
    ],
    ids=["none", "one", "both spellings", "again", "everything"],
)
def test_what_is_on_this_machine_is_an_exception_from_the_proxy(environment: dict[str, str], exceptions: str) -> None:
    assert without_proxy({"HTTPS_PROXY": "http://proxy.test", **environment}) == dict.fromkeys(
        ("NO_PROXY", "no_proxy"), exceptions
    )


def test_the_clusters_networks_are_among_the_exceptions() -> None:
    assert NETWORK in EXCEPTIONS
    assert str(DOORS).startswith("127.")


@pytest.mark.usefixtures("dead_proxy")
def test_whether_a_part_answers_is_asked_past_the_proxy() -> None:
    with answering(lambda _: Answer(404, b"")) as (url, _):
        assert answers(url)()


def test_a_program_keeps_the_proxy_but_not_for_this_machine(tmp_path: Path, dead_proxy: str) -> None:
    script = "import json, os, time; print(json.dumps(dict(os.environ)), flush=True); time.sleep(60)"
    program = Program("told", [sys.executable, "-c", script], tmp_path, {"NO_PROXY": "work.test"})
    try:
        program.start(lambda: program.log.read_text().endswith("\n"))
    finally:
        program.stop()
    environment = json.loads(program.log.read_text())
    assert [environment[name] for name in PROXIES] == [dead_proxy] * len(PROXIES)
    assert environment["NO_PROXY"] == environment["no_proxy"] == f"work.test,{EXCEPTIONS}"


@pytest.mark.usefixtures("dead_proxy")
def test_clients_of_a_program_that_talks_directly_go_past_the_proxy() -> None:
    script = """
import sys
from azure.storage.blob import BlobServiceClient
from localcloud.config import connection_string
from localcloud.processes import talk_directly

talk_directly()
port = int(sys.argv[1])
with BlobServiceClient.from_connection_string(connection_string(port, port), retry_total=0) as storage:
    print(storage.get_account_information()["sku_name"])
"""
    with answering(lambda _: Answer(200, b"", {"x-ms-sku-name": "Standard_LRS"})) as (url, _):
        command = [sys.executable, "-c", script, url.rpartition(":")[2]]
        told = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert (told.stdout, told.stderr) == ("Standard_LRS\n", "")


# -- a port that is taken


def test_a_port_that_is_taken_is_told_before_the_program_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "TAKEN_FOR_SECONDS", 0.1)
    with answering(lambda _: Answer(200, b"")) as (url, _):
        port = int(url.rpartition(":")[2])
        program = Program("azurite", ["sleep", "60"], tmp_path, ports=(port,))
        with pytest.raises(StartError) as told:
            program.start(answers(url))  # which somebody else would answer
    assert str(told.value) == (
        f"azurite cannot listen at 127.0.0.1:{port}: Address already in use. Stop what listens there "
        f"(`ss -ltnp sport = :{port}` names it), and try again"
    )
    assert program.pid() is None


def test_a_port_that_comes_free_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "TAKEN_FOR_SECONDS", 60)  # a busy machine may run the timer late
    squatter = socket.create_server(("127.0.0.1", 0))
    program = Program("azurite", ["sleep", "60"], tmp_path, ports=(squatter.getsockname()[1],))
    threading.Timer(0.5, squatter.close).start()
    program.start(lambda: squatter.fileno() == -1)
    program.stop()


def test_every_part_of_a_cloud_says_where_it_listens(tmp_path: Path) -> None:
    assert Azurite(tmp_path, 1, 2, 3).program().ports == (1, 2, 3)
    assert Registry(tmp_path, 4).program().ports == (4,)


# -- what the machine does not have, and what an earlier boot left


def test_a_program_that_is_not_there_is_told_with_what_installs_it(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="no-such-program is not there: `python -m localcloud setup` installs it"):
        Program("x", ["no-such-program"], tmp_path).start(lambda: True)


@pytest.mark.parametrize(
    "left",
    ["", "\0\0\0\0\0\0", f"{os.getpid()} 17", "999999999 17", "one two", f"{os.getpid()}"],
    ids=["empty", "nothing written", "another process", "no process", "no numbers", "half"],
)
def test_a_pid_file_of_an_earlier_boot_is_nobodys(tmp_path: Path, left: str) -> None:
    program = Program("part", ["sleep", "60"], tmp_path)
    program.pid_file.parent.mkdir()
    program.pid_file.write_text(left)
    assert program.pid() is None
    program.start(lambda: True)
    program.stop()
    assert program.pid() is None
