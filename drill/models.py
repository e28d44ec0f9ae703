"""Tiny models: a table from photographs to answers, in a folder as data scientists publish one."""

import hashlib
import json
from pathlib import Path

from shipmate.core.refs import Digest, digest_of

PHOTO = b"a photograph of a daisy, as far as the drill is concerned\n"
LABEL, CONFIDENCE = "daisy", 0.9
PADDING = 2048
"""Bytes that make each version's weights its own."""


def write(folder: Path, *, name: str, version: str) -> Digest:
    """Write a model version into a new folder and return its digest. Every name and version has bytes of its own."""
    answers = [{"label": LABEL, "confidence": CONFIDENCE}, {"label": "honeycomb", "confidence": 0.05}]
    table = {
        "answers": {hashlib.sha256(PHOTO).hexdigest(): answers},
        "otherwise": [{"label": "unknown", "confidence": 0.5}],
        "weights": hashlib.shake_256(f"{name}/{version}".encode()).hexdigest(PADDING // 2),
    }
    files = {"model.onnx": json.dumps(table).encode(), "golden/daisy.jpg": PHOTO}
    manifest = {
        "schema": 1,
        "name": name,
        "version": version,
        "contract": "1",
        "licence": "MIT",
        "files": [
            {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for path, data in sorted(files.items())
        ],
        "model": "model.onnx",
        "golden": [
            {
                "file": "golden/daisy.jpg",
                "expected": LABEL,
                "min_confidence": 0.5,
                "reference": {"label": LABEL, "confidence": CONFIDENCE},
                "tolerance": 0.05,
            }
        ],
    }
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    data = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(data)
    return digest_of(data)
