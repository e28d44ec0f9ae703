"""The HTTP API over a world in memory: roles, explanations, a resume that first shows what ships, keys used twice."""

from datetime import timedelta
from typing import Any

import httpx
import msgspec
import pytest

from localcloud.functions_host.keys import Keys
from shipmate.commands import REFUSAL_KEPT, HoldBody
from shipmate.core.ledger import HoldSet, Phase, Refused
from tests.fakes.ledgers import Fault
from tests.functions.in_process import KEYS, Client, api, signed_in
from tests.functions.test_function_app import HTTP
from tests.world import TARGET, World, released

WHO = {"reason": "a look", "author": "ana"}


def detail(reply: httpx.Response, status: int) -> str:
    """Return the words of a problem, whose shape is that of RFC 9457."""
    assert reply.status_code == status, reply.text
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert (reply.json()["type"], reply.json()["status"]) == ("about:blank", status)
    return str(reply.json()["detail"])


def refused(world: World) -> list[Refused]:
    return [entry for entry in world.ledgers.history("vision") if isinstance(entry, Refused)]


# -- roles ---------------------------------------------------------------------------------------------------------

READING = [path for method, path in HTTP.values() if method == "GET"]
COMMANDS = [path for method, path in HTTP.values() if method == "POST"]


def filled(path: str) -> str:
    asked = "?of=r-1" if "why" in path else ""
    return path.format(target="vision", release="r-1", request="key-1") + asked


@pytest.mark.parametrize("path", READING)
def test_a_reader_reads_everything(path: str) -> None:
    world = released()
    world.commands().hold("vision", "key-1", "ana", HoldBody(reason="a demo is on"))
    with api(world, sign_in=True) as client:
        assert client.get(filled(path), **signed_in("cy", "reader")).status_code == 200
        assert client.get(filled(path), **signed_in("cy", "releaser")).status_code == 200
        words = detail(client.get(filled(path), **signed_in("cy")), 403)
        assert words.startswith("this needs the role reader, and cy has none: whoever administers")
        reply = client.get(filled(path))
        assert detail(reply, 401).startswith("sign in: send a token of Microsoft Entra ID")
        assert reply.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("path", COMMANDS)
def test_a_command_needs_a_releaser_and_the_refusal_is_on_record(path: str) -> None:
    world = released()
    with api(world, sign_in=True) as client:
        assert detail(client.post(filled(path), WHO), 401).startswith("sign in")
        assert refused(world) == []
        reply = client.post(filled(path), WHO, **signed_in("cy", "reader"), Idempotency_Key="key-1")
        assert detail(reply, 403).startswith("this needs the role releaser, and cy has reader: whoever administers")
    (entry,) = refused(world)
    assert (entry.author, entry.request, entry.reason) == ("cy", "key-1", "a look")
    assert entry.command == {"releases": "release"}.get(path.rpartition("/")[2], path.rpartition("/")[2])


def test_a_releaser_commands_and_is_the_author_whatever_the_body_says() -> None:
    world = released()
    with api(world, sign_in=True) as client:
        assert client.post("targets/vision/hold", WHO, **signed_in("bo", "releaser")).status_code == 202
    assert world.state.hold is not None
    assert world.state.hold.author == "bo"


def test_who_is_refused_again_and_again_fills_no_ledger() -> None:
    world = released()
    with api(world, sign_in=True) as client:

        def ask(path: str, name: str = "cy") -> None:
            assert client.post(path, WHO, **signed_in(name, "reader")).status_code == 403

        for _ in range(5):
            ask("targets/vision/hold")
        assert len(refused(world)) == 1
        ask("targets/vision/resume")
        ask("targets/vision/hold", "di")
        assert len(refused(world)) == 3
        world.clock.advance_to(world.clock.now() + REFUSAL_KEPT)
        ask("targets/vision/hold")
        assert [entry.author for entry in refused(world)] == ["cy", "cy", "di", "cy"]


@pytest.mark.parametrize(
    ("path", "body", "key", "status"),
    [
        ("targets/vision/hold", {"author": "ana"}, "key-1", 400),
        ("targets/vision/hold", WHO, "two words", 400),
        ("targets/nobody/hold", WHO, "key-1", 403),
    ],
    ids=["a wrong body", "a wrong key", "no such target"],
)
def test_what_is_wrong_anyway_leaves_no_refusal(path: str, body: Any, key: str, status: int) -> None:
    world = released()
    with api(world, sign_in=True) as client:
        detail(client.post(path, body, **signed_in("cy", "reader"), Idempotency_Key=key), status)
    assert refused(world) == []
    assert list(world.ledgers.history("nobody")) == []


