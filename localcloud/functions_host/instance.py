"""One instance: a process with its own runtime that serves HTTP, polls the queues, and perhaps runs the timers.

Started by the supervisor only. Ends with `CANNOT_RUN` when the app or its settings are wrong, so that it is not started
again for nothing.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import click
import uvicorn

from localcloud.functions_host import worker
from localcloud.functions_host.bindings import Function, QueueTrigger, TimerTrigger, understand
from localcloud.functions_host.configuration import load_local_settings, read_host_json
from localcloud.functions_host.errors import CANNOT_RUN, AppError
from localcloud.functions_host.front import build
from localcloud.functions_host.invocations import Invocations
from localcloud.functions_host.keys import read_keys
from localcloud.functions_host.logs import log, write_to_stdout
from localcloud.functions_host.queue_listener import QueueListener
from localcloud.functions_host.storage_queue import Queues
from localcloud.functions_host.timers import Timers

_PR_SET_PDEATHSIG = 1
_STOP_SECONDS = 4
_KEEP_ALIVE_SECONDS = 130  # Kestrel, below the Functions host in Azure, has this
_STORAGE_THREADS = 8


@dataclass(frozen=True)
class _Arguments:
    app: Path
    state: Path
    keys: Path
    index: int
    listener: int
    ready: int
    answer_seconds: float
    lease_seconds: float


class _Server(uvicorn.Server):
    """A server that leaves the signals to the instance."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@click.command(hidden=True)
@click.option("--app", type=click.Path(path_type=Path), required=True)
@click.option("--state", type=click.Path(path_type=Path), required=True)
@click.option("--keys", type=click.Path(path_type=Path), required=True)
@click.option("--index", type=int, required=True)
@click.option("--listener", type=int, required=True, help="The inherited listening socket.")
@click.option("--ready", type=int, required=True, help="The inherited pipe to write to when requests are served.")
@click.option("--parent", type=int, required=True)
@click.option("--answer-seconds", type=float, required=True)
@click.option("--lease-seconds", type=float, required=True)
def main(
    *,
    app: Path,
    state: Path,
    keys: Path,
    index: int,
    listener: int,
    ready: int,
    parent: int,
    answer_seconds: float,
    lease_seconds: float,
) -> None:
    """Run one instance; see the module."""
    _die_with(parent)
    arguments = _Arguments(app, state, keys, index, listener, ready, answer_seconds, lease_seconds)
    try:
        asyncio.run(_run(arguments))
    except AppError as error:
        print(f"The Functions host cannot run this app: {error}", flush=True)
        _exit(CANNOT_RUN)
    except BaseException:  # noqa: BLE001 - told in the log; the supervisor starts another
        traceback.print_exc()
        _exit(1)
    _exit(0)


def _exit(code: int) -> NoReturn:
    """End without waiting for functions that still run in the pool's threads, as sys.exit would."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when the supervisor dies, and end now if it has."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


async def _run(arguments: _Arguments) -> None:
    load_local_settings(arguments.app, os.environ)
    options = read_host_json(arguments.app)
    write_to_stdout(arguments.index, options.log_level)
    keys = read_keys(arguments.keys)
    os.chdir(arguments.app)
    functions = understand(await worker.start(arguments.app), options, os.environ)
    threads = ThreadPoolExecutor(_STORAGE_THREADS, thread_name_prefix="storage")
    queues = Queues(options.queues.message_encoding)
    invocations = Invocations(queues, threads, options.function_timeout_seconds)
    enabled = [function for function in functions if not function.is_disabled]
    listeners = [
        QueueListener(
            function=function,
            queue=queues.get(function.trigger.connection, function.trigger.queue),
            options=options.queues,
            invocations=invocations,
            threads=threads,
            lease_seconds=arguments.lease_seconds,
        )
        for function in enabled
        if isinstance(function.trigger, QueueTrigger)
    ]

    def look_at(queue: str) -> None:
        for listener in listeners:
            if listener.queue_name == queue:
                listener.look()

    invocations.on_sent = look_at
    status = {
        "id": f"local-{arguments.index}",
        "state": "Running",
        "instance": arguments.index,
        "processId": os.getpid(),
    }
    server = _Server(
        uvicorn.Config(
            build(functions, invocations, keys, answer_seconds=arguments.answer_seconds, status=status),
            access_log=False,
            lifespan="off",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_STOP_SECONDS,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
    )
    await _serve(
        arguments, server, enabled, listeners, Timers(_timed(enabled), invocations, arguments.state / "timers")
    )


def _timed(functions: list[Function]) -> list[Function]:
    return [function for function in functions if isinstance(function.trigger, TimerTrigger)]


async def _serve(
    arguments: _Arguments, server: _Server, functions: list[Function], listeners: list[QueueListener], timers: Timers
) -> None:
    """Serve HTTP, the queues and the timers until SIGTERM, then give what is at work some seconds to finish."""

    def stop() -> None:
        server.should_exit = True
        for listener in listeners:
            listener.stop()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.add_signal_handler(signal.SIGINT, stop)
    with socket.socket(fileno=arguments.listener) as accepting:
        accepting.set_inheritable(False)
        polling = [asyncio.create_task(listener.listen()) for listener in listeners]
        timing = [asyncio.create_task(timers.run())] if _timed(functions) else []
        log.info("serves %s", ", ".join(function.name for function in functions))
        os.write(arguments.ready, b"r")
        os.close(arguments.ready)
        serving = asyncio.create_task(server.serve(sockets=[accepting]))
        done, _ = await asyncio.wait([serving, *polling, *timing], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # what ended by an exception ends the instance
        await serving
        deadline = time.monotonic() + _STOP_SECONDS
        for task in polling:
            await asyncio.wait({task}, timeout=max(0.0, deadline - time.monotonic()))
        for task in timing:
            task.cancel()


if __name__ == "__main__":
    main()
