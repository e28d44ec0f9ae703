"""The load balancer of the local cloud: a door of its own on this machine for each Service of type LoadBalancer.

A program (`python -m localcloud.loadbalancer --kubeconfig … --state …`) that the cluster starts. It watches Services,
gives each an address in 127.77.0.0/16 that stays the same as long as its state folder does, lets HAProxy listen there
and forward to the Service's cluster address, and writes the address into the Service's status, as a cloud does.
HAProxy outlives this program and changes its doors without closing a connection.
"""

import argparse
import ipaddress
import json
import os
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

RECONNECT_SECONDS = 1


@dataclass(frozen=True, order=True)
class Door:
    """One port of one Service: where users come in, and the cluster address behind it."""

    service: str
    """The Service as namespace/name."""

    address: str
    port: int
    cluster_address: str

    @property
    def name(self) -> str:
        """Name the door in HAProxy's configuration and logs."""
        return f"{self.service.replace('/', '_')}_{self.port}"


class Addresses:
    """Which Service has which address: kept in a file, so that a door is where it was after a restart."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._places: dict[str, int] = json.loads(file.read_text()) if file.exists() else dict(RESERVED)

    def of(self, service: str) -> str:
        """Return the address of a Service (namespace/name); a new one gets the lowest that was never given away."""
        if service not in self._places:
            self._places[service] = max(self._places.values(), default=0) + 1
            fresh = self._file.with_suffix(".new")
            fresh.write_text(json.dumps(self._places, indent=2))
            fresh.replace(self._file)
        return str(NETWORK[self._places[service]])


def configuration(doors: Iterable[Door], *, status_socket: Path) -> str:
    """Return HAProxy's configuration for these doors.

    A connection that a dying pod refuses is tried again, up to five times, before a user hears of it. The idle limits
    are longer than any of our servers keeps a connection.
    """
    parts = [
        f"""global
    maxconn 4096
    stats socket {status_socket} mode 600 level admin expose-fd listeners

defaults
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
    return "".join(parts)


class HAProxy:
    """The HAProxy of the load balancer: started when the first door opens, reloaded when doors change."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._configuration = state / "haproxy.cfg"
        self._status_socket = state / "haproxy.sock"
        self._program = _haproxy(state)

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
        if running is not None:
            os.kill(running, signal.SIGUSR2)  # its master process reads the configuration and hands its sockets on
        self._program.start(lambda: all(_answers(door) for door in doors), within_seconds=10)

    def listens_at(self, door: Door) -> bool:
        """Return whether the running HAProxy has this door."""
        bind = f"    bind {door.address}:{door.port}\n"
        return self._program.pid() is not None and bind in self._configuration.read_text()


class LoadBalancer:
    """Keeps doors and Services' statuses as the cluster wants them."""

    def __init__(self, core: client.CoreV1Api, state: Path) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self._core = core
        self._addresses = Addresses(state / "addresses.json")
        self._haproxy = HAProxy(state)
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
        services = [service for service in listed.items if wants_door(service)]
        wanted = [door for service in services for door in self.doors(service)]
        self._haproxy.serve([door for door in wanted if self._may_open(door)])
        for service in services:
            self._tell_address(service)
        return str(listed.metadata.resource_version)

    def doors(self, service: client.V1Service) -> list[Door]:
        """Return the doors of one Service."""
        name = f"{service.metadata.namespace}/{service.metadata.name}"
        return [
            Door(name, self._addresses.of(name), port.port, service.spec.cluster_ip)
            for port in service.spec.ports
            if port.protocol == "TCP"
        ]

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

    def _tell_address(self, service: client.V1Service) -> None:
        """Write the door's address into the Service's status, unless it is there."""
        meta = service.metadata
        wanted = [{"ip": self._addresses.of(f"{meta.namespace}/{meta.name}"), "ipMode": "Proxy"}]
        told = service.status.load_balancer.ingress or []
        if [{"ip": place.ip, "ipMode": place.ip_mode} for place in told] == wanted:
            return
        try:
            self._core.patch_namespaced_service_status(
                meta.name, meta.namespace, {"status": {"loadBalancer": {"ingress": wanted}}}
            )
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
        """Return when a Service that has or wants a door was changed, or after some minutes."""
        follow = watch.Watch()
        for event in follow.stream(
            self._core.list_service_for_all_namespaces, resource_version=version, timeout_seconds=300
        ):
            if wants_door(event["object"]) or event["object"].status.load_balancer.ingress:
                follow.stop()


def wants_door(service: client.V1Service) -> bool:
    """Return whether a Service is to have a door now."""
    return (
        service.spec.type == "LoadBalancer"
        and service.spec.load_balancer_class is None
        and service.metadata.deletion_timestamp is None
        and service.spec.cluster_ip not in (None, "", "None")
    )


def stop(state: Path) -> None:
    """Close all doors: stop the HAProxy that the load balancer left running."""
    _haproxy(state).stop()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the load balancer until it is stopped."""
    parser = argparse.ArgumentParser(prog="python -m localcloud.loadbalancer", description=__doc__)
    parser.add_argument("--kubeconfig", required=True, help="the cluster whose Services get doors")
    parser.add_argument("--state", required=True, type=Path, help="the folder for addresses, configuration and logs")
    options = parser.parse_args(arguments)
    config.load_kube_config(options.kubeconfig)
    LoadBalancer(client.CoreV1Api(), options.state).run()


def _haproxy(state: Path) -> Program:
    return Program("haproxy", ["haproxy", "-W", "-f", str(state / "haproxy.cfg")], state)


def _answers(door: Door) -> bool:
    try:
        socket.create_connection((door.address, door.port), timeout=1).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
