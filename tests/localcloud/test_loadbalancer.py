"""The load balancer's doors, with a real HAProxy and a server behind it; test_kubernetes.py has it in the cluster."""

import http.client
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client

from localcloud import debian, loadbalancer
from localcloud.loadbalancer import Addresses, Door, HAProxy, Wish, wish

pytestmark = pytest.mark.cluster  # HAProxy comes with the cluster's packages


@pytest.fixture
def server() -> Iterator[str]:
    """Serve HTTP, with kept connections, at the place of a Service's cluster address; return that address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.78.0.1", 8099), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield "127.78.0.1"
        server.shutdown()
        thread.join()


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[HAProxy]:
    debian.ensure_packages()
    yield HAProxy(tmp_path, tmp_path / "s")
    loadbalancer.stop(tmp_path)


def door(number: int, server: str) -> Door:
    """Return a door in a part of the network that the cluster does not use so soon."""
    return Door(f"test/door{number}", f"127.77.200.{number}", 8099, server)


def ask(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/")
    return connection.getresponse().read()


def test_a_connection_outlives_the_opening_and_closing_of_other_doors(haproxy: HAProxy, server: str) -> None:
    first, second = door(1, server), door(2, server)
    haproxy.serve([first])
    kept = http.client.HTTPConnection(first.address, first.port, timeout=5)
    kept.auto_open = 0  # a closed connection is an error, not opened again
    kept.connect()
    assert ask(kept) == b"ok"
    for _ in range(5):
        haproxy.serve([first, second])
        assert haproxy.listens_at(second)
        other = http.client.HTTPConnection(second.address, second.port, timeout=5)
        assert ask(other) == b"ok"
        other.close()
        haproxy.serve([first])
        assert not haproxy.listens_at(second)
        with pytest.raises(ConnectionRefusedError):
            http.client.HTTPConnection(second.address, second.port, timeout=5).connect()
    assert ask(kept) == b"ok"
    kept.close()


def test_without_doors_there_is_no_haproxy(haproxy: HAProxy, server: str) -> None:
    haproxy.serve([door(1, server)])
    haproxy.serve([])
    assert not haproxy.listens_at(door(1, server))
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection("127.77.200.1", 8099, timeout=5).connect()


def test_an_address_stays_and_the_demos_is_known(tmp_path: Path) -> None:
    file = tmp_path / "addresses.json"
    addresses = Addresses(file)
    assert addresses.of("test/one") == "127.77.0.2"
    assert addresses.of("vision/vision") == "127.77.0.1"
    assert Addresses(file).of("test/two") == "127.77.0.3"
    assert Addresses(file).of("test/one") == "127.77.0.2"


def test_addresses_of_services_that_are_no_more_are_given_away_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loadbalancer, "REMEMBERED", 3)
    file = tmp_path / "addresses.json"
    addresses = Addresses(file)
    for name in ("a", "b"):
        addresses.of(name)
    addresses.forget(all_but=["b"])
    assert json.loads(file.read_text()) == {"vision/vision": 1, "a": 2, "b": 3}, "few enough to keep"
    addresses.of("c")
    addresses.forget(all_but=["b", "c"])
    assert json.loads(file.read_text()) == {"vision/vision": 1, "b": 3, "c": 4}
    assert addresses.of("d") == "127.77.0.2"


def service(**spec: object) -> client.V1Service:
    defaults = {"type": "LoadBalancer", "cluster_ip": "10.213.128.9"}
    ports = [client.V1ServicePort(port=8080, protocol="TCP"), client.V1ServicePort(port=53, protocol="UDP")]
    return client.V1Service(
        metadata=client.V1ObjectMeta(namespace="vision", name="vision"),
        spec=client.V1ServiceSpec(**{**defaults, "ports": ports} | spec),
    )


def test_a_service_of_type_load_balancer_wants_its_tcp_ports_opened() -> None:
    assert wish(service()) == Wish("vision/vision", "10.213.128.9", (8080,), ())


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "ClusterIP"},
        {"cluster_ip": None},
        {"cluster_ip": "None"},
        {"load_balancer_class": "another.example/lb"},
    ],
    ids=["another type", "no address yet", "headless", "another load balancer's"],
)
def test_other_services_want_nothing(spec: dict[str, object]) -> None:
    assert wish(service(**spec)) is None
