"""How the real host starts: what it cannot run it says once, and timers that were missed are made up for."""

import json
import socket
from pathlib import Path

import pytest

from tests.localcloud.functions_host_process import HostProcess, edited_app, running, until

pytestmark = pytest.mark.host

HEAD = "import azure.functions as func\napp = func.FunctionApp()\n"
HTTP = "def f(req: func.HttpRequest) -> str:\n    return ''\n"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        pytest.param(
            "@app.blob_trigger(arg_name='blob', path='models/{name}', connection='AzureWebJobsStorage')\n"
            "def on_blob(blob: func.InputStream) -> None: ...\n",
            "function on_blob: the local Functions host does not know binding type blobTrigger (parameter blob); "
            "it knows httpTrigger, eventGridTrigger, queueTrigger, timerTrigger, http and queue",
            id="trigger",
        ),
        pytest.param("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'", id="import"),
        pytest.param("", "has no functions: is there a function_app.py that registers some?", id="empty"),
    ],
)
def test_an_app_that_cannot_run_says_why(tmp_path: Path, code: str, message: str) -> None:
    host = HostProcess(tmp_path / "host", app=edited_app(tmp_path / "app", code=HEAD + code), instances=2)
    host.start()
    assert host.wait_for_end() == 1
    log = host.log.read_text()
    assert log.count(message) == 1, log
    assert "The Functions host cannot run this app: " in log
    assert log.rstrip().endswith("The Functions host ends: the app cannot run, see above")


def test_a_route_prefix_may_be_empty(tmp_path: Path) -> None:
    code = HEAD + "@app.route(route='', auth_level=func.AuthLevel.ANONYMOUS)\n" + HTTP.replace("''", "'home'")
    app = edited_app(tmp_path / "app", {"extensions.http": {"routePrefix": ""}}, code)
    with running(HostProcess(tmp_path / "host", app=app)) as host:
        assert host.ask("GET", "/").text == "home"
        assert host.ask("GET", "/admin/host/ping").status_code == 200


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        host = HostProcess(tmp_path / "host", port=other.getsockname()[1])
        host.start()
        assert host.wait_for_end() == 1
        assert f"The Functions host ends: port {host.port} is taken: stop what listens there" in host.log.read_text()


def test_an_instance_that_dies_while_starting_ends_the_host(tmp_path: Path) -> None:
    app = edited_app(tmp_path / "app", code="import os\nos._exit(9)\n")
    host = HostProcess(tmp_path / "host", app=app)
    host.start()
    assert host.wait_for_end() == 1
    assert "instance 0 ended 3 times while it was starting (exit code 9)" in host.log.read_text()


def test_a_missed_firing_is_made_up_for_as_past_due(tmp_path: Path) -> None:
    code = (
        "import os, pathlib\n"
        "@app.timer_trigger(arg_name='timer', schedule='0 0 0 1 1 *')\n"
        "def yearly(timer: func.TimerRequest) -> None:\n"
        "    seen = f'{timer.past_due} {timer.schedule_status[\"Last\"]}'\n"
        "    pathlib.Path(os.environ['RECORD']).write_text(seen)\n"
    )
    app = edited_app(tmp_path / "app", code=HEAD + code)
    host = HostProcess(tmp_path / "host", app=app)
    status = host.state / "timers" / "yearly.json"
    with running(host):
        until(status.exists)
        assert not host.record.exists()
    missed = json.loads(status.read_text())
    status.write_text(json.dumps({**missed, "last": "2023-01-01T00:00:00+00:00", "next": "2024-01-01T00:00:00+00:00"}))
    with running(host):
        until(host.record.exists)
        assert until(host.record.read_text) == "True 2023-01-01T00:00:00+00:00"
        until(lambda: json.loads(status.read_text())["next"] > "2024-01-01")
    host.record.unlink()
    status.write_text("")  # as a machine that lost its power leaves files
    with running(host):
        until(status.read_text)
        assert not host.record.exists()
    status.write_text(json.dumps({**missed, "next": "2024-01-01T00:00:00+00:00", "schedule": "0 0 0 2 1 *"}))
    with running(host):
        until(lambda: json.loads(status.read_text())["schedule"] == "0 0 0 1 1 *")
        assert not host.record.exists()
