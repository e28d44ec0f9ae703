"""Errors as RFC 9457 problem details: what went wrong, in words that say what to do."""

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import flask

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class Problem:
    """One problem: `kind` is the tail of its type URI, `members` are extension members of the document."""

    status: int
    kind: str
    detail: str
    members: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The same words for every problem of a kind (RFC 9457 section 3.1.3)."""
        return TITLES.get(self.kind, HTTPStatus(self.status).phrase)

    def document(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "type": f"urn:shipmate:app:{self.kind}" if self.kind in TITLES else "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **self.members,
        }

    def response(self) -> flask.Response:
        """Return the HTTP answer."""
        response = flask.json.jsonify(self.document())
        response.status_code = self.status
        response.mimetype = MEDIA_TYPE
        response.headers.update(self.headers)
        return response


class ProblemError(Exception):
    """Raised wherever a request cannot be answered; `web` turns it into the answer."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


TITLES = {
    "not-ready": "The app cannot answer yet",
    "no-model": "This is the code half and has no model",
    "broken-model": "The model in this image cannot be used",
    "draining": "This instance is about to stop",
    "busy": "Too many requests at once",
    "bad-request": "The request is not what this path takes",
    "unsupported-media-type": "The content type is not what this path takes",
    "too-many-images": "Too many images in one request",
    "too-large": "The request is too large",
    "image-not-base64": "An image is not base64",
    "image-too-large": "An image is too large",
    "image-unreadable": "An image cannot be read",
    "images-refused": "Some images cannot be scored",
    "no-such-model": "This server has another model",
    "bad-tensor": "The input tensor does not fit the model",
    "forbidden": "Not allowed",
}
"""The kinds of problems this app has of its own; any other is `about:blank` with the status's phrase."""
