"""What is broken during a drill: the Functions workers, storage, and the API server."""

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from localcloud import storage
from localcloud.cloud import LocalCloud
from localcloud.kubernetes import cluster
from localcloud.processes import StartError

RESTART_AFTER_SECONDS = 1.0


def kill_functions(local: LocalCloud) -> int:
    """Kill the Functions host and all its workers with SIGKILL, start them again, and return how many workers died."""
    host = local.status()[-1].pid
    if host is None:
        raise StartError("the Functions host does not run, so it cannot be killed")
    workers = _children(host)
    for pid in (host, *workers):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while any(_runs(pid) for pid in (host, *workers)):
        time.sleep(0.02)
    time.sleep(RESTART_AFTER_SECONDS)
    settings, instances, lease_seconds = json.loads((local.cloud.state / "functions" / "started-with.json").read_text())
    local.start_functions(settings, instances, lease_seconds)
    return len(workers)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def restart_storage(local: LocalCloud) -> None:
    """Stop Azurite and start it again. Raises StartError."""
    storage.restart(local.cloud)


def hang_api_server(seconds: float) -> None:
    """Let the API server answer nobody for some seconds; what was asked meanwhile is answered, or done, after.

    A process of its own wakes it, so that it does not stay asleep if this one dies.
    """
    pid = cluster.status()["kube-apiserver"]
    if pid is None:
        raise StartError("the API server does not run, so it cannot be stopped")
    waker = subprocess.Popen(["sh", "-c", f"sleep {seconds}; kill -CONT {pid}"], start_new_session=True)
    os.kill(pid, signal.SIGSTOP)
    waker.wait()
