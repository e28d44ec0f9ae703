"""The fold: what each entry does, what may follow what, and that a snapshot is as good as the whole history."""

import random
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipmate.core.events import Ignored
from shipmate.core.fold import fold
from shipmate.core.gate import Change, GateReport, Row
from shipmate.core.ledger import (
    ACTIVE,
    STEPS,
    AnyEntry,
    Entry,
    Errored,
    Gated,
    HoldSet,
    IgnoredEvent,
    IllegalStep,
    Intended,
    Phase,
    Planned,
    Received,
    Rejected,
    Superseded,
    Waiting,
    decode,
    encode,
)
from shipmate.core.publications import LEFT, examined
from shipmate.core.refs import Digest
from shipmate.core.state import HALVES_KEPT, MEMORY, REFUSALS_KEPT, RELEASES_KEPT, Release, State
from tests.fakes.histories import NOON, PASSED, Story, app_half, digest, model_half, pair, published, pushed

# -- what may follow what -------------------------------------------------------------------------------------------

REACHED: dict[Phase, Story] = {
    Phase.PLANNED: Story().app("A1").model("M1").plan("A1", "M1"),
    Phase.BUILT: Story().app("A1").model("M1").plan("A1", "M1").build(),
    Phase.GATED: Story().app("A1").model("M1").plan("A1", "M1").build().gate(),
    Phase.HELD: Story().app("A1").model("M1").plan("A1", "M1").build().gate().hold().park().resume(),
    Phase.CLEARED: Story().app("A1").model("M1").plan("A1", "M1", "blame", blames=1).build().gate(),
    Phase.INTENDED: Story().app("A1").model("M1").plan("A1", "M1").build().gate().intend(),
    Phase.ROLLED_OUT: Story().app("A1").model("M1").plan("A1", "M1").build().gate().intend().roll_out(),
    Phase.LIVE: Story().ship_first(),
    Phase.REJECTED: Story().app("A1").model("M1").plan("A1", "M1").build().reject(),
    Phase.FAILED: Story().app("A1").model("M1").plan("A1", "M1").build().gate().intend().fail(),
    Phase.SUPERSEDED: Story().app("A1").model("M1").plan("A1", "M1").supersede(),
}

STEP: dict[str, Any] = {
    "built": lambda s: s.build(),
    "gated": lambda s: s.gate(),
    "rejected": lambda s: s.reject(),
    "held": lambda s: (s if s.state.hold else s.hold()).park(),
    "intended": lambda s: s.intend(),
    "rolled_out": lambda s: s.roll_out(),
    "live": lambda s: s.go_live(),
    "failed": lambda s: s.fail(),
    "progressed": lambda s: s.progress(),
    "errored": lambda s: s.err(),
    "superseded": lambda s: s.supersede(),
}
BUT_FOR_ROLLBACKS = {("intended", Phase.BUILT)}
ON_ITS_WAY = {Phase.PLANNED, Phase.BUILT, Phase.GATED, Phase.INTENDED, Phase.ROLLED_OUT}
TABLE: dict[str, set[Phase]] = {  # told again: the product's own table cannot judge itself
    "built": {Phase.PLANNED},
    "gated": {Phase.BUILT},
    "rejected": {Phase.PLANNED, Phase.BUILT, Phase.INTENDED},
    "held": {Phase.GATED, Phase.CLEARED, Phase.INTENDED},
    "intended": {Phase.GATED, Phase.CLEARED, Phase.BUILT, Phase.HELD, Phase.INTENDED},
    "rolled_out": {Phase.INTENDED},
    "live": {Phase.ROLLED_OUT},
    "failed": {Phase.PLANNED, Phase.INTENDED, Phase.ROLLED_OUT},
    "progressed": ON_ITS_WAY,
    "errored": ON_ITS_WAY | {Phase.HELD, Phase.CLEARED},
    "superseded": ON_ITS_WAY | {Phase.HELD, Phase.CLEARED},
}


def retold(story: Story) -> Story:
    """Return a story that goes on where another stands, without changing it."""
    return Story(story.state, story.now)


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("phase", REACHED)
def test_only_the_steps_of_the_table_are_taken(phase: Phase, kind: str) -> None:
    story = retold(REACHED[phase])
    assert story.newest.phase is phase
    if phase in TABLE[kind] and (kind, phase) not in BUT_FOR_ROLLBACKS:
        STEP[kind](story)
    else:
        with pytest.raises(IllegalStep, match=r"r-1 (is|was)"):
            STEP[kind](story)


