"""The model storage: Azure Blob Storage, or Azurite.

Model files can be of any size, so they are read in ranges, a few of them ahead of who asks, and never as a whole. All
ranges of one reading are of the same blob: they are asked for with the ETag that the first answer gave.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from azure.core import MatchConditions
from azure.core.exceptions import AzureError, HttpResponseError, ResourceModifiedError, ResourceNotFoundError
from azure.storage.blob import BlobClient, BlobProperties, BlobServiceClient

from shipmate.core.manifest import MANIFEST_LIMIT
from shipmate.errors import Conflict, NotAllowed, NotFound, Rejected, Retryable, ShipmateError
from shipmate.ports import Blob

RANGE_SIZE = 6 << 20
"""Bytes asked for at once."""
RANGES_AHEAD = 3
"""Ranges that are asked for, wait, or are being used; with RANGE_SIZE this bounds the memory of one reading."""
READERS = 2
"""Threads that ask. Each keeps some MiB of its own, for the C library's malloc has a heap a thread."""


class BlobModels:
    """Implements `shipmate.ports.Models`. Safe to share between threads."""

    def __init__(self, service: BlobServiceClient) -> None:
        self._service = service

    def properties(self, container: str, path: str) -> Blob:
        """Return what the storage knows about a blob. Raises NotFound, Retryable, NotAllowed."""
        return _blob(_asked(lambda: self._client(container, path).get_blob_properties(), container, path))

    def read_manifest(self, container: str, path: str, etag: str | None = None) -> bytes:
        """Return a whole manifest.

        Raises NotFound, Rejected (ManifestUnreadable) if it is too large, Conflict if it was overwritten, Retryable,
        NotAllowed.
        """
        found = self._unchanged(container, path, etag)
        if found.size > MANIFEST_LIMIT:
            raise Rejected("ManifestUnreadable", f"{container}/{path} is larger than 1 MiB; list fewer files in it")
        return b"".join(self._ranges(container, found, 0))

    def open(self, container: str, path: str, *, offset: int = 0, etag: str | None = None) -> Iterator[bytes]:
        """Yield a blob from an offset to its end, some MiB at a time.

        Raises NotFound, Conflict if it was overwritten, Retryable, NotAllowed.
        """
        yield from self._ranges(container, self._unchanged(container, path, etag), offset)

    def list(self, container: str, prefix: str) -> Iterator[Blob]:
        """Yield the blobs whose path begins so. Raises NotFound without such a container, Retryable, NotAllowed."""
        found = iter(self._service.get_container_client(container).list_blobs(name_starts_with=prefix))
        while (properties := _asked(lambda: next(found, None), container, prefix)) is not None:
            yield _blob(properties)

    def _unchanged(self, container: str, path: str, etag: str | None) -> Blob:
        found = self.properties(container, path)
        if etag is not None and etag != found.etag:
            raise _overwritten(container, path)
        return found

    def _client(self, container: str, path: str) -> BlobClient:
        return self._service.get_blob_client(container, path)

    def _ranges(self, container: str, blob: Blob, offset: int) -> Iterator[bytes]:
        """Yield a blob's bytes in order, while the next ranges are already on their way."""
        client = self._client(container, blob.path)

        def read(start: int) -> bytes:
            length = min(RANGE_SIZE, blob.size - start)
            answer = client.download_blob(
                start, length, etag=f'"{blob.etag}"', match_condition=MatchConditions.IfNotModified
            )
            return b"".join(answer.chunks())  # one chunk as it came (readall copies), see `wiring.blob_service`

        ahead: deque[Future[bytes]] = deque()
        pool = ThreadPoolExecutor(READERS, thread_name_prefix="shipmate-blob")
        try:
            for start in range(offset, blob.size, RANGE_SIZE):
                ahead.append(pool.submit(read, start))
                if len(ahead) == RANGES_AHEAD:
                    yield _asked(ahead.popleft().result, container, blob.path)
            while ahead:
                yield _asked(ahead.popleft().result, container, blob.path)
        finally:
            pool.shutdown(cancel_futures=True)


def _asked[T](request: Callable[[], T], container: str, path: str) -> T:
    """Return a request's answer; turn what went wrong into an error that names the next move."""
    try:
        return request()
    except AzureError as error:
        raise _translated(error, container, path) from error


def _translated(error: AzureError, container: str, path: str) -> ShipmateError:
    if isinstance(error, ResourceNotFoundError):
        return NotFound(f"there is no blob {container}/{path}")
    if isinstance(error, ResourceModifiedError):
        return _overwritten(container, path)
    if isinstance(error, HttpResponseError) and error.status_code in (401, 403):
        return NotAllowed(
            f"reading {container}/{path} was refused ({error.status_code} {error.reason}): "
            "give Shipmate's identity the role Storage Blob Data Reader on the account"
        )
    return Retryable(f"reading {container}/{path} failed: {_first_line(error)}", after_seconds=_retry_after(error))


def _overwritten(container: str, path: str) -> Conflict:
    return Conflict(f"{container}/{path} was overwritten since")


def _first_line(error: AzureError) -> str:
    return str(error).partition("\n")[0]


def _retry_after(error: AzureError) -> float | None:
    response = error.response if isinstance(error, HttpResponseError) else None
    headers: Mapping[str, str] = getattr(response, "headers", {})
    said = headers.get("Retry-After", "")
    return float(said) if said.isdecimal() else None


def _blob(properties: BlobProperties) -> Blob:
    return Blob(
        path=str(properties.name),
        size=int(properties.size),
        etag=str(properties.etag).strip('"'),
        modified_at=properties.last_modified,
        created_at=properties.creation_time,
    )
