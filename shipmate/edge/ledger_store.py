"""The ledgers in Blob Storage: one append blob of JSON lines a segment, compare-and-swap by `appendpos`.

`<container>/<target>/<segment>.jsonl`. A segment ends with a line `{"kind":"sealed"}`, itself appended by
compare-and-swap, so that nobody can write behind it; the next begins with a snapshot of the state, so that reading
stays short. An append whose reply was lost, or that finds its own entry behind a 412, is found again by its id: the
SDK's own retries are off here, because a repeated append would be a second entry.

Sources: Append Block, `x-ms-blob-condition-appendpos` (learn.microsoft.com/rest/api/storageservices/append-block).
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime

import msgspec
from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServiceRequestError,
)
from azure.storage.blob import BlobClient, BlobServiceClient, StorageErrorCode

from shipmate.core.fold import fold
from shipmate.core.ledger import AnyEntry, decode, encode
from shipmate.core.state import State
from shipmate.errors import Ambiguous, Conflict, NotAllowed, Retryable, ShipmateError
from shipmate.ports import Reading

SEGMENT_ENTRIES = 200
"""Entries in a segment before the next one is begun; Azurite and Azure slow down on blobs of many small blocks."""
_SEALED = b'{"kind":"sealed"}\n'


class _Kind(msgspec.Struct):
    kind: str


class _Snapshot(msgspec.Struct, tag_field="kind", tag="snapshot"):
    state: State


class LedgerStore:
    """Ledgers of all targets in one blob container. Safe to share between threads.

    The container is created by the first append if it is not there: an identity that may only write into it needs no
    right to create it, and a Function App starts without asking.
    """

    def __init__(self, service: BlobServiceClient, container: str, *, segment_entries: int = SEGMENT_ENTRIES) -> None:
        self._container = service.get_container_client(container)
        self._segment_entries = segment_entries
        self._last: dict[str, Reading] = {}  # what was read before is still true: segments only grow

    def read(self, target: str) -> Reading:
        """Return the target's state. Raises Retryable, NotAllowed."""
        try:
            reading = self._last.get(target) or self._start(target)
            reading = self._follow(target, reading)
        except AzureError as error:
            raise _translated(error, target) from error
        self._last[target] = reading
        return reading

    def append(self, target: str, reading: Reading, entries: Sequence[AnyEntry]) -> Reading:
        """Append all entries at once, if nothing was written since the reading, and return the new reading.

        Raises Conflict if somebody else wrote since, Ambiguous if the outcome is unknown, Retryable and NotAllowed.
        IllegalStep, before anything is written, if the entries do not follow from the state.
        """
        state = fold(entries, reading.state)
        if reading.entries >= self._segment_entries:
            self._write(target, reading, _SEALED, own_id=None)
            reading = Reading(reading.state, reading.segment + 1)
        data = b"".join(encode(entry) for entry in entries)
        if reading.offset == 0 and reading.segment > 0:
            data = msgspec.json.encode(_Snapshot(reading.state)) + b"\n" + data
        if self._write(target, reading, data, own_id=entries[0].id):
            reading = Reading(state, reading.segment, reading.offset + len(data), reading.entries + len(entries))
            self._last[target] = reading
            return reading
        return self.read(target)

    def history(self, target: str, since: datetime | None = None) -> Iterator[AnyEntry]:
        """Yield every entry from the first. Raises Retryable, NotAllowed.

        With `since`, segments that were full by then are left out: what was written at that instant or later is there.
        """
        try:
            for name in self._segments(target, since):
                for line in self._container.download_blob(name).readall().splitlines():
                    if msgspec.json.decode(line, type=_Kind).kind not in ("snapshot", "sealed"):
                        yield decode(line)
        except AzureError as error:
            raise _translated(error, target) from error

    # -- reading

    def _start(self, target: str) -> Reading:
        """Return an unread place from which every entry or a snapshot follows: the newest segment that has a line."""
        for name in reversed(self._segments(target)):
            segment = int(name.rpartition("/")[2].removesuffix(".jsonl"))
            if segment == 0 or self._container.get_blob_client(name).get_blob_properties().size > 0:
                return Reading(State(), segment)
        return Reading(State())

    def _segments(self, target: str, since: datetime | None = None) -> list[str]:
        """Return the names of the target's blobs, oldest first; none while there is no container either.

        With `since`, they begin with the last that was made before that instant, by the storage's clock.
        """
        try:
            if since is None:
                return sorted(self._container.list_blob_names(name_starts_with=f"{target}/"))
            made = {blob.name: blob.creation_time for blob in self._container.list_blobs(f"{target}/")}
            before = [name for name, instant in made.items() if instant <= since]
            return sorted(name for name in made if name >= max(before, default=""))
        except ResourceNotFoundError as error:
            if _is_without_container(error):
                return []
            raise

    def _follow(self, target: str, reading: Reading) -> Reading:
        while True:
            data = self._tail(target, reading)
            lines = data.splitlines(keepends=True)
            sealed = bool(lines) and lines[-1] == _SEALED
            reading = self._taken(reading, lines[:-1] if sealed else lines, len(data))
            if not sealed:
                return reading
            reading = Reading(reading.state, reading.segment + 1)

    def _taken(self, reading: Reading, lines: list[bytes], size: int) -> Reading:
        state = reading.state
        if reading.offset == 0 and lines and msgspec.json.decode(lines[0], type=_Kind).kind == "snapshot":
            state = msgspec.json.decode(lines.pop(0), type=_Snapshot).state
        entries = [decode(line) for line in lines]
        state = fold(entries, state)
        return Reading(state, reading.segment, reading.offset + size, reading.entries + len(entries))

    def _tail(self, target: str, reading: Reading) -> bytes:
        """Return the bytes of the segment behind what was read; none if there are none or no such segment."""
        try:
            data: bytes = self._blob(target, reading.segment).download_blob(offset=reading.offset).readall()
        except ResourceNotFoundError:
            return b""
        except HttpResponseError as error:
            if error.status_code == 416:
                return b""
            raise
        return data

    # -- writing

    def _write(self, target: str, reading: Reading, data: bytes, own_id: str | None) -> bool:
        """Append the bytes; return False if they were found to be there already."""
        blob = self._blob(target, reading.segment)
        try:
            if reading.offset == 0:
                self._create(blob)
            blob.append_block(data, appendpos_condition=reading.offset, retry_total=0)
        except AzureError as error:
            if _had_no_effect(error):
                self._last.pop(target, None)
                raise _translated(error, target) from error
            if self._is_written(target, reading, own_id, error):
                return False
            if getattr(error, "status_code", None) == 412:
                raise Conflict(f"somebody else wrote to the ledger of {target} first") from error
            raise _ambiguous(target, error) from error
        return True

    def _is_written(self, target: str, reading: Reading, own_id: str | None, error: AzureError) -> bool:
        """Return whether the entry of that id, or the seal, stands behind what was read. Raises Ambiguous."""
        try:
            tail = self._tail(target, reading)
        except AzureError as again:
            raise _ambiguous(target, again) from error
        if not tail:  # what was read is gone, or nobody wrote: begin anew either way
            self._last.pop(target, None)
        if own_id is None:
            return tail.startswith(_SEALED)
        kinds = ("snapshot", "sealed")
        return any(
            decode(line).id == own_id
            for line in tail.splitlines()
            if msgspec.json.decode(line, type=_Kind).kind not in kinds
        )

    def _create(self, blob: BlobClient) -> None:
        """Create the segment unless it is there, and before the first of all its container."""
        with suppress(ResourceExistsError):
            try:
                blob.create_append_blob(match_condition=MatchConditions.IfMissing)
            except ResourceNotFoundError as error:
                if not _is_without_container(error):
                    raise
                self._create_container()
                blob.create_append_blob(match_condition=MatchConditions.IfMissing)

    def _create_container(self) -> None:
        name = self._container.container_name
        try:
            self._container.create_container()
        except ResourceExistsError:
            return
        except HttpResponseError as error:
            if error.status_code == 403:
                raise NotAllowed(
                    f"there is no container {name!r} for the ledgers, and Shipmate's identity may not create it: "
                    "create it, and give the identity the role Storage Blob Data Contributor on it"
                ) from error
            raise

    def _blob(self, target: str, segment: int) -> BlobClient:
        return self._container.get_blob_client(f"{target}/{segment:08d}.jsonl")