def test_every_phase_is_tried_above_but_those_that_only_others_bring_about() -> None:
    assert set(Phase) - set(REACHED) == {Phase.RETIRED, Phase.ROLLED_BACK}


ILLEGAL: dict[str, tuple[Any, str]] = {
    "an event that was taken in before": (
        lambda s: s.receive(pushed("e1", "A1")).receive(pushed("e1", "A1")),
        "event e1 was taken in before",
    ),
    "a fence below the highest": (
        lambda s: s.hold("h1").hold("h2").write(HoldSet, request="h3", author="bo", reason="late", fence=1),
        "fence 1 was handed out already: the highest is 2",
    ),
    "a half of no event": (lambda s: s.resolve("e1", app_half("A1")), "event e1 is not waiting to be resolved"),
    "a half twice": (
        lambda s: s.receive(pushed("e1", "A1")).resolve("e1", app_half("A1")).resolve("e1", app_half("A1")),
        "event e1 is not waiting",
    ),
    "skipping no event": (lambda s: s.skip("e1"), "event e1 is not waiting"),
    "trouble with no event": (lambda s: s.err_reading("e1"), "event e1 is not waiting"),
    "two on their way": (
        lambda s: s.app("A1").model("M1").plan("A1", "M1").plan("A1", "M1"),
        "r-2 was planned while r-1 is on its way",
    ),
    "a number left out": (
        lambda s: s.write(
            Planned,
            release=2,
            pair=pair("A1", "M1"),
            trigger="app",
            author="",
            reason="",
        ),
        "r-2 was planned where r-1 is next",
    ),
    "an unknown release": (
        lambda s: s.write(Intended, release=7, fence=1),
        "knows no release r-7",
    ),
    "a fence twice": (
        lambda s: (
            s.app("A1").model("M1").plan("A1", "M1").build().gate().hold().resume().write(Intended, release=1, fence=1)
        ),
        "fence 1 was handed out already: the highest is 1",
    ),
    "traffic under a hold": (
        lambda s: s.app("A1").model("M1").plan("A1", "M1").build().hold().gate().intend(),
        "r-1 was intended while a hold is in force",
    ),
    "traffic before the gate": (
        lambda s: s.app("A1").model("M1").plan("A1", "M1").build().intend(),
        "r-1 was intended before its gate",
    ),
    "what is parked, while another is on its way": (
        lambda s: (
            s.ship_first().app("A2").plan("A2", "M1").build().hold().gate().park().resume().plan("A1", "M1").intend(2)
        ),
        "r-2 was intended while r-3 is on its way",
    ),
    "back to what never was live": (
        lambda s: s.app("A1").model("M1").plan("A1", "M1").ask_rollback("k", 1),
        "r-1 was never live",
    ),
    "back to what never was": (lambda s: s.ask_rollback("k", 1), "knows no release r-1"),
}


@pytest.mark.parametrize(("told", "message"), ILLEGAL.values(), ids=ILLEGAL)
def test_an_illegal_step_says_so(told: Any, message: str) -> None:
    with pytest.raises(IllegalStep, match=message):
        told(Story())


# -- what each entry does -------------------------------------------------------------------------------------------


def test_received_is_to_be_read_and_remembered() -> None:
    story = Story().receive(published("e1", "M1", sequencer=0xAB)).receive(pushed("e2", "A1"))
    state = story.state
    assert [item.event.event_id for item in state.publications] == ["e1", "e2"]
    assert state.sequencers == {"models/net/M1/manifest.json": f"{0xAB:064x}"}
    assert state.examined == {"models/net/M1/manifest.json": "0xM1", "vision-app:main": digest("A1")}
    assert list(state.seen) == ["e1", "e2"]
    assert Story().ignore("e3").state.seen.keys() == {"e3"}


@pytest.mark.parametrize("reason", ["Stale", "Gone"])
def test_what_was_not_what_its_name_stood_for_is_news_when_it_is(reason: str) -> None:
    story = Story().receive(published("e1", "M1")).receive(pushed("e2", "A1")).skip("e2", reason)
    assert story.state.examined == {"models/net/M1/manifest.json": "0xM1"}
    story.receive(pushed("e3", "A1")).receive(pushed("e4", "A2")).skip("e3", reason)
    assert story.state.examined == {"models/net/M1/manifest.json": "0xM1", "vision-app:main": digest("A2")}


def test_a_tag_that_moved_to_quarantined_code_is_where_it_is() -> None:
    story = Story().ship_first().app("A2").plan("A2", "M1").build().reject(digest("A2")).app("A1")
    assert [half.version for half in story.state.apps] == ["A2", "A1"]
    story.receive(pushed("e9", "A2")).skip("e9", "Quarantined")
    assert [half.version for half in story.state.apps] == ["A1", "A2"]
    story.receive(published("e10", "M1")).skip("e10", "Quarantined")
    assert [half.version for half in story.state.apps] == ["A1", "A2"]


