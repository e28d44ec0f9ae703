"""The relay's control API, for the demo, the benchmarks and tests."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from localcloud.eventgrid.events import Schema
from localcloud.eventgrid.faults import Kind


class RelayError(Exception):
    """The relay refused a request, or something did not come in time; the message says which and why."""


class RelayClient:
    """Talks to the relay at `url` (`Cloud.eventgrid_url`). A context manager."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # -- topics and subscriptions

    def put_topic(self, name: str, resource_id: str) -> None:
        """Make a topic besides `storage` and `registry`."""
        self._ask("PUT", f"/topics/{name}", json={"id": resource_id})

    def subscribe(
        self,
        name: str,
        *,
        topic: str,
        endpoint: str,
        schema: Schema = "EventGridSchema",
        event_types: Sequence[str] = (),
        subject_begins_with: str = "",
        subject_ends_with: str = "",
        case_sensitive: bool = False,
        api_in: Sequence[str] = (),
        max_attempts: int = 30,
        time_to_live_minutes: int = 1440,
        dead_letter_container: str | None = None,
        wait_seconds: float | None = 30,
    ) -> None:
        """Make or change a subscription and wait until its endpoint is validated.

        `api_in` are the wanted values of `data.api`, none for all. With `wait_seconds` None it is not waited for, for
        an endpoint that comes up later. Raises RelayError with what the endpoint answered instead.
        """
        advanced = [{"operatorType": "StringIn", "key": "data.api", "values": list(api_in)}] if api_in else []
        document = {
            "topic": topic,
            "endpointUrl": endpoint,
            "eventDeliverySchema": schema,
            "filter": {
                "includedEventTypes": list(event_types),
                "subjectBeginsWith": subject_begins_with,
                "subjectEndsWith": subject_ends_with,
                "isSubjectCaseSensitive": case_sensitive,
                "advancedFilters": advanced,
            },
            "retryPolicy": {"maxDeliveryAttempts": max_attempts, "eventTimeToLiveInMinutes": time_to_live_minutes},
            "deadLetterContainer": dead_letter_container,
        }
        self._ask("PUT", f"/subscriptions/{name}", json=document)
        if wait_seconds is not None:
            self.wait_until_active(name, within_seconds=wait_seconds)

    def wait_until_active(self, name: str, *, within_seconds: float = 30) -> None:
        """Wait until a subscription's endpoint is validated. Raises RelayError with what it answered instead."""

        def found() -> dict[str, Any]:
            return next(each for each in self.subscriptions() if each["name"].lower() == name.lower())

        if not _becomes_true(lambda: bool(found()["active"]), within_seconds):
            raise RelayError(f"the endpoint of subscription {name!r} is not validated: {found()['error']}")

    def unsubscribe(self, name: str) -> None:
        """Delete a subscription; what is on its way to it is dropped."""
        self._ask("DELETE", f"/subscriptions/{name}")

    def subscriptions(self) -> list[dict[str, Any]]:
        """Return the subscriptions, each with `active` and the last `error` of its handshake."""
        return list(self._ask("GET", "/subscriptions").json())

    # -- faults

    def add_fault(
        self,
        kind: Kind,
        *,
        count: int | None = None,
        probability: float | None = None,
        seconds: float | None = None,
        subscription: str | None = None,
        seed: int | None = None,
    ) -> int:
        """Switch a fault on and return its number; see `faults.Fault`."""
        fields = {
            "kind": kind,
            "count": count,
            "probability": probability,
            "seconds": seconds,
            "subscription": subscription,
            "seed": seed,
        }
        reply = self._ask("POST", "/faults", json={key: value for key, value in fields.items() if value is not None})
        return int(reply.json()["number"])

    def faults(self) -> list[dict[str, Any]]:
        """Return the faults, each with how often it was `applied`."""
        return list(self._ask("GET", "/faults").json())

    def remove_faults(self, number: int | None = None) -> None:
        """Switch one fault off, or all."""
        self._ask("DELETE", "/faults" if number is None else f"/faults/{number}")

    # -- what happened

    def events(self, *, after: int = 0, limit: int = 500) -> list[dict[str, Any]]:
        """Return accepted events with a `number` above `after`, in order."""
        return list(self._ask("GET", "/events", params={"after": after, "limit": limit}).json())

    def deliveries(self, subscription: str | None = None, *, after: int = 0, limit: int = 500) -> list[dict[str, Any]]:
        """Return deliveries with a `number` above `after`, in order, each with its `state` and `attempts`."""
        params = {"after": after, "limit": limit, "subscription": subscription or ""}
        return list(self._ask("GET", "/deliveries", params=params).json())

    def stats(self) -> dict[str, dict[str, int]]:
        """Return counts: `events` by type, `deliveries` by state, `reasons`, `attempts` by outcome, `counters`."""
        return dict(self._ask("GET", "/stats").json())

    def wait_until_idle(self, *, within_seconds: float = 60) -> None:
        """Wait until no delivery is pending. Raises RelayError."""
        if not _becomes_true(lambda: not self.stats()["deliveries"].get("pending"), within_seconds):
            raise RelayError(f"deliveries are pending after {within_seconds:.0f} s: {self.stats()}")

    def _ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        reply = self._http.request(method, path, **arguments)
        if reply.is_error:
            raise RelayError(f"{method} {path}: {reply.json()['error']['message']}")
        return reply


def _becomes_true(question: Callable[[], bool], within_seconds: float) -> bool:
    deadline = time.monotonic() + within_seconds
    while not question():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
