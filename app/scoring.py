"""What `/score` takes and gives, as the first generation of this app did, so that its clients go on unchanged.

Taken: `application/json` with `{"input": X}`, X a JSON *string* that holds a JSON array of base64 images, or that array
itself, each image perhaps written as Python prints bytes (`b'…'`); or `multipart/form-data` with one file an image.
Given: `{"result": [[[[label, percent], … three], … one list an image], "Computed in N ms"]}`.
"""

import base64
import binascii
import time
from dataclasses import dataclass
from typing import Any

import flask
import numpy as np
from werkzeug.datastructures import FileStorage

from app import bodies, images
from app.images import MAX_IMAGES, MAX_PIXELS_A_REQUEST, Tensor
from app.model import Model, Prediction
from app.problems import Problem, ProblemError

WHITESPACE = b" \t\r\n\v\f"
MOST_PARTS = 1000
"""Lists, objects and their members in the JSON of a request; sixteen images are twenty."""


@dataclass(frozen=True)
class Scored:
    """The answers for all images of a request, the milliseconds it took, and the last picture as a small JPEG."""

    predictions: list[list[Prediction]]
    milliseconds: float
    thumbnail: bytes | None

    def document(self) -> dict[str, Any]:
        """Return the JSON object of the answer."""
        rows = [
            [[label, round(100 * confidence, 2)] for label, confidence in predictions]
            for predictions in self.predictions
        ]
        return {"result": [rows, f"Computed in {self.milliseconds:.2f} ms"]}


def score(model: Model, sent: list[bytes | ProblemError], *, with_thumbnail: bool = False) -> Scored:
    """Return the answers; raises ProblemError, for several images one that names each bad one by its index.

    Called while the request is being served (`places`).
    """
    started = time.perf_counter()
    batch, thumbnail = _prepare_all(model, sent, with_thumbnail=with_thumbnail)
    # one by one: on a processor a batch costs as much as its images, and the memory of one image is enough
    predictions = [model.predict(tensor[np.newaxis])[0] for tensor in batch]
    return Scored(predictions, 1000 * (time.perf_counter() - started), thumbnail)


def _prepare_all(
    model: Model, sent: list[bytes | ProblemError], *, with_thumbnail: bool
) -> tuple[list[Tensor], bytes | None]:
    batch: list[Tensor] = []
    faults: list[tuple[int, Problem]] = []
    pixels = 0
    thumbnail = None
    for index, data in enumerate(sent):
        try:
            if isinstance(data, ProblemError):
                raise data
            last = index == len(sent) - 1
            tensor, its_pixels, thumbnail = _prepare(model, data, with_thumbnail=with_thumbnail and last)
            pixels += its_pixels
            if pixels > MAX_PIXELS_A_REQUEST:
                raise _too_large(f"The images have more than {MAX_PIXELS_A_REQUEST:,} pixels together.")
            batch.append(tensor)
        except ProblemError as error:
            if error.problem.kind == "too-large":
                raise
            faults.append((index, error.problem))
    if not faults:
        return batch, thumbnail
    if len(sent) == 1:
        raise ProblemError(faults[0][1])
    raise ProblemError(
        Problem(
            422,
            "images-refused",
            f"{len(faults)} of {len(sent)} images cannot be scored, so none was; see errors.",
            {"errors": [{"index": index, **problem.document()} for index, problem in faults]},
        )
    )


def _prepare(model: Model, data: bytes, *, with_thumbnail: bool) -> tuple[Tensor, int, bytes | None]:
    """Return a picture's tensor, pixels and perhaps thumbnail; itself it is gone before the next is decoded."""
    tensor, picture = images.read(data, model.preparation)
    return tensor, picture.width * picture.height, images.thumbnail(picture) if with_thumbnail else None


def read(request: flask.Request) -> bytes | list[bytes]:
    """Return what was sent, as it came: JSON, or the files of a form. Raises ProblemError for anything else."""
    if request.mimetype == "application/json":
        return request.get_data(cache=False)
    if request.mimetype != "multipart/form-data":
        raise ProblemError(
            Problem(
                415,
                "unsupported-media-type",
                f"The content type is {request.mimetype or 'not given'}. "
                "Send application/json, or multipart/form-data with one file an image.",
            )
        )
    return [_taken(upload) for _, upload in request.files.items(multi=True) if upload.filename]


def _taken(upload: FileStorage) -> bytes:
    data: bytes = upload.read()
    upload.close()  # the form would keep it in memory a second time
    return data


def images_of(sent: bytes | list[bytes]) -> list[bytes | ProblemError]:
    """Return the images of what was read in their order, an image that is not base64 as its problem.

    Raises ProblemError for a request that has another shape, or too many images.
    """
    found: list[bytes | ProblemError]
    found = [_from_base64(text) for text in _listed(sent)] if isinstance(sent, bytes) else [*sent]
    if not found:
        raise _bad("There is no image in the request. Send at least one.")
    if len(found) > MAX_IMAGES:
        raise ProblemError(
            Problem(
                413, "too-many-images", f"The request has {len(found)} images; at most {MAX_IMAGES} are taken at once."
            )
        )
    return found


def _listed(body: bytes) -> list[str]:
    """Return the texts of X in {"input": X}."""
    how = 'Send {"input": "[\\"<base64>\\", …]"}.'
    try:
        document = bodies.parse(body, most=MOST_PARTS, of="[{,")
        listed = document["input"]
        if isinstance(listed, str):
            listed = bodies.parse(listed, most=MOST_PARTS, of="[{,")
    except (ValueError, RecursionError) as error:
        raise _bad(f"The body, or the text in its input, is not JSON: {error}. {how}") from error
    except (KeyError, TypeError):
        raise _bad(f"The body is JSON without an input. {how}") from None
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        raise _bad(f"The input is not a list of texts. {how}")
    return listed


def _from_base64(text: str) -> bytes | ProblemError:
    if text[:2] in ("b'", 'b"') and text[-1:] == text[1]:
        text = text[2:-1]
    try:
        # not by a regular expression: with a blank after every other letter, 16 MiB became 400 of pieces
        return base64.b64decode(text.encode("ascii").translate(None, WHITESPACE), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        return ProblemError(
            Problem(422, "image-not-base64", f"The text is not base64: {error}. Send the file's bytes in base64.")
        )


def _bad(detail: str) -> ProblemError:
    return ProblemError(Problem(400, "bad-request", detail))


def _too_large(detail: str) -> ProblemError:
    return ProblemError(Problem(413, "too-large", f"{detail} Send them in several requests."))
