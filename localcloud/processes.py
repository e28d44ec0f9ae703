"""Start, watch and stop the programs of a local cloud.

Each program has a pid file that also holds the process's start time, so that a number that was given to another process
since is never signalled. Output goes to one log file a program, named in every error.
"""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from localcloud.config import without_proxy

TAKEN_FOR_SECONDS = 3.0
"""So long may a program that was just killed keep its port."""

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class StartError(Exception):
    """A part of the local cloud did not come up; the message names the log to read."""


class Stopped(StartError):
    """A part ended while it was starting."""


@dataclass(frozen=True)
class Program:
    """A program to run in the background: its name, command line and the folder for its pid file and log.

    The machine's proxy settings are its own too, but for what is on this machine.
    """

    name: str
    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    working_directory: Path | None = None
    ports: Sequence[int] = ()
    """The ports of 127.0.0.1 that it listens at: nobody else may."""

    @property
    def log(self) -> Path:
        """Where the program's standard output and error go."""
        return self.folder / "logs" / f"{self.name}.log"

    @property
    def pid_file(self) -> Path:
        """Where the process id and the start time are kept."""
        return self.folder / "run" / f"{self.name}.pid"

    def pid(self) -> int | None:
        """Return the process id if this program runs, else None."""
        try:
            number, started = self.pid_file.read_text().split()
            pid = int(number)
        except (FileNotFoundError, ValueError):
            return None
        return pid if _start_time(pid) == started else None

    def start(self, ready: Callable[[], bool], *, within_seconds: float = 60) -> int:
        """Start the program unless it runs, wait until `ready` says so, and return its process id.

        Raises StartError if its port is taken, it exits first or is not ready in time.
        """
        running = self.pid()
        if running is None:
            for port in self.ports:
                require_free("127.0.0.1", port, what=self.name)
            running = self._spawn()
        deadline = time.monotonic() + within_seconds
        while not ready():
            if self.pid() is None:
                raise Stopped(f"{self.name} stopped while it was starting; read {self.log}\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise StartError(f"{self.name} is not ready after {within_seconds:.0f} s; read {self.log}")
            time.sleep(0.05)
        return running

    def _spawn(self) -> int:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, **self.environment}
        with self.log.open("ab") as log:
            try:
                process = subprocess.Popen(
                    list(self.command),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment | without_proxy(environment),
                    cwd=self.working_directory,
                    start_new_session=True,
                )
            except FileNotFoundError as error:
                raise StartError(not_there(self.command[0])) from error
        process.returncode = 0  # the process outlives this one on purpose: no warning when the object goes
        self.pid_file.write_text(f"{process.pid} {_start_time(process.pid)}")
        return process.pid

    def stop(self, *, within_seconds: float = 10, with_signal: int = signal.SIGTERM) -> None:
        """Stop the program if it runs: a polite signal first, SIGKILL when it does not listen."""
        pid = self.pid()
        if pid is not None:
            _signal(pid, with_signal)
            deadline = time.monotonic() + within_seconds
            while self.pid() is not None:
                if time.monotonic() > deadline:
                    _signal(pid, signal.SIGKILL)
                time.sleep(0.02)
        self.pid_file.unlink(missing_ok=True)

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines of the log."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _start_time(pid: int) -> str | None:
    """Return the start time of a process in clock ticks since boot (proc(5), field 22), None if it is gone or dead."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # ours and finished: reap it, so that it does not look alive
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if after_name[0] == "Z" else after_name[19]


def talk_directly() -> None:
    """Have what this process asks of this machine, and what it starts, go past any proxy. For programs' beginnings."""
    os.environ.update(without_proxy(os.environ))


def require_free(address: str, port: int, *, what: str) -> None:
    """Raise StartError, which names `what` needs the port, if another program still listens there after a while."""
    deadline = time.monotonic() + TAKEN_FOR_SECONDS
    while (trouble := cannot_listen(address, port)) is not None:
        if time.monotonic() > deadline:
            raise StartError(f"{what} cannot listen at {address}:{port}: {trouble}, and try again")
        time.sleep(0.05)


def cannot_listen(address: str, port: int) -> str | None:
    """Return why nobody can begin to listen there and what to do, None if it is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return f"{error.strerror}. Stop what listens there (`ss -ltnp sport = :{port}` names it)"
    return None


def not_there(program: str) -> str:
    """Return what to do about a program that the machine does not have."""
    return (
        f"{program} is not there: `python -m localcloud setup` installs it; if it is installed, your PATH lacks "
        "/usr/sbin (`su -` and `sudo` set it)"
    )


def answers(url: str, *, headers: Mapping[str, str] | None = None) -> Callable[[], bool]:
    """Return a `ready` check: does this loopback address answer HTTP at all, with any status."""

    def check() -> bool:
        try:
            request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310 - our own loopback URL
            _DIRECT.open(request, timeout=5).close()
        except urllib.error.HTTPError as error:
            error.close()
            return True
        except OSError:
            return False
        return True

    return check
