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
_MOST_NAMES = 3


class Asked(msgspec.Struct, frozen=True):
    """A question and the bytes of its photograph."""

    question: Question
    photo: bytes


class PhotosGone(Rejected):
    """Of a model that has golden questions, no photograph is there any more as it was published."""


def golden_questions(
    half: ModelHalf, source: ModelSource, models: Models, *, is_live: bool = False
) -> tuple[Asked, ...]:
    """Return a model's golden questions; of the live model, without those whose photograph is not there any more.

    Raises Rejected if a photograph is missing, too large or not the one that was published, PhotosGone if the live
    model has none left, Retryable, NotAllowed.
    """
    manifest = model_manifest(half, source, models)
    files = {file.path: file for file in manifest.files}
    asked, gone = [], list[str]()
    for golden in manifest.golden:
        try:
            photo = _photo(half, files[golden.file], models)
        except Rejected as error:
            if is_live and error.reason in ("DigestMismatch", "MissingFile"):
                gone.append(golden.file)
                continue  # users are answered by it: who overwrote or deleted one of several keeps no code back
            raise
        asked.append(Asked(Question(golden.file, golden.expected, golden.min_confidence), photo))
    if gone and not asked:
        names = ", ".join(gone[:_MOST_NAMES]) + (f" and {more} more" if (more := len(gone) - _MOST_NAMES) > 0 else "")
        raise PhotosGone(
            "GoldenPhotosGone",
            f"nothing is left to ask: of model {half.version} no golden photograph is there as it was published "
            f"({names}); put them back and release the pair by hand, with an override, or publish a new version of the "
            "model",
        )
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