def test_what_was_skipped_for_what_it_is_is_no_news_later() -> None:
    story = Story().receive(pushed("e1", "A1")).skip("e1", "NotAnApp")
    assert story.state.examined == {"vision-app:main": digest("A1")}


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("1.9", "1.10"),
        ("9", "10"),
        ("2026-11-28.2", "2026-11-28.11"),
        ("1.10-rc2", "1.10"),
        ("a", "b"),
        ("1.01", "1.1"),
    ],
)
def test_models_of_one_second_are_in_the_order_of_the_numbers_in_their_paths(earlier: str, later: str) -> None:
    for first, second in ((earlier, later), (later, earlier)):
        story = Story().model(first, uploaded_at=NOON).model(second, uploaded_at=NOON)
        assert [half.version for half in story.state.models] == [earlier, later]
    story.model("0", uploaded_at=NOON + timedelta(seconds=1))
    assert story.state.models[-1].version == "0"


def test_where_a_model_was_before_it_was_copied_counts_as_not_looked_at() -> None:
    story = Story().model("M1").model("M2")
    copy = msgspec.structs.replace(model_half("M1", at=story.now), path="net/copy/manifest.json", etag="0xC")
    event = msgspec.structs.replace(published("e9", "M1"), path=copy.path, etag=copy.etag)
    story.receive(event).resolve("e9", copy)
    assert story.state.examined == {
        "models/net/M1/manifest.json": LEFT,
        "models/net/M2/manifest.json": "0xM2",
        "models/net/copy/manifest.json": "0xC",
    }


def at_the_first_place(story: Story) -> Story:
    """Tell late of an upload of M1 that came before the one that is known."""
    event = msgspec.structs.replace(published("e9", "M1"), path="net/first/manifest.json", etag="0xF")
    return story.receive(event).skip("e9", "Duplicate")


def test_where_a_model_was_before_counts_as_not_looked_at_also_if_that_is_told_late() -> None:
    story = at_the_first_place(Story().model("M1"))
    assert story.state.examined == {"models/net/M1/manifest.json": "0xM1", "models/net/first/manifest.json": LEFT}


def test_a_model_told_of_again_where_it_is_counts_as_looked_at() -> None:
    story = Story().model("M1").receive(published("e9", "M1")).skip("e9", "Duplicate")
    assert story.state.examined == {"models/net/M1/manifest.json": "0xM1"}


def test_a_place_that_was_looked_at_for_the_lost_live_model_is_not_looked_at_again() -> None:
    story = Story().ship_first().app("A2").plan("A2", "M1")
    story.write(Rejected, release=2, reason="Gone", message="gone", quarantine=(), withdrawn=digest("M1"))
    assert at_the_first_place(story).state.examined["models/net/first/manifest.json"] == "0xF"


def test_a_publication_that_the_sweep_found_has_no_sequencer() -> None:
    event = msgspec.structs.replace(published("e1", "M1"), sequencer=None, etag=None)
    story = Story().receive(event, repaired=True)
    assert story.state.sequencers == {}
    assert examined(event) == ("models/net/M1/manifest.json", "")


def test_event_ids_are_remembered_for_as_long_as_event_grid_repeats() -> None:
    story = Story()
    for number in range(64):
        story.ignore(f"old-{number}")
    story.wait(MEMORY.total_seconds() - 100).ignore("new")
    assert len(story.state.seen) == 65
    story.wait(60).ignore("newer")
    assert "old-63" in story.state.seen
    assert "old-0" not in story.state.seen
    assert list(story.state.seen)[-2:] == ["new", "newer"]


def test_few_event_ids_are_remembered_for_longer() -> None:
    story = Story().ignore("old").wait(MEMORY.total_seconds() * 2).ignore("new")
    assert story.state.seen.keys() == {"old", "new"}


def test_names_used_last_are_kept_longest() -> None:
    story = Story().receive(pushed("tag", "A1"))
    for number in range(HALVES_KEPT * 4):
        story.receive(published(f"e{number}", f"M{number}"))
        story.receive(pushed(f"tag-{number}", f"A{number}"))
    assert len(story.state.examined) == HALVES_KEPT * 4
    assert story.state.examined["vision-app:main"] == digest(f"A{HALVES_KEPT * 4 - 1}")
    assert "models/net/M0/manifest.json" not in story.state.examined
    assert len(story.state.sequencers) == HALVES_KEPT * 4


