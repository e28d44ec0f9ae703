"""Bring the local Kubernetes up and down.

Used by the local cloud's commands and by the tests; other parts only take the kubeconfig. Both `up` and `down` may be
repeated, may follow a crash or a reboot, and wait for one another. `up` keeps what the cluster knew: Deployments come
back, their pods start anew.
"""

import datetime as dt
import fcntl
import functools
import http.client
import ipaddress
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from localcloud import debian, loadbalancer, setup
from localcloud.kubernetes import leftovers, network, settings, static_image
from localcloud.kubernetes.certificates import ensure_certificates, write_private
from localcloud.kubernetes.layout import (
    API_PORT,
    CONTAINERD_SOCKET,
    ETCD_PEER_PORT,
    ETCD_PORT,
    HAPROXY_SOCKET,
    KUBELET,
    NODE,
    OWNER,
    PAUSE_IMAGE,
    PROXY_HEALTH_PORT,
    PROXY_METRICS_PORT,
    RUNTIME,
    Layout,
    default_layout,
)
from localcloud.processes import Program, StartError, Stopped

SYSCTLS = "sysctls.json"
MOST_STARTS = 5
"""Of a part that ends while the cluster starts."""


def up(layout: Layout | None = None) -> Path:
    """Start what does not run yet, wait for a ready node and return the path of the kubeconfig.

    Raises StartError or making.SetupError, both with what to do. Takes some 10 seconds, and minutes the first time.
    """
    debian.ensure_packages()
    programs = setup.ensure_kubernetes()
    layout = layout or default_layout()
    with _locked(layout):
        _check_owner(layout)
        running = _parts(programs, layout)
        if not any(part.pid() for part in running.values()):
            _prepare(layout)
        _start(running, programs, layout)
    return layout.kubeconfig


def down(layout: Layout | None = None) -> None:
    """Stop everything and take it off the machine; images and what the cluster knew stay in its state folder."""
    layout = layout or default_layout()
    if not layout.state.exists():
        return
    debian.require_root()
    with _locked(layout):
        _check_owner(layout)
        _stop(layout)
        _clean(layout)


def reset(layout: Layout | None = None) -> None:
    """Take the cluster off the machine and forget everything: Deployments, images, certificates."""
    layout = layout or default_layout()
    down(layout)
    if layout.state.exists():
        shutil.rmtree(layout.state)


def status(layout: Layout | None = None) -> dict[str, int | None]:
    """Return each program's process id, None for one that does not run."""
    layout = layout or default_layout()
    return {name: part.pid() for name, part in _parts(Path(), layout).items()}


def is_up(layout: Layout | None = None) -> bool:
    """Return whether every program runs."""
    return all(status(layout).values())


def is_left_over(layout: Layout | None = None) -> bool:
    """Return whether a cluster was begun that nobody took down, whether it runs or not: after a reboot, for example."""
    return ((layout or default_layout()).state / SYSCTLS).exists()


def add_registry_mirror(host_port: str, layout: Layout | None = None) -> None:
    """Let pods use images of the plain HTTP registry at this loopback address; works at once and may be repeated.

    Raises ValueError for an address that is not on this machine.
    """
    host, _, port = host_port.rpartition(":")
    try:
        on_this_machine = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        on_this_machine = False
    if not (on_this_machine and port.isdecimal()):
        raise ValueError(f"{host_port!r} is no registry of this machine: write 127.0.0.1:<port>")
    settings.write_registry(layout or default_layout(), host_port, f"http://{host_port}")


def import_image(archive: bytes) -> None:
    """Give the node the images of an OCI archive (a tar), without a registry. The cluster must be up."""
    command = ["ctr", "--address", str(CONTAINERD_SOCKET), "--namespace", "k8s.io", "images", "import", "-"]
    finished = subprocess.run(command, input=archive, capture_output=True, check=False)
    if finished.returncode != 0:
        raise StartError(f"containerd does not take the image: {finished.stderr.decode(errors='replace').strip()}")


def kubectl(*arguments: str, layout: Layout | None = None) -> list[str]:
    """Return a command line of the kubectl that came with the cluster, pointed at the cluster."""
    layout = layout or default_layout()
    return [str(setup.ensure_kubernetes() / "kubectl"), f"--kubeconfig={layout.kubeconfig}", *arguments]


