"""Fates: what became of a release, a half, an event, a request or a hold, in words, and what to do next."""

from datetime import timedelta

import pytest

from shipmate.core.ledger import Progressed
from shipmate.core.state import RELEASES_KEPT
from tests.core.explained import SOON, rejected, told, two_releases, why
from tests.fakes.histories import NOON, Story, digest, model_half, pair, published, pushed


def held() -> Story:
    return Story().ship_first().app("A2").plan("A2", "M1").build().gate().hold().park()


MEND = "mend what the reason says, then publish a newer version,"
RELEASES = [
    pytest.param(
        Story().app("A1").model("M1").plan("A1", "M1"),
        ("on its way", "r-1 (app A1, model M1) is planned; the build is next", SOON),
        id="planned",
    ),
    pytest.param(
        Story().app("A1").model("M1").plan("A1", "M1").build(),
        ("on its way", "r-1 (app A1, model M1) is built; the gate is next", SOON),
        id="built",
    ),
    pytest.param(
        Story().app("A1").model("M1").plan("A1", "M1").build().gate(),
        ("on its way", "r-1 (app A1, model M1) passed its gate; the rollout is next", SOON),
        id="gated",
    ),
    pytest.param(
        Story().app("A1").model("M1").plan("A1", "M1").build().gate().intend(),
        ("on its way", "r-1 (app A1, model M1) is rolling out", SOON),
        id="intended",
    ),
    pytest.param(
        Story().app("A1").model("M1").plan("A1", "M1").build().gate().intend().roll_out(),
        ("on its way", "r-1 (app A1, model M1) runs, and is being verified through the public door", SOON),
        id="rolled out",
    ),
    pytest.param(
        Story().app("A1").model("M1").plan("A1", "M1").err(),
        (
            "errored",
            "r-1 (app A1, model M1) is in trouble with something outside (attempt 2): the registry is away",
            "it is tried again at 2026-01-01 12:00:08 UTC; nothing is lost",
        ),
        id="errored",
    ),
    pytest.param(
        Story().ship_first(),
        (
            "live",
            "r-1 (app A1, model M1) is live since 2026-01-01 12:00:07 UTC: users are answered by it",
            "nothing to do",
        ),
        id="live",
    ),
    pytest.param(
        rejected(Story()),
        (
            "rejected",
            (
                "r-2 (app A1, model M2) was rejected (GateFailed), and users never met it: 1 is wrong; "
                "daisy.jpg: expected daisy, it says honeycomb 0.03, live says daisy 0.32; "
                "bee.jpg: expected bee, it says nothing"
            ),
            (
                "model M2 is quarantined: publish a better version; if it is meant: "
                'POST /api/targets/vision/releases with "release": "r-2" and "override": true, which is on record'
            ),
        ),
        id="rejected",
    ),
    pytest.param(
        Story().ship_first().app("A2").plan("A2", "M1").reject(),
        (
            "rejected",
            "r-2 (app A2, model M1) was rejected (GateFailed), and users never met it: 1 is wrong",
            f'{MEND} or POST /api/targets/vision/releases with "release": "r-2"',
        ),
        id="rejected and not quarantined",
    ),
    pytest.param(
        held(),
        (
            "held",
            (
                "r-2 (app A2, model M1) passed its gate, and a hold by bo keeps it from traffic since "
                "2026-01-01 12:00:12 UTC: a demo is on"
            ),
            "to let it go: POST /api/targets/vision/resume",
        ),
        id="held",
    ),
    pytest.param(
        held().resume(),
        ("on its way", "r-2 (app A2, model M1) passed its gate, and no hold keeps it any more", SOON),
        id="held until now",
    ),
    pytest.param(
        Story().ship_first().app("A2").plan("A2", "M1").supersede(),
        (
            "superseded",
            "r-2 (app A2, model M1) was superseded: another goes first",
            'if it is wanted all the same: POST /api/targets/vision/releases with "release": "r-2"',
        ),
        id="superseded by what has no release yet",
    ),
    pytest.param(
        Story().ship_first().app("A2").plan("A2", "M1").build().gate().intend().fail(digest("A2")),
        (
            "failed",
            "r-2 (app A2, model M1) failed (VerifyFailed): nobody answered",
            (
                "app A2 is quarantined: publish a better version; if it is meant: "
                'POST /api/targets/vision/releases with "release": "r-2" and "override": true, which is on record'
            ),
        ),
        id="failed, not undone yet",
    ),
    pytest.param(
        two_releases().ask_rollback("k", 1).plan_rollback(1, 2),
        ("on its way", "r-3 (app A1, model M1) is planned; the build is next", SOON),
        id="a rollback, planned",
    ),
    pytest.param(
        two_releases().ask_rollback("k", 1).plan_rollback(1, 2).build(),
        (
            "on its way",
            "r-3 (app A1, model M1) needs no gate: its pair was live before; the rollout is next",
            SOON,
        ),
        id="a rollback, built",
    ),
    pytest.param(
        two_releases().ask_rollback("k", 1).plan_rollback(1, 2).fail(),
        (
            "failed",
            "r-3 (app A1, model M1) failed (VerifyFailed): nobody answered",
            "to try again: POST /api/targets/vision/rollback",
        ),
        id="a rollback, failed",
    ),
]