def test_a_name_that_is_used_again_is_kept_as_the_newest() -> None:
    story = Story().receive(published("kept", "M"))
    for number in range(HALVES_KEPT * 4 - 1):
        story.receive(published(f"e{number}", f"M{number}"))
    story.receive(published("again", "M", sequencer=2)).receive(published("last", "N"))
    for names in (story.state.examined, story.state.sequencers):
        assert "models/net/M/manifest.json" in names
        assert "models/net/M0/manifest.json" not in names


def test_the_head_of_the_apps_is_what_was_resolved_last() -> None:
    story = Story().app("A1").app("A2").app("A1")
    assert [half.version for half in story.state.apps] == ["A2", "A1"]


def test_the_head_of_the_models_is_what_was_uploaded_last() -> None:
    story = Story().model("M2").model("M1", uploaded_at=NOON - timedelta(hours=1))
    assert [half.version for half in story.state.models] == ["M1", "M2"]
    changed = story.state.halves_changed_at
    assert changed == NOON
    assert story.state.halves_settled_at == NOON


def test_halves_beyond_the_newest_fifty_are_forgotten() -> None:
    story = Story()
    for number in range(HALVES_KEPT + 3):
        story.app(f"A{number}").model(f"M{number}")
    assert len(story.state.apps) == len(story.state.models) == HALVES_KEPT
    assert story.state.app(digest("A0")) is None
    assert story.state.model(digest("M3")) is not None


def test_the_quiet_window_starts_with_the_first_new_head_and_ends_with_a_plan() -> None:
    story = Story().app("A1").wait(5).model("M1")
    assert story.state.halves_changed_at == NOON
    assert story.state.halves_settled_at == NOON + timedelta(seconds=6)
    assert story.plan("A1", "M1").state.halves_changed_at is None
    rolled_back = Story().ship_first().app("A2").ship("A2", "M1").app("A3")
    assert rolled_back.plan_rollback(1, 2).state.halves_changed_at is not None


def test_a_skipped_publication_is_off_the_list() -> None:
    assert Story().receive(pushed("e1", "A1")).skip("e1").state.publications == ()


def test_trouble_with_reading_counts_for_that_publication_alone() -> None:
    story = Story().receive(pushed("e1", "A1")).receive(pushed("e2", "A2")).err_reading("e2", 5)
    first, second = story.state.publications
    assert (first.attempt, first.retry_at) == (1, None)
    assert (second.attempt, second.retry_at) == (2, NOON + timedelta(seconds=7))
    assert (first.message, second.message) == (None, "the registry is away")


def test_a_half_that_is_withdrawn_is_forgotten_until_it_is_published_again() -> None:
    story = Story().app("A1").model("M1").model("M2").plan("A1", "M2")
    story.write(Rejected, release=1, reason="MissingFile", message="gone", quarantine=(), withdrawn=digest("M2"))
    assert [half.digest for half in story.state.models] == [digest("M1")]
    assert [half.digest for half in story.state.apps] == [digest("A1")]
    assert not story.state.quarantine


def test_a_request_is_kept_until_a_release_is_planned_for_it() -> None:
    story = Story().app("A1").model("M1").request("k1").request("k2", pair("A1", "M1"))
    assert story.state.request is not None
    assert story.state.request.id == "k2"
    story.plan("A1", "M1", "request", request="k2")
    assert story.state.request is None
    assert story.state.requests == {"k1": None, "k2": 1}


def test_a_plan_for_an_older_request_leaves_the_newest_alone() -> None:
    story = Story().app("A1").model("M1").request("k1").request("k2").plan("A1", "M1", "request", request="k1")
    assert story.state.request is not None
    assert story.state.requests == {"k1": 1, "k2": None}


def test_a_rollback_request_is_kept_until_its_rollback_is_planned() -> None:
    story = Story().ship_first().app("A2").ship("A2", "M1").ask_rollback("k1", 1)
    assert story.state.rollback_request is not None
    story.plan("A2", "M1", "request", request="k0").supersede()
    assert story.state.rollback_request is not None
    story.plan_rollback(1, 2, request="k1")
    assert story.state.rollback_request is None
    assert story.newest.is_rollback
    assert story.newest.image == story.state.release(1).image


def test_a_hold_takes_a_fence_and_is_lifted_by_its_own_id_only() -> None:
    story = Story().hold("h1")
    first = story.state.hold
    assert first is not None
    assert (first.author, first.reason, story.state.fence) == ("bo", "a demo is on", 1)
    story.hold("h2")
    assert story.resume(first.id, key="late").state.hold is not None
    assert story.resume(key="now").state.hold is None
    assert story.resume("entry-1", key="again").state.hold is None
    assert story.state.requests == {"h1": None, "h2": None, "late": None, "now": None, "again": None}


