"""The relay itself: takes events in, matches them with subscriptions, and carries every delivery to its end.

One event loop. Every delivery and every handshake is a task of one group; an error that nobody foresaw ends the process
with its traceback in the log, and what was accepted goes on at the next start.
"""

import asyncio
import contextlib
import secrets
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence

import httpx
from azure.storage.blob import BlobServiceClient

from localcloud.eventgrid import dead_letters, handshake
from localcloud.eventgrid.delivery import SUCCESS, attempt, reason_to_give_up, wait_after
from localcloud.eventgrid.events import Event
from localcloud.eventgrid.faults import Fault, Faults
from localcloud.eventgrid.settings import Settings
from localcloud.eventgrid.store import Delivery, Planned, Store
from localcloud.eventgrid.subscriptions import BadSubscription, Subscription

_AT_ONCE = 64
"""So many deliveries are under way at the same time."""

_HANDSHAKE_SECONDS = 0.5
"""Between two tries to validate an endpoint: it may still be starting."""

_DEAD_LETTER_SECONDS = 1.0
"""Between two tries to write a dead letter: storage may be restarting."""

_KEPT_SECONDS = 7 * 24 * 3600.0
"""Finished deliveries can be looked at for so long."""


class Grid:
    """Topics, subscriptions and deliveries."""

    def __init__(self, settings: Settings, store: Store, client: httpx.AsyncClient, tasks: asyncio.TaskGroup) -> None:
        self.store = store
        self.faults = Faults(settings.seed)
        self._settings = settings
        self._client = client
        self._tasks = tasks
        self._storage = BlobServiceClient.from_connection_string(settings.connection_string, retry_total=0)
        self._subscriptions: dict[str, Subscription] = {}
        self._handshakes: dict[str, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._overtaken: defaultdict[str, list[tuple[int, asyncio.Event]]] = defaultdict(list)

    def resume(self) -> None:
        """Go on where the relay stopped: handshakes and deliveries."""
        self.store.forget_before(time.time() - _KEPT_SECONDS)
        for subscription, active, _, _ in self.store.subscriptions():
            self._take(subscription, active=active)
        for delivery in self.store.pending():
            self._tasks.create_task(self._carry_out(delivery))

    # -- subscriptions

    def subscribe(self, subscription: Subscription) -> None:
        """Make or change a subscription. A new endpoint, schema or topic is validated before it gets events.

        Raises BadSubscription for a topic there is not.
        """
        if subscription.topic not in self.store.topics():
            known = ", ".join(self.store.topics())
            raise BadSubscription(f"there is no topic {subscription.topic!r}: use one of {known}, or make it first")
        before = self._found(subscription.name)
        active = (
            before is not None
            and before[1]
            and (before[0].endpoint_url, before[0].event_delivery_schema, before[0].topic)
            == (subscription.endpoint_url, subscription.event_delivery_schema, subscription.topic)
        )
        self.store.put_subscription(subscription, active=active, code=secrets.token_hex(16).upper())
        self._take(subscription, active=active)

    def unsubscribe(self, name: str) -> None:
        """Delete a subscription; what is on its way to it is dropped."""
        self._stop_handshake(name)
        self._subscriptions.pop(name.upper(), None)
        self.store.remove_subscription(name)

    def validate_by_hand(self, name: str, code: str) -> bool:
        """Activate a subscription by the address in its validation event; return whether the code is right."""
        found = self._found(name)
        if found is None or not secrets.compare_digest(found[2].encode(), code.encode()):
            return False
        self._stop_handshake(name)
        self.store.activate(name)
        return True

    def _found(self, name: str) -> tuple[Subscription, bool, str, str | None] | None:
        return next((each for each in self.store.subscriptions() if each[0].name.upper() == name.upper()), None)

    def _take(self, subscription: Subscription, *, active: bool) -> None:
        name = subscription.name.upper()
        self._stop_handshake(name)
        self._subscriptions[name] = subscription
        if not active:
            self._handshakes[name] = self._tasks.create_task(self._shake_hands(subscription))

    def _stop_handshake(self, name: str) -> None:
        task = self._handshakes.pop(name.upper(), None)
        if task is not None:
            task.cancel()

    async def _shake_hands(self, subscription: Subscription) -> None:
        found = self._found(subscription.name)
        code = found[2] if found else ""
        url = f"{self._settings.url}/subscriptions/{subscription.name}/validate?code={code}"
        while True:
            try:
                await handshake.validate(
                    self._client,
                    subscription,
                    topic_id=self.store.topics()[subscription.topic],
                    code=code,
                    validation_url=url,
                    timeout_seconds=self._settings.timeout_seconds,
                )
            except handshake.NotValidated as error:
                self.store.note_error(subscription.name, str(error))
                await asyncio.sleep(_HANDSHAKE_SECONDS * min(1.0, self._settings.time_scale))
            else:
                self.store.activate(subscription.name)
                return

    # -- events

    def publish(self, topic: str, events: Sequence[Event]) -> None:
        """Accept events of a topic: durable when this returns, on their way from then on."""
        active = [each for each, is_active, _, _ in self.store.subscriptions() if is_active and each.topic == topic]
        accepted: list[Delivery] = []
        now = time.time()
        with self.store.together():
            for event in events:
                planned = [
                    delivery
                    for subscription in active
                    if subscription.filter.matches(event)
                    for delivery in _planned(subscription.name, self.faults.choose(subscription.name), now)
                ]
                accepted += self.store.accept(topic, event, planned, published_at=now)
        for delivery in accepted:
            self._tasks.create_task(self._carry_out(delivery))

    # -- deliveries

    async def _carry_out(self, delivery: Delivery) -> None:
        """Bring one delivery to its end: delivered, dead-lettered or dropped."""
        while True:
            await self._wait(delivery)
            subscription = self._subscriptions.get(delivery.subscription.upper())
            if subscription is None or not self.store.is_pending(delivery):
                return
            reason = reason_to_give_up(delivery, subscription, now=time.time(), time_scale=self._settings.time_scale)
            if reason is not None:
                await self._give_up(delivery, subscription, reason)
                return
            async with self._slots:
                made = await attempt(
                    self._client, delivery, subscription, timeout_seconds=self._settings.timeout_seconds
                )
            delivery.attempts += 1
            delivery.last_status, delivery.last_outcome, delivery.last_at = made.status, made.outcome, made.at
            given_up = reason_to_give_up(delivery, subscription, now=made.at, time_scale=self._settings.time_scale)
            wait = 0 if given_up else wait_after(delivery.attempts) * self._settings.time_scale
            delivery.due_at = time.time() + wait
            with self.store.together():
                self.store.record_attempt(delivery, made)
                if made.status in SUCCESS:
                    self.store.finish(delivery, "delivered")
            if made.status in SUCCESS:
                self._let_pass(delivery)
                return

    async def _wait(self, delivery: Delivery) -> None:
        """Wait until the next attempt is due; one held back by `reorder` goes as soon as a later one went."""
        seconds = delivery.due_at - time.time()
        if seconds <= 0:
            return
        if delivery.fault != "reorder" or delivery.attempts:
            await asyncio.sleep(seconds)
            return
        passed = asyncio.Event()
        self._overtaken[delivery.subscription.upper()].append((delivery.event_number, passed))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await passed.wait()

    def _let_pass(self, delivered: Delivery) -> None:
        waiting = self._overtaken[delivered.subscription.upper()]
        for each in [one for one in waiting if one[0] < delivered.event_number]:
            waiting.remove(each)
            each[1].set()

    async def _give_up(self, delivery: Delivery, subscription: Subscription, reason: str) -> None:
        if subscription.dead_letter_container is None:
            self.store.finish(delivery, "dropped", reason)
            return
        while True:
            try:
                await asyncio.to_thread(dead_letters.write, self._storage, delivery, subscription, reason)
            except dead_letters.NoContainer:
                self.store.finish(delivery, "dropped", "DeadLetterContainerNotFound")
                return
            except dead_letters.NotWritten:
                self.store.count("dead_letter.retried")
                await asyncio.sleep(_DEAD_LETTER_SECONDS)
            else:
                self.store.finish(delivery, "dead_lettered", reason)
                return


def _planned(subscription: str, fault: Fault | None, now: float) -> Iterator[Planned]:
    """Yield the deliveries of one event to one subscription: one, unless a fault befalls it."""
    if fault is None:
        yield Planned(subscription=subscription, due_at=now)
        return
    later = now + fault.lasts
    match fault.kind:
        case "duplicate":
            yield Planned(subscription=subscription, due_at=now)
            yield Planned(subscription=subscription, due_at=later, fault=fault.kind)
        case "delay" | "reorder":
            yield Planned(subscription=subscription, due_at=later, fault=fault.kind)
        case "drop":
            yield Planned(subscription=subscription, due_at=now, state="dropped", reason="Fault", fault=fault.kind)
