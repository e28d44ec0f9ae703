"""The parent of the instances: holds the listening socket, starts each instance and starts it again when it dies.

The instances share the one socket, so a caller that arrives while an instance is down is served by another or waits.
The kernel kills the instances when this process dies, by any signal; nothing is left that a new start would trip over.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from localcloud.functions_host.errors import CANNOT_RUN, AppError
from localcloud.functions_host.keys import ensure_keys

_ROOT = Path(__file__).resolve().parents[2]
_STOP_SECONDS = 8.5
_BIND_SECONDS = 3.0
_FALSE_STARTS = 3


@dataclass(frozen=True)
class Host:
    """What the command line asked for."""

    app: Path
    port: int
    instances: int
    state: Path
    answer_seconds: float
    lease_seconds: float


class InstanceError(Exception):
    """An instance cannot be kept running; it has said why in the log."""


def supervise(host: Host) -> None:
    """Run the host until SIGTERM or SIGINT. Raises AppError or InstanceError when it cannot run."""
    given = os.environ.get("FUNCTIONS_HOST_KEYS_FILE")
    keys = Path(given).resolve() if given else host.state / "keys.json"
    ensure_keys(keys)
    asyncio.run(_supervise(host, keys))


async def _supervise(host: Host, keys: Path) -> None:
    with await _bind(host.port) as accepting:
        this = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, this.cancel)  # type: ignore[union-attr]
        say(f"Functions host on http://127.0.0.1:{host.port}, {host.instances} instance(s), keys in {keys}")
        try:
            await _keep_all(host, keys, accepting)
        except asyncio.CancelledError:
            say("stopped")


async def _keep_all(host: Host, keys: Path, accepting: socket.socket) -> None:
    """Start the instances, the first alone so that an app that cannot run says so once, and keep them running."""
    first, *others = (_Keeper(host, keys, accepting, index) for index in range(host.instances))
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(first.keep())
            await first.is_ready.wait()
            for keeper in others:
                group.create_task(keeper.keep())
    except* InstanceError as errors:
        raise errors.exceptions[0] from None


class _Keeper:
    """Keeps one instance running."""

    def __init__(self, host: Host, keys: Path, accepting: socket.socket, index: int) -> None:
        self._host = host
        self._keys = keys
        self._accepting = accepting
        self._index = index
        self.is_ready = asyncio.Event()
        """Set when the instance serves for the first time."""

    async def keep(self) -> None:
        """Start the instance again and again, with a growing pause when it dies early."""
        false_starts = 0
        while True:
            began = time.monotonic()
            process, serves = await self._start()
            try:
                false_starts = 0 if await serves else false_starts + 1
                if not false_starts:
                    self.is_ready.set()
                    say(f"instance {self._index} is ready (pid {process.pid}, {time.monotonic() - began:.1f} s)")
                code = await process.wait()
            finally:
                await _end(process)
            if code == CANNOT_RUN:
                raise InstanceError("the app cannot run, see above")
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            if false_starts >= _FALSE_STARTS:
                raise InstanceError(f"instance {self._index} ended {false_starts} times while it was starting ({how})")
            say(f"instance {self._index} (pid {process.pid}) ended by {how}: starting it again")
            await asyncio.sleep(0.2 * false_starts)

    async def _start(self) -> tuple[asyncio.subprocess.Process, "asyncio.Future[bool]"]:
        """Start the process; the future tells whether it came to serve, or ended before."""
        told, tell = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "localcloud.functions_host.instance"),
                *("--app", str(self._host.app), "--state", str(self._host.state), "--keys", str(self._keys)),
                *("--index", str(self._index), "--parent", str(os.getpid())),
                *("--listener", str(self._accepting.fileno()), "--ready", str(tell)),
                *("--answer-seconds", str(self._host.answer_seconds), "--lease-seconds", str(self._host.lease_seconds)),
                pass_fds=(self._accepting.fileno(), tell),
                stdin=asyncio.subprocess.DEVNULL,
                cwd=_ROOT,
            )
        finally:
            os.close(tell)
        loop = asyncio.get_running_loop()
        serves: asyncio.Future[bool] = loop.create_future()

        def heard() -> None:
            loop.remove_reader(told)
            is_ready = os.read(told, 1) == b"r"
            os.close(told)
            if not serves.done():
                serves.set_result(is_ready)

        loop.add_reader(told, heard)
        return process, serves


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


async def _bind(port: int) -> socket.socket:
    """Listen on the port; the instances of a host that was just killed may hold it for a moment."""
    accepting = socket.socket()
    accepting.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    accepting.settimeout(0)
    deadline = time.monotonic() + _BIND_SECONDS
    while True:
        try:
            accepting.bind(("127.0.0.1", port))
        except OSError as error:
            if time.monotonic() > deadline:
                accepting.close()
                raise AppError(
                    f"port {port} is taken: stop what listens there or choose another --port ({error.strerror})"
                ) from error
            await asyncio.sleep(0.05)
        else:
            accepting.listen(1024)
            return accepting


def say(line: str) -> None:
    """Write a line of the host's own to the log."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    print(f"{moment}Z host {line}", flush=True)
