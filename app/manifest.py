"""The manifest that travels with a model, parsed once into typed values.

The same file is what the publisher uploads last and what its digest is taken of. A folder that holds one `.onnx` file
and no manifest is a model too (a single file): its digest is the file's own. So is that of a manifest that says no
more than such a folder: the publisher's tool did not write it.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from app import CONTRACT
from app.images import RESAMPLING, Preparation

NAME = "manifest.json"
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


class NoModel(Exception):
    """There is no model: this is the code half by itself."""


class BrokenModel(Exception):
    """There is a model and it cannot be used; the message says why, in words for whoever published it."""


@dataclass(frozen=True)
class File:
    """One file of the model, with what it must be."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Golden:
    """A golden question, with what the publisher measured with this very model (`reference`), if it did."""

    file: str
    label: str | None
    confidence: float
    tolerance: float


@dataclass(frozen=True)
class Manifest:
    """A model version: what it is called, its files, and how to ask it."""

    name: str
    version: str
    digest: str
    model: str
    files: tuple[File, ...]
    labels: str | None = None
    preparation: Preparation | None = None
    golden: tuple[Golden, ...] = field(default=())


def read(folder: Path) -> Manifest:
    """Return the manifest of the model in this folder.

    Raises NoModel if there is none, BrokenModel if it is not what this code reads.
    """
    try:
        data = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return _single_file(folder)
    try:
        document = json.loads(data)
    except ValueError as error:
        raise BrokenModel(f"{NAME} is not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("schema") != 1:
        raise BrokenModel(f'{NAME}: "schema" should be 1')
    contract = document.get("contract", CONTRACT)
    if contract != CONTRACT:
        raise BrokenModel(f"{NAME}: the model needs app contract {contract}, this app speaks {CONTRACT}")
    try:
        return _parse(document, data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise BrokenModel(f"{NAME}: {what}") from error


def _single_file(folder: Path) -> Manifest:
    models = sorted(folder.glob("*.onnx")) if folder.is_dir() else []
    if not models:
        raise NoModel(f"{folder} has no model: this image is the code half by itself")
    if len(models) > 1:
        raise BrokenModel(f"{folder} has {len(models)} .onnx files and no {NAME} that says which one is the model")
    digest = sha256_of(models[0])
    return Manifest(
        name=models[0].stem,
        version=digest[:12],
        digest=f"sha256:{digest}",
        model=models[0].name,
        files=(File(models[0].name, models[0].stat().st_size, digest),),
    )


def _parse(document: dict[str, Any], data: bytes) -> Manifest:
    files = tuple(File(_inside(entry["path"]), int(entry["size"]), str(entry["sha256"])) for entry in document["files"])
    listed = {entry.path for entry in files}
    manifest = Manifest(
        name=_plain(document, "name"),
        version=_plain(document, "version"),
        digest=digest_of(document, data),
        model=str(document["model"]),
        files=files,
        labels=document.get("labels"),
        preparation=_preparation(document["input"]) if document.get("input") is not None else None,
        golden=tuple(_golden(entry) for entry in document.get("golden", ())),
    )
    for path in (manifest.model, manifest.labels, *(question.file for question in manifest.golden)):
        if path is not None and path not in listed:
            raise ValueError(f'{path} is used but not listed in "files"')
    if not manifest.model.endswith(".onnx"):
        raise ValueError(f"the model is {manifest.model}: only ONNX files are loaded")
    return manifest


def digest_of(document: dict[str, Any], data: bytes) -> str:
    """Return a model's identity: the sha256 of its manifest's bytes, or of its file if there is nothing but that file.

    What the manifest itself may say about it counts for nothing. Whoever releases models has the same rule.
    """
    files = document["files"]
    if len(files) == 1 and not (document.get("labels") or document.get("input") or document.get("golden")):
        return f"sha256:{files[0]['sha256']}"
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _plain(document: dict[str, Any], key: str) -> str:
    text = str(document[key])
    if not PLAIN.fullmatch(text):
        raise ValueError(
            f'"{key}" is {text[:200]!r}: it goes into a header, and should have 1 to 100 of A-Z a-z 0-9 . _ + -'
        )
    return text


def _inside(path: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path or not path:
        raise ValueError(f"{path!r} is not a path inside the model's folder")
    return path


def _preparation(document: dict[str, Any]) -> Preparation:
    default = Preparation()
    how = Preparation(
        size=int(document.get("size", default.size)),
        layout=str(document.get("layout", default.layout)),
        crop=float(document.get("crop", default.crop)),
        mean=_three(document.get("mean", default.mean), "mean"),
        std=_three(document.get("std", default.std), "std"),
        resample=str(document.get("resample", default.resample)),
    )
    if not 1 <= how.size <= 4096:
        raise ValueError(f'"input.size" is {how.size}: it should be from 1 to 4096')
    if not 0 < how.crop <= 1:
        raise ValueError(f'"input.crop" is {how.crop}: it should be above 0 and at most 1')
    if how.layout not in ("NCHW", "NHWC"):
        raise ValueError(f'"input.layout" is {how.layout}: it should be NCHW or NHWC')
    if how.resample not in RESAMPLING:
        raise ValueError(f'"input.resample" is {how.resample}: it should be one of {", ".join(RESAMPLING)}')
    if 0 in how.std:
        raise ValueError('"input.std" has a 0')
    return how


def _three(values: Any, name: str) -> tuple[float, float, float]:
    if len(values) != 3:
        raise ValueError(f'"input.{name}" should have three numbers, for R, G and B')
    return float(values[0]), float(values[1]), float(values[2])


def _golden(document: dict[str, Any]) -> Golden:
    reference = document.get("reference", {})
    return Golden(
        file=str(document["file"]),
        label=reference.get("label"),
        confidence=float(reference.get("confidence", 0)),
        tolerance=float(document.get("tolerance", 0.05)),
    )


def verify(folder: Path, manifest: Manifest) -> None:
    """Read every file of the model once, in pieces, and compare it with the manifest.

    Raises BrokenModel for the first that is missing, of another size or of another sha256.
    """
    for file in manifest.files:
        path = folder / file.path
        if not path.is_file():
            raise BrokenModel(f"{file.path} is listed in {NAME} and is not there")
        size = path.stat().st_size
        if size != file.size:
            raise BrokenModel(f"{file.path} has {size} bytes, {NAME} says {file.size}")
        digest = sha256_of(path)
        if digest != file.sha256:
            raise BrokenModel(f"{file.path} has sha256 {digest}, {NAME} says {file.sha256}")


def sha256_of(path: Path) -> str:
    """Return the file's sha256 in hex, reading it in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
