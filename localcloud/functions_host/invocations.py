"""Runs one invocation: calls the function within its time, takes its outputs to their queues, writes one log line."""

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import replace

from azure.core.exceptions import AzureError

from localcloud.functions_host import worker
from localcloud.functions_host.bindings import Function, QueueOutput
from localcloud.functions_host.logs import log
from localcloud.functions_host.storage_queue import Queues
from localcloud.functions_host.worker import HttpCall, Result, Value


class Invocations:
    """Every trigger of one instance calls its functions here.

    `threads` makes the storage calls; `on_sent` hears of each queue written to, so that a listener of this instance may
    look at once.
    """

    def __init__(self, queues: Queues, threads: Executor, timeout_seconds: float | None) -> None:
        self._queues = queues
        self._threads = threads
        self._timeout_seconds = timeout_seconds
        self.on_sent: Callable[[str], None] = lambda _queue: None

    async def run(
        self, function: Function, trigger: Value | HttpCall, metadata: Mapping[str, Value] | None = None
    ) -> Result:
        """Call the function. Its failure, its timeout and that of an output are a Result, not an exception.

        A plain function that overran its time goes on in its thread, as Python cannot stop it; nobody waits for it.
        """
        invocation_id = str(uuid.uuid4())
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                result = await worker.invoke(
                    function.id, invocation_id, function.trigger.parameter, trigger, metadata or {}
                )
        except TimeoutError:
            message = f"the function ran longer than functionTimeout, {self._timeout_seconds:g} s"
            result = Result(succeeded=False, error=message, traceback=message)
        if result.succeeded:
            result = await self._send_outputs(function, result)
        outcome = "Succeeded" if result.succeeded else "Failed"
        duration = f"{(time.monotonic() - began) * 1000:.0f}ms"
        line = f"Executed 'Functions.{function.name}' ({outcome}, Id={invocation_id}, Duration={duration})"
        if result.succeeded:
            log.info("%s", line)
        else:
            log.error("%s\n%s", line, result.traceback.rstrip())
        return result

    async def _send_outputs(self, function: Function, result: Result) -> Result:
        loop = asyncio.get_running_loop()
        for output in function.queue_outputs:
            value = result.outputs.get(output.parameter)
            if output.parameter == "$return" and isinstance(result.returned, Value):
                value = result.returned
            if value is None:
                continue
            try:
                await loop.run_in_executor(self._threads, self._send, output, value)
            except AzureError as error:
                message = f"the output {output.parameter} could not be sent to the queue {output.queue}: {error}"
                return replace(result, succeeded=False, returned=None, error=message, traceback=message)
            self.on_sent(output.queue)
        return result

    def _send(self, output: QueueOutput, value: Value) -> None:
        queue = self._queues.get(output.connection, output.queue)
        for body in _messages_in(value):
            queue.send(body)


def _messages_in(value: Value) -> list[str | bytes]:
    """Return the messages a function put out: one text, one run of bytes, or as JSON one or a list of them."""
    if value.kind != "json":
        return [value.data]
    document = json.loads(value.data)
    items = document if isinstance(document, list) else [document]
    return [item["body"] if isinstance(item, dict) else item for item in items]
