"""The drill's app image: `app/main.go`, compiled once, in images that a registry is given by its own API.

An image is one layer that all versions share, a config that says the version, and a manifest, pushed last.
"""

import hashlib
import io
import json
import os
import tarfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import httpx

from localcloud import making, toolchains
from localcloud.config import cache_root
from localcloud.debian import architecture
from shipmate.core.image import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from shipmate.core.refs import Digest, digest_of

SOURCES = Path(__file__).parent / "app"
FIRST_REPOSITORY = "drill-app"
"""Where the layer that all versions share is pushed to, and mounted from."""
USER = 10001


class PushError(Exception):
    """The registry did not take a part of an image; the text is what it said."""


def ensure_program() -> Path:
    """Return the compiled app, compiling it if its sources changed. Raises SetupError."""
    sources = sorted(SOURCES.iterdir())
    key = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    program = cache_root() / f"drill-app-{key}" / "app"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        fresh = program.with_name(f"app.{os.getpid()}")
        go = toolchains.ensure_go(SOURCES / "go.mod")
        settings = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": "-buildvcs=false"}
        command = [str(go), "build", "-trimpath", "-ldflags", "-s -w", "-o", str(fresh), "."]
        making.run(command, what="the drill's app", estimate="a few seconds", folder=SOURCES, environment=settings)
        fresh.replace(program)
    return program


@dataclass(frozen=True)
class AppImage:
    """The app as images of any version."""

    program: Path

    @cached_property
    def layer(self) -> bytes:
        """The one layer: the program and an empty /model."""
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as tar:
            content = self.program.read_bytes()
            entry = tarfile.TarInfo("app")
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
            folder = tarfile.TarInfo("model")
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        return data.getvalue()

    @cached_property
    def layer_digest(self) -> Digest:
        """Its digest, and its diff ID: it is not compressed."""
        return digest_of(self.layer)

    def config(self, version: str, revision: str) -> bytes:
        """Return the config of a version."""
        document = {
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "Entrypoint": ["/app"],
                "Env": [f"APP_VERSION={version}", "GOMEMLIMIT=16MiB"],
                "User": f"{USER}:{USER}",
                "Labels": {
                    "dev.shipmate.contract": "1",
                    "org.opencontainers.image.version": version,
                    "org.opencontainers.image.revision": revision,
                },
            },
            "rootfs": {"type": "layers", "diff_ids": [self.layer_digest]},
        }
        return json.dumps(document).encode()

    def manifest(self, config: bytes) -> bytes:
        """Return the manifest of the image with this config."""
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": digest_of(config), "size": len(config)},
            "layers": [{"mediaType": OCI_LAYER, "digest": self.layer_digest, "size": len(self.layer)}],
        }
        return json.dumps(document).encode()


class Pusher:
    """Pushes versions of the app to repositories of one registry, as CI does. For one thread."""

    def __init__(self, registry: str, image: AppImage) -> None:
        self._http = httpx.Client(base_url=f"http://{registry}/v2", timeout=60, trust_env=False)
        self._image = image

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def push(self, repository: str, version: str, revision: str, tag: str = "main") -> Digest:
        """Push a version and return its digest. Raises PushError, and httpx.HTTPError if the registry is away."""
        config = self._image.config(version, revision)
        manifest = self._image.manifest(config)
        self._mount(repository)
        self._upload(repository, config, digest_of(config))
        headers = {"content-type": OCI_MANIFEST}
        self._expect(self._http.put(f"/{repository}/manifests/{tag}", content=manifest, headers=headers), 201)
        return digest_of(manifest)

    def _mount(self, repository: str) -> None:
        """Have the layer in a repository: found there, mounted from the first, or uploaded."""
        digest = self._image.layer_digest
        if self._http.head(f"/{repository}/blobs/{digest}").status_code == 200:
            return
        asked = {"mount": digest, "from": FIRST_REPOSITORY}
        began = self._http.post(f"/{repository}/blobs/uploads/", params=asked)
        if began.status_code == 201:
            return
        self._finish(began, self._image.layer, digest)

    def _upload(self, repository: str, data: bytes, digest: Digest) -> None:
        self._finish(self._http.post(f"/{repository}/blobs/uploads/"), data, digest)

    def _finish(self, began: httpx.Response, data: bytes, digest: Digest) -> None:
        self._expect(began, 202)
        place = httpx.URL(began.headers["Location"])
        headers = {"content-type": "application/octet-stream"}
        stored = self._http.put(place.copy_merge_params({"digest": digest}), content=data, headers=headers)
        self._expect(stored, 201)

    @staticmethod
    def _expect(reply: httpx.Response, status: int) -> None:
        if reply.status_code != status:
            request = reply.request
            raise PushError(f"{request.method} {request.url.path} was answered {reply.status_code}: {reply.text[:300]}")
