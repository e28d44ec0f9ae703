"""What a ledger's entries say about one release: its stages with their seconds, its gate report, its story.

Pure; for the HTTP API, for `fates`, and for everything that shows a release to people.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec

from shipmate.core.book import release_of
from shipmate.core.events import ImagePushed, ModelPublished
from shipmate.core.gate import GateReport
from shipmate.core.ledger import (
    AnyEntry,
    Built,
    CostSheet,
    Errored,
    Failed,
    Gated,
    Live,
    Planned,
    Received,
    Rejected,
    Resolved,
    RolledOut,
    Superseded,
)
from shipmate.core.state import Release


class StageRecord(msgspec.Struct, frozen=True):
    """One stage of a release: how it ended, when, and how long it took in seconds."""

    stage: str
    outcome: str
    ended_at: datetime
    seconds: float
    message: str | None = None


class ReleaseHistory(msgspec.Struct, frozen=True):
    """Everything on record about one release."""

    release: Release
    stages: tuple[StageRecord, ...]
    published_at: datetime | None  # when the newest of its halves was published, as its event says
    publish_to_live_seconds: float | None
    report: GateReport | None
    cost: CostSheet | None


_STAGE: dict[type, tuple[str, str]] = {
    Planned: ("plan", "planned"),
    Built: ("build", "built"),
    Gated: ("gate", "gated"),
    RolledOut: ("rollout", "rolled_out"),
    Live: ("verify", "live"),
    Superseded: ("plan", "superseded"),
}


def begins_at(release: Release) -> datetime:
    """Return an instant before everything on record about a release, and before the event that made it came in.

    The later of its halves came in after both were published; the hour is for clocks that differ.
    """
    known = [instant for instant in release.halves_at if instant is not None]
    return min([release.planned_at, *([max(known)] if known else [])]) - timedelta(hours=1)


def release_history(release: Release, entries: Iterable[AnyEntry]) -> ReleaseHistory:
    """Return what the entries of a target's ledger, oldest first, say about one release."""
    received: dict[str, Received] = {}
    halves: dict[str, str] = {}  # digest → the event that told of it
    stages: list[StageRecord] = []
    report: GateReport | None = None
    published: Received | None = None
    last: datetime | None = None
    for entry in entries:
        if isinstance(entry, Received):
            received[entry.event.event_id] = entry
        elif isinstance(entry, Resolved):
            halves[entry.half.digest] = entry.event_id
        if release_of(entry) != release.number:
            continue
        if isinstance(entry, Planned):
            published = _cause(entry, received, halves)
            stages.extend(_before(published))
            last = published.at if published is not None else entry.at
        if isinstance(entry, Gated | Rejected):
            report = entry.report or report
        record = _record(entry, last or entry.at, {stage.outcome for stage in stages})
        if record is not None:
            stages.append(record)
            last = entry.at
        if isinstance(entry, Live | Rejected | Failed | Superseded):
            break  # nothing about it follows: the rest need not be read
    live = next((stage.ended_at for stage in stages if stage.outcome == "live"), None)
    occurred = published.event.occurred_at if published is not None else None
    seconds = (live - occurred).total_seconds() if live is not None and occurred is not None else None
    return ReleaseHistory(release, tuple(stages), occurred, seconds, report, release.cost)


def _cause(planned: Planned, received: dict[str, Received], halves: dict[str, str]) -> Received | None:
    """Return the publication that made the release: the later of its two halves'; None if a person or a fault did."""
    if planned.trigger not in ("model", "app"):
        return None
    known = [received[halves[half]] for half in (planned.pair.app, planned.pair.model) if halves.get(half) in received]
    return max(known, key=lambda entry: entry.at, default=None)


def _before(published: Received | None) -> list[StageRecord]:
    if published is None:
        return []
    event: ModelPublished | ImagePushed = published.event
    seconds = max(0.0, (published.at - event.occurred_at).total_seconds())
    outcome = "repaired" if published.repaired else "received"
    return [StageRecord("intake", outcome, published.at, round(seconds, 3))]


def _record(entry: AnyEntry, since: datetime, done: set[str]) -> StageRecord | None:
    seconds = round((entry.at - since).total_seconds(), 3)
    if isinstance(entry, Failed):
        return StageRecord(entry.stage, "failed", entry.at, seconds, f"{entry.reason}: {entry.message}")
    if isinstance(entry, Errored):
        return StageRecord(entry.stage, "errored", entry.at, seconds, entry.message)
    if isinstance(entry, Rejected):
        stage = "rollout" if "gated" in done else "gate" if "built" in done else "build"
        return StageRecord(stage, "rejected", entry.at, seconds, f"{entry.reason}: {entry.message}")
    if type(entry) not in _STAGE:  # held, intended: not the end of a stage
        return None
    stage, outcome = _STAGE[type(entry)]
    return StageRecord(stage, outcome, entry.at, seconds, getattr(entry, "message", None))
