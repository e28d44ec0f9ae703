"""What every stage works with: the outside systems, the clock, and the name of the worker."""

import dataclasses
from collections.abc import Callable
from datetime import datetime
from typing import TypedDict

from shipmate.ports import Clock, Cluster, Door, ImageLocks, Models, Registry


class Stamp(TypedDict):
    """The fields that every ledger entry carries."""

    id: str
    at: datetime
    by: str


def _nobody_listens(words: str) -> None:
    pass


@dataclasses.dataclass(frozen=True)
class Context:
    """The outside, as one worker sees it. Safe to share between threads."""

    registry: Registry
    models: Models
    cluster: Cluster
    door: Door
    clock: Clock
    worker: str
    progress: Callable[[str], None] = _nobody_listens
    """Called by a stage that takes long with words on how far it came; may raise Conflict, which ends the stage."""
    locks: ImageLocks | None = None
    """None where the registry has no such thing: then nothing keeps its clean-up from an image that may be needed."""

    def stamp(self) -> Stamp:
        """Return the fields of a new entry: an id of its own, now, and this worker."""
        return {"id": self.clock.new_id(), "at": self.clock.now(), "by": self.worker}
