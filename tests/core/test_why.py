"""Why: how a name is found in a ledger, and that everything that has one is explained."""

import pytest
from hypothesis import given, settings

from shipmate.core.fold import fold
from shipmate.core.ledger import Resumed, Skipped, decode
from shipmate.core.why import UNDERSTOOD, explain, names_in
from shipmate.errors import Invalid, NotFound
from tests.core.explained import SOON, rejected, why
from tests.core.test_fold import histories
from tests.core.test_golden import LEDGERS
from tests.fakes.histories import NOON, Story, digest, model_half, pair, published, pushed


@pytest.mark.parametrize("of", ["M2", digest("M2"), digest("M2")[7:], digest("M2")[:19], digest("M2")[7:19].upper()])
def test_a_half_is_found_by_version_digest_and_beginning_of_a_digest(of: str) -> None:
    found = why(rejected(Story()), of)
    assert (found.kind, found.name, found.fate, found.release) == ("model", "model M2", "rejected", "r-2")
    assert found.verdict.startswith("model M2: r-2 (app A1, model M2) was rejected")
    assert [line.kind for line in found.entries] == ["received", "resolved", "planned", "built", "rejected"]
    assert found.entries[0].words == "models/net/M2/manifest.json"
    assert found.entries[1].words == f"M2 is {digest('M2')}"
    assert found.entries[-1].words == "r-2 GateFailed: 1 is wrong"


def test_a_version_that_both_halves_have_names_the_other() -> None:
    story = Story().app("1.0").receive(published("e9", "1.0")).wait(9)
    story.resolve("e9", model_half("1.0"))
    assert why(story, "1.0").also == ()  # one digest, as the names are the same
    story.app("1.1").receive(published("e10", "M2", sequencer=9))
    half = model_half("M2")
    story.resolve("e10", type(half)(half.digest, half.container, half.path, "1.1", "1", half.published_at))
    found = why(story, "1.1")
    assert (found.kind, found.also) == ("model", (digest("1.1"),))


@pytest.mark.parametrize("of", [pair("A1", "M2").key, pair("A1", "M2").tag, pair("A1", "M2").key[:12]])
def test_a_pair_is_told_by_its_newest_release(of: str) -> None:
    found = why(rejected(Story()), of)
    assert (found.kind, found.fate, found.release) == ("pair", "rejected", "r-2")
    assert found.verdict.startswith("the pair of r-2 (app A1, model M2) was rejected")


@pytest.mark.parametrize("before", ["", "vision@", "registry.example/vision@"])
def test_a_release_image_is_told_by_its_release(before: str) -> None:
    story = Story().ship_first()
    image = story.state.release(1).image
    assert image is not None
    assert why(story, before + image).release == "r-1"


AZURE = "https://account.blob.core.windows.net/models/net/M1/manifest.json"
AZURITE = "http://127.0.0.1:10000/devstoreaccount1/models/net/M1/manifest.json"
SUBJECT = "/blobServices/default/containers/models/blobs/net/M1/manifest.json"


@pytest.mark.parametrize(
    "of", ["e9", "models/net/M1/manifest.json", "net/M1/manifest.json", "models/net/M1", AZURE, AZURITE, SUBJECT]
)
def test_a_blob_is_found_by_every_way_to_write_it(of: str) -> None:
    story = Story().app("A1").receive(published("e9", "M1")).resolve("e9", model_half("M1")).ship("A1", "M1", "model")
    found = why(story, of)
    assert (found.kind, found.name) == ("event", "models/net/M1/manifest.json of 2026-01-01 12:00:00 UTC")
    assert found.verdict.startswith(f"{found.name} came in; model M1: r-1 (app A1, model M1) is live since")
    assert found.fate == "live"
    assert [line.kind for line in found.entries][:3] == ["received", "resolved", "planned"]


@pytest.mark.parametrize("reason", ["Duplicate", "Stale"])
def test_a_blob_of_which_was_told_twice_is_told_by_the_event_that_counted(reason: str) -> None:
    story = Story().app("A1").receive(published("e9", "M1")).resolve("e9", model_half("M1")).ship("A1", "M1", "model")
    story.receive(published("e10", "M1", sequencer=10))
    story.write(Skipped, event_id="e10", reason=reason, message="it is known")
    found = why(story, "models/net/M1/manifest.json")
    assert (found.fate, found.release, found.also) == ("live", "r-1", ("e10",))
    assert why(story, "e10").fate == "skipped"


def test_a_tag_is_told_by_its_newest_push_and_names_the_others() -> None:
    story = Story().app("A1", event_id="e1").app("A2", event_id="e2")
    found = why(story, "vision-app:main")
    assert (found.kind, found.also) == ("event", ("e1",))
    assert "app A2 waits: no model was published yet" in found.verdict


@pytest.mark.parametrize("of", ["r-9", "nobody", digest("M1")[7:18], "entry-1", "f" * 64])
def test_what_nothing_is_called_says_what_is_understood(of: str) -> None:
    with pytest.raises(NotFound) as raised:
        why(Story().ship_first().resume("none"), of)
    assert str(raised.value) == f"nothing in the ledger of vision is called {of!r}; understood are: {UNDERSTOOD}"


@pytest.mark.parametrize("of", ["", "  ", "x" * 2049, "a\x00b", "a\nb"])
def test_what_is_no_name_says_what_is_understood(of: str) -> None:
    with pytest.raises(Invalid) as raised:
        why(Story(), of)
    assert str(raised.value) == f"say what you ask for, in at most 2048 characters: {UNDERSTOOD}"


def test_a_beginning_that_two_digests_share_asks_for_more() -> None:
    story = Story()
    for event, last in (("e1", "a"), ("e2", "b")):
        event_of = pushed(event, "A1")
        twin = type(event_of)(event, "registry", "vision-app", "main", "sha256:" + "0" * 63 + last, NOON)
        story.receive(twin)
    with pytest.raises(Invalid) as raised:
        why(story, "0" * 12)
    assert str(raised.value) == (f"2 digests begin with '000000000000': give more digits of {'0' * 63}a, {'0' * 63}b")
    assert why(story, "0" * 63 + "a").kind == "event"


def test_only_a_rollbacks_going_live_is_a_hold() -> None:
    story = Story().ship_first()
    with pytest.raises(NotFound):
        why(story, story.entries[-1].id)
    assert isinstance(story.hold().resume().entries[-1], Resumed)


@given(histories)
@settings(max_examples=60, deadline=None)
def test_of_any_history_everything_that_has_a_name_is_explained(story: Story) -> None:
    for name in {name for name, _ in names_in(story.entries)}:
        found = why(story, name)
        assert found.verdict, name
        assert found.next, name
        assert found.entries, name
        assert len({line.id for line in found.entries}) == len(found.entries), name


def test_of_every_golden_ledger_everything_that_has_a_name_is_explained() -> None:
    for ledger in LEDGERS:
        entries = [decode(line) for line in ledger.read_bytes().splitlines()]
        for name in {name for name, _ in names_in(entries)}:
            assert explain(name, "vision", fold(entries), entries, SOON).verdict