def _parts(programs: Path, layout: Layout) -> dict[str, Program]:
    """Return the programs of the cluster in the order they start."""
    commands = {
        "etcd": settings.etcd_command(layout),
        "containerd": settings.containerd_command(layout),
        "kube-apiserver": settings.apiserver_command(programs, layout),
        "kube-controller-manager": settings.controller_manager_command(programs, layout),
        "kube-scheduler": settings.scheduler_command(programs, layout),
        "kubelet": settings.kubelet_command(programs, layout),
        "kube-proxy": settings.kube_proxy_command(programs, layout),
        "loadbalancer": [
            sys.executable,
            "-m",
            "localcloud.loadbalancer",
            f"--kubeconfig={layout.kubeconfig}",
            f"--state={layout.state / 'loadbalancer'}",
            f"--socket={HAPROXY_SOCKET}",
        ],
    }
    ports = {
        "etcd": (ETCD_PORT, ETCD_PEER_PORT),
        "kube-apiserver": (API_PORT,),
        "kube-proxy": (PROXY_HEALTH_PORT, PROXY_METRICS_PORT),
    }
    tree = Path(__file__).resolve().parents[2]
    return {
        name: Program(
            name, command, layout.state, settings.NO_PROXY_SERVER, working_directory=tree, ports=ports.get(name, ())
        )
        for name, command in commands.items()
    }


def _check_owner(layout: Layout) -> None:
    """Raise StartError if a cluster runs that has its state elsewhere: there is one to a machine."""
    if not OWNER.exists():
        return
    owner = Path(OWNER.read_text())
    if owner != layout.state and any(status(Layout(owner)).values()):
        raise StartError(
            f"this machine's Kubernetes runs already and has its state in {owner}, not in {layout.state}: "
            f"set XDG_STATE_HOME to {owner.parents[1]} to use it or to stop it"
        )


def _prepare(layout: Layout) -> None:
    """Make the machine ready for a cluster of which nothing runs, whatever ran before and however it ended."""
    if _left_over(layout):
        _clean(layout)
    network.check_free()
    network.check_alone()
    layout.state.mkdir(parents=True, exist_ok=True)
    ensure_certificates(layout.certificates, now=dt.datetime.now(dt.UTC))
    write_private(layout.kubeconfig, (layout.certificates / "admin.kubeconfig").read_text())
    settings.write_settings(layout)
    network.remember_sysctls(layout.state / SYSCTLS)


def _start(parts: dict[str, Program], programs: Path, layout: Layout) -> None:
    started = time.time()
    network.load_modules()
    network.set_up()
    leftovers.make_control_groups()
    RUNTIME.mkdir(mode=0o711, exist_ok=True)
    OWNER.write_text(str(layout.state))
    _mount_kubelet(layout)
    new_kubelet = parts["kubelet"].pid() is None
    _start_etcd(parts["etcd"], layout)
    parts["containerd"].start(_containerd_answers)
    import_image(static_image.image_archive(programs / "pause", name=PAUSE_IMAGE))
    parts["kube-apiserver"].start(functools.partial(_api_ready, layout), within_seconds=120)
    if new_kubelet:
        _forget_pods(layout)
    for name in ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "loadbalancer"):
        parts[name].start(lambda: True)
    _wait_for(functools.partial(_node_ready, layout, started if new_kubelet else 0), "the node", parts["kubelet"])
    _wait_for(
        functools.partial(_has_default_account, layout), "the controllers' work", parts["kube-controller-manager"]
    )
    for part in parts.values():
        if part.pid() is None:
            raise StartError(f"{part.name} stopped while it was starting; read {part.log}\n{part.log_tail()}")


