"""The container registry: the OCI distribution API, over HTTP.

Written on httpx, because Azure's client has no token cache, no mount and no resume (docs/adr). Everything that is read
is checked against its digest; layers of any size are uploaded while they are read (`shipmate.edge.registry_upload`).

Source: distribution-spec 1.1.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
from azure.identity import DefaultAzureCredential

from shipmate.core.image import INDEXES, MANIFESTS, Descriptor
from shipmate.core.refs import Digest, digest_of, parse_digest, parse_repository, parse_tag
from shipmate.edge.registry_auth import AZURE_REGISTRIES, Anonymous
from shipmate.edge.registry_http import BULK_SECONDS, QUICK_SECONDS, Credentials, RegistryHttp, Reply
from shipmate.edge.registry_upload import Upload
from shipmate.errors import Rejected, Retryable
from shipmate.ports import Copied, Manifest, Readable

COPIES_AT_ONCE = 4
PIECE_SIZE = 256 << 10
"""Bytes of a blob that are taken and sent on at once, where it has to be copied."""
_ACCEPT = {"Accept": ", ".join(sorted(MANIFESTS | INDEXES))}


def _pull(repository: str) -> str:
    return f"repository:{repository}:pull"


def _push(repository: str) -> frozenset[str]:
    return frozenset({f"repository:{repository}:pull,push"})


class Registry:
    """Implements `shipmate.ports.Registry`. Safe to share between threads.

    `url` is a login server (`name.azurecr.io`) or `http://127.0.0.1:<port>`. Without credentials Azure's registries get
    the identity of this machine, others none. Raises Invalid for an address that is no registry's.
    """

    def __init__(self, url: str, credentials: Credentials | None = None) -> None:
        if credentials is None:
            credentials = DefaultAzureCredential() if url.endswith(AZURE_REGISTRIES) else Anonymous()
        self._http = RegistryHttp(url, credentials)

    @property
    def name(self) -> str:
        """The registry as image references spell it: `host` or `host:port`."""
        return self._http.name

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # -- manifests

    def resolve(self, repository: str, reference: str) -> Descriptor:
        """Return what a tag or digest points to. Raises NotFound, Retryable, NotAllowed."""
        reply = self._http.send(
            "HEAD", _manifest_path(repository, reference), frozenset({_pull(repository)}), headers=_ACCEPT
        )
        digest, size = reply.headers.get("Docker-Content-Digest"), reply.headers.get("Content-Length")
        if digest is None or size is None:  # both are optional in the specification
            found = self.get_manifest(repository, reference)
            return Descriptor(found.media_type, found.digest, len(found.data))
        return Descriptor(_media_type(reply), parse_digest(digest), int(size))

    def get_manifest(self, repository: str, reference: str) -> Manifest:
        """Return a manifest or index by tag or digest. Raises NotFound, Retryable, NotAllowed."""
        path = _manifest_path(repository, reference)
        reply = self._http.send("GET", path, frozenset({_pull(repository)}), headers=_ACCEPT)
        wanted = reference if ":" in reference else reply.headers.get("Docker-Content-Digest")
        digest = _verified(reply, wanted)
        return Manifest(reply.content, _media_type(reply), digest)

    def put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> Digest:
        """Store a manifest, byte for byte, whose blobs are there. Raises Retryable, also without them, NotAllowed."""
        reply = self._http.send(
            "PUT",
            _manifest_path(repository, reference),
            _push(repository),
            expected=frozenset({201}),
            headers={"Content-Type": media_type},
            content=data,
        )
        digest = digest_of(data)
        stored = reply.headers.get("Docker-Content-Digest", digest)
        if stored != digest:
            raise Retryable(f"{self.name} stored {stored} where {digest} was sent; it is sent again")
        return digest

    # -- blobs

    def get_blob(self, repository: str, digest: Digest, limit: int) -> bytes:
        """Return a small blob. Raises NotFound, Rejected (BlobTooLarge) above the limit, Retryable, NotAllowed."""
        blob = _StoredBlob(self._http, repository, digest, limit, QUICK_SECONDS)
        data = self._http.patiently(lambda: b"".join(blob.open_at(0)))
        if digest_of(data) != digest:
            raise Retryable(f"{self.name} sent other bytes than {digest}; it is asked again")
        return data

    def has_blob(self, repository: str, digest: Digest) -> bool:
        """Return whether the repository holds a blob. Raises Retryable, NotAllowed."""
        path = f"/v2/{parse_repository(repository)}/blobs/{parse_digest(digest)}"
        return self._http.exists(path, frozenset({_pull(repository)}))

    def copy_blobs(self, repository: str, blobs: Sequence[Descriptor], *, source: str) -> Copied:
        """Have blobs of another repository in this one. Raises NotFound, Retryable, NotAllowed."""
        with ThreadPoolExecutor(COPIES_AT_ONCE, thread_name_prefix="shipmate-copy") as pool:
            outcomes = [*pool.map(lambda blob: self._copy(repository, blob, source), blobs)]
        return Copied(
            reused=sum(outcome.reused for outcome in outcomes),
            mounted=sum(outcome.mounted for outcome in outcomes),
            uploaded=sum(outcome.uploaded for outcome in outcomes),
        )

    def _copy(self, repository: str, blob: Descriptor, source: str) -> Copied:
        if self.has_blob(repository, blob.digest):
            return Copied(reused=blob.size)
        begun = self._mount(repository, blob.digest, source)
        if begun.status == 201:
            return Copied(mounted=blob.size)
        content = _StoredBlob(self._http, source, blob.digest, blob.size, BULK_SECONDS)
        Upload(self._http, repository, _push(repository), content, begun).run()
        return Copied(uploaded=blob.size)

    def _mount(self, repository: str, digest: Digest, source: str) -> Reply:
        """Have the registry link a blob of another repository: 201 when it did, 202 begins an upload instead.

        One token covers both repositories: without the right to read the source a registry does not mount.
        """
        query = httpx.QueryParams({"mount": digest, "from": parse_repository(source)})
        path = f"/v2/{parse_repository(repository)}/blobs/uploads/?{query}"
        scopes = _push(repository) | {_pull(source)}
        return self._http.send("POST", path, scopes, expected=frozenset({201, 202}), content=b"")

    def upload(self, repository: str, content: Readable) -> Digest:
        """Store a blob of any size while it is read. Raises what reading it raises, and Retryable, NotAllowed."""
        return Upload(self._http, parse_repository(repository), _push(repository), content).run()


class _StoredBlob:
    """A blob of a repository, to be read whole or copied; `size` bounds what is read of it.

    `silence_seconds` is how long the registry may say nothing meanwhile.
    """

    def __init__(self, http: RegistryHttp, repository: str, digest: Digest, size: int, silence_seconds: float) -> None:
        self._http = http
        self._repository = repository
        self.digest = parse_digest(digest)
        self.size = size
        self._silence_seconds = silence_seconds

    def open_at(self, offset: int) -> Iterator[bytes]:
        """Yield the blob's bytes from an offset on.

        Raises NotFound, Rejected (BlobTooLarge) if it is larger than its size, NotAllowed, and Interrupted.
        """
        path = f"/v2/{parse_repository(self._repository)}/blobs/{self.digest}"
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        scopes = frozenset({_pull(self._repository)})
        with self._http.stream(path, scopes, headers, silence_seconds=self._silence_seconds) as response:
            position = offset if response.status_code == 206 else 0
            for chunk in response.iter_raw(PIECE_SIZE):
                new = chunk[max(0, offset - position) :]
                position += len(chunk)
                if position > self.size:
                    raise Rejected(
                        "BlobTooLarge", f"{path} has more than {self.size} bytes, which is not expected there"
                    )
                if new:
                    yield new


def _manifest_path(repository: str, reference: str) -> str:
    checked = parse_digest(reference) if ":" in reference else parse_tag(reference)
    return f"/v2/{parse_repository(repository)}/manifests/{checked}"


def _media_type(reply: Reply) -> str:
    return str(reply.headers.get("Content-Type", "")).partition(";")[0].strip()


def _verified(reply: Reply, wanted: str | None) -> Digest:
    digest = digest_of(reply.content)
    if wanted is not None and wanted != digest:
        raise Retryable(f"{reply.url.host} sent {digest} where {wanted} was asked for; it is asked again")
    return digest
