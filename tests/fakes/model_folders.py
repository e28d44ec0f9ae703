"""Model folders to publish in tests: manifests that are right, to be spoilt one key at a time."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

HEX = "a" * 64


def document(**changes: Any) -> dict[str, Any]:
    """Return a whole manifest whose files are not real, with some keys changed."""
    return {
        "schema": 1,
        "name": "efficientnet-lite",
        "version": "1.0",
        "contract": "1",
        "licence": "Apache-2.0",
        "files": [
            {"path": "model.onnx", "size": 3, "sha256": HEX},
            {"path": "labels.txt", "size": 0, "sha256": HEX},
            {"path": "golden/flower.jpg", "size": 1, "sha256": HEX},
        ],
        "model": "model.onnx",
        "labels": "labels.txt",
        "input": {
            "name": "input",
            "size": 224,
            "layout": "NCHW",
            "crop": 0.875,
            "mean": [127, 127, 127],
            "std": [128, 128, 128],
            "resample": "bicubic",
        },
        "golden": [
            {
                "file": "golden/flower.jpg",
                "expected": "daisy",
                "min_confidence": 0.2,
                "reference": {"label": "daisy", "confidence": 0.32},
                "tolerance": 0.05,
            }
        ],
    } | changes


def encoded(**changes: Any) -> bytes:
    """Return the manifest as JSON."""
    return json.dumps(document(**changes)).encode()


def manifest_of(files: Mapping[str, bytes], **changes: Any) -> bytes:
    """Return a manifest that lists these very files."""
    listed = [
        {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for path, data in files.items()
    ]
    labels = "labels.txt" if "labels.txt" in files else None
    return encoded(**{"files": listed, "golden": [], "labels": labels, **changes})
