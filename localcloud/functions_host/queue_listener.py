"""Polls a storage queue and calls a function with each message, with the rules of Azure Functions.

Idle polling backs off from 100 ms to maxPollingInterval; a message is invisible for the lease, which is renewed at
half-time; success deletes it with its current pop receipt; failure shows it again after visibilityTimeout; a message
that was tried maxDequeueCount times goes to `<queue>-poison`. Storage that is away is asked again until it answers.
"""

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError

from localcloud.functions_host.bindings import Function
from localcloud.functions_host.configuration import QueueOptions
from localcloud.functions_host.invocations import Invocations
from localcloud.functions_host.logs import log
from localcloud.functions_host.storage_queue import Message, NotDecodableError, Queue
from localcloud.functions_host.worker import Value

_SHORTEST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_AWAY_SECONDS = 2.0
_SETTLE_TRIES = 6


@dataclass
class _Held:
    """A message being worked on; its pop receipt changes with each renewal."""

    message: Message
    pop_receipt: str


class QueueListener:
    """Serves one queue-triggered function in one instance."""

    def __init__(
        self,
        *,
        function: Function,
        queue: Queue,
        options: QueueOptions,
        invocations: Invocations,
        threads: Executor,
        lease_seconds: float,
    ) -> None:
        self._function = function
        self._queue = queue
        self._options = options
        self._invocations = invocations
        self._threads = threads
        self._lease_seconds = lease_seconds
        self._running: set[asyncio.Task[None]] = set()
        self._look = asyncio.Event()
        self._stopping = False
        self._is_away = False

    @property
    def queue_name(self) -> str:
        """The queue this listener polls."""
        return self._queue.name

    def look(self) -> None:
        """Poll at once: something was put into the queue."""
        self._look.set()

    def stop(self) -> None:
        """Take no more messages; `listen` returns when those at work are done."""
        self._stopping = True
        self._look.set()

    async def listen(self) -> None:
        """Poll until `stop`."""
        pause = 0.0
        is_there = False
        while not self._stopping:
            if len(self._running) > self._options.new_batch_threshold:
                await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
                continue
            self._look.clear()
            try:
                if not is_there:
                    await self._storage(self._queue.create)
                    is_there = True
                messages = await self._storage(self._receive)
            except AzureError as error:
                is_there = is_there and not isinstance(error, ResourceNotFoundError)
                self._say_away(error)
                pause = await self._wait(pause, _LONGEST_PAUSE_AWAY_SECONDS)
                continue
            self._say_back()
            for message in messages:
                task = asyncio.create_task(self._handle(_Held(message, message.pop_receipt)))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
            pause = 0.0 if messages else await self._wait(pause, self._options.max_polling_interval_seconds)
        if self._running:
            await asyncio.wait(self._running)

    def _receive(self) -> list[Message]:
        return self._queue.receive(self._options.batch_size, self._lease_seconds)

    async def _wait(self, pause: float, longest: float) -> float:
        """Wait about twice as long as the last time, or until something calls for a look; return how long."""
        pause = min(max(_SHORTEST_PAUSE_SECONDS, pause * random.uniform(1.6, 2.4)), longest)  # noqa: S311 - no secret
        if not self._stopping:
            try:
                await asyncio.wait_for(self._look.wait(), pause)
            except TimeoutError:
                return pause
        return 0.0

    async def _handle(self, held: _Held) -> None:
        message = held.message
        if message.dequeue_count > self._options.max_dequeue_count:
            await self._give_up(held)  # whoever had it last died with it
            return
        try:
            body = self._queue.decode(message.content)
        except NotDecodableError as error:
            log.error("a message of the queue %s is %s; see messageEncoding in host.json", self._queue.name, error)
            await self._give_up(held)
            return
        trigger = Value("string" if isinstance(body, str) else "bytes", body)
        done = asyncio.Event()
        renewal = asyncio.create_task(self._renew(held, done))
        try:
            result = await self._invocations.run(self._function, trigger, _metadata(message, trigger))
        finally:
            done.set()
            await renewal
        if result.succeeded:
            await self._settle(held, "delete", lambda: self._queue.delete(message.id, held.pop_receipt))
        elif message.dequeue_count >= self._options.max_dequeue_count:
            await self._give_up(held)
        else:
            seconds = self._options.visibility_timeout_seconds
            await self._settle(held, "give back", lambda: self._queue.hide(message.id, held.pop_receipt, seconds))
            self.look()

    async def _give_up(self, held: _Held) -> None:
        """Move a message to the poison queue; a poison queue has none, there it is shown again after its lease."""
        if self._queue.is_poison:
            return
        message = held.message
        poison = self._queue.poison()
        log.warning("message %s was tried %d times: to %s", message.id, message.dequeue_count, poison.name)
        if await self._settle(held, "copy", lambda: poison.send_raw(message.content)):
            await self._settle(held, "delete", lambda: self._queue.delete(message.id, held.pop_receipt))

    async def _renew(self, held: _Held, done: asyncio.Event) -> None:
        """Keep the message invisible until `done`. Is never cancelled: a renewal under way changes the pop receipt."""
        pause = self._lease_seconds / 2
        while True:
            try:
                await asyncio.wait_for(done.wait(), pause)
            except TimeoutError:
                pass
            else:
                return
            try:
                held.pop_receipt = await self._storage(
                    partial(self._queue.hide, held.message.id, held.pop_receipt, self._lease_seconds)
                )
                pause = self._lease_seconds / 2
            except AzureError as error:
                log.warning("the lease of message %s could not be renewed: %s", held.message.id, _first_line(error))
                pause = min(1.0, self._lease_seconds / 8)

    async def _settle(self, held: _Held, verb: str, act: Callable[[], object]) -> bool:
        """Finish a message, with some tries while storage is away. False: it will come again, to us or to another."""
        pause = _SHORTEST_PAUSE_SECONDS
        for _ in range(_SETTLE_TRIES):
            try:
                await self._storage(act)
            except HttpResponseError as error:
                if error.status_code in (400, 404):
                    log.info("message %s was taken by another reader meanwhile: nothing to %s", held.message.id, verb)
                    return False
                self._say_away(error)
            except AzureError as error:
                self._say_away(error)
            else:
                return True
            await asyncio.sleep(pause)
            pause *= 2
        log.warning("could not %s message %s: it will be delivered again", verb, held.message.id)
        return False

    async def _storage[T](self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def _say_away(self, error: AzureError) -> None:
        if not self._is_away:
            self._is_away = True
            log.warning("the queue %s does not answer, trying until it does: %s", self._queue.name, _first_line(error))

    def _say_back(self) -> None:
        if self._is_away:
            self._is_away = False
            log.info("the queue %s answers again", self._queue.name)


def _metadata(message: Message, body: Value) -> dict[str, Value]:
    """Return the trigger metadata, as the Functions host passes it to its Python worker."""
    instants: dict[str, datetime | None] = {
        "InsertionTime": message.inserted_on,
        "ExpirationTime": message.expires_on,
        "NextVisibleTime": message.next_visible_on,
    }
    return {
        "QueueTrigger": body,
        "Id": Value("string", message.id),
        "DequeueCount": Value("json", str(message.dequeue_count)),
        "PopReceipt": Value("string", message.pop_receipt),
        **{name: Value("json", f'"{moment.isoformat()}"') for name, moment in instants.items() if moment},
    }


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
