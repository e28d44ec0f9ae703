"""A model storage in memory; the contract suite holds it to what the real one does."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec

from shipmate.core.manifest import MANIFEST_LIMIT, MANIFEST_NAME
from shipmate.errors import Conflict, NotFound, Rejected
from shipmate.ports import Blob
from tests.fakes.model_folders import manifest_of


class FakeModels:
    """Implements `shipmate.ports.Models`; `put` and `publish` are the publisher's side."""

    def __init__(self, chunk: int = 1 << 20) -> None:
        self._containers: dict[str, dict[str, tuple[Blob, bytes]]] = {"models": {}}
        self._deleted: dict[tuple[str, str], tuple[Blob, bytes]] = {}
        self._chunk = chunk
        self._writes = 0

    def put(self, container: str, path: str, data: bytes) -> Blob:
        """Upload a blob, which may overwrite one."""
        self._writes += 1
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self._writes)
        blob = Blob(path, len(data), f"0x{self._writes:X}", at, at)
        self._containers.setdefault(container, {})[path] = (blob, data)
        return blob

    def touch(self, container: str, path: str) -> Blob:
        """Change a blob's metadata: that gives it another etag and date, and Event Grid no event."""
        blob, data = self._find(container, path)
        written = self.put(container, path, data)
        touched = msgspec.structs.replace(written, created_at=blob.created_at)
        self._containers[container][path] = (touched, data)
        return touched

    def delete(self, container: str, path: str) -> None:
        """Delete a blob."""
        self._deleted[container, path] = self._containers[container].pop(path)

    def undelete(self, container: str, path: str) -> None:
        """Restore a blob that was deleted: it is what it was, with its ETag and dates, and Event Grid tells of none."""
        self._containers[container][path] = self._deleted.pop((container, path))

    def publish(self, folder: str, files: dict[str, bytes], **changes: object) -> bytes:
        """Upload a model folder as a publisher would, the manifest last, and return the manifest."""
        for path, data in files.items():
            self.put("models", f"{folder}/{path}", data)
        manifest = manifest_of(files, **changes)
        self.put("models", f"{folder}/{MANIFEST_NAME}", manifest)
        return manifest

    def _find(self, container: str, path: str, etag: str | None = None) -> tuple[Blob, bytes]:
        found = self._containers.get(container, {}).get(path)
        if found is None:
            raise NotFound(f"there is no blob {container}/{path}")
        if etag is not None and etag != found[0].etag:
            raise Conflict(f"{container}/{path} was overwritten since")
        return found

    def properties(self, container: str, path: str) -> Blob:
        return self._find(container, path)[0]

    def read_manifest(self, container: str, path: str, etag: str | None = None) -> bytes:
        _, data = self._find(container, path, etag)
        if len(data) > MANIFEST_LIMIT:
            raise Rejected("ManifestUnreadable", f"{path} is larger than 1 MiB")
        return data

    def open(self, container: str, path: str, *, offset: int = 0, etag: str | None = None) -> Iterator[bytes]:
        _, data = self._find(container, path, etag)
        for start in range(offset, len(data), self._chunk):
            yield data[start : start + self._chunk]

    def list(self, container: str, prefix: str) -> Iterator[Blob]:
        if container not in self._containers:
            raise NotFound(f"there is no container {container}")
        yield from [blob for path, (blob, _) in self._containers[container].items() if path.startswith(prefix)]
