"""What the scoring application answers, read: who asks the public door and who asks the gate's pod share this.

The request and the answer are the app contract's (docs/architecture.md): a JSON array of base64 images in, three labels
with percentages for each image out, and four headers that say which pair answered.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import msgspec

from shipmate.core.gate import Predictions
from shipmate.errors import Busy, Retryable, Unusable

LONGEST_REPLY = 1 << 20
"""Bytes of a reply that are read; three labels take some hundred."""
TOO_LONG = "more than 1 MiB; it should be the app contract's (docs/architecture.md)"
_MOST_PREDICTIONS = 5
_LONGEST_TEXT = 200  # characters of a label or a header's value: both reach the ledger
_MOST_WORDS = 500  # likewise of an error


class Answer(msgspec.Struct, frozen=True):
    """One image's answer. Header values are empty where the application sent none."""

    model_digest: str
    model_version: str
    app_version: str
    release: str
    predictions: Predictions
    seconds: float


class Version(msgspec.Struct, frozen=True):
    """Which pair an application says it is."""

    model_digest: str
    model_version: str
    app_version: str
    release: str


def question(photos: Sequence[bytes]) -> bytes:
    """Return the body of a `POST /score` that asks about some encoded photographs."""
    return json.dumps({"input": [base64.b64encode(photo).decode() for photo in photos]}).encode()


def parse_version(headers: Mapping[str, str]) -> Version:
    """Return what the headers of any reply say about who made it."""
    lower = {key.lower(): value for key, value in headers.items()}
    names = ("x-model-digest", "x-model-version", "x-app-version", "x-release")
    return Version(*(lower.get(name, "")[:_LONGEST_TEXT] for name in names))


def parse_answer(status: int, headers: Mapping[str, str], body: bytes, seconds: float) -> Answer:
    """Return the answer to a question about one photograph: five predictions at most, of each label 200 characters.

    Raises Retryable, with what the application said, for a status other than 200; Busy, where a release says with 503
    when to come again (the app contract); and Unusable for a body of another shape.
    """
    if status != 200:
        said, after, release = (
            f"/score answered {status}: {_words(body)}",
            _after(headers),
            parse_version(headers).release,
        )
        if status == 503 and after is not None and release is not None:
            raise Busy(said, after_seconds=after, release=release)
        raise Retryable(said, after_seconds=after)
    try:
        labels = json.loads(body)["result"][0][0]
        predictions = tuple(
            (writable(str(label))[:_LONGEST_TEXT], _share(percent)) for label, percent in labels[:_MOST_PREDICTIONS]
        )
    except (ArithmeticError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise Unusable(f"/score answered in an unknown shape: {_words(body)}") from error
    version = parse_version(headers)
    return Answer(
        version.model_digest, version.model_version, version.app_version, version.release, predictions, seconds
    )


def _share(percent: Any) -> float:
    share = float(percent) / 100
    if not isfinite(share):  # the ledger is JSON, which has no such numbers
        raise ValueError(share)
    return share


def _words(body: bytes) -> str:
    """Return what an error reply says: the detail of an RFC 9457 problem, or the beginning of the text."""
    try:
        problem: Any = json.loads(body)
        text = problem.get("detail") or problem.get("title") or problem.get("message")
    except (ValueError, AttributeError, RecursionError):
        text = None
    return writable(str(text or body[:_MOST_WORDS].decode(errors="replace") or "no body"))[:_MOST_WORDS]


def writable(text: str) -> str:
    """Return a text out of JSON, where half a surrogate pair may be, as UTF-8 and so the ledger can have it."""
    return text.encode(errors="replace").decode()


def _after(headers: Mapping[str, str]) -> float | None:
    value = {key.lower(): text for key, text in headers.items()}.get("retry-after", "")
    return float(value) if value.isdigit() else None
