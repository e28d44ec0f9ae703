"""Images of the echo program, as OCI archives that containerd takes without a registry."""

import hashlib
import io
import json
import subprocess
import tarfile
from functools import cache
from pathlib import Path

from localcloud.toolchains import ensure_go

REPOSITORY = "localhost/shipmate/echo"
HERE = Path(__file__).parent / "echo"


@cache
def program() -> bytes:
    """Return the echo program, compiled."""
    out = subprocess.run(
        [str(ensure_go(HERE / "go.mod")), "build", "-trimpath", "-ldflags", "-s -w", "-o", "/dev/stdout", "."],
        cwd=HERE,
        capture_output=True,
        check=False,
        env={"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "HOME": str(Path.home()), "PATH": "/usr/bin:/bin"},
    )
    if out.returncode != 0:
        raise RuntimeError(out.stderr.decode())
    return out.stdout


def echo_image(mode: str, label: str = "") -> tuple[str, bytes]:
    """Return an image's reference by digest and its archive; another mode or label makes another digest."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        entry = tarfile.TarInfo("echo")
        entry.size, entry.mode = len(program()), 0o755
        tar.addfile(entry, io.BytesIO(program()))
        scratch = tarfile.TarInfo("tmp")
        scratch.type, scratch.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(scratch)
    blobs: dict[str, bytes] = {}
    diff_id = _keep(blobs, layer.getvalue())
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/echo"], "Cmd": [mode], "Labels": {"label": label}},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _descriptor(blobs, json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [_descriptor(blobs, layer.getvalue(), "application/vnd.oci.image.layer.v1.tar")],
    }
    described = _descriptor(blobs, json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    reference = f"{REPOSITORY}@{described['digest']}"
    index = {"schemaVersion": 2, "manifests": [described | {"annotations": {"io.containerd.image.name": reference}}]}
    files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode()}
    files |= {f"blobs/sha256/{digest.removeprefix('sha256:')}": data for digest, data in blobs.items()}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return reference, archive.getvalue()


def _keep(blobs: dict[str, bytes], data: bytes) -> str:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    blobs[digest] = data
    return digest


def _descriptor(blobs: dict[str, bytes], data: bytes, kind: str) -> dict[str, str | int]:
    return {"mediaType": kind, "digest": _keep(blobs, data), "size": len(data)}