def _is_without_container(error: ResourceNotFoundError) -> bool:
    return getattr(error, "error_code", None) == StorageErrorCode.CONTAINER_NOT_FOUND


def _had_no_effect(error: AzureError) -> bool:
    """Whether a write that ended so is certain not to have been done, and cannot be done later."""
    if isinstance(error, HttpResponseError) and error.status_code is not None:
        return error.status_code < 500 and error.status_code not in (408, 412)
    # a TLS connection that broke behind the request looks like one that was never made
    return isinstance(error, ServiceRequestError) and type(error.inner_exception).__name__ != "SSLError"


def _ambiguous(target: str, error: AzureError) -> Ambiguous:
    return Ambiguous(f"writing to the ledger of {target} may or may not have worked: {_words(error)}")


def _translated(error: AzureError, what: str) -> ShipmateError:
    status = getattr(error, "status_code", None)
    if isinstance(error, ClientAuthenticationError) or status in (401, 403):
        return NotAllowed(
            f"storage refused access to the ledger of {what} ({status or _words(error)}): "
            "give Shipmate's identity the role Storage Blob Data Contributor on the ledger's container"
        )
    return Retryable(f"storage did not serve the ledger of {what}: {_words(error)}")


def _words(error: AzureError) -> str:
    """Return the first line of what the SDK says: the rest is for its makers."""
    return (str(error).splitlines() or [type(error).__name__])[0]
