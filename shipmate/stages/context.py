"""What every stage works with: the outside systems, the clock, and the name of the worker."""

import dataclasses
from datetime import datetime
from typing import TypedDict

from shipmate.ports import Clock, Cluster, Door, Models, Registry


class Stamp(TypedDict):
    """The fields that every ledger entry carries."""

    id: str
    at: datetime
    by: str


@dataclasses.dataclass(frozen=True)
class Context:
    """The outside, as one worker sees it. Safe to share between threads."""

    registry: Registry
    models: Models
    cluster: Cluster
    door: Door
    clock: Clock
    worker: str

    def stamp(self) -> Stamp:
        """Return the fields of a new entry: an id of its own, now, and this worker."""
        return {"id": self.clock.new_id(), "at": self.clock.now(), "by": self.worker}
