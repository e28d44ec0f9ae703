"""Users of the app who keep asking through the public door, and count what went wrong.

Some open a new connection for each request, some keep theirs: a rolling update can lose either kind.
"""

import http.client
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

SLOW_SECONDS = 1.0


@dataclass
class Count:
    """What users saw. Seconds are of the slowest answer."""

    requests: int = 0
    failed: int = 0
    slow: int = 0
    slowest_seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    by_release: Counter[str] = field(default_factory=Counter)

    @property
    def served(self) -> int:
        """Requests that were answered, and within a second."""
        return self.requests - self.failed - self.slow


class Users:
    """Users in threads of their own, from `start` to `stop`. A request without an answer in time has failed."""

    def __init__(
        self,
        url: str,
        body: bytes,
        *,
        each_kind: int = 2,
        pause_seconds: float = 0.1,
        patience_seconds: float = 10.0,
    ) -> None:
        self._url = urlsplit(url)
        self._body = body
        self._pause_seconds = pause_seconds
        self._patience_seconds = patience_seconds
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._count = Count()
        self._threads = [
            threading.Thread(target=self._ask_on, args=(kept,), daemon=True)
            for kept in (False, True)
            for _ in range(each_kind)
        ]

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> Count:
        """Let every user finish the request that is under way, and return what they saw."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=3 * self._patience_seconds)
        return self._count

    def count(self) -> Count:
        """Return what users saw so far."""
        with self._lock:
            seen = self._count
            return Count(
                seen.requests,
                seen.failed,
                seen.slow,
                seen.slowest_seconds,
                Counter(seen.faults),
                Counter(seen.by_release),
            )

    def _ask_on(self, kept: bool) -> None:  # noqa: FBT001 - a thread's argument
        connection = self._connection()
        while not self._stopping.is_set():
            if not kept:
                connection.close()
                connection = self._connection()
            self._ask(connection)
            self._stopping.wait(self._pause_seconds)
        connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._url.hostname or "", self._url.port, timeout=self._patience_seconds)

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        started = time.perf_counter()
        release, fault = "", None
        try:
            connection.request("POST", f"{self._url.path}/score", self._body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            reply.read()
            release = reply.headers.get("X-Release", "")
            if reply.status != 200:
                fault = f"status {reply.status}"
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            fault = type(error).__name__
        self._note(time.perf_counter() - started, release, fault)

    def _note(self, seconds: float, release: str, fault: str | None) -> None:
        with self._lock:
            self._count.requests += 1
            self._count.slowest_seconds = max(self._count.slowest_seconds, seconds)
            if fault is not None:
                self._count.failed += 1
                self._count.faults[fault] += 1
                return
            self._count.by_release[release] += 1
            self._count.slow += seconds > SLOW_SECONDS
