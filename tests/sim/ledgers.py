"""Two stores for the simulator: a fast one that keeps entries, and the real one over append blobs in memory.

The fast one keeps the state after each entry and encodes nothing. The real one, `shipmate.edge.ledger_store`, runs in a
fraction of the seeds, with segments so short that they are sealed all the time.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServiceResponseError,
)
from azure.storage.blob import StorageErrorCode

from shipmate.core.fold import fold
from shipmate.core.ledger import AnyEntry
from shipmate.core.state import State
from shipmate.edge.ledger_store import LedgerStore
from shipmate.errors import Ambiguous, Conflict, Retryable
from shipmate.ports import Reading
from tests.sim.faults import OPERATIONS
from tests.sim.hub import Hub


class FastLedgers:
    """Ledgers in memory: the entries, and the reading after each of them."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._entries: dict[str, list[AnyEntry]] = {}
        self._readings: dict[str, list[Reading]] = {}

    def read(self, target: str) -> Reading:
        known = self._readings.get(target) or self._known(target)
        return known[-1]

    def append(self, target: str, reading: Reading, entries: Sequence[AnyEntry]) -> Reading:
        """Append if nothing was written since the reading, or find one's own entry behind it."""
        known = self._known(target)
        written = self._entries[target]
        position = reading.entries
        actor = self._hub.actor
        if actor is not None and actor.slept and len(written) > actor.slept_at:
            self._hub.reached.add("a worker wakes before its append and the ledger went on")
        if len(written) != position:
            if written[position].id == entries[0].id:
                self._hub.reached.add("an append finds its own entry behind a 412")
                return known[-1]
            self._hub.reached.add("somebody else appends first")
            if type(written[position]) is type(entries[0]) and _release(written[position]) == _release(entries[0]):
                self._hub.reached.add("two workers record the same outcome")
            raise Conflict(f"somebody else wrote to the ledger of {target} first")
        state = reading.state
        for entry in entries:
            state = fold((entry,), state)
            written.append(entry)
            known.append(Reading(state, 0, len(written), len(written)))
        return known[-1]

    def history(self, target: str, since: datetime | None = None) -> Iterator[AnyEntry]:
        self._known(target)
        yield from list(self._entries[target])

    def _known(self, target: str) -> list[Reading]:
        found = self._readings.get(target)
        if found is None:
            self._entries[target] = []
            found = self._readings[target] = [Reading(State())]
        return found


def _release(entry: AnyEntry) -> int | None:
    return getattr(entry, "release", None)


class Blobs:
    """A container of append blobs in memory, as azure-storage-blob shows it. Every call is an effect.

    It serves as BlobServiceClient, ContainerClient and BlobClient to `LedgerStore`; each worker has its own store.
    """

    container_name = "ledgers"

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.data: dict[str, bytes] = {}
        self.writes = 0
        self.directly = False  # whether somebody looks from outside, without an effect
        self.seals: dict[str, set[str]] = {}  # blob → actors that tried to seal it

    def get_container_client(self, container: str) -> "Blobs":
        return self

    def get_blob_client(self, name: str) -> "_Blob":
        return _Blob(self, name)

    def list_blob_names(self, *, name_starts_with: str) -> list[str]:
        return self.do("blob_list", lambda: [name for name in self.data if name.startswith(name_starts_with)])

    def download_blob(self, name: str) -> "_Bytes":
        return _Blob(self, name).download_blob()

    def do(self, operation: str, effect: Any) -> Any:
        """Do one effect; what the hub raises becomes what the SDK raises."""
        if self.directly:
            return effect()
        try:
            return self._hub.call(OPERATIONS[operation], effect)
        except (Ambiguous, Retryable) as error:
            raise _quick(ServiceResponseError, str(error)) from error

    def append(self, name: str, data: bytes, position: int) -> None:
        """Append, as Append Block with `x-ms-blob-condition-appendpos` does."""
        if name not in self.data:
            raise _quick(ResourceNotFoundError, f"there is no blob {name}", 404)
        is_seal = data == b'{"kind":"sealed"}\n'
        if is_seal:
            actors = self.seals.setdefault(name, set())
            actors.add(self._hub.actor.name if self._hub.actor else "")
            self._hub.reached.add("a segment is rolled")
            if len(actors) > 1:
                self._hub.reached.add("two workers roll the same segment")
        if len(self.data[name]) != position:
            is_own = not is_seal and self.data[name].startswith(data, position)
            found = "an append finds its own entry behind a 412" if is_own else "somebody else appends first"
            self._hub.reached.add(found)
            raise _quick(HttpResponseError, "the append position condition was not met", 412)
        self.data[name] += data
        self.writes += 1


@dataclasses.dataclass(frozen=True, slots=True)
class _Bytes:
    data: bytes

    def readall(self) -> bytes:
        return self.data


@dataclasses.dataclass(frozen=True, slots=True)
class _Properties:
    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Blob:
    blobs: Blobs
    name: str

    def get_blob_properties(self) -> _Properties:
        return self.blobs.do("blob_size", lambda: _Properties(len(self._data())))

    def download_blob(self, *, offset: int = 0) -> _Bytes:
        return self.blobs.do("blob_read", lambda: self._from(offset))

    def create_append_blob(self, *, match_condition: object) -> None:
        self.blobs.do("blob_create", self._create)

    def append_block(self, data: bytes, *, appendpos_condition: int, retry_total: int) -> None:
        self.blobs.do("blob_append", lambda: self.blobs.append(self.name, data, appendpos_condition))

    def _create(self) -> None:
        if self.name in self.blobs.data:
            raise _quick(ResourceExistsError, f"{self.name} is there", 409)
        self.blobs.data[self.name] = b""

    def _from(self, offset: int) -> _Bytes:
        data = self._data()
        if offset and offset >= len(data):
            raise _quick(HttpResponseError, "the range is not satisfiable", 416)
        return _Bytes(data[offset:])

    def _data(self) -> bytes:
        if self.name not in self.blobs.data:
            raise _quick(ResourceNotFoundError, f"there is no blob {self.name}", 404)
        return self.blobs.data[self.name]


def _quick(kind: type[AzureError], words: str, status: int | None = None) -> AzureError:
    """Return an error of the SDK without its own lengthy making of one."""
    error = kind.__new__(kind)
    Exception.__init__(error, words)
    error.message = words
    error.inner_exception = None
    error.status_code = status  # type: ignore[attr-defined] # of those that have one
    error.error_code = StorageErrorCode.BLOB_NOT_FOUND if status == 404 else None  # type: ignore[attr-defined]
    return error


def real_store(blobs: Blobs, segment_entries: int) -> LedgerStore:
    """Return the real store over these blobs, as one worker has it: with a cache of its own."""
    return LedgerStore(blobs, "ledgers", segment_entries=segment_entries)  # type: ignore[arg-type] # what it uses
