"""The load balancer's doors, with a real HAProxy and a server behind it; test_kubernetes.py has it in the cluster."""

import http.client
import http.server
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from kubernetes import client

from localcloud import debian, loadbalancer, processes
from localcloud.loadbalancer import Addresses, Door, HAProxy, LoadBalancer, Wish, wish
from localcloud.processes import StartError
from tests.fakes.http_servers import Answer, Seen, answering

pytestmark = pytest.mark.cluster  # HAProxy comes with the cluster's packages


class Server(NamedTuple):
    address: str
    port: int


@pytest.fixture
def server() -> Iterator[Server]:
    """Serve HTTP, with kept connections, at the place of a Service's cluster address; return that place.

    No two runs meet: the kernel gives the port to one of them, and it is that of all its doors.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.78.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Server("127.78.0.1", server.server_address[1])
        server.shutdown()
        thread.join()


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[HAProxy]:
    debian.ensure_packages()
    yield HAProxy(tmp_path, tmp_path / "s")
    loadbalancer.stop(tmp_path)


def door(number: int, server: Server) -> Door:
    """Return a door in a part of the network that the cluster does not use so soon."""
    return Door(f"test/door{number}", f"127.77.200.{number}", server.port, server.address)


def ask(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/")
    return connection.getresponse().read()


def test_a_connection_outlives_the_opening_and_closing_of_other_doors(haproxy: HAProxy, server: Server) -> None:
    first, second = door(1, server), door(2, server)
    haproxy.serve([first])
    kept = http.client.HTTPConnection(first.address, first.port, timeout=60)
    kept.auto_open = 0  # a closed connection is an error, not opened again
    kept.connect()
    assert ask(kept) == b"ok"
    for _ in range(5):
        haproxy.serve([first, second])
        assert haproxy.listens_at(second)
        other = http.client.HTTPConnection(second.address, second.port, timeout=60)
        assert ask(other) == b"ok"
        other.close()
        haproxy.serve([first])
        assert not haproxy.listens_at(second)
        with pytest.raises(ConnectionRefusedError):
            http.client.HTTPConnection(second.address, second.port, timeout=60).connect()
    assert ask(kept) == b"ok"
    kept.close()


def test_without_doors_there_is_no_haproxy(haproxy: HAProxy, server: Server) -> None:
    haproxy.serve([door(1, server)])
    haproxy.serve([])
    assert not haproxy.listens_at(door(1, server))
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection("127.77.200.1", server.port, timeout=60).connect()


def test_doors_are_closed_although_haproxys_master_was_killed(haproxy: HAProxy, server: Server, tmp_path: Path) -> None:
    haproxy.serve([door(1, server)])
    os.kill(int((tmp_path / "run" / "haproxy.pid").read_text().split()[0]), signal.SIGKILL)
    haproxy.serve([])
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection("127.77.200.1", server.port, timeout=60).connect()


def test_a_door_that_haproxy_cannot_open_leaves_the_others_and_is_opened_when_it_can(
    haproxy: HAProxy, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = door(1, server), door(2, server)
    haproxy.serve([first])
    kept = http.client.HTTPConnection(first.address, first.port, timeout=60)
    kept.auto_open = 0
    kept.connect()
    with socket.socket() as squatter:
        squatter.bind((second.address, second.port))
        squatter.listen()
        with monkeypatch.context() as impatient:
            impatient.setattr(loadbalancer, "SERVES_WITHIN_SECONDS", 3)
            with pytest.raises(StartError, match=r"haproxy is not ready after 3 s; read .*/logs/haproxy\.log"):
                haproxy.serve([first, second])
    assert (haproxy.has(first), haproxy.has(second)) == (True, False)
    assert ask(kept) == b"ok"
    kept.close()
    haproxy.serve([first, second])
    for each in (first, second):
        connection = http.client.HTTPConnection(each.address, each.port, timeout=60)
        assert ask(connection) == b"ok"
        connection.close()


def test_a_first_door_that_haproxy_cannot_open_is_opened_when_it_can(haproxy: HAProxy, server: Server) -> None:
    only = door(1, server)
    with socket.socket() as squatter:
        squatter.bind((only.address, only.port))
        squatter.listen()
        with pytest.raises(StartError, match="haproxy stopped while it was starting; read "):
            haproxy.serve([only])
    haproxy.serve([only])
    assert haproxy.has(only)


def test_a_machine_without_haproxy_is_told_what_installs_it(
    haproxy: HAProxy, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(StartError, match="haproxy is not there: `python -m localcloud setup` installs it; if it is"):
        haproxy.serve([door(1, server)])


@dataclass
class ApiServer:
    """As much of an API server as the load balancer asks: Services in the namespace `test`, their events and statuses.

    `clusters` has the cluster address of each Service.
    """

    port: int
    clusters: dict[str, str]
    warnings: list[tuple[str, str]] = field(default_factory=list)
    told: dict[str, str] = field(default_factory=dict)

    def answer(self, seen: Seen) -> Answer:
        if seen.path.startswith("/api/v1/services"):
            return self._json({"kind": "ServiceList", "metadata": {"resourceVersion": "7"}, "items": self._services()})
        body = json.loads(seen.body)
        if seen.path.endswith("/events"):
            self.warnings.append((body["involvedObject"]["name"], body["message"]))
            return self._json({"metadata": {}, "involvedObject": {}})
        (place,) = body["status"]["loadBalancer"]["ingress"]
        self.told[seen.path.split("/")[-2]] = place["ip"]
        return self._json({"kind": "Service"})

    def _services(self) -> list[dict[str, Any]]:
        return [
            {
                "metadata": {"namespace": "test", "name": name},
                "spec": {
                    "type": "LoadBalancer",
                    "clusterIP": address,
                    "ports": [{"port": self.port, "protocol": "TCP"}],
                },
            }
            for name, address in self.clusters.items()
        ]

    @staticmethod
    def _json(document: dict[str, Any]) -> Answer:
        return Answer(200, json.dumps(document).encode(), {"Content-Type": "application/json"})


@pytest.fixture
def balanced(tmp_path: Path, haproxy: HAProxy, server: Server) -> Iterator[tuple[LoadBalancer, ApiServer]]:
    """A load balancer whose HAProxy is `haproxy`, and the API server it asks."""
    places = {"vision/vision": 1, **{f"test/door{number}": (200 << 8) + number for number in (1, 2, 3)}}
    (tmp_path / "addresses.json").write_text(json.dumps(places))
    api = ApiServer(server.port, {})
    with answering(api.answer) as (url, _):
        configuration = client.Configuration(host=url)
        with client.ApiClient(configuration) as asking:
            yield LoadBalancer(client.CoreV1Api(asking), tmp_path, tmp_path / "s"), api


def test_only_the_service_that_haproxy_refuses_is_in_trouble(
    balanced: tuple[LoadBalancer, ApiServer], haproxy: HAProxy, server: Server
) -> None:
    balancer, api = balanced
    api.clusters = {"door1": server.address, "door2": "127.78.0.1 nonsense", "door3": server.address}
    for _ in range(2):
        assert balancer.reconcile() == "7"
        assert [haproxy.has(door(number, server)) for number in (1, 2, 3)] == [True, False, True]
    assert api.told == {"door1": "127.77.200.1", "door3": "127.77.200.3"}
    ((name, message),) = api.warnings
    assert name == "door2"
    assert message.startswith("HAProxy does not open its doors: HAProxy refuses ")
    assert "nonsense" in message
    assert message.endswith("Mend that, or delete the Service; it is tried again every 15 s")
    api.clusters["door2"] = server.address
    balancer.reconcile()
    assert haproxy.has(door(2, server))
    assert api.told["door2"] == "127.77.200.2"


def test_a_port_that_is_taken_is_told_once_with_what_to_do_and_opened_when_it_is_free(
    balanced: tuple[LoadBalancer, ApiServer], haproxy: HAProxy, server: Server
) -> None:
    balancer, api = balanced
    api.clusters = {"door1": server.address}
    with socket.socket() as squatter:
        squatter.bind(("127.77.200.1", server.port))
        squatter.listen()
        balancer.reconcile()
        balancer.reconcile()
    message = (
        f"127.77.200.1:{server.port} cannot be opened: Address already in use. Stop what listens there "
        f"(`ss -ltnp sport = :{server.port}` names it); it is tried again every 15 s"
    )
    assert api.warnings == [("door1", message)]
    assert api.told == {}
    balancer.reconcile()
    assert haproxy.has(door(1, server))


class Waits(Exception):
    """The load balancer has done its work and waits for a change."""


def waits(_: str) -> None:
    raise Waits


def test_what_fails_for_all_doors_is_told_and_the_load_balancer_goes_on(
    balanced: tuple[LoadBalancer, ApiServer],
    haproxy: HAProxy,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(loadbalancer, "TRY_AGAIN_SECONDS", 0.2)
    balancer, api = balanced
    api.clusters = {"door1": server.address}
    in_the_way = tmp_path / "haproxy.cfg.new"
    in_the_way.mkdir()  # nothing can be written there, as on a full disk
    monkeypatch.setattr(balancer, "_wait_for_change", waits)
    say = loadbalancer._say

    def told(text: str) -> None:
        say(text)
        in_the_way.rmdir()  # there is room again once the trouble was told

    monkeypatch.setattr(loadbalancer, "_say", told)
    with pytest.raises(Waits):
        balancer.run()
    assert haproxy.has(door(1, server))
    words = f"the doors stay as they are: [Errno 21] Is a directory: '{in_the_way}'; it is tried again in 0.2 s"
    assert words in capfd.readouterr().err


def test_whether_a_door_can_be_opened_is_known_beforehand(
    haproxy: HAProxy, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "TAKEN_FOR_SECONDS", 0.1)
    wanted = door(1, server)
    with socket.socket() as squatter:
        squatter.bind((wanted.address, wanted.port))
        squatter.listen()
        with pytest.raises(StartError) as told:
            loadbalancer.require_door(tmp_path, wanted.address, wanted.port)
    assert str(told.value) == (
        f"the app's public door cannot listen at 127.77.200.1:{server.port}: Address already in use. Stop what listens "
        f"there (`ss -ltnp sport = :{server.port}` names it), and try again"
    )
    loadbalancer.require_door(tmp_path, wanted.address, wanted.port)
    haproxy.serve([wanted])
    loadbalancer.require_door(tmp_path, wanted.address, wanted.port)


def test_addresses_that_cannot_be_read_are_given_anew(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "addresses.json"
    file.write_bytes(bytes(40))  # as a machine that lost its power leaves files
    assert Addresses(file).of("test/one") == "127.77.0.2"
    assert f"{file} cannot be read, so Services get new addresses" in capfd.readouterr().err
    assert Addresses(file).of("test/one") == "127.77.0.2"


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
