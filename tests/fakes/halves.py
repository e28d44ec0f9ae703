"""App images and models that worlds in memory publish: small, and made once in a process.

What a version is worth (does it answer rightly, is it reached through the door) is the world's affair, not its bytes'.
"""

import dataclasses
import json
from collections.abc import Mapping
from functools import cache

from shipmate.core.image import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from shipmate.core.manifest import parse_manifest
from shipmate.core.refs import Digest, digest_of
from tests.fakes.model_folders import manifest_of

GOLDEN = ({"file": "golden/flower.jpg", "expected": "daisy", "min_confidence": 0.2},)
"""What the manifest of every model here says of its golden photographs."""
PHOTO = b"a photograph of a daisy"


@dataclasses.dataclass(frozen=True, slots=True)
class AppImage:
    """An app image to push. Its one layer is no tar."""

    version: str
    blobs: Mapping[Digest, bytes]
    manifest: bytes
    digest: Digest
    media_type: str = OCI_MANIFEST


@dataclasses.dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model version to upload: its files by path, and the manifest that goes last."""

    version: str
    files: Mapping[str, bytes]
    manifest: bytes
    digest: Digest


@cache
def app_image(version: str, contract: str | None = "1") -> AppImage:
    """Return the app image of a version; without a contract, it has no label of one."""
    labels = {"org.opencontainers.image.version": version}
    if contract is not None:
        labels["dev.shipmate.contract"] = contract
    layer = f"layer of app {version}".encode()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": {"Labels": labels},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
            "history": [{"created_by": "COPY app"}],
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": digest_of(config), "size": len(config)},
            "layers": [{"mediaType": OCI_LAYER, "digest": digest_of(layer), "size": len(layer)}],
        }
    ).encode()
    return AppImage(version, {digest_of(blob): blob for blob in (layer, config)}, manifest, digest_of(manifest))


def model_files(version: str, photo: bytes = PHOTO) -> dict[str, bytes]:
    """Return the files of a model version, without its manifest."""
    return {"model.onnx": f"weights {version}".encode(), "golden/flower.jpg": photo}


@cache
def model_folder(version: str, contract: str = "1") -> ModelFolder:
    """Return the model folder of a version."""
    files = model_files(version)
    manifest = manifest_of(files, name="net", version=version, contract=contract, golden=GOLDEN)
    return ModelFolder(version, files, manifest, parse_manifest(manifest).digest)
