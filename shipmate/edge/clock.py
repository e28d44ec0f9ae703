"""The real clock, and ids from the operating system's randomness."""

import time
import uuid
from datetime import UTC, datetime


class SystemClock:
    """Time as this machine tells it."""

    def now(self) -> datetime:
        """Return the present instant, aware, in UTC."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""
        time.sleep(seconds)

    def new_id(self) -> str:
        """Return 32 hex digits that nobody else chooses (RFC 9562, version 4)."""
        return uuid.uuid4().hex
