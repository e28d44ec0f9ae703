"""The drill's monitors, on a history that is good, and on the same history with one thing wrong."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from drill.monitors import Door, Evidence, fates, lost, moved_backwards, released_twice, seconds_to_live
from drill.publishers import Publish
from drill.watching import Patch
from shipmate.core.events import ImagePushed, ModelPublished
from shipmate.core.ledger import (
    AnyEntry,
    AppHalf,
    Intended,
    Live,
    ModelHalf,
    Planned,
    Received,
    Rejected,
    Resolved,
    RolledOut,
    Skipped,
    Superseded,
)
from shipmate.core.refs import Digest, Pair, digest_of

START = datetime(2026, 1, 1, tzinfo=UTC)
TARGET = "t-000"


class Ledger:
    """Writes entries, a second after one another."""

    def __init__(self) -> None:
        self.entries: list[AnyEntry] = []
        self._numbers = count()

    def stamp(self) -> dict[str, object]:
        number = next(self._numbers)
        return {"id": f"entry-{number}", "at": START + timedelta(seconds=number), "by": "worker"}

    def told(self, publish: Publish, *, event: str = "", skipped: str | None = None) -> None:
        """An event came in, and was resolved or skipped."""
        event_id = event or f"event-{publish.half}-{publish.serial}"
        at = START
        if publish.half == "app":
            what: ImagePushed | ModelPublished = ImagePushed(
                event_id, "local", f"{TARGET}-app", "main", publish.digest, at
            )
        else:
            path = f"{TARGET}-model/{publish.version}/manifest.json"
            what = ModelPublished(event_id, "devstoreaccount1", "models", path, "e", None, at)
        self.add(Received(**self.stamp(), event=what))
        if skipped is not None:
            self.add(Skipped(**self.stamp(), event_id=event_id, reason=skipped, message="because"))
            return
        half = (
            AppHalf(publish.digest, publish.digest, f"{TARGET}-app", publish.version, "1", at)
            if publish.half == "app"
            else ModelHalf(publish.digest, "models", "path", publish.version, "1", at)
        )
        self.add(Resolved(**self.stamp(), event_id=event_id, half=half))

    def released(self, number: int, pair: Pair, *, to: int | None = None) -> None:
        """A release came live."""
        trigger = "automatic_rollback" if to else "app"
        self.add(
            Planned(**self.stamp(), release=number, pair=pair, trigger=trigger, author="a", reason="r", to=to),
            Intended(**self.stamp(), release=number, fence=number),
            RolledOut(**self.stamp(), release=number),
            Live(**self.stamp(), release=number, replies=3),
        )

    def add(self, *entries: AnyEntry) -> None:
        self.entries += entries


def published(half: str, serial: int) -> Publish:
    digest = digest_of(f"{half} {serial}".encode())
    return Publish(TARGET, half, serial, digest, f"1.{serial:04d}", START.timestamp())  # type: ignore[arg-type]


APPS = [published("app", serial) for serial in (1, 2, 3)]
MODELS = [published("model", serial) for serial in (1, 2, 3)]
FIRST = Pair(APPS[0].digest, MODELS[0].digest)
SECOND = Pair(APPS[0].digest, MODELS[2].digest)
THIRD = Pair(APPS[2].digest, MODELS[2].digest)


def good_ledger() -> Ledger:
    """Three apps and three models: the second model was overtaken by the third, the second app by its tag."""
    ledger = Ledger()
    ledger.told(APPS[0])
    ledger.told(MODELS[0])
    ledger.released(1, FIRST)
    ledger.told(MODELS[1])
    ledger.told(MODELS[2])
    ledger.released(2, SECOND)
    ledger.told(APPS[1], skipped="Stale")
    ledger.told(APPS[2])
    ledger.told(APPS[2], event="again", skipped="Duplicate")
    ledger.released(3, THIRD)
    return ledger


def patches(*pairs: Pair, releases: Sequence[int] | None = None, fences: Sequence[int] | None = None) -> list[Patch]:
    releases = releases or range(1, len(pairs) + 1)
    fences = fences or releases
    rows = zip(pairs, releases, fences, strict=True)
    return [
        Patch(TARGET, 0, "", "", 0.0),
        *(Patch(TARGET, fence, pair.key, f"r-{number}", 0.0) for pair, number, fence in rows),
    ]


def good(entries: Sequence[AnyEntry] | None = None) -> Evidence:
    return Evidence(
        publishes=(*APPS, *MODELS),
        ledgers={TARGET: good_ledger().entries if entries is None else entries},
        acknowledged=frozenset({"event-app-1", "again", "event-model-3"}),
        patches=tuple(patches(FIRST, SECOND, THIRD)),
        doors={TARGET: Door("r-3", THIRD.model)},
        replica_sets={TARGET: [FIRST.key, SECOND.key, THIRD.key]},
    )


def test_a_good_history_has_no_findings() -> None:
    assert lost(good()) == released_twice(good()) == moved_backwards(good()) == []


def test_every_publish_has_a_fate() -> None:
    found = fates(good())
    assert [found[publish] for publish in (*APPS, *MODELS)] == [
        "live",
        "skipped",
        "live",
        "live",
        "superseded",
        "live",
    ]


def test_seconds_to_live_are_of_publishes_that_came_to_users() -> None:
    assert seconds_to_live(good()) == [7.0, 7.0, 15.0, 25.0]


def without(kind: type, **fields: object) -> Evidence:
    """Return the good evidence without the entries of a kind with these fields."""
    return good(
        [
            entry
            for entry in good_ledger().entries
            if not (isinstance(entry, kind) and all(getattr(entry, key) == value for key, value in fields.items()))
        ]
    )


def without_event(event: str) -> Evidence:
    return good(
        [
            entry
            for entry in good_ledger().entries
            if not (isinstance(entry, Received) and entry.event.event_id == event)
            and getattr(entry, "event_id", None) != event
        ]
    )


LOST = [
    pytest.param(without_event("event-app-2"), [f"{TARGET} app 1.0002: lost: no event of it is on record"], id="event"),
    pytest.param(
        without(Skipped, reason="Stale"),
        [f"{TARGET} app 1.0002: lost: its event is on record and was never taken up"],
        id="never taken up",
    ),
    pytest.param(
        replace(good(), acknowledged=frozenset({"gone"})),
        ["event gone: acknowledged and not on record"],
        id="acknowledged before it was on record",
    ),
    pytest.param(
        without(Live, release=3),
        [
            f"{TARGET} app 1.0003: lost: it was read and nothing became of it",
            f"{TARGET}: the newest pair is not live, r-2 is",
            f"{TARGET}: r-3 answers at the door where r-2 is live",
        ],
        id="stuck on the way",
    ),
    pytest.param(
        replace(good(), patches=tuple(patches(FIRST, SECOND))),
        [f"{TARGET}: the Deployment does not ask for the newest pair"],
        id="not patched in",
    ),
    pytest.param(
        replace(good(), doors={TARGET: Door("r-2", FIRST.model)}),
        [f"{TARGET}: the newest model does not answer at the door"],
        id="an old model at the door",
    ),
    pytest.param(
        replace(good(), doors={}),
        [f"{TARGET}: the newest model does not answer at the door"],
        id="nobody at the door",
    ),
]


@pytest.mark.parametrize(("evidence", "findings"), LOST)
def test_what_is_lost_is_told(evidence: Evidence, findings: list[str]) -> None:
    assert lost(evidence) == findings


def test_a_newest_publish_that_was_skipped_is_lost() -> None:
    ledger = Ledger()
    ledger.told(APPS[0])
    ledger.told(MODELS[0])
    ledger.released(1, FIRST)
    ledger.told(APPS[1], skipped="Stale")
    evidence = replace(good(ledger.entries), publishes=(APPS[0], APPS[1], MODELS[0]), acknowledged=frozenset())
    assert f"{TARGET} app 1.0002: lost: the newest was skipped (Stale)" in lost(evidence)


def test_the_best_end_of_a_half_counts() -> None:
    ledger = good_ledger()
    pair = Pair(APPS[2].digest, MODELS[1].digest)
    ledger.add(
        Planned(**ledger.stamp(), release=4, pair=pair, trigger="model", author="a", reason="r"),
        Rejected(**ledger.stamp(), release=4, reason="GateFailed", message="m", quarantine=()),
    )
    found = fates(good(ledger.entries))
    assert (found[APPS[2]], found[MODELS[1]]) == ("live", "rejected")


def twice_on_record(*, superseded: bool = False, rollback: bool = False) -> Evidence:
    """Return evidence of a pair that two releases brought, the first of which may have been superseded."""
    ledger = good_ledger()
    if superseded:
        ledger.add(
            Planned(**ledger.stamp(), release=4, pair=THIRD, trigger="app", author="a", reason="r"),
            Superseded(**ledger.stamp(), release=4, message="m"),
        )
    else:
        ledger.released(4, SECOND, to=2 if rollback else None)
        ledger.released(5, THIRD, to=3 if rollback else None)
    return good(ledger.entries)


def test_a_pair_with_two_releases_is_told() -> None:
    assert released_twice(twice_on_record()) == [
        f"{TARGET}: pair {SECOND.key[:12]} has the releases r-2, r-4",
        f"{TARGET}: pair {THIRD.key[:12]} has the releases r-3, r-5",
    ]


def test_a_superseded_release_and_a_rollback_on_record_are_no_second_release() -> None:
    assert released_twice(twice_on_record(superseded=True)) == []
    there_and_back = tuple(patches(FIRST, SECOND, THIRD, SECOND, THIRD))
    assert released_twice(replace(twice_on_record(rollback=True), patches=there_and_back)) == []
    assert moved_backwards(replace(twice_on_record(rollback=True), patches=there_and_back)) == []


def test_a_stage_that_is_on_record_twice_is_told() -> None:
    ledger = good_ledger()
    ledger.add(Live(**ledger.stamp(), release=3, replies=3))
    assert released_twice(good(ledger.entries)) == [f"{TARGET}: r-3 is on record 2 times as Live"]


def test_a_pair_that_was_patched_in_twice_is_told() -> None:
    evidence = replace(good(), patches=tuple(patches(FIRST, SECOND, FIRST, SECOND, THIRD)))
    assert released_twice(evidence) == [
        f"{TARGET}: pair {FIRST.key[:12]} was patched in twice",
        f"{TARGET}: pair {SECOND.key[:12]} was patched in twice",
    ]


def test_a_pair_with_two_replica_sets_is_told() -> None:
    evidence = replace(good(), replica_sets={TARGET: [FIRST.key, FIRST.key]})
    assert released_twice(evidence) == [f"{TARGET}: pair {FIRST.key[:12]} has 2 ReplicaSets"]


BACKWARDS = [
    pytest.param(
        patches(FIRST, THIRD, SECOND),
        [f"{TARGET}: r-3 brought app 1, model 3 after app 3, model 3"],
        id="an older app",
    ),
    pytest.param(
        patches(SECOND, FIRST, THIRD),
        [f"{TARGET}: r-2 brought app 1, model 1 after app 1, model 3"],
        id="an older model",
    ),
    pytest.param(
        patches(FIRST, SECOND, THIRD, fences=(1, 3, 2)),
        [f"{TARGET}: the fence fell from 3 to 2"],
        id="a fence that fell",
    ),
    pytest.param(
        patches(FIRST, Pair(APPS[0].digest, Digest("sha256:" + "0" * 64)), THIRD),
        [f"{TARGET}: r-2 brought a pair that was never published"],
        id="nobody's pair",
    ),
]


@pytest.mark.parametrize(("seen", "findings"), BACKWARDS)
def test_what_moved_backwards_is_told(seen: list[Patch], findings: list[str]) -> None:
    assert moved_backwards(replace(good(), patches=tuple(seen))) == findings


def test_the_newest_pair_is_that_of_the_highest_serials() -> None:
    shuffled = replace(good(), publishes=(APPS[2], MODELS[2], *APPS[:2], *MODELS[:2]))
    assert shuffled.newest(TARGET) == THIRD


def test_a_resolved_half_that_nothing_overtook_is_lost() -> None:
    ledger = Ledger()
    ledger.told(APPS[0])
    ledger.told(MODELS[0])
    evidence = replace(
        good(ledger.entries), publishes=(APPS[0], MODELS[0]), acknowledged=frozenset(), patches=(), doors={}
    )
    assert lost(evidence)[:3] == [
        f"{TARGET} app 1.0001: lost: it was read and nothing became of it",
        f"{TARGET} model 1.0001: lost: it was read and nothing became of it",
        f"{TARGET}: the newest pair is not live, nothing is",
    ]


def test_a_publish_that_was_never_acknowledged_may_be_lost_but_is_known() -> None:
    unsure = replace(MODELS[1], acknowledged=False)
    evidence = replace(without_event("event-model-2"), publishes=(*APPS, MODELS[0], unsure, MODELS[2]))
    assert lost(evidence) == []
    seen = patches(FIRST, Pair(APPS[0].digest, unsure.digest), SECOND, THIRD)
    assert moved_backwards(replace(evidence, patches=tuple(seen))) == []