@pytest.mark.parametrize(("story", "expected"), RELEASES)
def test_a_release_is_told_by_where_it_stands(story: Story, expected: tuple[str, str, str]) -> None:
    assert told(story, story.newest.name) == expected
    assert why(story, story.newest.name).kind == "release"
    assert why(story, story.newest.name).release == story.newest.name


def test_a_release_whose_stage_takes_long_says_how_far_it_is() -> None:
    story = Story().app("A1").model("M1").plan("A1", "M1").build().gate().intend()
    for ready in range(2):
        story.write(Progressed, release=1, stage="rollout", message=f"{ready} of 2 pods are ready")
    found = why(story, "r-1")
    assert found.verdict == "r-1 (app A1, model M1) is rolling out: 1 of 2 pods are ready"
    assert [line.kind for line in found.entries] == ["planned", "built", "gated", "intended", "progressed"]
    assert [line.kind for line in why(story.roll_out(), "r-1").entries][-2:] == ["intended", "rolled_out"]


def test_a_cross_pair_that_passed_says_what_it_was_asked_for() -> None:
    story = Story().ship_first().app("A2").model("M2").plan("A2", "M2").build().reject(pair("A2", "M2").key)
    story.plan("A1", "M2", "blame", blames=2).build().gate()
    words = "r-3 (app A1, model M2) passed its gate, asked to tell which half of r-2 is at fault"
    assert told(story, "r-3") == ("on its way", words, SOON)
    assert why(story, "r-2").next.startswith("the pair is quarantined: publish a better version")


def test_a_retired_release_names_the_one_that_took_over() -> None:
    found = why(two_releases(), "r-1")
    assert found.fate == "retired"
    assert found.verdict == (
        "r-1 (app A1, model M1) was live from 2026-01-01 12:00:07 UTC until 2026-01-01 12:00:14 UTC, when r-2 went live"
    )
    assert found.next == 'to go back to it: POST /api/targets/vision/rollback with "to": "r-1"'
    assert [line.kind for line in found.entries][-2:] == ["live", "live"]


def test_a_superseded_release_names_the_one_that_went_first() -> None:
    story = Story().ship_first().app("A2").plan("A2", "M1").supersede().app("A3").plan("A3", "M1")
    found = why(story, "r-2")
    assert found.verdict == "r-2 (app A2, model M1) was superseded: another goes first; r-3 went first"
    assert (found.entries[-1].kind, found.entries[-1].words) == ("planned", "r-3 shipmate: news")


def test_a_release_that_was_rolled_back_says_by_whom_and_why() -> None:
    story = two_releases().roll_back(1, 2, digest("A2"))
    found = why(story, "r-2")
    assert found.fate == "rolled back"
    assert found.verdict == (
        "r-2 (app A2, model M1) was live; bo rolled it back by r-3 to r-1, which is live: daisies come back wrong"
    )
    assert found.next.startswith("app A2 is quarantined")


def test_a_release_that_failed_and_was_undone_says_both() -> None:
    story = Story().ship_first().app("A2").plan("A2", "M1").build().gate().intend().fail(digest("A2"))
    story.undo(1, 2)
    assert why(story, "r-2").verdict == (
        "r-2 (app A2, model M1) failed (VerifyFailed): nobody answered; "
        "bo rolled it back by r-3 to r-1, which is live: daisies come back wrong"
    )
    assert why(story, "r-2").reason == "VerifyFailed"


def test_a_release_that_the_state_has_forgotten_is_told_from_the_entries() -> None:
    story = Story().ship_first().app("A2")
    story.plan("A2", "M1").reject()
    for _ in range(RELEASES_KEPT):
        story.plan("A2", "M1").supersede()
    assert all(release.number != 2 for release in story.state.releases)
    assert told(story, "r-2")[:2] == (
        "rejected",
        "r-2 (app A2, model M1) was rejected (GateFailed), and users never met it: 1 is wrong",
    )


# -- halves --------------------------------------------------------------------------------------------------------


