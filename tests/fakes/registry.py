"""A container registry in memory; the contract suite holds it to what the real one does."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import msgspec

from shipmate.core.image import Descriptor
from shipmate.core.refs import Digest, digest_of
from shipmate.errors import NotFound, Rejected, Retryable
from shipmate.ports import Copied, Manifest, Readable


class FakeRegistry:
    """Implements `shipmate.ports.Registry`. `uploads` counts blobs whose bytes were sent."""

    name = "registry.example:5000"

    def __init__(self) -> None:
        self.blobs: defaultdict[str, dict[Digest, bytes]] = defaultdict(dict)
        self.manifests: defaultdict[str, dict[Digest, Manifest]] = defaultdict(dict)
        self.tags: defaultdict[str, dict[str, Digest]] = defaultdict(dict)
        self.uploads = 0

    def resolve(self, repository: str, reference: str) -> Descriptor:
        found = self.get_manifest(repository, reference)
        return Descriptor(found.media_type, found.digest, len(found.data))

    def get_manifest(self, repository: str, reference: str) -> Manifest:
        digest = self.tags[repository].get(reference, Digest(reference))
        if digest not in self.manifests[repository]:
            raise NotFound(f"{self.name}/{repository} has no {reference}")
        return self.manifests[repository][digest]

    def put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> Digest:
        for digest in _blobs_of(data):
            if digest not in self.blobs[repository]:
                raise Retryable(f"{self.name} refused the manifest: blob {digest} is not there")
        manifest = Manifest(data, media_type, digest_of(data))
        self.manifests[repository][manifest.digest] = manifest
        if not reference.startswith("sha256:"):
            self.tags[repository][reference] = manifest.digest
        return manifest.digest

    def get_blob(self, repository: str, digest: Digest, limit: int) -> bytes:
        if digest not in self.blobs[repository]:
            raise NotFound(f"{self.name}/{repository} has no blob {digest}")
        data = self.blobs[repository][digest]
        if len(data) > limit:
            raise Rejected("BlobTooLarge", f"{digest} has more than {limit} bytes")
        return data

    def has_blob(self, repository: str, digest: Digest) -> bool:
        return digest in self.blobs[repository]

    def copy_blobs(self, repository: str, blobs: Sequence[Descriptor], *, source: str) -> Copied:
        reused = mounted = 0
        for blob in blobs:
            if blob.digest in self.blobs[repository]:
                reused += blob.size
            else:
                self.blobs[repository][blob.digest] = self.get_blob(source, blob.digest, blob.size)
                mounted += blob.size
        return Copied(reused=reused, mounted=mounted)

    def upload(self, repository: str, content: Readable) -> Digest:
        data = b"".join(content.open_at(0))
        if content.digest != "sha256:" + hashlib.sha256(data).hexdigest():
            raise Retryable(f"{self.name} received other bytes than {content.digest}; they are sent again")
        self.uploads += 1
        self.blobs[repository][content.digest] = data
        return content.digest


class _References(msgspec.Struct):
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()


@lru_cache(maxsize=1024)
def _blobs_of(manifest: bytes) -> tuple[Digest, ...]:
    found = msgspec.json.decode(manifest, type=_References)
    return tuple(blob.digest for blob in (found.config, *found.layers) if blob is not None)