def _stop(layout: Layout) -> None:
    """Stop the programs, users' door first, so that nothing restarts what is stopped after it."""
    parts = _parts(Path(), layout)
    parts["loadbalancer"].stop()
    loadbalancer.stop(layout.state / "loadbalancer")
    for name in ("kubelet", "kube-proxy", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"):
        parts[name].stop()
    parts["containerd"].stop()


def _left_over(layout: Layout) -> bool:
    """Return whether anything of a former cluster may still be on the machine, in this boot or from an earlier one."""
    return (layout.state / SYSCTLS).exists() or RUNTIME.exists() or layout.kubelet.exists() or network.bridge_exists()


def _clean(layout: Layout) -> None:
    """Take everything off the machine that stopped programs leave there; the way out is closed last."""
    leftovers.kill_pods()
    leftovers.unmount_below(RUNTIME, layout.state)
    leftovers.remove_control_groups()
    network.remove_service_rules(setup.kubernetes_folder() / "kube-proxy")
    leftovers.remove_files(layout)
    network.restore_sysctls(layout.state / SYSCTLS)
    network.take_down()


def _mount_kubelet(layout: Layout) -> None:
    layout.kubelet.mkdir(parents=True, exist_ok=True)
    KUBELET.mkdir(exist_ok=True)
    # Path.is_mount() does not see a bind mount within one file system; and a shared one would double with each mount
    if KUBELET not in leftovers.mounts_below(KUBELET):
        network.run("mount", "--bind", "--make-private", str(layout.kubelet), str(KUBELET))


def _start_etcd(etcd: Program, layout: Layout) -> None:
    known = layout.etcd.exists()
    try:
        etcd.start(functools.partial(_listens, ETCD_PORT))
    except Stopped as error:
        if not known:
            raise
        raise StartError(
            f"{error}\nIf the machine lost its power, the cluster's store may be damaged: "
            "`python -m localcloud.kubernetes reset` starts with an empty cluster"
        ) from error


def _forget_pods(layout: Layout) -> None:
    """Delete the pods of a former life at once: their containers are gone, and nobody may believe they are ready."""
    for pod in _api(layout, "GET", "/api/v1/pods")["items"]:
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}?gracePeriodSeconds=0"
        with suppress(_NotThere):  # it went by itself
            _api(layout, "DELETE", path)


def _wait_for(ready: Callable[[], bool], what: str, part: Program, within_seconds: float = 120) -> None:
    """Wait until an answer of the API server says so; on a busy machine it may be late or refuse at first.

    A part that ends meanwhile is started again, as systemd would: a kubelet ends if it comes while containerd answers
    already, and its CRI service is "not initialized yet".
    """
    deadline = time.monotonic() + within_seconds
    starts = 1
    while True:
        trouble = ""
        try:
            if ready():
                return
        except (OSError, StartError) as error:
            trouble = f" ({error})"
        if part.pid() is None:
            if starts == MOST_STARTS:
                raise StartError(f"{part.name} stopped while it was starting; read {part.log}\n{part.log_tail()}")
            starts += 1
            time.sleep(1)
            part.start(lambda: True)
        if time.monotonic() > deadline:
            raise StartError(f"{what} is not ready after {within_seconds:.0f} s{trouble}; read {part.log}")
        time.sleep(0.1)


def _containerd_answers() -> bool:
    return network.succeeds("ctr", "--address", str(CONTAINERD_SOCKET), "version")


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _api_ready(layout: Layout) -> bool:
    try:
        _api(layout, "GET", "/readyz", parse=False)
    except (OSError, StartError) as error:
        if isinstance(error, ssl.SSLCertVerificationError):
            raise  # no waiting helps
        return False
    return True


def _node_ready(layout: Layout, since: float) -> bool:
    """Return whether the node has said that it is ready, after the instant `since` (seconds since the epoch)."""
    for node in _api(layout, "GET", "/api/v1/nodes")["items"]:
        for condition in node["status"].get("conditions", ()):
            said = dt.datetime.fromisoformat(condition["lastHeartbeatTime"]).timestamp()
            if node["metadata"]["name"] == NODE and condition["type"] == "Ready" and condition["status"] == "True":
                return said >= int(since)
    return False


def _has_default_account(layout: Layout) -> bool:
    """Return whether the controllers have made what every new pod needs."""
    accounts = _api(layout, "GET", "/api/v1/namespaces/default/serviceaccounts")["items"]
    return any(account["metadata"]["name"] == "default" for account in accounts)


class _NotThere(StartError):
    """The API server has nothing by that name."""


def _api(layout: Layout, method: str, path: str, *, parse: bool = True) -> Any:
    """Ask the API server as the administrator; raise StartError for an answer that is no success."""
    pki = layout.certificates
    context = ssl.create_default_context(cafile=pki / "ca.crt")
    context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
    connection = http.client.HTTPSConnection("127.0.0.1", API_PORT, context=context, timeout=15)
    try:
        connection.request(method, path)
        reply = connection.getresponse()
        body = reply.read()
    finally:
        connection.close()
    if reply.status >= 300:
        kind = _NotThere if reply.status == 404 else StartError
        raise kind(f"the API server answers {method} {path} with {reply.status}: {body.decode(errors='replace')}")
    return json.loads(body) if parse else body


@contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    """Hold the cluster's lock, so that one `up` or `down` waits for another; the kernel frees it with the process."""
    layout.state.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