def test_what_is_live_tells_of_a_rollback_that_failed_in_front_of_users() -> None:
    story = Story().ship_first().app("A2").ship("A2", "M1").plan_rollback(1, 2).build().intend().fail()
    assert why(story, "r-2").verdict.endswith(
        "; users may meet r-3 all the same, a rollback that failed: nobody answered"
    )
    assert why(story, "r-2").next == "to try it again: POST /api/targets/vision/rollback"


def test_a_half_of_the_live_pair_is_live_whatever_newer_release_it_was_part_of() -> None:
    found = why(rejected(Story()), "A1")
    assert (found.kind, found.fate, found.release) == ("app", "live", "r-1")


def test_a_half_that_waits_says_for_what() -> None:
    story = Story().ship_first().model("M2", contract="2").await_partner("A1", "M2")
    found = why(story, "M2")
    assert (found.fate, found.verdict) == ("waiting", "model M2 waits: they speak different contracts")
    assert (found.next, found.reason) == (f"publish the half that fits; {SOON}", "WaitingForPartner")
    assert [line.kind for line in found.entries] == ["received", "resolved", "waiting"]
    assert why(story, "A1").fate == "live"


def test_a_half_without_a_partner_says_what_is_missing() -> None:
    alone = Story().app("A1")
    assert told(alone, "A1") == ("waiting", "app A1 waits: no model was published yet", SOON)
    story = Story().ship_first().model("M2").ship("A1", "M2").app("A2").plan("A2", "M2").lose(digest("M2"))
    found = why(story, "A2")
    assert (found.fate, found.reason) == ("waiting", "LiveHalfGone")
    assert found.verdict.startswith("app A2 waits: model M2 is live and is gone from where it was published")


def test_a_first_half_that_its_gate_rejected_says_so_although_nothing_is_left_to_release() -> None:
    story = Story().app("A1").model("M1").plan("A1", "M1", "model").build().reject(pair("A1", "M1").key)
    found = why(story, "M1")
    assert (found.fate, found.release, found.reason) == ("rejected", "r-1", "GateFailed")
    assert found.verdict.startswith(
        "model M1: r-1 (app A1, model M1) was rejected (GateFailed), and users never met it: 1 is wrong"
    )


def test_a_half_that_was_passed_over_before_a_release_of_it_began() -> None:
    story = Story().ship_first().app("A2").app("A3")
    assert told(story, "A2") == (
        "superseded",
        "app A2 was superseded before a release of it began: app A3 is newer",
        f'if it is wanted all the same: POST /api/targets/vision/releases with "app": "{digest("A2")}"',
    )
    assert told(story, "A3") == ("on its way", "app A3 is known, and no release of it began yet", SOON)
    story.model("M3").model("M2", uploaded_at=NOON - timedelta(hours=1))
    assert why(story, "M2").fate == "superseded"


# -- events --------------------------------------------------------------------------------------------------------


def test_an_event_whose_half_came_with_another_event_since_shows_both() -> None:
    story = Story().app("A1").model("M1").model("M2").receive(published("e9", "M1", sequencer=9))
    story.resolve("e9", model_half("M1"))
    first = [line.kind for line in why(story, "event-3").entries]
    assert first == ["received", "resolved", "received", "resolved"]


PENDING = Story().receive(pushed("e9", "A1"))


@pytest.mark.parametrize(
    ("story", "expected"),
    [
        pytest.param(
            PENDING,
            ("on its way", "vision-app:main of 2026-01-01 12:00:00 UTC came in and is about to be read", SOON),
            id="not read yet",
        ),
        pytest.param(
            Story().receive(pushed("e9", "A1"), repaired=True).err_reading("e9"),
            (
                "errored",
                (
                    "vision-app:main of 2026-01-01 12:00:00 UTC was found by the sweep, as no event told of it "
                    "and cannot be read yet: the registry is away"
                ),
                "it is read again at 2026-01-01 12:00:06 UTC; nothing is lost",
            ),
            id="errored",
        ),
        pytest.param(
            Story().receive(pushed("e9", "A1")).skip("e9"),
            (
                "skipped",
                "vision-app:main of 2026-01-01 12:00:00 UTC came in and leads to no release (Duplicate): for a reason",
                "nothing to do: ask for the version that the bytes are known as",
            ),
            id="skipped",
        ),
        pytest.param(
            Story().ignore("e9", "UnknownEventType"),
            (
                "ignored",
                "the event about subject was ignored (UnknownEventType): for a reason",
                "docs/operating.md says what to do, in its section UnknownEventType",
            ),
            id="ignored",
        ),
    ],
)
def test_an_event_that_brought_no_half(story: Story, expected: tuple[str, str, str]) -> None:
    assert told(story, "e9") == expected
    assert why(story, "e9").entries[-1].words.endswith(("main", "away", "for a reason"))


