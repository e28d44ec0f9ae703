"""Model folders to publish: real ones, and versions of them that differ in a way that a test is about."""

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from examples import models

FLOWER = models.PHOTOS[0].data


class Models:
    """Makes model folders below one folder. Real models are made once; derived ones share their files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._one_at_a_time = threading.Lock()

    def real(self, which: str, version: str, *, temperature: float = 1.0) -> Path:
        """Return the folder of a version of a real model, honestly measured."""
        out = self._folder / version
        with self._one_at_a_time:
            if not out.exists():
                models.write(which, out, version=version, temperature=temperature)
        return out

    def derived(self, version: str, change: Callable[[Path, dict[str, Any]], None] | None = None) -> Path:
        """Return the folder of EfficientNet-Lite0 under a version of its own.

        `change` gets the folder and the manifest and may change both: a file that it writes must be unlinked first,
        for versions share their files.
        """
        source, out = self.real("lite0", "base"), self._folder / "derived" / version
        shutil.copytree(source, out, copy_function=os.link)
        manifest = json.loads((source / "manifest.json").read_text())
        manifest["version"] = version
        if change is not None:
            change(out, manifest)
        (out / "manifest.json").unlink()
        (out / "manifest.json").write_text(json.dumps(manifest, indent=2))
        return out


def replace(folder: Path, manifest: dict[str, Any], path: str, data: bytes, *, listed: bool = True) -> None:
    """Write other bytes in the place of a file; with `listed`, the manifest says so, else it does not know."""
    (folder / path).unlink()
    (folder / path).write_bytes(data)
    if listed:
        entry = next(file for file in manifest["files"] if file["path"] == path)
        entry |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
