"""The public door: asking where users ask, on a new connection each time, as a new user would.

The pipeline's verify stage calls it. Nothing here decides: `shipmate.core.answers` reads the replies.
"""

import time

import httpx

from shipmate.core.answers import LONGEST_REPLY, TOO_LONG, Answer, Version, parse_answer, parse_version, question
from shipmate.errors import Retryable, Unreachable


class Door:
    """The application's public address."""

    def __init__(self, *, timeout_seconds: float = 10.0) -> None:
        self._timeout_seconds = timeout_seconds

    def ask(self, url: str, photo: bytes) -> Answer:
        """Return the answer about one encoded photograph, and how many seconds it took; Retryable if there is none."""
        started = time.perf_counter()
        status, headers, content = self._request("POST", f"{url}/score", question([photo]))
        return parse_answer(status, headers, content, time.perf_counter() - started)

    def version(self, url: str) -> Version:
        """Return which pair answers at the door now; Retryable if none does."""
        status, headers, content = self._request("GET", f"{url}/version", None)
        if status != 200:
            raise Retryable(f"{url}/version answered {status}: {content[:300].decode(errors='replace')}")
        return parse_version(headers)

    def _request(self, method: str, url: str, body: bytes | None) -> tuple[int, httpx.Headers, bytes]:
        headers = {"content-type": "application/json"} if body is not None else {}
        until = time.monotonic() + self._timeout_seconds
        late = f"{url} did not answer within {self._timeout_seconds:g} s"
        try:
            with httpx.stream(
                method, url, content=body, headers=headers, timeout=self._timeout_seconds, trust_env=False
            ) as reply:
                content = bytearray()
                for piece in reply.iter_bytes():
                    content += piece
                    if len(content) > LONGEST_REPLY:
                        raise Retryable(f"{url} has a reply of {TOO_LONG}")
                    if time.monotonic() > until:  # each piece is in time, and there are more and more of them
                        raise Retryable(late)
                return reply.status_code, reply.headers, bytes(content)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(f"{url} could not be reached: {error}") from error
        except httpx.TimeoutException as error:
            raise Retryable(late) from error
        except httpx.HTTPError as error:
            raise Retryable(f"{url} could not be asked: {error}") from error
