"""A real Functions host in a process of its own, with the sample app, for the tests of the host."""

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from localcloud.functions_host.keys import Keys, read_keys

PATIENTLY: Mapping[str, Any] = {"timeout": 60, "trust_env": False}
"""How tests ask with httpx: no proxy, and a busy machine may take its time."""

SAMPLE_APP = Path(__file__).parent / "sampleapp"
STORAGE_AWAY = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=c2VjcmV0;"
    "QueueEndpoint=http://127.0.0.1:9/devstoreaccount1;"
)


_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS = itertools.cycle(range(20_000 + 2_000 * (_WORKER % 4), 22_000 + 2_000 * (_WORKER % 4)))
"""Ports that nobody is given who asks the kernel for any (it begins at 32768), others for each test process."""


def free_port() -> int:
    """Return a port that is still free when a program that starts slowly comes to listen there."""
    for port in _PORTS:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("the ports go round for ever")


def until[T](ask: Callable[[], T], within_seconds: float = 60) -> T:
    """Return the first answer that is true."""
    deadline = time.monotonic() + within_seconds
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {within_seconds} s"
        time.sleep(0.05)


def edited_app(folder: Path, host_json: Mapping[str, Any] | None = None, code: str | None = None) -> Path:
    """Return a copy of the sample app with changed host.json members, or with other code."""
    shutil.copytree(SAMPLE_APP, folder, ignore=shutil.ignore_patterns("__pycache__"))
    document = json.loads((folder / "host.json").read_text())
    for path, value in (host_json or {}).items():
        *sections, key = path.split(".")
        at = document
        for section in sections:
            at = at.setdefault(section, {})
        at[key] = value
    (folder / "host.json").write_text(json.dumps(document))
    if code is not None:
        (folder / "function_app.py").write_text(code)
    return folder


@dataclass
class HostProcess:
    """A host to start, ask and kill."""

    folder: Path
    connection: str = STORAGE_AWAY
    instances: int = 1
    app: Path = SAMPLE_APP
    settings: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.name = f"q{os.getpid()}-{self.port}"
        self.work_queue = f"{self.name}-work"
        self.copy_queue = f"{self.name}-copy"
        self.log = self.folder / "log"
        self.record = self.folder / "record"
        self.state = self.folder / "state"
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def keys(self) -> Keys:
        return read_keys(self.state / "keys.json")

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "localcloud.functions_host", "--app", str(self.app), "--port", str(self.port)]
        command += ["--instances", str(self.instances), "--state", str(self.state), *self.arguments]
        settings = {
            "AzureWebJobsStorage": self.connection,
            "RECORD": str(self.record),
            "WORK_QUEUE": self.work_queue,
            "COPY_QUEUE": self.copy_queue,
            "AzureWebJobs.tick.Disabled": "true",
            "PYTHON_THREADPOOL_THREAD_COUNT": "8",
        }
        self._log_start = len(self.log.read_bytes()) if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **settings, **self.settings},
            )

    def wait_until_ready(self) -> None:
        def is_ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            return all(f"instance {index} is ready" in self.said() for index in range(self.instances))

        until(is_ready, within_seconds=90)

    def said(self) -> str:
        """Return the log since the last start."""
        return self.log.read_bytes()[self._log_start :].decode()

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def wait_for_end(self) -> int:
        assert self.process is not None
        return self.process.wait(timeout=90)

    def stop(self) -> None:
        if self.process is not None and self.is_running():
            self.process.terminate()
            self.process.wait(timeout=60)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=60)

    def children(self) -> list[int]:
        assert self.process is not None
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def records(self, function: str, **having: object) -> list[dict[str, Any]]:
        """Return what the app recorded, oldest first."""
        if not self.record.exists():
            return []
        lines = [json.loads(line) for line in self.record.read_text().splitlines()]
        return [
            line
            for line in lines
            if line["function"] == function and all(line[key] == value for key, value in having.items())
        ]

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return httpx.request(method, self.url + path, **{**PATIENTLY, **options})


@contextmanager
def running(host: HostProcess) -> Iterator[HostProcess]:
    """Start a host, wait until all its instances serve, and stop it in the end."""
    host.start()
    try:
        host.wait_until_ready()
        yield host
    finally:
        host.stop()
