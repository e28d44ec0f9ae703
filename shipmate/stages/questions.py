"""The golden questions of a model, with their photographs. Asked by the gate and again by verify."""

import msgspec

from shipmate.core.gate import Question
from shipmate.core.ledger import ModelHalf
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


def golden_questions(half: ModelHalf, source: ModelSource, models: Models) -> tuple[Asked, ...]:
    """Return a model's golden questions. Raises Rejected if a photograph is missing or too large, Retryable."""
    manifest = model_manifest(half, source, models)
    folder = half.path.rpartition("/")[0]
    sizes = {file.path: file.size for file in manifest.files}
    asked = []
    for golden in manifest.golden:
        if sizes.get(golden.file, 0) > MAX_PHOTO_BYTES:
            raise Rejected(
                "GoldenPhotoTooLarge", f"{golden.file} has more than {MAX_PHOTO_BYTES} bytes; publish a smaller photo"
            )
        try:
            photo = b"".join(models.open(half.container, f"{folder}/{golden.file}"))
        except NotFound:
            raise Rejected("MissingFile", f"{folder}/{golden.file} is not in the container; publish it anew") from None
        asked.append(Asked(Question(golden.file, golden.expected, golden.min_confidence), photo))
    return tuple(asked)
