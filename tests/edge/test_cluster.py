"""An API server in trouble: what the contract suite cannot make a healthy one do."""

import itertools
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shipmate.core.answers import LONGEST_REPLY
from shipmate.edge import api_server
from shipmate.edge.cluster import Cluster
from shipmate.errors import (
    Ambiguous,
    Conflict,
    Invalid,
    Misconfigured,
    NotAllowed,
    NotFound,
    Retryable,
    ShipmateError,
    Silent,
    Unusable,
)
from tests.fakes.api_server import Server, connected, kubeconfig

PATCH: list[dict[str, Any]] = [{"op": "test", "path": "/a", "value": 1}]


@pytest.mark.parametrize(
    ("status", "extra", "for_a_read", "for_a_write"),
    [
        (400, {}, Invalid, Misconfigured),
        (401, {}, NotAllowed, NotAllowed),
        (403, {}, NotAllowed, NotAllowed),
        (404, {}, NotFound, NotFound),
        (409, {}, Conflict, Conflict),
        (422, {}, Conflict, Conflict),
        (422, {"details": {"causes": [{"field": "spec"}]}}, Invalid, Misconfigured),
        (429, {}, Retryable, Retryable),
        (500, {}, Retryable, Ambiguous),
        (503, {}, Retryable, Ambiguous),
        (504, {}, Retryable, Ambiguous),
    ],
)
def test_each_trouble_names_the_next_move(
    server: Server,
    cluster: Cluster,
    status: int,
    extra: dict[str, Any],
    for_a_read: type[ShipmateError],
    for_a_write: type[ShipmateError],
) -> None:
    server.say(status, "so it is", **extra)
    with pytest.raises(for_a_read, match=r"GET /apis/apps/v1/namespaces/n/deployments/d: so it is"):
        cluster.deployment("n", "d")
    with pytest.raises(for_a_write, match=r"PATCH /apis/apps/v1/namespaces/n/deployments/d: so it is"):
        cluster.patch_deployment("n", "d", PATCH)


def test_a_server_that_asks_for_patience_says_how_much(server: Server, cluster: Cluster) -> None:
    server.say(429, "too many")
    server.extra["Retry-After"] = "3"
    with pytest.raises(Retryable) as raised:
        cluster.pods("n", "a=b")
    assert raised.value.after_seconds == 3


def test_a_long_refusal_keeps_its_end_where_the_reason_is(server: Server, cluster: Cluster) -> None:
    server.say(400, "x" * 5000 + "unknown field spec.nonsense")
    with pytest.raises(Invalid, match=r"unknown field spec\.nonsense") as raised:
        cluster.deployment("n", "d")
    assert len(str(raised.value)) < 1000


def test_a_reply_that_is_not_the_api_servers_is_quoted(server: Server, cluster: Cluster) -> None:
    server.status, server.body = 502, b"<h1>Bad gateway</h1>"
    with pytest.raises(Retryable, match="<h1>Bad gateway</h1>"):
        cluster.deployment("n", "d")


def test_a_write_without_a_reply_may_have_taken_effect(server: Server, tmp_path: Path) -> None:
    server.delay = 3
    with connected(kubeconfig(tmp_path, server.url), timeout_seconds=0.1) as cluster:
        with pytest.raises(Retryable, match="got no reply"):
            cluster.deployment("n", "d")
        with pytest.raises(Ambiguous, match="got no reply"):
            cluster.patch_deployment("n", "d", PATCH)
        with pytest.raises(Silent, match=r"POST /score of pod n/p was not answered within 0\.1 s"):
            cluster.ask_pod("n", "p", 8000, "POST", "/score", b"x", timeout=0.1)
    deadline = time.monotonic() + 30
    while len(server.calls) < 3 and time.monotonic() < deadline:  # what was not waited for may be read late
        time.sleep(0.05)
    assert sorted(call.method for call in server.calls) == ["GET", "PATCH", "POST"], "nothing is sent twice"


def test_a_write_whose_connection_broke_may_have_taken_effect(server: Server, cluster: Cluster) -> None:
    server.hang_up = True
    with pytest.raises(Ambiguous, match="got no reply"):
        cluster.delete_gate_pod("n", "p", "u")
    assert len(server.calls) == 1


def test_a_write_that_did_not_arrive_may_be_repeated(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        setting = kubeconfig(tmp_path, f"http://127.0.0.1:{taken.getsockname()[1]}")
        with connected(setting) as cluster, pytest.raises(Retryable, match="did not reach the API server"):
            cluster.patch_deployment("n", "d", PATCH)


def test_a_pod_that_cannot_be_asked_is_not_a_pod_that_says_no(server: Server, cluster: Cluster) -> None:
    server.say(503, "error trying to reach service: dial tcp: connection refused")
    with pytest.raises(Retryable, match="GET /readyz of pod n/p: error trying to reach service"):
        cluster.ask_pod("n", "p", 8000, "GET", "/readyz")
    server.status, server.body = 503, b'{"kind": "Status", "title": "not ready"}'
    assert cluster.ask_pod("n", "p", 8000, "GET", "/readyz")[0] == 503
    server.body = b"[1]"
    assert cluster.ask_pod("n", "p", 8000, "GET", "/readyz")[2] == b"[1]"


def test_a_pods_reply_is_read_up_to_a_limit(server: Server, cluster: Cluster) -> None:
    server.body = b"x" * LONGEST_REPLY
    for _ in range(2):
        assert cluster.ask_pod("n", "p", 8000, "POST", "/score", b"?")[2] == server.body
    server.body += b"x"
    with pytest.raises(Unusable, match=r"POST /score of pod n/p has a reply of more than 1 MiB"):
        cluster.ask_pod("n", "p", 8000, "POST", "/score", b"?")
    server.body = b"fine"
    assert cluster.ask_pod("n", "p", 8000, "GET", "/")[2] == b"fine"


def test_a_pods_reply_that_comes_drop_by_drop_is_late(server: Server, cluster: Cluster) -> None:
    server.body, server.drop_seconds = b"x" * 600, 0.05
    began = time.monotonic()
    with pytest.raises(Silent, match=r"GET /score of pod n/p was not answered within 0\.3 s"):
        cluster.ask_pod("n", "p", 8000, "GET", "/score", timeout=0.3)
    assert time.monotonic() - began < 10
    server.body = b"x" * 10
    assert cluster.ask_pod("n", "p", 8000, "GET", "/score", timeout=20)[2] == server.body


def test_a_whole_reply_that_is_read_late_is_one(
    server: Server, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a worker that slept over it: the candidate is not to blame."""
    monkeypatch.setattr(api_server, "time", SimpleNamespace(monotonic=itertools.count(0, 1000).__next__))
    server.body = b"fine"
    assert cluster.ask_pod("n", "p", 8000, "GET", "/")[2] == b"fine"


def test_a_pods_reply_that_breaks_off_is_asked_for_again(server: Server, cluster: Cluster) -> None:
    server.body, server.extra = b"half", {"Content-Length": "8"}
    with pytest.raises(Retryable, match=r"got no reply"):
        cluster.ask_pod("n", "p", 8000, "GET", "/")


def test_names_cannot_leave_their_place_in_a_path(server: Server, cluster: Cluster) -> None:
    server.say(404, "no")
    with pytest.raises(NotFound):
        cluster.deployment("../../x", "d?y")
    assert server.calls[0].path == "/apis/apps/v1/namespaces/..%2F..%2Fx/deployments/d%3Fy"