def test_a_command_is_remembered_with_its_fingerprint() -> None:
    story = Story().ship_first().request("k1").ask_rollback("k2", 1).hold("k3").resume(key="k4")
    assert story.state.fingerprints == {"k1": "", "k2": "", "k3": "", "k4": ""}
    story.write(HoldSet, request="k3", author="bo", reason="a demo is on", fence=story.state.fence + 1, fingerprint="f")
    assert story.state.fingerprints["k3"] == "f"


def test_nothing_follows_from_a_refusal_and_the_oldest_is_forgotten() -> None:
    story = Story().ship_first()
    before = story.state
    for number in range(REFUSALS_KEPT + 1):
        story.refuse("k", author=f"cy{number}")
    assert list(story.state.refused) == [f"cy{number} hold" for number in range(1, REFUSALS_KEPT + 1)]
    assert msgspec.structs.replace(story.state, refused={}, length=before.length) == before


def test_a_release_keeps_what_each_stage_found() -> None:
    story = Story().app("A1").model("M1").plan("A1", "M1").err(5).err(5)
    assert (story.newest.attempt, story.newest.stage_attempt) == (3, 3)
    assert story.newest.message == "the registry is away"
    assert story.newest.retry_at == story.now + timedelta(seconds=4)
    built = story.build().newest
    assert (built.attempt, built.stage_attempt) == (3, 1)
    assert built.message is None
    assert built.retry_at is None
    assert built.cost is not None
    assert built.moved_at == story.now - timedelta(seconds=1)
    assert [layer.key for layer in story.state.layers] == [digest("M1")]
    story.hand_over()
    assert (story.state.last_stage_by, story.newest.message) == (None, "a turn is over")
    story.taken_over_by("worker-2").gate().intend()
    assert (story.newest.fence, story.state.fence) == (1, 1)
    assert story.state.last_stage_by == "worker-2"
    assert story.state.last_stage_at == story.now - timedelta(seconds=1)
    story.roll_out().go_live()
    assert story.state.serving == story.newest
    assert (story.newest.app_version, story.newest.model_version, story.newest.name) == ("A1", "M1", "r-1")
    assert story.state.verified == (1,)


def test_a_pair_of_unknown_halves_has_no_versions() -> None:
    release = Story().plan("A1", "M1").newest
    assert (release.app_version, release.model_version) == ("", "")


def test_the_gate_forgives_what_the_thresholds_allow() -> None:
    rows = tuple(
        Row(f"{change}.jpg", "daisy", 0.0, (("rose", 0.9),), (("rose", 0.8),), change)
        for change in (Change.NEWLY_WRONG, Change.WRONG, Change.CHANGED, Change.MOVED, Change.SAME)
    )
    report = GateReport(passed=True, faults=(), rows=rows, slowest_seconds=0.1, compared_with=None)
    story = Story().app("A1").model("M1").plan("A1", "M1").build().gate(report)
    assert story.newest.forgiven == ("newly wrong.jpg", "wrong.jpg", "changed.jpg")


def test_going_live_retires_the_one_before() -> None:
    story = Story().ship_first().app("A2").ship("A2", "M1")
    assert [release.phase for release in story.state.releases] == [Phase.RETIRED, Phase.LIVE]
    assert (story.state.live, story.state.verified, story.state.hold) == (2, (1, 2), None)


def test_a_rollback_holds_everything_although_one_kind_of_half_was_held() -> None:
    story = Story().ship_first().app("A2").ship("A2", "M1").hold(scope="model").roll_back(1, 2, digest("A2"))
    assert story.state.hold is not None
    assert story.state.hold.scope == "all"
    assert story.state.hold.reason == "daisies come back wrong"


def test_a_rollback_leaves_a_hold_on_everything_as_it_is() -> None:
    story = Story().ship_first().app("A2").ship("A2", "M1").hold().roll_back(1, 2, digest("A2"))
    assert story.state.hold is not None
    assert story.state.hold.reason == "a demo is on"


def test_a_rollback_that_is_live_holds_and_quarantines() -> None:
    story = Story().ship_first().app("A2").ship("A2", "M1").roll_back(1, 2, digest("A2"))
    assert [release.phase for release in story.state.releases] == [Phase.RETIRED, Phase.ROLLED_BACK, Phase.LIVE]
    assert story.state.hold is not None
    assert (story.state.hold.author, story.state.hold.reason) == ("bo", "daisies come back wrong")
    assert story.state.is_quarantined(pair("A2", "M2"))
    assert not story.state.is_quarantined(pair("A1", "M2"))


