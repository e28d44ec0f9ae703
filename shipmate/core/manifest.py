"""The manifest of a model version: what was published, file by file, and what travels with a model.

A model version is an immutable folder in Blob Storage; its `manifest.json` is uploaded last and makes it complete. The
manifest is read by the stages plan (digest, contract), build (files) and gate (golden questions). Keys that this
version of Shipmate does not know are left alone, so that newer publishers may add some.
"""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Annotated

import msgspec
from msgspec import Meta

from shipmate.core.refs import Digest, digest_of, parse_digest
from shipmate.errors import Rejected

MANIFEST_NAME = "manifest.json"
MANIFEST_LIMIT = 1 << 20
"""The size of the largest manifest that is read, in bytes."""
SCHEMA = 1
MOST_FILES = 1000
LARGEST_FILE = 190 << 30
"""In bytes: one layer holds the file, and Azure Container Registry takes layers up to 200 GiB."""
MOST_GOLDEN = 100
MOST_GOLDEN_BYTES = 64 << 20
"""Of all golden photos together: the app asks itself about each before it is ready, the gate again."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")  # goes into headers, labels, logs and the ledger
_LONGEST_COMPONENT = 255  # NAME_MAX of Linux file systems, in bytes
_LONGEST_PATH = 1024  # leaves room below PATH_MAX for where the image is unpacked

type Share = Annotated[float, Meta(ge=0, le=1)]


class ModelFile(msgspec.Struct, frozen=True):
    """One file of a model version: its path below the folder, its size in bytes and its sha256 in hex."""

    path: str
    size: Annotated[int, Meta(ge=0)]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class ModelInput(msgspec.Struct, frozen=True):
    """How a picture becomes the model's input tensor."""

    name: str
    size: Annotated[int, Meta(ge=1)]  # pixels, of the square
    layout: str = "NCHW"
    crop: Share | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resample: str = "bicubic"


class Reference(msgspec.Struct, frozen=True):
    """What the publisher measured with this very model."""

    label: str
    confidence: Share


