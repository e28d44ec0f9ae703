"""The golden questions of a model, with their photographs. Asked by the gate and again by verify."""

import hashlib

import msgspec

from shipmate.core.gate import Question
from shipmate.core.ledger import ModelHalf
from shipmate.core.manifest import ModelFile
from shipmate.core.targets import ModelSource
from shipmate.errors import NotFound, Rejected
from shipmate.ports import Models
from shipmate.stages.resolve import model_manifest

MAX_PHOTO_BYTES = 11 * 1024 * 1024
"""Asked in base64, a third larger: the app takes requests of 16 MiB."""


class Asked(msgspec.Struct, frozen=True):
    """A question and the bytes of its photograph."""

    question: Question
    photo: bytes


def golden_questions(
    half: ModelHalf, source: ModelSource, models: Models, *, is_live: bool = False
) -> tuple[Asked, ...]:
    """Return a model's golden questions; of the live model, without those whose photograph is not there any more.

    Raises Rejected if a photograph is missing, too large or not the one that was published, Retryable, NotAllowed.
    """
    manifest = model_manifest(half, source, models)
    files = {file.path: file for file in manifest.files}
    asked = []
    for golden in manifest.golden:
        try:
            photo = _photo(half, files[golden.file], models)
        except Rejected as error:
            if is_live and error.reason in ("DigestMismatch", "MissingFile"):
                continue  # users are answered by it: whoever overwrote or deleted that keeps no code back
            raise
        asked.append(Asked(Question(golden.file, golden.expected, golden.min_confidence), photo))
    return tuple(asked)


def _photo(half: ModelHalf, file: ModelFile, models: Models) -> bytes:
    """Return a photograph as the manifest lists it; of what is there now instead, no more than that size is kept."""
    if file.size > MAX_PHOTO_BYTES:
        raise Rejected(
            "GoldenPhotoTooLarge", f"{file.path} has more than {MAX_PHOTO_BYTES} bytes; publish a smaller photo"
        )
    path = f"{half.path.rpartition('/')[0]}/{file.path}"
    photo = bytearray()
    try:
        for piece in models.open(half.container, path):
            photo += piece
            if len(photo) > file.size:
                break
    except NotFound:
        raise Rejected("MissingFile", f"{path} is not in the container; publish it anew") from None
    if hashlib.sha256(photo).hexdigest() != file.sha256:
        raise Rejected(
            "DigestMismatch",
            f"{path} is not the photograph that the manifest lists: it was overwritten since; publish a new version",
        )
    return bytes(photo)
