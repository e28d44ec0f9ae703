"""What the relay must not forget, in one SQLite file: topics, subscriptions, events, deliveries, where sources stand.

One connection, one thread (the event loop's); each call is a few hundred microseconds. Written ahead (WAL), so what was
committed outlives a killed relay.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from localcloud.eventgrid.events import Event
from localcloud.eventgrid.subscriptions import TOPICS, Subscription

type State = Literal["pending", "delivered", "dead_lettered", "dropped"]

_TABLES = """
CREATE TABLE IF NOT EXISTS topics (name TEXT PRIMARY KEY, id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS subscriptions (
  name TEXT PRIMARY KEY COLLATE NOCASE, definition TEXT NOT NULL, active INTEGER NOT NULL, code TEXT, error TEXT);
CREATE TABLE IF NOT EXISTS events (
  number INTEGER PRIMARY KEY, topic TEXT NOT NULL, type TEXT NOT NULL, published_at REAL NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS deliveries (
  number INTEGER PRIMARY KEY, event INTEGER NOT NULL REFERENCES events, subscription TEXT NOT NULL COLLATE NOCASE,
  state TEXT NOT NULL, reason TEXT, fault TEXT, attempts INTEGER NOT NULL, due_at REAL NOT NULL,
  last_status INTEGER, last_outcome TEXT, last_at REAL);
CREATE INDEX IF NOT EXISTS deliveries_by_state ON deliveries (state, event);
CREATE INDEX IF NOT EXISTS deliveries_by_event ON deliveries (event);
CREATE TABLE IF NOT EXISTS attempts (
  delivery INTEGER NOT NULL REFERENCES deliveries, count INTEGER NOT NULL, at REAL NOT NULL, seconds REAL NOT NULL,
  status INTEGER, outcome TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS attempts_by_delivery ON attempts (delivery);
CREATE TABLE IF NOT EXISTS memory (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS counters (key TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that is to be made of an event, before it has a number."""

    subscription: str
    due_at: float
    state: State = "pending"
    reason: str | None = None
    fault: str | None = None


class Delivery(msgspec.Struct, kw_only=True):
    """One event on its way to one subscription."""

    number: int
    event_number: int
    event: Event
    published_at: float
    subscription: str
    due_at: float
    """Unix time of the next attempt."""
    state: State
    fault: str | None
    attempts: int = 0
    last_status: int | None = None
    last_outcome: str | None = None
    last_at: float | None = None


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """How one try to deliver went. `outcome` is Event Grid's word for it, `status` None without an answer."""

    count: int
    at: float
    seconds: float
    status: int | None
    outcome: str


class Store:
    """The relay's memory."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, autocommit=True)
        self._db.row_factory = sqlite3.Row
        self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;" + _TABLES)
        self._db.executemany("INSERT OR REPLACE INTO topics VALUES (?, ?)", TOPICS.items())

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make all changes inside durable as one, or none of them."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # -- topics and subscriptions

    def topics(self) -> dict[str, str]:
        """Return the topics' resource ids by name."""
        return {row["name"]: row["id"] for row in self._db.execute("SELECT * FROM topics ORDER BY name")}

    def put_topic(self, name: str, resource_id: str) -> None:
        """Make a topic, or change its id."""
        self._db.execute("INSERT OR REPLACE INTO topics VALUES (?, ?)", (name, resource_id))

    def put_subscription(self, subscription: Subscription, *, active: bool, code: str) -> None:
        """Keep a subscription and the code that validates its endpoint."""
        self._db.execute(
            "INSERT OR REPLACE INTO subscriptions VALUES (?, ?, ?, ?, NULL)",
            (subscription.name, msgspec.json.encode(subscription).decode(), active, code),
        )

    def activate(self, name: str) -> None:
        """Say that a subscription's endpoint was validated."""
        self._db.execute("UPDATE subscriptions SET active = 1, error = NULL WHERE name = ?", (name,))

    def note_error(self, name: str, error: str) -> None:
        """Keep why a subscription's endpoint is not valid yet."""
        self._db.execute("UPDATE subscriptions SET error = ? WHERE name = ?", (error, name))

    def remove_subscription(self, name: str) -> None:
        """Forget a subscription; what was on its way to it is dropped."""
        with self.together():
            self._db.execute("DELETE FROM subscriptions WHERE name = ?", (name,))
            self._db.execute(
                "UPDATE deliveries SET state = 'dropped', reason = 'SubscriptionDeleted' "
                "WHERE subscription = ? AND state = 'pending'",
                (name,),
            )

    def subscriptions(self) -> list[tuple[Subscription, bool, str, str | None]]:
        """Return each subscription, whether it is active, its validation code, and why it is not active."""
        return [
            (msgspec.json.decode(row["definition"], type=Subscription), bool(row["active"]), row["code"], row["error"])
            for row in self._db.execute("SELECT * FROM subscriptions ORDER BY name")
        ]

    # -- events and deliveries

    def accept(self, topic: str, event: Event, planned: Sequence[Planned], *, published_at: float) -> list[Delivery]:
        """Keep an event and its deliveries; return those that are to be made."""
        with self.together():
            number = self._insert(
                "INSERT INTO events (topic, type, published_at, body) VALUES (?, ?, ?, ?)",
                (topic, event.type, published_at, msgspec.json.encode(event).decode()),
            )
            deliveries = [self._plan(number, event, published_at, each) for each in planned]
        return [each for each in deliveries if each.state == "pending"]

    def _plan(self, event_number: int, event: Event, published_at: float, planned: Planned) -> Delivery:
        number = self._insert(
            "INSERT INTO deliveries (event, subscription, state, reason, fault, attempts, due_at) "
            "VALUES (?, ?, ?, ?, ?, 0, ?)",
            (event_number, planned.subscription, planned.state, planned.reason, planned.fault, planned.due_at),
        )
        if planned.fault:
            self.count(f"fault.{planned.fault}")
        return Delivery(
            number=number,
            event_number=event_number,
            event=event,
            published_at=published_at,
            subscription=planned.subscription,
            due_at=planned.due_at,
            state=planned.state,
            fault=planned.fault,
        )

    def _insert(self, statement: str, values: tuple[Any, ...]) -> int:
        number = self._db.execute(statement, values).lastrowid
        assert number is not None  # noqa: S101 - an INSERT always has one; for the type checker
        return number

    def pending(self) -> list[Delivery]:
        """Return every delivery that is not finished, oldest event first."""
        rows = self._db.execute(
            "SELECT d.*, e.body, e.published_at FROM deliveries d JOIN events e ON e.number = d.event "
            "WHERE d.state = 'pending' ORDER BY d.number"
        )
        return [
            Delivery(
                number=row["number"],
                event_number=row["event"],
                event=msgspec.json.decode(row["body"], type=Event),
                published_at=row["published_at"],
                subscription=row["subscription"],
                due_at=row["due_at"],
                state=row["state"],
                fault=row["fault"],
                attempts=row["attempts"],
                last_status=row["last_status"],
                last_outcome=row["last_outcome"],
                last_at=row["last_at"],
            )
            for row in rows
        ]

    def is_pending(self, delivery: Delivery) -> bool:
        """Return whether a delivery is still to be made: its subscription may have been deleted."""
        row = self._db.execute("SELECT state FROM deliveries WHERE number = ?", (delivery.number,)).fetchone()
        return row is not None and row["state"] == "pending"

    def record_attempt(self, delivery: Delivery, attempt: Attempt) -> None:
        """Keep an attempt, and the delivery as it is after it."""
        with self.together():
            self._db.execute(
                "INSERT INTO attempts VALUES (?, ?, ?, ?, ?, ?)",
                (delivery.number, attempt.count, attempt.at, attempt.seconds, attempt.status, attempt.outcome),
            )
            self._db.execute(
                "UPDATE deliveries SET attempts = ?, due_at = ?, last_status = ?, last_outcome = ?, last_at = ? "
                "WHERE number = ?",
                (
                    delivery.attempts,
                    delivery.due_at,
                    delivery.last_status,
                    delivery.last_outcome,
                    delivery.last_at,
                    delivery.number,
                ),
            )

    def finish(self, delivery: Delivery, state: State, reason: str | None = None) -> None:
        """Keep how a delivery ended."""
        delivery.state = state
        self._db.execute(
            "UPDATE deliveries SET state = ?, reason = ? WHERE number = ?", (state, reason, delivery.number)
        )

    def forget_before(self, instant: float) -> None:
        """Forget events published before a Unix time whose deliveries are all finished."""
        old = (
            "SELECT number FROM events e WHERE published_at < ? AND NOT EXISTS "
            "(SELECT 1 FROM deliveries d WHERE d.event = e.number AND d.state = 'pending')"
        )
        with self.together():
            numbers = [(row["number"],) for row in self._db.execute(old, (instant,))]
            self._db.executemany(
                "DELETE FROM attempts WHERE delivery IN (SELECT number FROM deliveries WHERE event = ?)", numbers
            )
            self._db.executemany("DELETE FROM deliveries WHERE event = ?", numbers)
            self._db.executemany("DELETE FROM events WHERE number = ?", numbers)

    # -- where sources stand, and counters

    def recall(self, key: str) -> Any:
        """Return what was remembered under a key, None if nothing was."""
        row = self._db.execute("SELECT value FROM memory WHERE key = ?", (key,)).fetchone()
        return None if row is None else msgspec.json.decode(row["value"])

    def remember(self, key: str, value: Any) -> None:
        """Keep a value under a key."""
        self._db.execute("INSERT OR REPLACE INTO memory VALUES (?, ?)", (key, msgspec.json.encode(value).decode()))

    def count(self, key: str) -> None:
        """Add one to a counter."""
        self._db.execute("INSERT INTO counters VALUES (?, 1) ON CONFLICT (key) DO UPDATE SET value = value + 1", (key,))

    # -- what people and tests ask

    def listed_events(self, after: int, limit: int) -> list[dict[str, Any]]:
        """Return events with a number above `after`, in order."""
        rows = self._db.execute("SELECT * FROM events WHERE number > ? ORDER BY number LIMIT ?", (after, limit))
        return [
            {
                "number": row["number"],
                "topic": row["topic"],
                "publishedAt": row["published_at"],
                "event": msgspec.json.decode(row["body"]),
            }
            for row in rows
        ]

    def listed_deliveries(self, after: int, limit: int, subscription: str | None) -> list[dict[str, Any]]:
        """Return deliveries with a number above `after`, in order, each with its attempts."""
        rows = self._db.execute(
            "SELECT d.*, e.type, e.published_at, json_extract(e.body, '$.id') AS event_id, "
            "json_extract(e.body, '$.subject') AS subject FROM deliveries d JOIN events e ON e.number = d.event "
            "WHERE d.number > ?1 AND (?2 IS NULL OR d.subscription = ?2 COLLATE NOCASE) ORDER BY d.number LIMIT ?3",
            (after, subscription, limit),
        ).fetchall()
        return [
            {
                "number": row["number"],
                "eventNumber": row["event"],
                "eventId": row["event_id"],
                "eventType": row["type"],
                "subject": row["subject"],
                "subscription": row["subscription"],
                "state": row["state"],
                "reason": row["reason"],
                "fault": row["fault"],
                "publishedAt": row["published_at"],
                "dueAt": row["due_at"],
                "attempts": self._attempts(row["number"]),
            }
            for row in rows
        ]

    def _attempts(self, delivery: int) -> list[dict[str, Any]]:
        rows = self._db.execute(
            "SELECT count, at, seconds, status, outcome FROM attempts WHERE delivery = ? ORDER BY count", (delivery,)
        )
        return [dict(row) for row in rows]

    def stats(self) -> dict[str, Any]:
        """Return counts: events by type, deliveries by state and reason, attempts by outcome, and the counters."""
        return {
            "events": self._counted("SELECT type, count(*) FROM events GROUP BY type"),
            "deliveries": self._counted("SELECT state, count(*) FROM deliveries GROUP BY state"),
            "reasons": self._counted(
                "SELECT reason, count(*) FROM deliveries WHERE reason IS NOT NULL GROUP BY reason"
            ),
            "attempts": self._counted("SELECT outcome, count(*) FROM attempts GROUP BY outcome"),
            "counters": self._counted("SELECT key, value FROM counters"),
        }

    def _counted(self, query: str) -> dict[str, int]:
        return {str(row[0]): int(row[1]) for row in self._db.execute(query)}
