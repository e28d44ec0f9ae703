"""App images to push in tests: small and real, layer blobs and all."""

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any

from shipmate.core.image import DOCKER_CONFIG, DOCKER_MANIFEST, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from shipmate.core.refs import Digest, digest_of
from shipmate.ports import Registry
from shipmate.stages.graft import InMemory

LABELS = {
    "dev.shipmate.contract": "1",
    "org.opencontainers.image.version": "2.3.0",
    "org.opencontainers.image.revision": "abc123",
}


def layer_tar(files: Mapping[str, bytes]) -> bytes:
    """Return a tar of some files, as an image builder would make it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


class AppImage:
    """An app image of gzip layers, in OCI's media types or Docker's."""

    def __init__(
        self,
        *,
        layers: int = 2,
        docker: bool = False,
        labels: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
        manifest: Mapping[str, Any] | None = None,
        content: bytes = b"app",
    ) -> None:
        tars = [layer_tar({f"app/{number}.txt": content}) for number in range(layers)]
        self.layers = [gzip.compress(tar, mtime=0) for tar in tars]
        document = {
            "architecture": "amd64",
            "os": "linux",
            "created": "2026-01-02T03:04:05Z",
            "config": {"Labels": {**LABELS, **(labels or {})}, "Cmd": ["app"], "User": "10001"},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
            "history": [
                {"created_by": "FROM scratch", "empty_layer": True},
                *({"created_by": "COPY"} for _ in tars),
            ],
            **(config or {}),
        }
        self.config = json.dumps(document).encode()
        layer_type = "application/vnd.docker.image.rootfs.diff.tar.gzip" if docker else f"{OCI_LAYER}+gzip"
        self.media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": self.media_type,
                "config": {
                    "mediaType": DOCKER_CONFIG if docker else OCI_CONFIG,
                    "digest": digest_of(self.config),
                    "size": len(self.config),
                },
                "layers": [
                    {"mediaType": layer_type, "digest": digest_of(layer), "size": len(layer)} for layer in self.layers
                ],
                **(manifest or {}),
            },
            indent=2,
        ).encode()

    @property
    def digest(self) -> Digest:
        """The digest of its manifest."""
        return digest_of(self.manifest)

    def push(self, registry: Registry, repository: str, reference: str | None = None) -> Digest:
        """Push it as a developer would and return its digest."""
        for blob in (*self.layers, self.config):
            registry.upload(repository, InMemory(blob))
        return registry.put_manifest(repository, reference or self.digest, self.manifest, self.media_type)
