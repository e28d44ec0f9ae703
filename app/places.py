"""How many requests may be where at once, so that a pod outlives any crowd and its probes are answered meanwhile.

`web` admits users' requests; `serving` is where one is read and answered, whatever its path. What the places bound, of
the 512 MiB and the one processor that k8s/base gives a pod:

- 105 MiB are the process with EfficientNet-Lite0 in it.
- `admit`, USERS of them: requests up to LARGE_REQUEST_BYTES wait with their bodies, 2 MiB each: 50 MiB. As many as
  WAITING stand in line before that, their bodies not read yet, and cost a thread each. The threads beyond stay free for
  probes, metrics and refusals.
- the room for large requests, LARGE_REQUESTS of them: a body of 16 MiB, twice while a form is taken apart: 64 MiB.
- the turn, one a processor: what a body becomes. JSON is parsed (up to 270 MiB: numbers, and one emoji), or one
  picture after the other is decoded (200 MiB, a rare kind 290: `images`). Nothing else may parse, decode or score.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from app.problems import Problem, ProblemError

USERS = 24
"""Requests of users worked on at once, those that wait and those whose bodies are slow to come among them."""

WAITING = 40
"""Requests of users that stand in line for that, none of whose body is read."""

REFUSALS = 8
"""Requests beyond them whose bodies are read and dropped, so that the client gets to read that the app is busy."""

THREADS = USERS + WAITING + REFUSALS + 8
"""Of the server. The last ones are for whoever must be answered at once: probes, the preStop hook, Prometheus."""

WAIT_SECONDS = 10.0
"""How long a request waits for a processor or for memory before it is told to come again."""

LARGE_REQUEST_BYTES = 1 << 20
LARGE_REQUESTS = 2


class Places:
    """The places of one worker; every method may be called from any thread."""

    def __init__(self, processors: int) -> None:
        self._users = threading.BoundedSemaphore(USERS)
        self._waiting = threading.BoundedSemaphore(WAITING)
        self._refusals = threading.BoundedSemaphore(REFUSALS)
        self._room = threading.BoundedSemaphore(LARGE_REQUESTS)
        self._processors = threading.BoundedSemaphore(processors)

    def admit(self) -> None:
        """Count a user's request in, before any of its body is read; whoever admitted it lets it `leave`.

        Raises ProblemError (busy) if USERS are there for WAIT_SECONDS, or at once if as many as WAITING stand in line.
        """
        if self._users.acquire(blocking=False):
            return
        if not self._waiting.acquire(blocking=False):
            raise _busy(f"{USERS} requests are being worked on here, and {WAITING} wait. Ask again in a moment.")
        try:
            if not self._users.acquire(timeout=WAIT_SECONDS):
                raise _busy(f"{USERS} requests were worked on here for {WAIT_SECONDS:.0f} s. Ask again in a moment.")
        finally:
            self._waiting.release()

    def leave(self) -> None:
        """Count a request out that was admitted."""
        self._users.release()

    @contextmanager
    def refusing(self) -> Iterator[bool]:
        """Be a context in which a request that was not admitted may be read, if it is True."""
        if not self._refusals.acquire(blocking=False):
            yield False
            return
        try:
            yield True
        finally:
            self._refusals.release()

    @contextmanager
    def serving[Body](self, request_bytes: int | None, read: Callable[[], Body]) -> Iterator[Body]:
        """Be a context in which what `read` returned may be parsed, decoded and scored.

        `read` takes the body of the request, which has so many bytes (None: not told), into memory, and no more: it is
        called without a turn, for its sender may be slow. Entering raises what it raises, and ProblemError (busy) when
        there is no room or turn for WAIT_SECONDS. Both are held until the context ends, so leave it with no more than
        the answer in hand.
        """
        with self._room_for(request_bytes):
            body = read()
            with _one_of(self._processors, "processor"):
                yield body

    def _room_for(self, request_bytes: int | None) -> AbstractContextManager[None]:
        if request_bytes is not None and request_bytes <= LARGE_REQUEST_BYTES:
            return nullcontext()
        return _one_of(self._room, "place for a large request")


@contextmanager
def _one_of(places: threading.BoundedSemaphore, what: str) -> Iterator[None]:
    if not places.acquire(timeout=WAIT_SECONDS):
        raise _busy(f"No {what} became free in {WAIT_SECONDS:.0f} s. Ask again, with fewer or smaller images at once.")
    try:
        yield
    finally:
        places.release()


def _busy(detail: str) -> ProblemError:
    return ProblemError(Problem(503, "busy", detail, headers={"Retry-After": "2"}))