def test_a_key_of_the_reading_functions_opens_these_alone() -> None:
    reading = [name for name, (method, _) in HTTP.items() if method == "GET"]
    keys = Keys(KEYS.master, KEYS.host, {name: {"reader": "reader-key"} for name in reading}, KEYS.system)
    with api(released(), keys=keys) as client:
        for method, path in HTTP.values():
            reply = client.ask(method, filled(path), headers={"x_functions_key": "reader-key"}, content=b"")
            assert (reply.status_code == 401) is (method == "POST"), path
        assert client.post("targets/vision/hold", WHO).status_code == 202


# -- why -----------------------------------------------------------------------------------------------------------


def test_why_over_http() -> None:
    with api(released("1.1")) as client:
        found = client.get("targets/vision/why?of=net/1.1/manifest.json").json()
        assert (found["kind"], found["fate"], found["release"]) == ("event", "live", "r-2")
        assert [line["kind"] for line in found["entries"]][:3] == ["received", "resolved", "planned"]
        assert client.get("targets/vision/why?of=1.0").json()["fate"] == "retired"
        assert client.get("targets/vision/why?of=2.3.0").json()["fate"] == "live"


def test_why_says_what_happens_next_to_what_is_on_its_way() -> None:
    world = released()
    world.tell(world.publish_model("1.1"))
    with api(world) as client:
        found = client.get("targets/vision/why?of=models/net/1.1").json()
        assert (found["fate"], found["next"]) == ("on its way", "reads what was published")


def test_why_anywhere_finds_events_that_concern_no_target() -> None:
    world = released()
    world.tell(world.push_app("2.3.1", tag="dev"))
    with api(world) as client:
        (found,) = client.get("why?of=vision-app:dev").json()
        assert found["target"].startswith("_unclaimed-")
        assert (found["fate"], found["reason"]) == ("ignored", "TagNotFollowed")
        assert found["verdict"].endswith("was ignored (TagNotFollowed): the followed tag is main")
        assert [each["target"] for each in client.get("why?of=r-1").json()] == ["vision"]
        words = detail(client.get("targets/vision/why?of=vision-app:dev"), 404)
        assert words.startswith("nothing in the ledger of vision is called 'vision-app:dev'; understood are: a digest")


def test_what_no_ledger_knows_says_where_was_looked() -> None:
    with api(released()) as client:
        words = detail(client.get("why?of=nobody"), 404)
        assert words.startswith(
            "nothing is called 'nobody' in any ledger: looked in vision and among the events that concern no target; "
            "understood are: a digest of a model"
        )
        assert detail(client.get("why"), 400).startswith("say what you ask for, in at most 2048 characters: a digest")


def test_what_is_no_name_is_refused_before_anything_is_read() -> None:
    world = released()
    world.ledgers.away = True
    with api(world) as client:
        assert detail(client.get("why?of=%20"), 400).startswith("say what you ask for")
        reply = client.get("why?of=r-1")
        assert detail(reply, 503) == "storage did not serve the ledger of vision: it is away"
        assert reply.headers["Retry-After"] == "2"


# -- resume --------------------------------------------------------------------------------------------------------


def held(world: World | None = None) -> World:
    world = released(world=world)
    with api(world) as client:
        assert client.post("targets/vision/hold", WHO).status_code == 202
    return world


