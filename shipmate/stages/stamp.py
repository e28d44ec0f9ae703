"""Who writes an entry, and when."""

from datetime import datetime
from typing import TypedDict

import msgspec

from shipmate.ports import Clock


class Stamped(TypedDict):
    """The fields that every entry carries."""

    id: str
    at: datetime
    by: str


class Stamp(msgspec.Struct, frozen=True):
    """A worker with a clock: makes the fields that every entry carries."""

    clock: Clock
    worker: str

    def __call__(self) -> Stamped:
        """Return the fields for one new entry."""
        return {"id": self.clock.new_id(), "at": self.clock.now(), "by": self.worker}