def test_a_rollback_that_undoes_nothing_holds_all_the_same() -> None:
    story = Story().ship_first().roll_back(1, None)
    assert [release.phase for release in story.state.releases] == [Phase.RETIRED, Phase.LIVE]
    assert story.state.hold is not None


def test_a_rollback_that_failed_sets_no_hold_lifts_none_and_is_not_rolled_back() -> None:
    story = Story().ship_first().app("A2").ship("A2", "M1").plan_rollback(1, 2).build().intend().fail()
    assert (story.state.hold, story.state.rollback_due, story.state.live) == (None, None, 2)
    held = Story().ship_first().app("A2").ship("A2", "M1").hold().plan_rollback(1, 2).build().intend().fail()
    assert held.state.hold is not None


def failed_in_the_cluster() -> Story:
    """Return a story in which r-2 is live, and r-3, which users met, failed."""
    story = Story().ship_first().app("A2").ship("A2", "M1").app("A3")
    return story.plan("A3", "M1").build().gate().intend().roll_out().fail()


def test_what_failed_is_to_be_undone_until_something_is_live() -> None:
    story = failed_in_the_cluster()
    assert story.state.rollback_due == 3
    story.plan_rollback(2, 3).supersede()
    assert story.state.rollback_due == 3, "the automatic rollback gave way"
    story.plan_rollback(1, 2).build().intend().supersede()
    assert story.state.rollback_due == 3, "a person's rollback of what is live gave way too"
    story.plan_rollback(1, 2).fail(stage="build")
    assert story.state.rollback_due == 3, "and another's image is lost"
    story.plan_rollback(1, 2).build().intend().fail(stage="build")
    assert story.state.rollback_due == 3, "which was found out right before the patch"
    story.plan_rollback(2, 3).build().intend().roll_out().go_live()
    assert story.state.rollback_due is None


def test_what_a_person_rolled_back_before_it_was_live_is_to_be_undone() -> None:
    story = Story().ship_first().app("A2").plan("A2", "M1").build().gate().intend().supersede()
    assert story.state.rollback_due is None
    assert story.plan_rollback(1, 2).state.rollback_due == 2


def test_what_was_undone_is_not_due_again_for_a_wish_of_before() -> None:
    story = failed_in_the_cluster().roll_back(2, 3)
    assert story.plan_rollback(1, 3).supersede().state.rollback_due is None


def test_what_a_person_rolled_back_while_it_rolled_out_is_quarantined() -> None:
    story = Story().ship_first().app("A2").plan("A2", "M1").build().gate().intend()
    story.write(Superseded, release=2, message="bo rolled back", quarantine=(digest("A2"),))
    assert story.state.quarantine == {digest("A2")}


def test_a_lost_image_is_forgotten_by_all_but_what_waits_for_traffic() -> None:
    story = Story().ship_first().app("A2").ship("A2", "M1")
    image = story.state.release(1).image
    story.plan("A1", "M1", "request").build().gate().hold().park()
    story.plan_rollback(1, 2).fail(stage="build")
    assert [release.image for release in story.state.releases if release.pair == pair("A1", "M1")] == [
        None,
        image,
        None,
    ]


@pytest.mark.parametrize(
    ("told", "due"),
    [
        pytest.param(Story().ship_first().app("A2").plan("A2", "M1").build().gate().intend().fail(), 2, id="rollout"),
        pytest.param(
            Story().ship_first().app("A2").plan("A2", "M1").build().gate().intend().roll_out().fail(), 2, id="verify"
        ),
        pytest.param(Story().ship_first().plan_rollback(1, None).fail(), None, id="a rollback's image is gone"),
        pytest.param(REACHED[Phase.FAILED], None, id="nothing was live before"),
    ],
)
def test_a_failure_is_undone_if_users_may_have_met_it(told: Story, due: int | None) -> None:
    assert told.state.rollback_due == due


def test_quarantine_is_by_half_or_by_pair() -> None:
    state = Story().app("A1").model("M1").plan("A1", "M1").build().reject(pair("A1", "M1").key, digest("M2")).state
    assert [state.is_quarantined(pair(*names)) for names in (("A1", "M1"), ("A2", "M2"), ("A2", "M1"))] == [
        True,
        True,
        False,
    ]