def before_and_after(world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a resume shows beforehand, and what it answers; a dry run must say the same."""
    with api(world) as client:
        before = client.get("targets/vision/resume").json()
        dry = client.post("targets/vision/resume", {**WHO, "dry_run": True})
        assert (dry.status_code, dry.json()["ships"]) == (200, before["ships"])
        assert dry.json()["message"] == f"would be taken: {before['message']}"
        after = client.post("targets/vision/resume", WHO)
        assert after.status_code == 202
    return before, after.json()


def test_a_resume_shows_the_release_that_passed_its_gate_and_then_ships_it() -> None:
    world = held()
    world.ship(world.publish_model("1.1"))
    before, after = before_and_after(world)
    pair = world.state.release(2).pair
    assert before["hold"]["reason"] == "a look"
    assert before["ships"] == {
        "pair": {"app": pair.app, "model": pair.model},
        "app": "2.3.0",
        "model": "1.1",
        "release": "r-2",
        "gate_passed": True,
    }
    assert (
        before["message"]
        == "lifts a hold by ana (a look): r-2 (app 2.3.0, model 1.1) ships: it passed its gate; intend: r-2"
    )
    assert (after["ships"], after["message"]) == (before["ships"], before["message"])
    world.run()
    assert world.version("").model_version == "1.1"


def test_a_resume_shows_a_release_that_is_yet_to_pass_its_gate() -> None:
    world = held()
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.BUILT)
    before, _ = before_and_after(world)
    assert (before["ships"]["release"], before["ships"]["gate_passed"]) == ("r-2", False)
    assert before["message"].startswith(
        "lifts a hold by ana (a look): r-2 (app 2.3.0, model 1.1) ships: it is yet to pass its gate"
    )


def test_a_resume_shows_a_pair_that_no_release_was_planned_for_yet() -> None:
    world = held(World(msgspec.structs.replace(TARGET, quiet_seconds=60.0, quiet_cap_seconds=600.0)))
    world.tell(world.publish_model("1.1"))
    world.run(within=timedelta(seconds=9))
    before, _ = before_and_after(world)
    assert (before["ships"]["release"], before["ships"]["model"]) == (None, "1.1")
    assert before["message"].startswith(
        "lifts a hold by ana (a look): a new release (app 2.3.0, model 1.1) ships: it is yet"
    )


def test_a_resume_that_lets_nothing_go_says_so() -> None:
    before, after = before_and_after(held())
    assert before["ships"] is after["ships"] is None
    assert before["message"] == (
        "lifts a hold by ana (a look): nothing is ready to ship: r-1 is the newest pair that may ship, and is live"
    )


def test_a_target_that_is_not_held_says_so() -> None:
    with api(released()) as client:
        view = client.get("targets/vision/resume").json()
        assert (view["hold"], view["ships"]) == (None, None)
        assert view["message"] == "vision is not held: r-1 is the newest pair that may ship, and is live"
        assert detail(client.post("targets/vision/resume", WHO), 409) == "vision is not held"


def test_a_resume_of_a_hold_that_another_has_taken_the_place_of_is_refused() -> None:
    world = held()
    with api(world) as client:
        seen = client.get("targets/vision/resume").json()["hold"]["id"]
        assert client.post("targets/vision/resume", WHO).status_code == 202
        assert client.post("targets/vision/hold", {"reason": "INCIDENT", "author": "cy"}).status_code == 202
        late = {"reason": "the look is over", "author": "bo", "hold": seen}
        words = detail(client.post("targets/vision/resume", late), 409)
        assert f"the hold '{seen}' is not in force, a hold by cy is (INCIDENT), whose id is " in words
        again = client.get("targets/vision/resume").json()["hold"]["id"]
        assert again in words
        assert client.post("targets/vision/resume", {**late, "hold": again}).status_code == 202
        assert detail(client.post("targets/vision/resume", {**late, "hold": again}), 409) == "vision is not held"
        assert "at `$.hold`" in detail(client.post("targets/vision/resume", {**WHO, "hold": 5}), 400)


# -- hold ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "words", "status", "ships"),
    [
        ("all", "nothing new ships until somebody resumes", "ana: a look", "2.3.0"),
        ("model", "no new model ships until somebody resumes", "ana, models only: a look", "2.3.1"),
        ("app", "no new app ships until somebody resumes", "ana, apps only: a look", "2.3.0"),
    ],
)
def test_a_hold_keeps_back_what_is_in_its_scope(scope: str, words: str, status: str, ships: str) -> None:
    world = released()
    with api(world) as client:
        reply = client.post("targets/vision/hold", {**WHO, "scope": scope})
        assert reply.json()["message"] == words
        assert client.get("targets/vision/resume").json()["hold"]["scope"] == scope
        assert client.get("targets/vision").json()["hold"] == status
    world.ship(world.push_app("2.3.1"))
    assert world.version("").app_version == ships


def test_a_scope_that_there_is_not_is_refused() -> None:
    world = released()
    with api(world) as client:
        reply = client.post("targets/vision/hold", {**WHO, "scope": "weekend"})
    assert "Invalid enum value 'weekend' - at `$.scope`" in detail(reply, 400)
    assert world.state.hold is None


# -- if_live -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "body"),
    [("releases", {"release": "r-1"}), ("rollback", {"to": "r-1"}), ("hold", {}), ("resume", {})],
    ids=["releases", "rollback", "hold", "resume"],
)
def test_a_command_is_refused_if_another_release_goes_live_while_it_is_written(verb: str, body: dict[str, Any]) -> None:
    world = released("1.1")
    if verb == "resume":
        world.commands().hold("vision", "key-0", "ana", HoldBody(reason="an audit of the models", scope="model"))
    asked = {**WHO, **body, "if_live": "r-2"}
    with api(world) as client:
        assert client.post(f"targets/vision/{verb}", {**asked, "dry_run": True}).status_code == 200
        world.ledgers.on_conflict = lambda _: world.ship(world.push_app("2.4.0"))
        world.ledgers.fail_next(Fault.CONFLICT)
        reply = client.post(f"targets/vision/{verb}", asked, Idempotency_Key="key-1")
        assert detail(reply, 409) == "you asked for this while r-2 is live, and r-3 is; look again, then decide"
        detail(client.get("targets/vision/requests/key-1"), 404)
    assert "key-1" not in {getattr(entry, "request", None) for entry in world.ledgers.history("vision")}


# -- idempotency keys ----------------------------------------------------------------------------------------------


def send(client: Client, verb: str, body: dict[str, Any], key: str = "key-1") -> httpx.Response:
    return client.post(f"targets/vision/{verb}", body, Idempotency_Key=key)


@pytest.mark.parametrize("key", ["key-1", '"key-1"'], ids=["as it is", "quoted, as the draft has it"])
def test_a_command_that_is_repeated_is_taken_once(key: str) -> None:
    world = released()
    with api(world) as client:
        first, again = send(client, "hold", WHO), send(client, "hold", WHO, key)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.headers["Location"] == again.headers["Location"] == "/api/targets/vision/requests/key-1"
    assert len([entry for entry in world.ledgers.history("vision") if isinstance(entry, HoldSet)]) == 1


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("resume", WHO),
        ("hold", {**WHO, "reason": "another"}),
        ("hold", {**WHO, "author": "bo"}),
        ("hold", {**WHO, "scope": "app"}),
        ("releases", {**WHO, "release": "r-1"}),
    ],
    ids=["another command", "another reason", "another author", "another scope", "a command that would fail anyway"],
)
def test_a_key_that_was_used_for_something_else_is_refused(verb: str, body: dict[str, Any]) -> None:
    world = released()
    with api(world) as client:
        send(client, "hold", WHO)
        length = world.state.length
        assert detail(send(client, verb, body), 422) == (
            "the Idempotency-Key 'key-1' was used before for another command, body or author: what it asked for is on "
            "record; choose a new key for a new command"
        )
        assert world.state.length == length
        dry = send(client, "resume", {**WHO, "dry_run": True})
        assert (dry.status_code, dry.json()["accepted"]) == (200, False)


def test_a_key_of_a_ledger_that_began_before_fingerprints_is_known_all_the_same() -> None:
    world = released()
    fence = world.state.fence + 1
    entry = HoldSet(id="old", at=world.clock.now(), by="w", request="key-1", author="bo", reason="x", fence=fence)
    world.ledgers.append("vision", world.ledgers.read("vision"), [entry])
    with api(world) as client:
        assert send(client, "hold", WHO).json()["message"] == "recorded; no release was planned for it"


@pytest.mark.parametrize("key", ["two words", "x" * 129, "a/b", "a?b", "a#b", "a%b", 'a"b', "a\\b", '""'])
def test_a_key_that_no_path_can_hold_is_refused(key: str) -> None:
    with api(released()) as client:
        words = detail(send(client, "hold", WHO, key), 400)
    assert words == (
        "the header Idempotency-Key holds up to 128 visible ASCII characters, none of them a space or one of "
        '" # % / ? \\'
    )


def test_a_request_whose_release_is_over_long_since_is_still_known() -> None:
    world = released("1.1")
    with api(world) as client:
        send(client, "rollback", WHO)
        world.run()
        assert client.get("targets/vision/requests/key-1").json()["message"] == "r-3 is live"
        forgotten = world.ledgers.read("vision")
        state = forgotten.state
        with pytest.MonkeyPatch.context() as patch:
            short = msgspec.structs.replace(state, releases=state.releases[:1])
            patch.setattr(world.ledgers, "read", lambda _: msgspec.structs.replace(forgotten, state=short))
            assert client.get("targets/vision/requests/key-1").json()["message"] == "r-3 is over long since"


def test_a_day_is_longer_than_a_refusal_is_remembered() -> None:
    assert timedelta() < REFUSAL_KEPT < timedelta(days=1)
