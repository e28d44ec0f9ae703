"""Shipmate's HTTP API, as a person with a key uses it."""

import time
import uuid
from typing import Any

import httpx

READ_ON = "`make status` tells what runs, and names the logs"


class ApiError(Exception):
    """The API answered with a problem, whose detail is the text, or not as it should: the text says where to read."""


class Api:
    """One target behind the API."""

    def __init__(self, url: str, key: str, target: str) -> None:
        self._client = httpx.Client(
            base_url=f"{url}/api/targets/{target}", headers={"x-functions-key": key}, timeout=30, trust_env=False
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, path: str = "") -> Any:
        """Return what is at a path below the target."""
        return self._ask("GET", path)

    def post(self, path: str, body: dict[str, Any], *, key: str | None = None) -> Any:
        """Send a command; a repeat with the same key changes nothing."""
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        return self._ask("POST", path, json=body, headers=headers)

    def newest(self) -> int:
        """Return the number of the newest release, 0 before the first."""
        found = self.get("/releases")
        return found[0]["number"] if found else 0

    def wait_for(self, number: int, within_seconds: float) -> dict[str, Any] | None:
        """Return a release's history as soon as there is such a release, None if none comes in time."""
        deadline = time.monotonic() + within_seconds
        while time.monotonic() < deadline:
            if self.newest() >= number:
                return dict(self.get(f"/releases/r-{number}"))
            time.sleep(0.1)
        return None

    def _ask(self, method: str, path: str, **request: Any) -> Any:
        reply = self._client.request(method, path, **request)
        try:
            body = reply.json()
        except ValueError as error:  # as the Functions host answers when a function of its app failed
            raise ApiError(f"the API answers {reply.status_code} without a word: {READ_ON}") from error
        if reply.is_error:
            raise ApiError(body.get("detail", reply.text))
        return body
