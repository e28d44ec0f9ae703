"""A storage queue as the Functions host uses one: synchronous calls, made in threads by the listener and the outputs.

The SDK's own retries are off: the callers decide when to ask again, and say so once in the log.
"""

import base64
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.storage.queue import QueueClient

POISON_SUFFIX = "-poison"


class NotDecodableError(Exception):
    """A message is not in the encoding host.json names."""


@dataclass(frozen=True)
class Message:
    """A received message; `content` is as it travels, before decoding."""

    id: str
    content: str
    pop_receipt: str
    dequeue_count: int
    inserted_on: datetime | None
    expires_on: datetime | None
    next_visible_on: datetime | None


class Queue:
    """One queue of one account; may be used by several threads. Every call raises azure.core's AzureError."""

    def __init__(self, connection: str, name: str, encoding: str) -> None:
        self.name = name
        self._connection = connection
        self._encoding = encoding
        self._client = QueueClient.from_connection_string(
            connection, name, retry_total=0, connection_timeout=5, read_timeout=20
        )

    def poison(self) -> "Queue":
        """Return the queue for messages that failed too often."""
        return Queue(self._connection, self.name + POISON_SUFFIX, self._encoding)

    @property
    def is_poison(self) -> bool:
        """Whether this is a poison queue itself, which has none of its own."""
        return self.name.endswith(POISON_SUFFIX)

    def create(self) -> None:
        """Make the queue unless it is there."""
        with suppress(ResourceExistsError):
            self._client.create_queue()

    def receive(self, at_most: int, lease_seconds: float) -> list[Message]:
        """Take up to `at_most` (32) messages; they stay invisible to others for the lease."""
        pages = self._client.receive_messages(
            messages_per_page=at_most, visibility_timeout=round(lease_seconds)
        ).by_page()
        return [
            Message(
                id=one.id,
                content=one.content,
                pop_receipt=one.pop_receipt or "",
                dequeue_count=one.dequeue_count or 0,
                inserted_on=one.inserted_on,
                expires_on=one.expires_on,
                next_visible_on=one.next_visible_on,
            )
            for one in next(pages, ())
        ]

    def hide(self, message_id: str, pop_receipt: str, seconds: float) -> str:
        """Make a message visible again in so many seconds and return its new pop receipt."""
        return str(self._client.update_message(message_id, pop_receipt, visibility_timeout=round(seconds)).pop_receipt)

    def delete(self, message_id: str, pop_receipt: str) -> None:
        """Delete a message; azure.core's HttpResponseError if another reader took it since."""
        self._client.delete_message(message_id, pop_receipt)

    def send(self, body: str | bytes) -> None:
        """Encode and append a message; the queue is made if it is missing."""
        self.send_raw(self._encode(body))

    def send_raw(self, content: str) -> None:
        """Append a message that is encoded already; the queue is made if it is missing."""
        try:
            self._client.send_message(content)
        except ResourceNotFoundError:
            self.create()
            self._client.send_message(content)

    def decode(self, content: str) -> str | bytes:
        """Return the body: text where it is UTF-8, else bytes. Raises NotDecodableError."""
        if self._encoding == "none":
            return content
        try:
            body = base64.b64decode(content, validate=True)
        except ValueError as error:
            raise NotDecodableError(f"not base64: {error}") from error
        try:
            return body.decode()
        except UnicodeDecodeError:
            return body

    def _encode(self, body: str | bytes) -> str:
        if self._encoding == "none":
            return body if isinstance(body, str) else body.decode()
        return base64.b64encode(body.encode() if isinstance(body, str) else body).decode("ascii")


class Queues:
    """Makes queues with the encoding of host.json, and keeps those that outputs write to."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._kept: dict[tuple[str, str], Queue] = {}

    def get(self, connection: str, name: str) -> Queue:
        """Return the queue of this name."""
        key = (connection, name)
        if key not in self._kept:
            self._kept[key] = Queue(connection, name, self._encoding)
        return self._kept[key]
