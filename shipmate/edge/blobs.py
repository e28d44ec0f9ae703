"""The model storage: Azure Blob Storage, or Azurite.

Model files can be of any size, so each is read by one request whose answer is handed on piece by piece; when that
breaks off, another goes on behind the last piece. All requests of one reading are for the same blob: they name the ETag
that was found first. The storage SDK reads whole ranges into memory and asks for each by itself, so these requests go
through azure-core, on which it stands (docs/adr/0011).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import requests
import urllib3
from azure.core import PipelineClient
from azure.core.credentials import AzureSasCredential
from azure.core.exceptions import AzureError, HttpResponseError, IncompleteReadError, ServiceResponseError
from azure.core.pipeline.policies import AzureSasCredentialPolicy, BearerTokenCredentialPolicy
from azure.core.rest import HttpRequest, HttpResponse
from azure.storage.blob import BlobClient, BlobProperties, BlobSasPermissions, BlobServiceClient, generate_blob_sas

from shipmate.core.manifest import MANIFEST_LIMIT
from shipmate.edge.registry_http import pause
from shipmate.edge.storage import transport
from shipmate.errors import Conflict, NotAllowed, NotFound, Rejected, Retryable, ShipmateError
from shipmate.ports import Blob

SCOPE = "https://storage.azure.com/.default"
"""What a token must be for, in every cloud ("Authorize access to blobs using Microsoft Entra ID")."""
SIGNED_FOR = timedelta(hours=1)
"""How long an address that is signed with the account's key may be used to begin to read."""
MOST_BREAKS = 5
"""In a row, without a byte between, before a reading is given up."""
LONGEST_WAIT_SECONDS = 10.0
"""A storage that wants a reading to wait longer ends it: the release is tried again later."""
_BREAKS = (AzureError, requests.RequestException, urllib3.exceptions.HTTPError)
"""What breaks a reading off: azure-core hands on some errors of what it stands on as they are."""
_PASSING = frozenset({408, 429, 500, 502, 503, 504})


class BlobModels:
    """Implements `shipmate.ports.Models`. Safe to share between threads."""

    def __init__(self, service: BlobServiceClient) -> None:
        self._service = service
        self._http: PipelineClient[HttpRequest, HttpResponse] = PipelineClient(
            service.url, policies=_proofs(service.credential), transport=transport()
        )

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
        return b"".join(self._pieces(container, found, 0))

    def open(self, container: str, path: str, *, offset: int = 0, etag: str | None = None) -> Iterator[bytes]:
        """Yield a blob from an offset to its end, some hundred KiB at a time.

        Raises NotFound, Conflict if it was overwritten, Retryable, NotAllowed.
        """
        yield from self._pieces(container, self._unchanged(container, path, etag), offset)

    def list(self, container: str, prefix: str) -> Iterator[Blob]:
        """Yield the blobs whose path begins so. Raises NotFound without such a container, Retryable, NotAllowed."""
        found = iter(self._service.get_container_client(container).list_blobs(name_starts_with=prefix))
        while (properties := _asked(lambda: next(found, None), container, prefix)) is not None:
            yield _blob(properties)

    def _unchanged(self, container: str, path: str, etag: str | None) -> Blob:
        found = self.properties(container, path)
        if etag is not None and etag != found.etag:
            raise Conflict(f"{container}/{path} was overwritten since")
        return found

    def _client(self, container: str, path: str) -> BlobClient:
        return self._service.get_blob_client(container, path)

    def _pieces(self, container: str, blob: Blob, offset: int) -> Iterator[bytes]:
        """Yield a blob's bytes in order, by as few requests as the storage and the network let through."""
        breaks = 0
        while offset < blob.size:
            try:
                for piece in self._answer(container, blob, offset):
                    offset += len(piece)
                    breaks = 0
                    yield piece
                if offset < blob.size:
                    raise IncompleteReadError(f"the answer ended at byte {offset} of {blob.size}")
            except _BREAKS as error:
                breaks += 1
                wait = _retry_after(error) or 0.0
                if not _passes(error) or breaks > MOST_BREAKS or wait > LONGEST_WAIT_SECONDS:
                    raise _translated(error, container, blob.path) from error
                pause(breaks, at_least_seconds=wait)

    def _answer(self, container: str, blob: Blob, offset: int) -> Iterator[bytes]:
        """Yield what one request for a blob from an offset on brings; what brings anything else is no storage's answer.

        Something in between may answer for it: a proxy that knows no ranges, a page that wants somebody to sign in.
        """
        headers = {
            "If-Match": f'"{blob.etag}"',
            "Range": f"bytes={offset}-{blob.size - 1}",
            "x-ms-version": self._service.api_version,
        }
        request = HttpRequest("GET", self._address(container, blob.path), headers=headers)
        with self._http.send_request(request, stream=True) as response:
            response.raise_for_status()
            told = response.headers.get("Content-Range", "none")
            if response.status_code != 206 or not told.startswith(f"bytes {offset}-"):
                raise ServiceResponseError(f"an answer {response.status_code} with the range {told}, not from {offset}")
            yield from response.iter_raw()

    def _address(self, container: str, path: str) -> str:
        """Return a blob's address; signed, where the account's key is what we have."""
        url, key = self._client(container, path).url, getattr(self._service.credential, "account_key", None)
        if key is None:
            return url
        signature = generate_blob_sas(
            str(self._service.account_name),
            container,
            path,
            account_key=key,
            permission=BlobSasPermissions(read=True),
            expiry=datetime.now(UTC) + SIGNED_FOR,
        )
        return f"{url}?{signature}"


def _proofs(credential: Any) -> list[Any]:
    """Return what proves who asks for a blob, where its address does not: a token, or a signature that is renewed."""
    if hasattr(credential, "get_token"):
        return [BearerTokenCredentialPolicy(credential, SCOPE)]
    if isinstance(credential, AzureSasCredential):
        return [AzureSasCredentialPolicy(credential)]
    return []


def _asked[T](request: Callable[[], T], container: str, path: str) -> T:
    """Return a request's answer; turn what went wrong into an error that names the next move."""
    try:
        return request()
    except AzureError as error:
        raise _translated(error, container, path) from error


def _translated(error: Exception, container: str, path: str) -> ShipmateError:
    status = error.status_code if isinstance(error, HttpResponseError) else None
    if status == 404:
        return NotFound(f"there is no blob {container}/{path}")
    if status == 412:
        return Conflict(f"{container}/{path} was overwritten since")
    if status in (401, 403):
        return NotAllowed(
            f"reading {container}/{path} was refused ({status} {getattr(error, 'reason', '')}): "
            "give Shipmate's identity the role Storage Blob Data Reader on the account"
        )
    words = re.sub(r"\?\S*", "", str(error).partition("\n")[0])  # requests tells addresses whole, with a signature
    return Retryable(f"reading {container}/{path} failed: {words}", after_seconds=_retry_after(error))


def _passes(error: Exception) -> bool:
    """Return whether the same request may succeed in a moment: the connection broke, or the storage is in trouble."""
    status = error.status_code if isinstance(error, HttpResponseError) else None
    return status is None or status in _PASSING


def _retry_after(error: Exception) -> float | None:
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
