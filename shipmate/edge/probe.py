"""The public door: asking where users ask, on a new connection each time, as a new user would.

The pipeline's verify stage calls it. Nothing here decides: `shipmate.core.answers` reads the replies.
"""

import time

import httpx

from shipmate.core.answers import Answer, Version, parse_answer, parse_version, question
from shipmate.errors import Retryable


class Door:
    """The application's public address."""

    def __init__(self, *, timeout_seconds: float = 10.0) -> None:
        self._timeout_seconds = timeout_seconds

    def ask(self, url: str, photo: bytes) -> Answer:
        """Return the answer about one encoded photograph, and how many seconds it took; Retryable if there is none."""
        started = time.perf_counter()
        reply = self._request("POST", f"{url}/score", question([photo]))
        return parse_answer(reply.status_code, reply.headers, reply.content, time.perf_counter() - started)

    def version(self, url: str) -> Version:
        """Return which pair answers at the door now; Retryable if none does."""
        reply = self._request("GET", f"{url}/version", None)
        if reply.status_code != 200:
            raise Retryable(f"{url}/version answered {reply.status_code}: {reply.text[:300]}")
        return parse_version(reply.headers)

    def _request(self, method: str, url: str, body: bytes | None) -> httpx.Response:
        headers = {"content-type": "application/json"} if body is not None else {}
        try:
            return httpx.request(
                method, url, content=body, headers=headers, timeout=self._timeout_seconds, trust_env=False
            )
        except httpx.TimeoutException as error:
            raise Retryable(f"{url} did not answer within {self._timeout_seconds:g} s") from error
        except httpx.HTTPError as error:
            raise Retryable(f"{url} could not be asked: {error}") from error
