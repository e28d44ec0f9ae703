"""The errors of Shipmate: each class names the caller's next move.

ShipmateError
├── Invalid         what came in is wrong and stays wrong: tell the sender what was expected; no retry
│   ├── Rejected    a published half or a candidate cannot be released: record the reason code and go on without it
│   └── Reused      an idempotency key came again with another command: choose a key of its own for each
├── Misconfigured   a setting, the targets file or what they name is wrong: whoever runs Shipmate corrects it; try again
├── NotFound        the thing named does not exist (any more)
├── NotAllowed      the caller, or Shipmate's own identity, may not do this
│   └── NotSignedIn nobody knows who the caller is: sign in
├── Conflict        somebody else was first: read again, decide again
├── Ambiguous       the request may or may not have taken effect: read again to find out
└── Retryable       an outside system is in trouble: try the same again, `after_seconds` if it said when
    ├── Unreachable nobody took the request: nothing is known of who should have answered it
    ├── Busy        who should have answered says that there is no room: ask again then, nothing else is said
    ├── Silent      the request was taken and nothing came back in time: try again, and look who keeps it
    └── Unusable    an answer came that nobody can read: try again, and blame who answered if it stays so
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal


class ShipmateError(Exception):
    """Any error that Shipmate raises on purpose; its text is a sentence for the person who meets it."""


class Invalid(ShipmateError):
    """The input is wrong and will stay wrong."""


class Rejected(Invalid):
    """A published half, or the candidate made of it, cannot be released.

    `reason` is a CamelCase code that the ledger, the log, the API and docs/operating.md share; the text says what was
    expected.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.half: Literal["app", "model"] | None = None  # whose fault it is, where that is known: see `at_fault`


class Reused(Invalid):
    """An idempotency key was used before, for something else."""


class Misconfigured(ShipmateError):
    """What Shipmate was set up with is wrong: a setting, the targets file, or the cluster or Deployment they name.

    The text names what to correct. Whoever asked did nothing wrong, and the same request succeeds after that.
    """


@contextmanager
def at_fault(half: Literal["app", "model"]) -> Iterator[None]:
    """Let every Rejected that comes out of the block say that this half is at fault."""
    try:
        yield
    except Rejected as error:
        error.half = error.half or half
        raise


class NotFound(ShipmateError):
    """The thing named does not exist."""


class NotAllowed(ShipmateError):
    """Credentials are missing, wrong, or not enough."""


class NotSignedIn(NotAllowed):
    """Signing in is needed, and the caller did not."""


class Conflict(ShipmateError):
    """The state that the caller decided upon has changed."""


class Ambiguous(ShipmateError):
    """The outcome of a request is unknown: it may have taken effect."""


class Retryable(ShipmateError):
    """An outside system did not serve the request; the same request may succeed later."""

    def __init__(self, message: str, *, after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.after_seconds = after_seconds


class Unreachable(Retryable):
    """There was no connection to send the request on."""


class Busy(Retryable):
    """The application refused a request for want of room; `release` is the one that said so."""

    def __init__(self, message: str, *, after_seconds: float, release: str) -> None:
        super().__init__(message, after_seconds=after_seconds)
        self.release = release


class Silent(Retryable):
    """There was a connection, and no reply on it in time."""


class Unusable(Retryable):
    """A reply came, and it has not the form that was agreed on."""
