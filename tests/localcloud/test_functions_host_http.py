"""HTTP functions through the real host: routes, keys, what reaches a function and what comes back."""

import base64
import json
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.localcloud.functions_host_process import PATIENTLY, SAMPLE_APP, HostProcess, edited_app, running, until

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    with running(HostProcess(tmp_path_factory.mktemp("functions"))) as host:
        yield host


def test_serves_though_storage_is_away(host: HostProcess) -> None:
    answer = host.ask("GET", "/api/whoami")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"pid": host.children()[0], "folder": str(SAMPLE_APP), "setting": "sample"}
    until(lambda: f"the queue {host.work_queue} does not answer, trying until it does" in host.log.read_text())


def test_a_function_sees_the_request(host: HostProcess) -> None:
    body = bytes(range(256))
    answer = host.ask(
        "PATCH",
        "/API/echo/7/some/rest%20of%20it?a=1&empty=&a=2&b=%C3%A4",
        content=body,
        headers=[("X-Upper-Case", "Kept"), ("X-Many", "1"), ("X-Many", "2"), ("X-Empty", "")],
    ).json()
    assert answer["method"] == "PATCH"
    assert answer["url"].startswith(f"{host.url}/API/echo/7/")
    assert answer["route"] == {"id": "7", "rest": "some/rest of it"}
    assert answer["query"] == {"a": "1,2", "b": "ä"}
    assert base64.b64decode(answer["body"]) == body
    assert answer["headers"]["x-upper-case"] == "Kept"
    assert answer["headers"]["x-many"] == "1,2"
    assert "x-empty" not in answer["headers"]
    assert all(name == name.lower() for name in answer["headers"])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 204),
        ("GET", "/api", 404),
        ("GET", "/whoami", 404),
        ("GET", "/api/whoami/", 200),
        ("POST", "/api/whoami", 404),
        ("HEAD", "/api/whoami", 404),
        ("HEAD", "/api/named_by_itself", 200),
        ("GET", "/api/echo/seven", 404),
        ("GET", "/api/echo/7", 200),
        ("DELETE", "/api/echo/7/x", 200),
        ("GET", "/api/nothing/here", 404),
        ("GET", "/api/status/204", 204),
        ("GET", "/api/status/418", 418),
        ("GET", "/api/boom", 500),
    ],
)
def test_statuses(host: HostProcess, method: str, path: str, status: int) -> None:
    assert host.ask(method, path).status_code == status


def test_a_literal_wins_over_a_parameter(host: HostProcess) -> None:
    assert host.ask("GET", "/api/echo/special").text == "special"


def test_a_text_that_is_returned_is_the_answer(host: HostProcess) -> None:
    answer = host.ask("GET", "/api/named_by_itself")
    assert (answer.text, answer.headers["content-type"]) == ("as text", "text/plain; charset=utf-8")


def test_bytes_headers_and_cookies_come_back(host: HostProcess) -> None:
    answer = host.ask("GET", "/api/picture")
    assert answer.content == bytes(range(256))
    assert answer.headers["content-type"] == "image/x-all"
    assert answer.headers["x-release"] == "r-1"
    assert answer.headers.get_list("set-cookie") == ["a=1; HttpOnly; Path=/", "b=2"]


def test_a_bodiless_answer_says_no_length(host: HostProcess) -> None:
    answer = host.ask("GET", "/api/status/204")
    assert answer.content == b""
    assert "content-length" not in answer.headers


def test_a_failure_is_told_once_in_the_log_and_not_to_the_caller(host: HostProcess) -> None:
    before = host.log.read_text().count("ValueError: boom on purpose")
    answer = host.ask("GET", "/api/boom")
    assert (answer.status_code, answer.content) == (500, b"")
    log = until(lambda: host.log.read_text() if "boom on purpose" in host.log.read_text() else "")
    assert log.count("ValueError: boom on purpose") == before + 1
    invocation = log.rpartition("Executed 'Functions.boom' (Failed, Id=")[2][:36]
    assert f"INFO [{invocation}] about to fail" in log


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/api/guarded", None, 401),
        ("/api/guarded", "wrong", 401),
        ("/api/guarded", "host", 200),
        ("/api/guarded", "system", 401),
        ("/api/guarded", "master", 200),
        ("/api/vault", None, 401),
        ("/api/vault", "host", 401),
        ("/api/vault", "system", 401),
        ("/api/vault", "master", 200),
        ("/admin/host/status", None, 401),
        ("/admin/host/status", "host", 401),
        ("/admin/host/status", "master", 200),
        ("/admin/functions", None, 401),
        ("/admin/functions/tick", "host", 401),
        ("/admin/host/ping", None, 200),
    ],
)
def test_keys_open_what_their_level_allows(host: HostProcess, path: str, key: str | None, status: int) -> None:
    keys = host.keys
    secret = {"host": keys.host["default"], "system": keys.event_grid, "master": keys.master}.get(key or "", key)
    headers = {"X-Functions-Key": secret} if secret else {}
    assert host.ask("GET", path, headers=headers).status_code == status
    assert host.ask("GET", path, params={"code": secret} if secret else {}).status_code == status


