"""Blob events from Azurite, which has none of its own: its access log says that something happened, a HEAD says what.

So any client may upload. A line of the log looks like
    127.0.0.1 - - [23/Nov/2026:01:33:45 +0000] "PUT /devstoreaccount1/models/a%20b.txt HTTP/1.1" 201 -
The log is read from where the relay stopped, so what was uploaded while it was down is told when it is back. Appended
blocks raise no event, creating an append blob does: both as in Azure. Not told: what the log does not show, which are
blobs deleted in a batch, and that a DELETE meant snapshots only.
"""

import asyncio
import re
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote

import msgspec
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError, ServiceRequestError, ServiceResponseError
from azure.storage.blob import BlobProperties, BlobServiceClient

from localcloud.config import AZURITE_ACCOUNT
from localcloud.eventgrid.events import Event, instant_text, new_event
from localcloud.eventgrid.grid import Grid
from localcloud.eventgrid.subscriptions import STORAGE_TOPIC, TOPICS

BLOB_CREATED = "Microsoft.Storage.BlobCreated"
BLOB_DELETED = "Microsoft.Storage.BlobDeleted"

_LINE = re.compile(rb'\S+ - \S+ \[([^\]]+)\] "(PUT|DELETE) (/[^ ?]+)(?:\?(\S*))? HTTP/[0-9.]+" ([0-9]{3}) ')
_TAIL_BYTES = 64
_CHUNK_BYTES = 1024 * 1024
_LOOK_SECONDS = 0.05
_STORAGE_DOWN_SECONDS = 0.2

_POSITION, _SEQUENCER = "azurite.position", "azurite.sequencer"


@dataclass(frozen=True)
class BlobRequest:
    """A request that completed or deleted a blob, as far as the access log tells."""

    api: str
    container: str
    blob: str
    second: datetime
    """When it was answered; the log has whole seconds."""

    @property
    def is_deletion(self) -> bool:
        """Whether the blob went."""
        return self.api == "DeleteBlob"


class Position(msgspec.Struct, frozen=True):
    """How far the log was read. The bytes before tell whether it is still the same log."""

    offset: int = 0
    tail: str = ""


def parse_line(line: bytes) -> BlobRequest | None:
    """Return what a line of the access log says happened to a blob, None if nothing that raises an event."""
    found = _LINE.match(line)
    if found is None:
        return None
    instant, method, path, query, status = (b"" if part is None else part for part in found.groups())
    account, _, rest = path.decode("ascii", "replace").removeprefix("/").partition("/")
    container, _, blob = rest.partition("/")
    if account != AZURITE_ACCOUNT or not blob:
        return None
    api = _api(method.decode(), parse_qs(query.decode("ascii", "replace"), keep_blank_values=True), int(status))
    if api is None:
        return None
    second = datetime.strptime(instant.decode(), "%d/%b/%Y:%H:%M:%S %z").astimezone(UTC)
    return BlobRequest(api, unquote(container), unquote(blob), second)


def _api(method: str, query: dict[str, list[str]], status: int) -> str | None:
    """Return `data.api` for a request. A copy is a PUT that is answered 202 where an upload is answered 201."""
    if query.keys() & {"restype", "snapshot", "versionid"}:
        return None
    match method, query.get("comp", [""])[0], status:
        case "PUT", "", 201:
            return "PutBlob"
        case "PUT", "", 202:
            return "CopyBlob"
        case "PUT", "blocklist", 201:
            return "PutBlockList"
        case "DELETE", "", 202:
            return "DeleteBlob"
    return None