def test_what_was_skipped_has_its_reason_as_a_code() -> None:
    assert why(Story().receive(pushed("e9", "A1")).skip("e9", "Stale"), digest("A1")).reason == "Stale"
    assert why(Story().ignore("e9"), "subject").reason == "Stale"


# -- requests and holds --------------------------------------------------------------------------------------------

ASKED = "ana asked for it at 2026-01-01 12:00:08 UTC: it is meant"


@pytest.mark.parametrize(
    ("story", "expected"),
    [
        pytest.param(
            Story().ship_first().request("key"),
            ("on its way", f"{ASKED}; no release was planned for it yet", SOON),
            id="not planned yet",
        ),
        pytest.param(
            Story().ship_first().request("key").request("later"),
            (
                "superseded",
                f"{ASKED}; a later request took its place before its turn came",
                "ask again if it is still wanted",
            ),
            id="replaced",
        ),
        pytest.param(
            Story().ship_first().request("key").plan("A1", "M1", "request", request="key"),
            ("on its way", f"{ASKED}; r-2 (app A1, model M1) is planned; the build is next", SOON),
            id="planned",
        ),
    ],
)
def test_a_request_for_a_release(story: Story, expected: tuple[str, str, str]) -> None:
    assert told(story, "key") == expected
    assert why(story, "key").kind == "request"


def test_a_request_whose_pair_was_quarantined_before_its_turn() -> None:
    story = (
        Story().ship_first().app("A2").plan("A2", "M1").build().request("key", pair("A2", "M1")).reject(digest("A2"))
    )
    found = why(story, "key")
    assert found.fate == "quarantined"
    assert found.verdict.endswith("before its turn came, the pair or a half of it was quarantined")
    assert found.next == 'if it is meant: POST /api/targets/vision/releases with "override": true'


def test_a_request_for_a_rollback() -> None:
    story = two_releases().ask_rollback("key", 1)
    assert told(story, "key") == (
        "on its way",
        "bo asked for it at 2026-01-01 12:00:15 UTC: daisies come back wrong; no release was planned for it yet",
        SOON,
    )
    story.ask_rollback("later", 1)
    assert why(story, "key").fate == "superseded"
    story.plan_rollback(1, 2, request="later")
    assert why(story, "later").release == "r-3"


def test_what_was_refused_says_so() -> None:
    assert told(Story().refuse("key"), "key") == (
        "refused",
        "cy: may I?; this was refused, as the role of who asked does not allow it",
        "have somebody ask who has the role releaser",
    )
    assert why(Story().refuse("key").hold("key"), "key").kind == "hold"


def test_a_hold_is_told_by_its_id_and_by_its_request() -> None:
    story = Story().ship_first().hold("key")
    for of in ("key", "entry-11"):
        assert told(story, of) == (
            "in force",
            "bo set this hold at 2026-01-01 12:00:08 UTC: a demo is on; it is in force, and nothing new ships",
            "to lift it: POST /api/targets/vision/resume",
        )
    story.resume()
    assert told(story, "key") == (
        "lifted",
        (
            "bo set this hold at 2026-01-01 12:00:08 UTC: a demo is on; "
            "bo lifted it at 2026-01-01 12:00:09 UTC: the demo is over"
        ),
        SOON,
    )
    assert told(story, "resume") == (
        "lifted",
        "bo lifted the hold entry-11 at 2026-01-01 12:00:09 UTC: the demo is over",
        SOON,
    )


def test_a_hold_that_a_rollback_set_has_its_author() -> None:
    story = two_releases().roll_back(1, 2)
    assert story.state.hold is not None
    found = why(story, story.state.hold.id)
    assert (found.kind, found.fate) == ("hold", "in force")
    assert found.verdict.startswith("bo set this hold at 2026-01-01 12:00:20 UTC: daisies come back wrong")


def test_a_hold_that_another_is_over() -> None:
    found = why(Story().ship_first().hold("key", "model").hold("later"), "key")
    assert (found.fate, found.verdict.rpartition("; ")[2]) == (
        "in force",
        "when that is lifted, this one is in force again, and no other model ships",
    )
    found = why(Story().ship_first().hold("key", "model").hold("later").resume(), "key")
    assert (found.fate, found.verdict.rpartition("; ")[2]) == ("in force", "it is in force, and no other model ships")


def test_a_hold_that_another_replaced() -> None:
    found = why(Story().ship_first().hold("key").hold("later"), "key")
    assert (found.fate, found.verdict.rpartition("; ")[2]) == ("replaced", "another hold has its place")