class GoldenQuestion(msgspec.Struct, frozen=True):
    """A picture, the truth about it, and what the publisher's own run answered."""

    file: str
    expected: str
    min_confidence: Share = 0.0
    reference: Reference | None = None
    tolerance: Share | None = None


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON document, as published."""

    schema: int
    name: str
    version: str
    contract: Annotated[str, Meta(min_length=1, max_length=32)]
    files: tuple[ModelFile, ...]
    model: str
    licence: str | None = None
    labels: str | None = None
    input: ModelInput | None = None
    golden: tuple[GoldenQuestion, ...] = ()


class ModelManifest(_Document, frozen=True, kw_only=True):
    """A model version's manifest, checked, with the bytes it was read from and the model's identity (`digest`)."""

    data: bytes
    digest: Digest


class _Head(msgspec.Struct, frozen=True):
    schema: int
    digest: object = msgspec.UNSET


def parse_manifest(data: bytes) -> ModelManifest:
    """Return the manifest that some bytes hold.

    Raises Rejected: ManifestUnreadable, ManifestUnknownSchema, ManifestNamesDigest, UnsafeModelName, FileTooMany,
    FileTooLarge, UnsafeFileName, MissingModelFile, ModelNotOnnx, GoldenTooMany, GoldenPhotosTooLarge.
    """
    if len(data) > MANIFEST_LIMIT:
        raise Rejected("ManifestUnreadable", f"{MANIFEST_NAME} is larger than 1 MiB; list fewer files in it")
    try:
        head = msgspec.json.decode(data, type=_Head)
        schema = head.schema
        if schema != SCHEMA:
            raise Rejected(
                "ManifestUnknownSchema",
                f"{MANIFEST_NAME} has schema {schema}, and this Shipmate reads schema {SCHEMA}: "
                f"publish with schema {SCHEMA}, or update Shipmate",
            )
        document = msgspec.json.decode(data, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected(
            "ManifestUnreadable", f"{MANIFEST_NAME} cannot be read: {error}; correct it, publish again"
        ) from (error)
    if head.digest is not msgspec.UNSET:
        raise Rejected(
            "ManifestNamesDigest",
            f'{MANIFEST_NAME} has a key "digest", and a model\'s digest is computed from what was published: remove it',
        )
    _check_name("name", document.name)
    _check_name("version", document.version)
    _check_files(document.files)
    _check_mentions(document)
    _check_golden(document)
    return ModelManifest(**msgspec.structs.asdict(document), data=data, digest=_digest(document, data))


def _digest(document: _Document, data: bytes) -> Digest:
    """Return a model's identity: the digest of its manifest's bytes.

    A manifest that says nothing but which one file is the model stands for that file: as `single_file_manifest` makes
    it, it is written by Shipmate and not by the publisher, so the identity is the file's own. The scoring application
    has the same rule (`digest_of` in `app.manifest`).
    """
    if len(document.files) == 1 and not (document.labels or document.input or document.golden):
        return parse_digest(f"sha256:{document.files[0].sha256}")
    return digest_of(data)


def single_file_manifest(name: str, version: str, *, file: str, size: int, sha256: str, contract: str) -> ModelManifest:
    """Return the manifest of a model that was published as one file, without a manifest of its own.

    The same arguments always make the same bytes. Raises Rejected as `parse_manifest` does.
    """
    document = _Document(
        schema=SCHEMA,
        name=name,
        version=version,
        contract=contract,
        files=(ModelFile(file, size, sha256),),
        model=file,
    )
    known = {key: value for key, value in msgspec.structs.asdict(document).items() if value not in (None, ())}
    return parse_manifest(msgspec.json.encode(known, order="sorted"))


def _check_name(key: str, text: str) -> None:
    if not _NAME.fullmatch(text):
        raise Rejected(
            "UnsafeModelName",
            f'{MANIFEST_NAME} says "{key}": {text[:200]!r}; it should have 1 to 100 letters, digits, dots, dashes, '
            "underscores and plus signs, and begin with a letter or digit",
        )


def _check_golden(document: _Document) -> None:
    if len(document.golden) > MOST_GOLDEN:
        raise Rejected(
            "GoldenTooMany",
            f"{MANIFEST_NAME} has {len(document.golden)} golden questions, at most {MOST_GOLDEN} are asked: "
            "keep those that tell models apart",
        )
    asked = {question.file for question in document.golden}
    size = sum(file.size for file in document.files if file.path in asked)
    if size > MOST_GOLDEN_BYTES:
        raise Rejected(
            "GoldenPhotosTooLarge",
            f"the golden photos have {size} bytes in all, at most {MOST_GOLDEN_BYTES} are taken: make them smaller",
        )


def _check_files(files: tuple[ModelFile, ...]) -> None:
    if len(files) > MOST_FILES:
        raise Rejected("FileTooMany", f"{MANIFEST_NAME} lists {len(files)} files, at most {MOST_FILES} are taken")
    for file in files:
        if file.size > LARGEST_FILE:
            raise Rejected("FileTooLarge", f"{file.path!r} has {file.size} bytes, at most {LARGEST_FILE} fit a layer")
        fault = unsafe_name(file.path)
        if fault is not None:
            raise _unsafe(file.path, fault)
    folders = {str(parent) for file in files for parent in PurePosixPath(file.path).parents}
    seen: set[str] = set()
    for file in files:
        if file.path in seen:
            raise _unsafe(file.path, "is listed twice")
        if file.path in folders:
            raise _unsafe(file.path, "is a file and a folder at once")
        seen.add(file.path)


def unsafe_name(path: str) -> str | None:
    """Return what is wrong with a file's path below the model's folder, or None if it may go into a layer."""
    components = path.split("/")
    faults = {
        "is empty": not path,
        "is the manifest itself, which is not listed": path == MANIFEST_NAME,
        "is absolute": path.startswith("/"),
        "has a backslash; use forward slashes": "\\" in path,
        "has a control character": not path.isprintable(),
        "leaves its folder": ".." in components,
        "has an empty or dot component": "" in components or "." in components,
        # "Whiteouts" of image-spec, layer.md
        "has a component that begins with .wh., which deletes files in an image": any(
            component.startswith(".wh.") for component in components
        ),
        f"is longer than {_LONGEST_PATH} bytes, or {_LONGEST_COMPONENT} between slashes": _too_long(components),
    }
    return next((fault for fault, applies in faults.items() if applies), None)


def _too_long(components: list[str]) -> bool:
    sizes = [len(component.encode()) for component in components]
    return max(sizes) > _LONGEST_COMPONENT or sum(sizes) + len(sizes) - 1 > _LONGEST_PATH


def _unsafe(path: str, fault: str) -> Rejected:
    return Rejected("UnsafeFileName", f"{MANIFEST_NAME} lists {path[:200]!r}, which {fault}; rename it, publish again")


def _check_mentions(document: _Document) -> None:
    """Check that every file the manifest speaks of is listed."""
    listed = {file.path for file in document.files}
    for key, path in _mentions(document):
        if path not in listed:
            raise Rejected(
                "MissingModelFile",
                f'{MANIFEST_NAME} says "{key}": {path[:200]!r}, which is not among its "files"; list it or correct it',
            )
    if not document.model.endswith(".onnx"):
        raise Rejected(
            "ModelNotOnnx", f"the model is {document.model[:200]!r}; only ONNX (*.onnx) is taken: convert it first"
        )


def _mentions(document: _Document) -> Iterable[tuple[str, str]]:
    yield "model", document.model
    if document.labels is not None:
        yield "labels", document.labels
    for question in document.golden:
        yield "golden", question.file