def read_on(path: Path, position: Position) -> list[tuple[bytes, Position]]:
    """Return each complete line after a position, with the position behind it; from the start if the log is another."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return []
    lines: list[tuple[bytes, Position]] = []
    with file:
        tail = position.tail.encode("latin-1")
        if position.offset:
            file.seek(max(0, position.offset - len(tail)))
            if file.read(len(tail)) != tail:
                position = Position()
        file.seek(position.offset)
        chunk = file.read(_CHUNK_BYTES)
        offset = position.offset
        for line in chunk[: chunk.rfind(b"\n") + 1].splitlines(keepends=True):
            offset += len(line)
            lines.append((line, Position(offset, line[-_TAIL_BYTES:].decode("latin-1"))))
    return lines


class BlobEvents:
    """Follows the access log of an Azurite and publishes to the topic `storage`."""

    def __init__(self, grid: Grid, log: Path, connection_string: str) -> None:
        self._grid = grid
        self._log = log
        self._blobs = BlobServiceClient.from_connection_string(
            connection_string, retry_total=0, connection_timeout=2, read_timeout=10
        )

    async def follow(self) -> None:
        """Follow the log until cancelled. A relay that never ran begins at the log's end."""
        remembered = self._grid.store.recall(_POSITION)
        position = self._end() if remembered is None else msgspec.convert(remembered, Position)
        self._grid.store.remember(_POSITION, position)
        while True:
            before = position
            for line, behind in await asyncio.to_thread(read_on, self._log, position):
                request = parse_line(line)
                if request is not None:
                    await self._tell(request, behind)
                position = behind
            if position == before:
                await asyncio.sleep(_LOOK_SECONDS)

    def _end(self) -> Position:
        position = Position()
        while lines := read_on(self._log, position):
            position = lines[-1][1]
        return position

    async def _tell(self, request: BlobRequest, behind: Position) -> None:
        """Publish the event of a request and remember, as one, that the log was read up to here."""
        properties = None if request.is_deletion else await self._look_at(request)
        with self._grid.store.together():
            self._grid.store.remember(_POSITION, behind)
            if properties is None and not request.is_deletion:
                self._grid.store.count("azurite.gone_before_seen")
                return
            self._grid.publish(STORAGE_TOPIC, [self._event(request, properties)])

    async def _look_at(self, request: BlobRequest) -> BlobProperties | None:
        """Return the properties of a blob, None if it is gone. Waits for storage that is restarting."""
        blob = self._blobs.get_blob_client(request.container, request.blob)
        while True:
            try:
                return await asyncio.to_thread(blob.get_blob_properties)
            except ResourceNotFoundError:
                return None
            except HttpResponseError as error:
                if error.status_code is None or error.status_code < 500:
                    raise
            except (ServiceRequestError, ServiceResponseError):
                pass  # storage is away
            self._grid.store.count("azurite.waited")
            await asyncio.sleep(_STORAGE_DOWN_SECONDS)

    def _event(self, request: BlobRequest, properties: BlobProperties | None) -> Event:
        known: dict[str, Any] = {}
        if properties is not None:
            known = {
                "eTag": (properties.etag or "").strip('"'),
                "contentType": properties.content_settings.content_type or "application/octet-stream",
                "contentLength": properties.size,
                "contentOffset": 0,
                "blobType": str(getattr(properties.blob_type, "value", properties.blob_type)),
                "accessTier": properties.blob_tier or "Default",
            }
        data = {
            "api": request.api,
            "requestId": str(uuid.uuid4()),
            **known,
            "url": f"{self._blobs.url.rstrip('/')}/{request.container}/{quote(request.blob)}",
            "sequencer": self._next_sequencer(),
            "storageDiagnostics": {"batchId": str(uuid.uuid4())},
        }
        return new_event(
            event_type=BLOB_DELETED if request.is_deletion else BLOB_CREATED,
            topic=TOPICS[STORAGE_TOPIC],
            subject=f"/blobServices/default/containers/{request.container}/blobs/{request.blob}",
            time=_happened_at(request.second),
            data=data,
        )

    def _next_sequencer(self) -> str:
        """Return 48 hexadecimal digits that rise, also across a relay that lost its state: they count nanoseconds."""
        last = self._grid.store.recall(_SEQUENCER) or 0
        number = max(int(last) + 1, time.time_ns())
        self._grid.store.remember(_SEQUENCER, number)
        return f"{number:048x}"


def _happened_at(second: datetime) -> str:
    """Return the time of an event: now, or within the log's second if that is past."""
    return instant_text(min(datetime.now(UTC), second.replace(microsecond=999_999)))