def test_keys_are_generated_for_this_user_only(host: HostProcess) -> None:
    assert stat.S_IMODE((host.state / "keys.json").stat().st_mode) == 0o600
    assert len({host.keys.master, host.keys.host["default"], host.keys.event_grid}) == 3


def test_keys_may_be_given(tmp_path: Path) -> None:
    file = tmp_path / "given.json"
    given = {
        "master": "m",
        "functions": {"guarded": {"default": "g"}, "vault": {"default": "v"}},
        "system": {"eventgrid_extension": "e"},
    }
    file.write_text(json.dumps(given))
    with running(HostProcess(tmp_path / "host", settings={"FUNCTIONS_HOST_KEYS_FILE": str(file)})) as host:
        assert host.ask("GET", "/api/guarded?code=g").status_code == 200
        assert host.ask("GET", "/api/guarded?code=v").status_code == 401
        assert host.ask("GET", "/api/vault?code=m").status_code == 200
        assert not (host.state / "keys.json").exists()


def test_the_admin_api_describes_the_functions(host: HostProcess) -> None:
    headers = {"x-functions-key": host.keys.master}
    status = host.ask("GET", "/admin/host/status", headers=headers).json()
    assert (status["state"], status["processId"]) == ("Running", host.children()[0])
    described = {one["name"]: one for one in host.ask("GET", "/admin/functions", headers=headers).json()}
    assert described["echo"]["invoke_url_template"] == f"{host.url}/api/echo/{{id:int}}/{{*rest}}"
    assert described["worker"]["config"]["bindings"][0]["type"] == "queueTrigger"
    assert (described["tick"]["isDisabled"], described["worker"]["isDisabled"]) == (True, False)
    assert host.ask("GET", "/admin/functions/tick", headers=headers).json() == described["tick"]
    assert host.ask("GET", "/admin/functions/nobody", headers=headers).status_code == 404


def test_a_timer_is_started_by_hand(host: HostProcess) -> None:
    headers = {"x-functions-key": host.keys.master}
    before = len(host.records("tick"))
    assert host.ask("POST", "/admin/functions/tick", json={}, headers=headers).status_code == 202
    assert until(lambda: host.records("tick")[before:])[0]["past_due"] is False
    answer = host.ask("POST", "/admin/functions/echo", json={}, headers=headers)
    assert (answer.status_code, answer.text) == (400, "echo is called by its own address")
    answer = host.ask("POST", "/admin/functions/tick", content=b"[", headers=headers)
    assert (answer.status_code, answer.text) == (400, 'the body must be a JSON object: {"input": "…"}')


def test_one_instance_runs_several_functions_at_once(host: HostProcess) -> None:
    for path in ("/api/slow?seconds=2", "/api/slow-async?seconds=2"):
        began = time.monotonic()
        with ThreadPoolExecutor(6) as callers:
            answers = list(callers.map(lambda _: host.ask("GET", path), range(6)))  # noqa: B023 - used up in the loop
        assert [answer.status_code for answer in answers] == [200] * 6
        assert time.monotonic() - began < 6 * 2, "one after the other"


def test_a_caller_is_let_go_before_the_function_ends(tmp_path: Path) -> None:
    with running(HostProcess(tmp_path / "host", arguments=("--answer-seconds", "2"))) as host:
        answer = host.ask("GET", "/api/slow?seconds=30")
        assert (answer.status_code, answer.text) == (504, "The function did not answer in time.")
        until(lambda: "slow did not answer in 2 s: the caller was let go" in host.log.read_text())


def test_a_function_longer_than_its_timeout_has_failed(tmp_path: Path) -> None:
    app = edited_app(tmp_path / "app", {"functionTimeout": "00:00:03"})
    with running(HostProcess(tmp_path / "host", app=app)) as host:
        for path in ("/api/slow?seconds=15", "/api/slow-async?seconds=30"):
            began = time.monotonic()
            assert host.ask("GET", path).status_code == 500
            assert 2.9 < time.monotonic() - began < 15
        assert "the function ran longer than functionTimeout, 3 s" in host.log.read_text()


def test_a_connection_is_kept_alive(host: HostProcess) -> None:
    with httpx.Client(base_url=host.url, **PATIENTLY) as client:
        assert [client.get("/api/whoami").status_code for _ in range(3)] == [200, 200, 200]


def test_nothing_listens_beyond_loopback(host: HostProcess) -> None:
    listening = [
        line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"
    ]
    assert f"0100007F:{host.port:04X}" in listening
    assert f"00000000:{host.port:04X}" not in listening
