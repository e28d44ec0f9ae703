"""The load balancer of the local cloud: a door of its own on this machine for each Service of type LoadBalancer.

A program (`python -m localcloud.loadbalancer --kubeconfig … --state …`) that the cluster starts. It watches Services,
gives each an address in 127.77.0.0/16 that stays the same as long as its state folder does, lets HAProxy listen there
and forward to the Service's cluster address, and writes the address into the Service's status, as a cloud does.
HAProxy outlives this program and changes its doors without closing a connection.
"""

import argparse
import functools
import hashlib
import ipaddress
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import urllib3
from kubernetes import client, config, watch

from localcloud.processes import Program, StartError

NETWORK = ipaddress.ip_network("127.77.0.0/16")

RESERVED = {"vision/vision": 1}
"""The Services, as namespace/name, whose place in the network is known beforehand."""

REMEMBERED = 1000
"""So many addresses are kept for Services that may come back."""

RECONNECT_SECONDS = 1.0
RELOAD_EVERY_SECONDS = 1.0


@dataclass(frozen=True)
class Wish:
    """What one Service of type LoadBalancer wants: its ports opened, and the address of the door in its status."""

    service: str
    """The Service as namespace/name."""

    cluster_address: str
    ports: tuple[int, ...]
    told: tuple[tuple[str | None, str | None], ...]
    """The addresses and modes that its status shows."""


@dataclass(frozen=True, order=True)
class Door:
    """One port of one Service: where users come in, and the cluster address behind it."""

    service: str
    address: str
    port: int
    cluster_address: str

    @property
    def name(self) -> str:
        """Name the door in HAProxy's configuration and logs."""
        return f"{self.service.replace('/', '_')}_{self.port}"


def wish(service: client.V1Service) -> Wish | None:
    """Return what a Service wants of the load balancer, None if nothing."""
    meta, spec = service.metadata, service.spec
    if (
        meta is None
        or spec is None
        or spec.type != "LoadBalancer"
        or spec.load_balancer_class is not None
        or meta.deletion_timestamp is not None
        or spec.cluster_ip in {None, "", "None"}
    ):
        return None
    status = service.status.load_balancer if service.status else None
    return Wish(
        service=f"{meta.namespace}/{meta.name}",
        cluster_address=str(spec.cluster_ip),
        ports=tuple(port.port for port in spec.ports or () if port.protocol == "TCP"),
        told=tuple((place.ip, place.ip_mode) for place in (status.ingress if status else None) or ()),
    )


class Addresses:
    """Which Service has which address: kept in a file, so that a door is where it was after a restart."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._places: dict[str, int] = json.loads(file.read_text()) if file.exists() else dict(RESERVED)

    def of(self, service: str) -> str:
        """Return the address of a Service (namespace/name); a new one gets the lowest that is free."""
        if service not in self._places:
            taken = set(self._places.values())
            self._places[service] = next(place for place in itertools.count(1) if place not in taken)
            self._write()
        return str(NETWORK[self._places[service]])

    def forget(self, *, all_but: Iterable[str]) -> None:
        """Once many addresses are given away, take back those of Services that are no more."""
        if len(self._places) > REMEMBERED:
            kept = {*all_but, *RESERVED}
            self._places = {service: place for service, place in self._places.items() if service in kept}
            self._write()

    def _write(self) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(self._places, indent=2))
        fresh.replace(self._file)


def configuration(doors: Iterable[Door], *, status_socket: Path) -> str:
    """Return HAProxy's configuration for these doors, with a description in it that names it.

    A connection that a dying pod refuses is tried again, up to five times, before a user hears of it. The idle limits
    are longer than any of our servers keeps a connection.
    """
    parts = [
        """defaults
    mode tcp
    timeout connect 1s
    timeout client 1h
    timeout server 1h
    retries 5
    option redispatch 1
"""
    ]
    parts += [
        f"""
listen {door.name}
    bind {door.address}:{door.port}
    server service {door.cluster_address}:{door.port}
"""
        for door in sorted(doors)
    ]
    body = "".join(parts)
    return f"""global
    description {fingerprint(body)}
    maxconn 4096
    stats socket {status_socket} mode 600 level admin expose-fd listeners

{body}"""


def fingerprint(text: str) -> str:
    """Return a short name for a text, the same for the same text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class HAProxy:
    """The HAProxy of the load balancer: started when the first door opens, reloaded when doors change."""

    def __init__(self, state: Path, status_socket: Path) -> None:
        self._state = state
        self._configuration = state / "haproxy.cfg"
        self._status_socket = status_socket
        self._program = _haproxy(state)
        self._asked_at = float("-inf")

    def serve(self, doors: Sequence[Door]) -> None:
        """Make HAProxy listen at exactly these doors; raise StartError if it does not take them."""
        text = configuration(doors, status_socket=self._status_socket)
        running = self._program.pid()
        if not doors:
            self._program.stop()
            return
        if running is not None and self._configuration.exists() and self._configuration.read_text() == text:
            return
        fresh = self._state / "haproxy.cfg.new"
        fresh.write_text(text)
        checked = subprocess.run(["haproxy", "-c", "-q", "-f", str(fresh)], capture_output=True, text=True, check=False)
        if checked.returncode != 0:
            raise StartError(f"HAProxy refuses {fresh}: {checked.stderr.strip()}")
        fresh.replace(self._configuration)
        self._asked_at = float("-inf")
        self._program.start(functools.partial(self._serves, text, reload=running is not None), within_seconds=60)

    def _serves(self, text: str, *, reload: bool) -> bool:
        """Return whether HAProxy works by this configuration; ask it to read its file until it does.

        HAProxy may lose a signal that comes while it reads its file for an earlier one, so one is not enough.
        """
        described = re.search(r"^    description (\w+)$", text, re.MULTILINE)
        if described is not None and described[1] in _ask(self._status_socket, "show info"):
            return True
        pid = self._program.pid()
        if reload and pid is not None and time.monotonic() - self._asked_at > RELOAD_EVERY_SECONDS:
            os.kill(pid, signal.SIGUSR2)  # the master process hands its open sockets on to a new worker
            self._asked_at = time.monotonic()
        return False

    def listens_at(self, door: Door) -> bool:
        """Return whether the running HAProxy has this door."""
        bind = f"    bind {door.address}:{door.port}\n"
        return self._program.pid() is not None and bind in self._configuration.read_text()


