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
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import urllib3
from kubernetes import client, config, watch

from localcloud.processes import Program, StartError, cannot_listen, not_there, require_free

NETWORK = ipaddress.ip_network("127.77.0.0/16")

RESERVED = {"vision/vision": 1}
"""The Services, as namespace/name, whose place in the network is known beforehand."""

REMEMBERED = 1000
"""So many addresses are kept for Services that may come back."""

RECONNECT_SECONDS = 1.0
RELOAD_EVERY_SECONDS = 1.0
SERVES_WITHIN_SECONDS = 30.0
CLOSES_WITHIN_SECONDS = 5.0

LOOK_AGAIN_SECONDS = 300
"""So long is a change of Services waited for."""

TRY_AGAIN_SECONDS = 15
"""So long while a door is not open that should be."""


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
        self._places = self._read()

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

    def _read(self) -> dict[str, int]:
        if not self._file.exists():
            return dict(RESERVED)
        try:
            return {str(service): int(place) for service, place in json.loads(self._file.read_text()).items()}
        except (ValueError, AttributeError, TypeError) as error:  # as a machine that lost its power leaves files
            _say(f"{self._file} cannot be read, so Services get new addresses: {error}")
            return dict(RESERVED)

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
    parts += [_section(door) for door in sorted(doors)]
    body = "".join(parts)
    return f"""global
    description {fingerprint(body)}
    maxconn 4096
    stats socket {status_socket} mode 600 level admin expose-fd listeners

{body}"""


def _section(door: Door) -> str:
    return f"""
listen {door.name}
    bind {door.address}:{door.port}
    server service {door.cluster_address}:{door.port}
"""


