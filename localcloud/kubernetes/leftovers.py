"""Take pods off the machine as if its power had been cut, and tidy up after them.

containerd and the kubelet know how to go on after a power cut, so this is the one way both for a normal `down` and for
what a crash left behind. Only what carries the cluster's own names is touched: shims of its containerd, processes in
its control group, mounts below its folders.
"""

import os
import re
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from localcloud.kubernetes.layout import CONTAINERD_SOCKET, CONTROL_GROUP, RUNTIME, Layout
from localcloud.kubernetes.network import run
from localcloud.processes import StartError

CGROUPS = Path("/sys/fs/cgroup")
SHIM_SOCKETS = Path("/run/containerd/s")
"""Where every containerd shim listens, whoever started it (a constant of containerd)."""

CONTAINER_LOG_LINKS = Path("/var/log/containers")
NETWORK_RESULTS = Path("/var/lib/cni/results")
DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")
"""Folders that the kubelet and containerd fill wherever they are told to live."""


def kill_pods(*, within_seconds: float = 15) -> None:
    """Kill the shims of the cluster's containerd and every process in a pod; raise StartError if some will not die."""
    deadline = time.monotonic() + within_seconds
    while alive := {*shims(), *pod_processes()}:
        if time.monotonic() > deadline:
            raise StartError(f"processes of pods do not go away after SIGKILL: {sorted(alive)}; try `down` once more")
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def shims(socket: Path = CONTAINERD_SOCKET) -> Iterator[int]:
    """Yield the process ids of the shims that belong to the containerd at `socket`."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if Path(words[0]).name.startswith("containerd-shim") and str(socket) in words:
                yield int(folder.name)


def pod_processes() -> Iterator[int]:
    """Yield the process ids in the cluster's control groups."""
    for group in control_groups():
        for file in group.rglob("cgroup.procs"):
            with suppress(OSError):
                yield from (int(word) for word in file.read_text().split())


def control_groups() -> list[Path]:
    """Return the control group of all pods in each hierarchy (version 1), or in the one there is (version 2)."""
    return [root / CONTROL_GROUP for root in _hierarchies() if (root / CONTROL_GROUP).is_dir()]


def make_control_groups() -> None:
    """Make the control group that the kubelet puts its pods under; the kubelet wants to find it."""
    for root in _hierarchies():
        (root / CONTROL_GROUP).mkdir(exist_ok=True)
        switches = root / "cgroup.subtree_control"
        if root == CGROUPS:  # version 2: what the root does not hand down, no group below it has
            missing = {"cpu", "cpuset", "memory", "pids"} - set(switches.read_text().split())
            switches.write_text(" ".join(f"+{controller}" for controller in sorted(missing)))


def remove_control_groups() -> None:
    """Remove the cluster's control groups, which must be empty."""
    for group in control_groups():
        for folder, _, _ in os.walk(group, topdown=False):
            Path(folder).rmdir()


def _hierarchies() -> list[Path]:
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [root for root in CGROUPS.iterdir() if root.is_dir() and not root.is_symlink()]


def unmount_below(*folders: Path) -> None:
    """Unmount everything below these folders, the newest first."""
    for mount in reversed(list(mounts_below(*folders))):
        run("umount", "--lazy", str(mount))


def mounts_below(*folders: Path) -> Iterator[Path]:
    """Yield the mount points below these folders, oldest first (proc(5), mountinfo field 5)."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), line.split()[4])
        if any(Path(point).is_relative_to(folder) for folder in folders):
            yield Path(point)


def remove_files(layout: Layout) -> None:
    """Remove what only running pods need: sockets, sandboxes, volumes, logs, addresses."""
    sandboxes = [folder.name for folder in RUNTIME.glob("containerd/io.containerd.grpc.v1.cri/sandboxes/*")]
    _remove(NETWORK_RESULTS / f"cni-loopback-{sandbox}-lo" for sandbox in sandboxes)
    _remove(NETWORK_RESULTS.glob("shipmate-*"))
    _remove(_links_into(CONTAINER_LOG_LINKS, layout.pod_logs))
    _remove(_dead(SHIM_SOCKETS.glob("*")))
    _remove(_dead(DEVICE_PLUGINS.glob("kubelet.sock")))
    for folder in (
        *(SHIM_SOCKETS, SHIM_SOCKETS.parent / "runc", SHIM_SOCKETS.parent),
        *(NETWORK_RESULTS, NETWORK_RESULTS.parent),
        *(DEVICE_PLUGINS, DEVICE_PLUGINS.parent),
        CONTAINER_LOG_LINKS,
    ):
        with suppress(OSError):  # other people's things are in it
            folder.rmdir()
    for folder in (RUNTIME, layout.kubelet, layout.pod_logs, layout.addresses):
        remove_folder(folder)


def remove_folder(folder: Path, *, within_seconds: float = 15) -> None:
    """Remove a folder that what was killed just now may hold a moment longer; raise StartError if it stays."""
    deadline = time.monotonic() + within_seconds
    while folder.exists():
        try:
            shutil.rmtree(folder)
        except OSError as error:
            if time.monotonic() > deadline:
                words = f"{error.filename}: {error.strerror}"
                raise StartError(f"{folder} cannot be removed ({words}): try `down` once more") from error
            unmount_below(folder)
            time.sleep(0.1)


def _remove(paths: Iterable[Path]) -> None:
    for path in list(paths):
        path.unlink(missing_ok=True)


def _links_into(folder: Path, target: Path) -> Iterator[Path]:
    for link in folder.glob("*.log"):
        if link.is_symlink() and link.readlink().is_relative_to(target):
            yield link


def _dead(sockets: Iterable[Path]) -> Iterator[Path]:
    """Yield the sockets nobody listens on any more."""
    listening = {line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()[1:]}
    return (socket for socket in sockets if str(socket) not in listening)