def test_waiting_for_a_partner_lasts_until_a_head_changes_or_one_is_quarantined() -> None:
    waits = Story().ship_first().app("A2").plan("A2", "M1").build().model("M2", "2").await_partner("A2", "M2")
    assert isinstance(waits.state.waiting, Waiting)
    assert retold(waits).gate().intend().roll_out().go_live().state.waiting is not None
    assert retold(waits).reject(digest("A2")).state.waiting is None
    assert retold(waits).reject(digest("A9")).state.waiting is not None
    assert retold(waits).model("M3", "2").state.waiting is None
    assert retold(waits).model("M0", uploaded_at=NOON - timedelta(hours=1)).state.waiting is not None


def test_releases_beyond_two_hundred_are_forgotten_but_the_live_and_the_verified() -> None:
    story = Story().ship_first()
    for _ in range(RELEASES_KEPT + 1):
        story.plan("A1", "M1").supersede()
    numbers = [release.number for release in story.state.releases]
    assert numbers == [1, *range(3, RELEASES_KEPT + 3)]
    assert story.state.next_number == RELEASES_KEPT + 3


# -- encoding -------------------------------------------------------------------------------------------------------


def test_an_entry_is_one_line_and_reads_back_equal() -> None:
    story = Story().ship_first()
    for entry in story.entries:
        line = encode(entry)
        assert line.count(b"\n") == 1
        assert line.endswith(b"\n")
        assert f'"kind":"{entry.kind_name}"'.encode() in line
        assert decode(line) == entry


def unwritable() -> list[Any]:
    stamp: dict[str, Any] = {"id": "e", "at": NOON, "by": "w"}
    row = Row("a.jpg", "daisy", 0.0, (("daisy", float("nan")),), None, Change.WRONG)
    report = GateReport(passed=True, faults=(), rows=(row,), slowest_seconds=0.1, compared_with=None)
    half = msgspec.structs.replace(app_half("A1"), digest=Digest("sha256:short"))
    return [
        pytest.param(Gated(**stamp, release=1, report=report), "gated", id="a confidence that is no number"),
        pytest.param(
            IgnoredEvent(**stamp, event=Ignored("e", "R", "m", "\ud800")), "ignored", id="half a surrogate pair"
        ),
        pytest.param(
            Received(**stamp, event=msgspec.structs.replace(pushed("e", "A"), digest=half.digest)),
            "received",
            id="a digest that is none",
        ),
    ]


@pytest.mark.parametrize(("entry", "kind"), unwritable())
def test_what_could_not_be_read_again_is_not_written(entry: Any, kind: str) -> None:
    with pytest.raises(IllegalStep, match=f"the entry '{kind}' cannot be written: "):
        encode(entry)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b'{"kind":"teleported","id":"e"}', id="of a later Shipmate"),
        pytest.param(b"{", id="cut off"),
        pytest.param(b'{"kind":"sealed"}', id="behind a seal"),
    ],
)
def test_an_entry_that_cannot_be_read_stops_the_fold(line: bytes) -> None:
    with pytest.raises(IllegalStep, match="the ledger holds an entry that cannot be read: "):
        decode(line)


# -- properties over any history ------------------------------------------------------------------------------------


def any_history(seed: int, length: int) -> Story:
    """Return a story of random steps that are mostly legal, told by two workers with time passing unevenly."""
    chance = random.Random(seed)
    story = Story()
    while len(story.entries) < length:
        try:
            _any_step(story, chance)
        except IllegalStep:
            continue
    return story


def _any_step(story: Story, chance: random.Random) -> None:
    story.wait(chance.choice((0, 0, 1, 30, 3600)))
    story.taken_over_by(chance.choice(("worker-1", "worker-2")))
    name = str(chance.randrange(1, 6))
    contract = chance.choice("112")
    event = f"e{chance.randrange(40)}"
    key = f"k{chance.randrange(20)}"
    guilty = chance.choice(((), (digest(f"A{name}"),), (digest(f"M{name}"),), (pair(f"A{name}", "M1").key,)))
    steps: list[Any] = [
        lambda: story.app(f"A{name}", contract),
        lambda: story.model(f"M{name}", contract),
        lambda: story.receive(pushed(event, f"A{name}", story.now)),
        lambda: story.receive(published(event, f"M{name}", story.now, chance.randrange(9)), repaired=True),
        lambda: story.resolve(event, app_half(f"A{name}", contract, story.now)),
        lambda: story.resolve(event, model_half(f"M{name}", contract, NOON + timedelta(chance.randrange(9)))),
        lambda: story.skip(event),
        lambda: story.err_reading(event),
        lambda: story.ignore(event),
        lambda: story.request(key, pair(f"A{name}", "M1")),
        lambda: story.hold(key, chance.choice(("all", "app", "model"))),
        lambda: story.resume("entry-3", key=key),
        lambda: story.plan(f"A{name}", f"M{name}", request=chance.choice((None, key))),
        lambda: story.await_partner(f"A{name}", f"M{name}"),
        lambda: story.refuse(key),
    ]
    if story.state.hold is not None:
        steps.append(lambda: story.resume(key=key))
    if story.state.releases:
        steps += [story.build, story.gate, story.intend, story.roll_out, lambda: story.go_live(*guilty)] * 4
        steps += [story.progress, story.err, lambda: story.reject(*guilty), lambda: story.fail(*guilty)]
        number = chance.choice(story.state.releases).number
        steps += [
            lambda: story.intend(number),
            lambda: story.plan(f"A{name}", f"M{name}", "blame", blames=number),
            lambda: story.supersede(number),
            lambda: story.ask_rollback(key, number),
            lambda: story.plan_rollback(number, chance.choice((None, story.newest.number)), request=key),
        ]
        if story.state.hold is not None:
            steps.append(lambda: story.park(number))
    chance.choice(steps)()