def _places(text: str) -> set[tuple[str, int]]:
    """Return the addresses and ports of the doors in a configuration."""
    return {(address, int(port)) for address, port in re.findall(r"^    bind (\S+):(\d+)$", text, re.MULTILINE)}


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
        """Make HAProxy listen at exactly these doors; raise StartError, and leave it as it was, if it does not."""
        text = configuration(doors, status_socket=self._status_socket)
        running = self._program.pid()
        if not doors:
            self._program.stop()
            had = self._configuration.read_text() if self._configuration.exists() else ""
            self._wait_for_worker(_places(had))
            return
        works_by = self._works_by()
        if works_by == text:
            return
        fresh = self._state / "haproxy.cfg.new"
        fresh.write_text(text)
        try:
            checked = subprocess.run(["haproxy", "-c", "-f", str(fresh)], capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise StartError(not_there("haproxy")) from error
        if checked.returncode != 0:
            said = re.findall(r"^\[ALERT\] *\(\d+\) : (.*)$", checked.stderr, re.MULTILINE)
            raise StartError(f"HAProxy refuses {fresh}: {'; '.join(said) or checked.stderr.strip()}")
        before = self._state / "haproxy.cfg.before"
        goes_on = running is not None and self._configuration.exists()
        if goes_on:
            self._configuration.replace(before)
        fresh.replace(self._configuration)
        self._asked_at = float("-inf")
        ready = functools.partial(self._serves, text, reload=running is not None)
        try:
            self._program.start(ready, within_seconds=SERVES_WITHIN_SECONDS)
        except StartError:
            if goes_on:
                before.replace(self._configuration)  # its worker from before is still there
            else:
                self._program.stop()
                self._configuration.unlink()
            raise
        self._wait_for_closed(_places(works_by) - _places(text))

    def _wait_for_closed(self, places: Iterable[tuple[str, int]]) -> None:
        """Return when nobody comes in there any more: the worker from before may close its doors a moment later."""
        deadline = time.monotonic() + CLOSES_WITHIN_SECONDS
        while any(cannot_listen(*place) for place in places) and time.monotonic() < deadline:
            time.sleep(0.02)

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

    def _wait_for_worker(self, places: Iterable[tuple[str, int]]) -> None:
        """Return when the worker closed its doors, which may be after its master ended; kill it if it does not.

        A worker that is about to end may say nothing any more and still listen.
        """
        deadline = time.monotonic() + CLOSES_WITHIN_SECONDS
        while (said := _ask(self._status_socket, "show info")) or (
            any(cannot_listen(*place) for place in places) and time.monotonic() < deadline
        ):
            worker = re.search(r"^Pid: (\d+)$", said, re.MULTILINE)
            if worker is not None and time.monotonic() > deadline:
                with suppress(ProcessLookupError):
                    os.kill(int(worker[1]), signal.SIGKILL)
            time.sleep(0.02)

    def listens_at(self, door: Door) -> bool:
        """Return whether the running HAProxy listens at this door's port."""
        return f"    bind {door.address}:{door.port}\n" in self._works_by()

    def has(self, door: Door) -> bool:
        """Return whether the running HAProxy has this door, with the same cluster address behind it."""
        return _section(door) in self._works_by()

    def _works_by(self) -> str:
        """Return the configuration of the running HAProxy, empty if none runs."""
        runs = self._program.pid() is not None and self._configuration.exists()
        return self._configuration.read_text() if runs else ""


class LoadBalancer:
    """Keeps doors and Services' statuses as the cluster wants them."""

    def __init__(self, core: client.CoreV1Api, state: Path, status_socket: Path) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self._core = core
        self._addresses = Addresses(state / "addresses.json")
        self._haproxy = HAProxy(state, status_socket)
        self._trouble: dict[str, str] = {}

    def run(self) -> None:
        """Follow the cluster for ever; an API server that goes away is waited for, and so is room on the disk."""
        while True:
            try:
                version = self.reconcile()
                self._wait_for_change(version)
            except (urllib3.exceptions.HTTPError, client.ApiException) as error:
                _say(f"waiting for the API server: {error}")
                time.sleep(RECONNECT_SECONDS)
            except (OSError, StartError) as error:
                _say(f"the doors stay as they are: {error}; it is tried again in {TRY_AGAIN_SECONDS} s")
                time.sleep(TRY_AGAIN_SECONDS)

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
        self._open(doors)
        for wanted in wishes:
            if wanted.service not in self._trouble:  # somebody else may listen there
                self._tell_address(wanted)
        return str(listed.metadata.resource_version)  # type: ignore[union-attr]  # a list always has it

    def _open(self, doors: Sequence[Door]) -> None:
        """Have exactly these doors open, but for those of Services that are in trouble, which are told of it."""
        trouble: dict[str, str] = {}
        free = []
        again = f"tried again every {TRY_AGAIN_SECONDS} s"
        for door in doors:
            why = None if self._haproxy.listens_at(door) else cannot_listen(door.address, door.port)
            if why is None:
                free.append(door)
            else:
                trouble[door.service] = f"{door.address}:{door.port} cannot be opened: {why}; it is {again}"
        try:
            self._haproxy.serve(free)
        except StartError:
            trouble |= self._open_one_by_one(free)
        known, self._trouble = self._trouble, trouble  # before it is told, which may fail
        for service, message in trouble.items():
            if known.get(service) != message:
                _say(f"{service}: {message}")
                self._warn(service, message)

    def _open_one_by_one(self, doors: Sequence[Door]) -> dict[str, str]:
        """Open the doors of each Service that HAProxy takes beside the others; return the trouble of those it does not.

        What is open is kept, and comes first.
        """
        trouble: dict[str, str] = {}
        again = f"tried again every {TRY_AGAIN_SECONDS} s"
        taken = [door for door in doors if self._haproxy.has(door)]
        by_service = sorted(set(doors) - set(taken))
        for service, more in itertools.groupby(by_service, key=lambda door: door.service):
            wanted = [*taken, *more]
            try:
                self._haproxy.serve(wanted)
            except StartError as error:
                trouble[service] = (
                    f"HAProxy does not open its doors: {error}. Mend that, or delete the Service; it is {again}"
                )
            else:
                taken = wanted
        if trouble:
            self._haproxy.serve(taken)  # also without what is no longer wanted
        return trouble

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

    def _warn(self, service: str, message: str) -> None:
        """Leave a warning event on the Service, where `kubectl describe` shows it."""
        namespace, name = service.split("/")
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
                message=message[:1024],  # the API server takes no longer one
                first_timestamp=now,
                last_timestamp=now,
                count=1,
                source=client.V1EventSource(component="shipmate-loadbalancer"),
            ),
        )

    def _wait_for_change(self, version: str) -> None:
        """Return when a Service that wants a door, or had one, was changed, or after a while."""
        within_seconds = TRY_AGAIN_SECONDS if self._trouble else LOOK_AGAIN_SECONDS
        follow = watch.Watch()
        for event in follow.stream(
            self._core.list_service_for_all_namespaces, resource_version=version, timeout_seconds=within_seconds
        ):
            if event["raw_object"]["spec"].get("type") == "LoadBalancer" or event["type"] == "MODIFIED":
                follow.stop()


def require_door(state: Path, address: str, port: int) -> None:
    """Raise StartError if a door that is to be opened would not be, because another program listens there."""
    if not HAProxy(state, Path()).listens_at(Door("", address, port, "")):
        require_free(address, port, what="the app's public door")


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


def _say(text: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


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
