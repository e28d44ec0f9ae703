"""What `/score` takes and gives, as the first generation of this app did, so that its clients go on unchanged.

Taken: `application/json` with `{"input": X}`, X a JSON *string* that holds a JSON array of base64 images, or that array
itself, each image perhaps written as Python prints bytes (`b'…'`); or `multipart/form-data` with one file an image.
Given: `{"result": [[[[label, percent], … three], … one list an image], "Computed in N ms"]}`.
"""

import base64
import binascii
import re
import time
from dataclasses import dataclass
from typing import Any

import flask
import numpy as np
from PIL import Image

from app import bodies, images
from app.images import MAX_IMAGES, MAX_PIXELS_A_REQUEST, Tensor
from app.lifecycle import Lifecycle
from app.model import Prediction
from app.problems import Problem, ProblemError

WHITESPACE = re.compile(r"\s+")
MOST_PARTS = 1000
"""Lists, objects and their members in the JSON of a request; sixteen images are twenty."""


@dataclass(frozen=True)
class Scored:
    """The answers for all images of a request, the last picture read, and the milliseconds it took."""

    predictions: list[list[Prediction]]
    milliseconds: float
    picture: Image.Image

    def document(self) -> dict[str, Any]:
        """Return the JSON object of the answer."""
        rows = [
            [[label, round(100 * confidence, 2)] for label, confidence in predictions]
            for predictions in self.predictions
        ]
        return {"result": [rows, f"Computed in {self.milliseconds:.2f} ms"]}


def score(lifecycle: Lifecycle, sent: list[bytes | ProblemError]) -> Scored:
    """Return the answers; raises ProblemError, for several images one that names each bad one by its index."""
    model = lifecycle.model
    with lifecycle.turn():
        started = time.perf_counter()
        batch, picture = _prepare_all(lifecycle, sent)
        # one by one: on a processor a batch costs as much as its images, and the memory of one image is enough
        predictions = [model.predict(tensor[np.newaxis])[0] for tensor in batch]
        return Scored(predictions, 1000 * (time.perf_counter() - started), picture)


def _prepare_all(lifecycle: Lifecycle, sent: list[bytes | ProblemError]) -> tuple[list[Tensor], Image.Image]:
    batch: list[Tensor] = []
    faults: list[tuple[int, Problem]] = []
    pixels = 0
    for index, data in enumerate(sent):
        try:
            if isinstance(data, ProblemError):
                raise data
            tensor, picture = images.read(data, lifecycle.model.preparation)
            pixels += picture.width * picture.height
            if pixels > MAX_PIXELS_A_REQUEST:
                raise _too_large(f"The images have more than {MAX_PIXELS_A_REQUEST:,} pixels together.")
            batch.append(tensor)
        except ProblemError as error:
            if error.problem.kind == "too-large":
                raise
            faults.append((index, error.problem))
    if not faults:
        return batch, picture
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


def images_of(request: flask.Request) -> list[bytes | ProblemError]:
    """Return the images of a request in their order, an image that is not base64 as its problem.

    Raises ProblemError for a request that has another shape, or too many images.
    """
    if request.mimetype == "application/json":
        sent = [_from_base64(text) for text in _listed(request.get_data(cache=False))]
    elif request.mimetype == "multipart/form-data":
        sent = [upload.read() for _, upload in request.files.items(multi=True) if upload.filename]
    else:
        raise ProblemError(
            Problem(
                415,
                "unsupported-media-type",
                f"The content type is {request.mimetype or 'not given'}. "
                "Send application/json, or multipart/form-data with one file an image.",
            )
        )
    if not sent:
        raise _bad("There is no image in the request. Send at least one.")
    if len(sent) > MAX_IMAGES:
        raise ProblemError(
            Problem(
                413, "too-many-images", f"The request has {len(sent)} images; at most {MAX_IMAGES} are taken at once."
            )
        )
    return sent


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
        return base64.b64decode(text if WHITESPACE.search(text) is None else WHITESPACE.sub("", text), validate=True)
    except (binascii.Error, ValueError) as error:
        return ProblemError(
            Problem(422, "image-not-base64", f"The text is not base64: {error}. Send the file's bytes in base64.")
        )


def _bad(detail: str) -> ProblemError:
    return ProblemError(Problem(400, "bad-request", detail))


def _too_large(detail: str) -> ProblemError:
    return ProblemError(Problem(413, "too-large", f"{detail} Send them in several requests."))