class LoadBalancer:
    """Keeps doors and Services' statuses as the cluster wants them."""

    def __init__(self, core: client.CoreV1Api, state: Path, status_socket: Path) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self._core = core
        self._addresses = Addresses(state / "addresses.json")
        self._haproxy = HAProxy(state, status_socket)
        self._refused: set[Door] = set()

    def run(self) -> None:
        """Follow the cluster for ever; an API server that goes away is waited for."""
        while True:
            try:
                version = self.reconcile()
                self._wait_for_change(version)
            except (urllib3.exceptions.HTTPError, client.ApiException) as error:
                print(f"{datetime.now(UTC):%H:%M:%S} waiting for the API server: {error}", file=sys.stderr, flush=True)
                time.sleep(RECONNECT_SECONDS)

    def reconcile(self) -> str:
        """Open and close doors for the Services there are now; return the version of the list that was read."""
        listed = self._core.list_service_for_all_namespaces()
        wishes = [wanted for service in listed.items if (wanted := wish(service))]
        self._addresses.forget(all_but=[wanted.service for wanted in wishes])
        doors = [
            Door(wanted.service, self._addresses.of(wanted.service), port, wanted.cluster_address)
            for wanted in wishes
            for port in wanted.ports
        ]
        self._haproxy.serve([door for door in doors if self._may_open(door)])
        for wanted in wishes:
            self._tell_address(wanted)
        return str(listed.metadata.resource_version)  # type: ignore[union-attr]  # a list always has it

    def _may_open(self, door: Door) -> bool:
        """Return whether the door's port is free or already ours; say so once on the Service when it is neither."""
        if not self._haproxy.listens_at(door):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((door.address, door.port))
                except OSError as error:
                    if door not in self._refused:
                        self._refused.add(door)
                        self._warn(door, f"{door.address}:{door.port} cannot be opened: {error.strerror}")
                    return False
        self._refused.discard(door)
        return True

    def _tell_address(self, wanted: Wish) -> None:
        """Write the door's address into the Service's status, unless it is there."""
        address = self._addresses.of(wanted.service)
        if wanted.told == ((address, "Proxy"),):
            return
        namespace, name = wanted.service.split("/")
        status = {"loadBalancer": {"ingress": [{"ip": address, "ipMode": "Proxy"}]}}
        try:
            self._core.patch_namespaced_service_status(name, namespace, {"status": status})
        except client.ApiException as error:
            if error.status != 404:  # deleted since it was listed
                raise

    def _warn(self, door: Door, message: str) -> None:
        """Leave a warning event on the Service, where `kubectl describe` shows it."""
        namespace, name = door.service.split("/")
        now = datetime.now(UTC)
        self._core.create_namespaced_event(
            namespace,
            client.CoreV1Event(
                metadata=client.V1ObjectMeta(generate_name=f"{name}-", namespace=namespace),
                involved_object=client.V1ObjectReference(
                    api_version="v1", kind="Service", namespace=namespace, name=name
                ),
                type="Warning",
                reason="DoorRefused",
                message=message,
                first_timestamp=now,
                last_timestamp=now,
                count=1,
                source=client.V1EventSource(component="shipmate-loadbalancer"),
            ),
        )

    def _wait_for_change(self, version: str) -> None:
        """Return when a Service that wants a door, or had one, was changed, or after some minutes."""
        follow = watch.Watch()
        for event in follow.stream(
            self._core.list_service_for_all_namespaces, resource_version=version, timeout_seconds=300
        ):
            if event["raw_object"]["spec"].get("type") == "LoadBalancer" or event["type"] == "MODIFIED":
                follow.stop()


def stop(state: Path) -> None:
    """Close all doors: stop the HAProxy that the load balancer left running."""
    _haproxy(state).stop()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the load balancer until it is stopped."""
    parser = argparse.ArgumentParser(prog="python -m localcloud.loadbalancer", description=__doc__)
    parser.add_argument("--kubeconfig", required=True, help="the cluster whose Services get doors")
    parser.add_argument("--state", required=True, type=Path, help="the folder for addresses, configuration and logs")
    parser.add_argument(
        "--socket", required=True, type=Path, help="where HAProxy is asked for its status: a short path"
    )
    options = parser.parse_args(arguments)
    config.load_kube_config(options.kubeconfig)
    LoadBalancer(client.CoreV1Api(), options.state, options.socket).run()


def _haproxy(state: Path) -> Program:
    return Program("haproxy", ["haproxy", "-W", "-f", str(state / "haproxy.cfg")], state)


def _ask(status_socket: Path, question: str) -> str:
    """Return what the HAProxy behind this socket says; nothing if there is none."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        try:
            connection.connect(str(status_socket))
            connection.sendall(f"{question}\n".encode())
            return b"".join(iter(functools.partial(connection.recv, 65536), b"")).decode()
        except OSError:
            return ""


if __name__ == "__main__":
    main()