histories = st.builds(any_history, st.integers(0, 2**32), st.integers(0, 120))


def through_json(state: State) -> State:
    return msgspec.json.decode(msgspec.json.encode(state), type=State)


@given(histories)
@settings(max_examples=40, deadline=None)
def test_a_snapshot_round_trips(story: Story) -> None:
    assert through_json(story.state) == story.state


@given(histories, st.integers(0, 120))
@settings(max_examples=40, deadline=None)
def test_folding_on_from_a_snapshot_equals_folding_all(story: Story, cut: int) -> None:
    lines = b"".join(map(encode, story.entries)).splitlines()
    entries = [decode(line) for line in lines]
    assert fold(entries) == story.state
    assert fold(entries[cut:], fold(entries[:cut])) == story.state
    assert fold(entries[cut:], through_json(fold(entries[:cut]))) == story.state
    assert list(through_json(story.state).seen) == list(story.state.seen)  # the order decides what is forgotten first


@given(histories, st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_an_illegal_step_changes_nothing(story: Story, seed: int) -> None:
    state, before = story.state, msgspec.json.encode(story.state)
    chance = random.Random(seed)
    for _ in range(20):
        entry = any_entry(chance, state)
        with_it = None
        try:
            with_it = fold([entry], state)
        except IllegalStep as error:
            assert str(error)  # noqa: PT017 - most entries are illegal, some are not: both are in order
        assert msgspec.json.encode(state) == before
        if with_it is not None:
            assert with_it.length == state.length + 1


def any_entry(chance: random.Random, state: State) -> AnyEntry:
    """Return some entry about some release, whether it follows or not."""
    stamp: dict[str, Any] = {"id": "any", "at": NOON, "by": "w"}
    number = chance.randrange(1, state.next_number + 2)
    return chance.choice(
        (
            Intended(**stamp, release=number, fence=chance.randrange(1, 9)),
            Gated(**stamp, release=number, report=PASSED),
            Rejected(**stamp, release=number, reason="R", message="m", quarantine=()),
            Errored(**stamp, release=number, stage="build", message="m", retry_at=NOON),
            Errored(**stamp, release=None, stage="plan", message="m", retry_at=NOON, event_id="e1"),
            Received(**stamp, event=pushed("e1", "A1")),
        )
    )


@given(histories)
@settings(max_examples=40, deadline=None)
def test_what_holds_after_every_entry(story: Story) -> None:
    state = State()
    for entry in story.entries:
        before, state = state, fold([entry], state)
        active = [release for release in state.releases if release.phase in ACTIVE]
        assert len(active) <= 1
        assert state.active == (active[0] if active else None)
        assert state.fence >= before.fence
        assert state.quarantine >= before.quarantine
        live = [release.number for release in state.releases if release.phase is Phase.LIVE]
        assert live == ([state.live] if state.live is not None else [])
        assert_fences_differ(state.releases)
        assert set(state.verified) <= {release.number for release in state.releases}


def assert_fences_differ(releases: tuple[Release, ...]) -> None:
    fences = [release.fence for release in releases if release.fence is not None]
    assert len(fences) == len(set(fences))


def test_random_histories_reach_what_they_are_for() -> None:
    stories = [any_history(length, length) for length in range(1, 160, 3)]
    kinds = {entry.kind_name for story in stories for entry in story.entries}
    assert kinds == {entry.__struct_config__.tag for entry in Entry.__subclasses__()}
    phases = {release.phase for story in stories for release in story.state.releases}
    assert phases == set(Phase)
