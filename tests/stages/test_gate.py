"""The gate over a whole world in memory: what the pace of answers comes to."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from shipmate.commands import ReleaseBody
from shipmate.core.answers import Answer
from shipmate.core.gate import GateReport
from shipmate.core.gate_pod import gate_pod
from shipmate.core.ledger import Gated, Phase, Progressed
from shipmate.core.state import HALVES_KEPT
from shipmate.core.targets import GateThresholds
from shipmate.core.views import ContainerStatus, Object, PodView
from shipmate.errors import NotFound, Rejected, Retryable, Silent, Unusable
from shipmate.stages import questions
from shipmate.stages.gate import COUNTS_AT_ATTEMPT
from tests.fakes.cluster import Asked, Reply
from tests.fakes.halves import GOLDEN, model_files
from tests.situations import set_image, users_meet
from tests.world import TARGET, World, released

LONGER_THAN_ALLOWED = 46.0
NO_SECRET = 'secret "weights" not found'


def gated(world: World, release: int) -> GateReport:
    """Return what a release's gate found."""
    entries = world.ledgers.history("vision")
    return next(entry.report for entry in entries if isinstance(entry, Gated) and entry.release == release)


def world_with_answers_that_take_long(times: int) -> World:
    """Return a world with r-1 live and a new model, whose candidate takes long over its first answers."""
    world = released()
    answering, slow = world.cluster.answering, list[Asked]()

    def answer(asked: Asked) -> Reply:
        if asked.path == "/score" and len(slow) < times:
            slow.append(asked)
            world.clock.sleep(LONGER_THAN_ALLOWED)
        return answering(asked)

    world.cluster.answering = answer
    world.ship(world.publish_model("1.1"))
    return world


def test_a_worker_that_slept_while_it_asked_blames_no_candidate() -> None:
    world = world_with_answers_that_take_long(1)
    assert world.state.release(2).phase is Phase.LIVE
    assert not world.state.quarantine


def test_a_candidate_that_is_slow_each_time_is_rejected() -> None:
    world = world_with_answers_that_take_long(2)
    release = world.state.release(2)
    assert release.phase is Phase.REJECTED
    assert release.message == "the slowest answer took 46.00 s, allowed 5.00 s"


def raising(error: Exception) -> Callable[[Asked], Reply]:
    def answer(asked: Asked) -> Reply:
        raise error

    return answer


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (lambda _: (200, {}, b'{"labels": 1}'), '/score answered in an unknown shape: {"labels": 1}'),
        (
            lambda _: (200, {}, b'{"result": [[[["daisy", 1' + b"0" * 400 + b"]]]]}"),
            r'/score answered in an unknown shape: {"result": \[\[\[\["daisy", 1000',
        ),
        (raising(Unusable("POST /score of pod x has a reply of more than 1 MiB")), "POST /score of pod x has a reply"),
    ],
    ids=["other keys", "a number beyond all", "too long"],
)
def test_a_candidate_that_answers_in_another_form_is_asked_three_times_and_rejected(
    score: Callable[[Asked], Reply], words: str
) -> None:
    world = released()
    answering = world.cluster.answering
    world.cluster.answering = lambda asked: score(asked) if asked.path == "/score" else answering(asked)
    world.ship(world.publish_model("1.1"))
    release = world.state.release(2)
    assert (release.phase, release.ended_because, release.attempt) == (
        Phase.REJECTED,
        "CandidateAnswerUnusable",
        COUNTS_AT_ATTEMPT,
    )
    assert re.match(f"asked about golden/flower.jpg: {words}", release.message or "")


@pytest.mark.parametrize("told_after", [0.0, 3.0], ids=["at once", "late"])
def test_a_candidate_that_ends_while_it_is_asked_is_rejected_with_its_last_words(told_after: float) -> None:
    """The cluster may tell only after a moment; then the third attempt waits for that."""
    world = released()
    answering, died = world.cluster.answering, dict[str, float]()
    look = world.cluster.gate_pod

    def dies(asked: Asked) -> Reply:
        if asked.path != "/score":
            return answering(asked)
        died.setdefault(asked.pod.name, world.clock.now().timestamp())
        raise Retryable("error trying to reach service: EOF")

    def seen(namespace: str, name: str) -> PodView:
        if name in died and world.clock.now().timestamp() >= died[name] + told_after:
            world.cluster.crashing_images[look(namespace, name).containers[0].image] = "out of memory in layer 7"
        else:
            world.cluster.crashing_images.clear()
        return look(namespace, name)

    world.cluster.answering = dies
    world.cluster.gate_pod = seen  # type: ignore[method-assign]
    world.ship(world.publish_model("1.1"))
    release = world.state.release(2)
    assert (release.phase, release.ended_because) == (Phase.REJECTED, "CandidateEnded")
    assert release.attempt == (COUNTS_AT_ATTEMPT if told_after else 1)
    assert (release.message or "").startswith("asked about golden/flower.jpg: error trying to reach service: EOF; pod ")
    assert "exit code 1: out of memory in layer 7" in (release.message or "")
    assert release.pair.model in world.state.quarantine


@pytest.mark.parametrize("judged", [True, False])
def test_a_candidate_that_never_answers_is_rejected_if_it_can_be_asked_at_all(judged: bool) -> None:
    """Where it says nothing to anything, the way to it may be what is broken."""
    world = released()
    answering, until = world.cluster.answering, world.clock.now() + timedelta(minutes=5)

    def silent(asked: Asked) -> Reply:
        if asked.path == "/readyz" and judged:
            return 200, {}, b""
        if asked.path == "/readyz":
            raise Retryable("error trying to reach service")
        if asked.path != "/score" or world.clock.now() > until:
            return answering(asked)
        world.clock.sleep(30)
        raise Silent("POST /score of pod vision/x was not answered within 30 s")

    world.cluster.answering = silent
    world.ship(world.publish_model("1.1"))
    release = world.state.release(2)
    assert release.phase is (Phase.REJECTED if judged else Phase.LIVE)
    if judged:
        assert (release.ended_because, release.attempt) == ("CandidateAnswerUnusable", COUNTS_AT_ATTEMPT)
        assert release.message == (
            "asked about golden/flower.jpg, twice: POST /score of pod vision/x was not answered within 30 s, "
            "though it answers /readyz"
        )


def test_the_log_of_a_candidate_is_that_of_its_own_container(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod may have others, which a mesh put there; the API server then gives no log without a name."""
    world, asked_for = released(), list[object]()

    def log(*_: object, **how: object) -> str:
        asked_for.append(how["container"])
        return ""

    monkeypatch.setattr(world.cluster, "pod_logs", log)
    look = world.cluster.gate_pod
    ended = lambda *pod: msgspec.structs.replace(look(*pod), phase="Succeeded", ready=False)  # noqa: E731
    monkeypatch.setattr(world.cluster, "gate_pod", ended)
    world.ship(world.publish_model("1.1"))
    assert world.state.release(2).ended_because == "CandidateEnded"
    assert set(asked_for) == {"app"}


def test_a_pod_that_its_node_ended_while_it_was_asked_blames_no_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    world = released()
    answering, look, asked_of = world.cluster.answering, world.cluster.gate_pod, list[str]()

    def goes(asked: Asked) -> Reply:
        if asked.path == "/score" and not asked_of:
            asked_of.append(asked.pod.name)
            raise Retryable("error trying to reach service: EOF")
        return answering(asked)

    def seen(namespace: str, name: str) -> PodView:
        pod = look(namespace, name)
        return msgspec.structs.replace(pod, phase="Failed", reason="Evicted") if name in asked_of else pod

    world.cluster.answering = goes
    monkeypatch.setattr(world.cluster, "gate_pod", seen)
    world.ship(world.publish_model("1.1"))
    assert world.state.release(2).phase is Phase.LIVE
    assert not world.state.quarantine


def test_a_live_pair_that_answers_slowly_is_no_silence_of_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    world = released()
    ask = world.ask

    def slowly(url: str, photo: bytes) -> Answer:
        world.clock.sleep(25)
        return ask(url, photo)

    monkeypatch.setattr(world, "ask", slowly)
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.GATED)
    signs = [entry for entry in world.ledgers.history("vision") if isinstance(entry, Progressed)]
    assert [(entry.stage, entry.message) for entry in signs] == [
        ("gate", "the live pair was asked golden/flower.jpg"),
    ]


def test_the_gates_pod_lives_until_all_questions_of_two_models_may_have_been_asked_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    thresholds = GateThresholds(ready_within_seconds=90, max_seconds=3)
    world = released(world=World(msgspec.structs.replace(TARGET, gate=thresholds)))
    create, made = world.cluster.create_gate_pod, list[Object]()

    def seen(namespace: str, manifest: Object) -> PodView:
        made.append(manifest)
        return create(namespace, manifest)

    monkeypatch.setattr(world.cluster, "create_gate_pod", seen)
    world.ship(world.publish_model("1.1"))
    assert [manifest["spec"]["activeDeadlineSeconds"] for manifest in made] == [90 + 2 * 2 * 100 * 3 + 120]


def test_a_candidate_that_lacks_a_secret_is_tried_again_until_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    world = released()
    look, looks = world.cluster.gate_pod, list[str]()

    def without_secret(namespace: str, name: str) -> PodView:
        looks.append(name)
        status = ContainerStatus("app", waiting_reason="CreateContainerConfigError", waiting_message=NO_SECRET)
        pod = look(namespace, name)
        return pod if len(looks) > 2 else msgspec.structs.replace(pod, phase="Pending", ready=False, statuses=(status,))

    monkeypatch.setattr(world.cluster, "gate_pod", without_secret)
    world.ship(world.publish_model("1.1"))
    assert world.state.release(2).phase is Phase.LIVE
    assert NO_SECRET.replace('"', '\\"') in world.story()
    assert not world.state.quarantine


def test_a_live_pair_that_stays_silent_is_asked_no_further_question(monkeypatch: pytest.MonkeyPatch) -> None:
    world = released()
    asked = list[bytes]()

    def silent(url: str, photo: bytes) -> Answer:
        asked.append(photo)
        raise Retryable("nobody answers")

    monkeypatch.setattr(world, "ask", silent)
    golden = [{**GOLDEN[0], "file": name} for name in ("golden/flower.jpg", "model.onnx")]
    world.tell(world.publish_model("1.1", golden=golden))
    world.run_until_phase(Phase.GATED)
    assert len(asked) == COUNTS_AT_ATTEMPT


def test_the_live_models_photograph_is_asked_about_also_where_the_candidate_has_another_under_its_name() -> None:
    world = released()
    world.ship(world.publish_model("1.1", photo=b"an easier photograph of a daisy"))
    report = gated(world, 2)
    assert [row.file for row in report.rows] == ["golden/flower.jpg", "golden/flower.jpg of model 1.0"]


def test_a_photograph_that_both_models_have_is_asked_about_once_as_the_candidates_publisher_says() -> None:
    world = released()
    world.ship(world.publish_model("1.1", golden=[{**GOLDEN[0], "min_confidence": 0.5}]))
    assert [(row.file, row.min_confidence) for row in gated(world, 2).rows] == [("golden/flower.jpg", 0.5)]


def test_a_release_of_a_pair_that_was_rejected_is_asked_in_a_pod_of_its_own() -> None:
    """The pod of the earlier release is still there, and ended for what was mended since."""
    world = released()
    world.tell(world.push_app("2.4.0"))
    world.run_until_phase(Phase.BUILT)
    image = f"{world.registry.name}/vision@{world.state.release(2).image}"
    world.cluster.crashing_images[image] = "WEIGHTS is not set"
    world.cluster.fail("delete_gate_pod", Retryable("the API server is away"))
    world.run()
    assert "WEIGHTS is not set" in (world.state.release(2).message or "")
    world.cluster.crashing_images.clear()
    body = ReleaseBody(reason="the template is mended", release="r-2", override=True)
    world.commands().release("vision", "key", "ana", body)
    world.run()
    assert world.state.release(3).phase is Phase.LIVE
    world.pipeline().sweep()
    assert world.cluster.list_gate_pods("vision") == ()


def test_a_gates_pod_that_is_gone_is_started_again() -> None:
    world = released()
    world.cluster.fail("gate_pod", NotFound("there is no such pod"))
    world.ship(world.publish_model("1.1"))
    assert world.state.release(2).phase is Phase.LIVE
    assert re.search(r"the gate's pod [-\w]+ is gone: it is started again", world.story())


def test_a_gates_pod_that_the_cluster_does_not_start_is_tried_again_and_blames_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = released()
    look, until = world.cluster.gate_pod, world.clock.now() + timedelta(minutes=5)

    def seen(namespace: str, name: str) -> PodView:
        pod = look(namespace, name)
        if world.clock.now() > until:
            return pod
        return msgspec.structs.replace(pod, phase="Pending", ready=False, statuses=())

    monkeypatch.setattr(world.cluster, "gate_pod", seen)
    world.ship(world.publish_model("1.1"))
    assert world.state.release(2).phase is Phase.LIVE
    assert "the cluster did not start the gate's pod in time: " in world.story()
    assert not world.state.quarantine


def test_a_golden_photo_that_is_too_large_is_not_asked_with(monkeypatch: pytest.MonkeyPatch) -> None:
    world = released()
    monkeypatch.setattr(questions, "MAX_PHOTO_BYTES", 1)
    world.ship(world.publish_model("1.1"))
    release = world.state.release(2)
    assert (release.phase, release.ended_because) == (Phase.REJECTED, "GoldenPhotoTooLarge")
    assert release.message == "golden/flower.jpg has more than 1 bytes; publish a smaller photo"
    assert world.version("").model_version == "1.0"


def overwritten(world: World, version: str, photo: bytes) -> None:
    """Let somebody upload another photograph where a published manifest lists one."""
    world.models.put("models", f"net/{version}/golden/flower.jpg", photo)


def test_a_photograph_that_was_overwritten_is_not_asked_with() -> None:
    world = released()
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.BUILT)
    overwritten(world, "1.1", b"another photograph")
    world.run()
    release = world.state.release(2)
    assert (release.phase, release.ended_because) == (Phase.REJECTED, "DigestMismatch")
    assert release.message == (
        "net/1.1/golden/flower.jpg is not the photograph that the manifest lists: it was overwritten since; "
        "publish a new version"
    )
    assert not world.state.quarantine


def test_a_photograph_of_the_live_model_that_was_overwritten_blames_no_candidate() -> None:
    world = released()
    overwritten(world, "1.0", b"another photograph")
    world.ship(world.publish_model("1.1"))
    assert world.state.release(2).phase is Phase.LIVE
    assert [row.file for row in gated(world, 2).rows] == ["golden/flower.jpg"]


def deleted(world: World, version: str, *names: str) -> None:
    """Let a clean-up delete photographs of a published model."""
    for name in names or ("flower.jpg",):
        world.models.delete("models", f"net/{version}/golden/{name}")


def answering_wrongly(world: World, app: str) -> None:
    """Let one app answer wrongly, in its gate's pod and through the door alike."""
    answers, ask = world.cluster.answering, world.ask

    def answer(asked: Asked) -> Reply:
        status, headers, body = answers(asked)
        return status, headers, body.replace(b"daisy", b"tulip") if headers["x-app-version"] == app else body

    def at_the_door(url: str, photo: bytes) -> Answer:
        found = ask(url, photo)
        return msgspec.structs.replace(found, predictions=(("tulip", 0.9),)) if found.app_version == app else found

    world.cluster.answering, world.ask = answer, at_the_door  # type: ignore[method-assign]


def with_photographs(monkeypatch: pytest.MonkeyPatch, *names: str) -> World:
    """Return a world whose live model has a golden question about each of these photographs."""
    photos = {f"golden/{name}": f"a daisy, {name}".encode() for name in names}
    monkeypatch.setattr("tests.world.model_files", lambda *args: {**model_files(*args), **photos})
    world = World()
    golden = [{"file": file, "expected": "daisy"} for file in photos]
    world.ship(world.push_app("2.3.0"), world.publish_model("1.0", golden=golden))
    return world


def test_one_of_the_live_models_photographs_that_was_deleted_keeps_no_code_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = with_photographs(monkeypatch, "flower.jpg", "second.jpg")
    deleted(world, "1.0", "second.jpg")
    world.ship(world.push_app("2.3.1"))
    assert users_meet(world) == ("2.3.1", "1.0")
    assert [row.file for row in gated(world, 2).rows] == ["golden/flower.jpg"]


def test_the_door_is_asked_with_what_is_left_where_one_of_the_models_photographs_was_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = with_photographs(monkeypatch, "flower.jpg", "second.jpg")
    world.tell(world.push_app("2.4.0"))
    world.run_until_phase(Phase.GATED)
    deleted(world, "1.0", "second.jpg")
    answering_wrongly(world, "2.4.0")
    world.run()
    assert world.state.release(2).ended_because == "VerifyFailed"
    assert users_meet(world) == ("2.3.0", "1.0")


@pytest.mark.parametrize(
    "lose",
    [deleted, lambda world, version: overwritten(world, version, b"another photograph")],
    ids=["deleted", "overwritten"],
)
def test_code_does_not_ship_unasked_where_all_photographs_of_the_live_model_are_gone(
    lose: Callable[[World, str], None],
) -> None:
    world = released()
    lose(world, "1.0")
    answering_wrongly(world, "2.4.0")
    world.ship(world.push_app("2.4.0"))
    bad = world.state.release(2)
    assert (bad.phase, bad.ended_because) == (Phase.REJECTED, "GoldenPhotosGone")
    assert bad.message == (
        "nothing is left to ask: of model 1.0 no golden photograph is there as it was published (golden/flower.jpg); "
        "put them back and release the pair by hand, with an override, or publish a new version of the model"
    )
    assert world.state.quarantine == {bad.pair.key}
    assert users_meet(world) == ("2.3.0", "1.0")
    assert world.state.model(bad.pair.model) is not None


def test_what_photographs_of_the_live_model_kept_back_ships_once_they_are_there_again() -> None:
    world = released()
    deleted(world, "1.0")
    world.ship(world.push_app("2.4.0"))
    world.models.undelete("models", "net/1.0/golden/flower.jpg")
    body = ReleaseBody(reason="they are back", release="r-2", override=True)
    world.commands().release("vision", "key", "bo", body)
    world.run()
    assert users_meet(world) == ("2.4.0", "1.0")
    assert [row.file for row in gated(world, 3).rows] == ["golden/flower.jpg"]


def test_a_new_model_ships_with_what_waits_where_all_photographs_of_the_live_one_are_gone() -> None:
    world = released()
    deleted(world, "1.0")
    world.ship(world.push_app("2.4.0"))
    world.ship(world.publish_model("1.1"))
    assert users_meet(world) == ("2.4.0", "1.1")
    assert [row.file for row in gated(world, 3).rows] == ["golden/flower.jpg"]


def test_the_live_pair_is_not_barred_where_it_is_released_by_hand_and_its_photographs_are_gone() -> None:
    world = released()
    first = world.cluster.deployment("vision", "vision").containers[0].image
    world.ship(world.push_app("2.4.0"))
    set_image(world, first)
    deleted(world, "1.0")
    world.commands().release("vision", "key", "bo", ReleaseBody(reason="set it right", release="r-2"))
    world.run()
    assert world.state.release(3).ended_because == "GoldenPhotosGone"
    assert not world.state.quarantine


def test_of_many_photographs_that_are_gone_some_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    world = with_photographs(monkeypatch, "flower.jpg", "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    deleted(world, "1.0", "flower.jpg", "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    world.ship(world.push_app("2.4.0"))
    assert "(golden/flower.jpg, golden/a.jpg, golden/b.jpg and 2 more)" in (world.state.release(2).message or "")


def test_no_more_of_a_photograph_is_read_than_its_manifest_lists() -> None:
    world = released()
    world.models.put("models", "net/1.0/golden/flower.jpg", bytes(64 << 20))
    opened, read = world.models.open, list[int]()

    def counted(*args: Any, **options: Any) -> Iterator[bytes]:
        for piece in opened(*args, **options):
            read.append(len(piece))
            yield piece

    world.models.open = counted  # type: ignore[method-assign]
    half = world.state.models[0]
    with pytest.raises(Rejected, match="is not the photograph that the manifest lists"):
        questions.golden_questions(half, world.target.model, world.models)
    assert sum(read) == 1 << 20  # a piece


def test_a_pair_whose_model_the_ledger_forgot_is_not_built_by_hand() -> None:
    world = released()
    world.ship(*(world.publish_model(f"1.{number}") for number in range(1, HALVES_KEPT + 1)))
    world.ship(world.publish_model("2.0"))
    world.commands().release("vision", "key", "bo", ReleaseBody(reason="it was better", release="r-1"))
    world.run()
    release = world.state.releases[-1]
    assert (release.phase, release.ended_because) == (Phase.REJECTED, "Gone")
    assert release.message == "the ledger forgot where this model is; publish it again"
    assert not world.state.quarantine


def test_a_gate_pod_that_an_earlier_build_named_is_removed_once_its_verdict_is_on_record() -> None:
    world = released()
    world.tell(world.publish_model("1.1"))
    world.run_until_phase(Phase.BUILT)
    pair = world.state.release(2).pair.key
    left = gate_pod(
        world.cluster.deployment("vision", "vision"),
        name=f"gate-vision-{pair[:12]}-a1",
        container="app",
        image=f"{world.registry.name}/vision@{world.state.release(2).image}",
        pair=pair,
    )
    world.cluster.create_gate_pod("vision", left)
    world.pipeline().sweep()
    assert len(world.cluster.list_gate_pods("vision")) == 1, "a worker of that build may be asking it"
    world.run()
    world.pipeline().sweep()
    assert world.cluster.list_gate_pods("vision") == ()


def test_a_gate_pod_of_an_earlier_build_is_kept_for_a_later_release_of_its_pair() -> None:
    world = released()
    world.ship(world.publish_model("1.1", says="tulip"))
    body = ReleaseBody(reason="it is meant", release="r-2", override=True)
    world.commands().release("vision", "key", "bo", body)
    world.run_until_phase(Phase.BUILT)
    again = world.state.release(3)
    left = gate_pod(
        world.cluster.deployment("vision", "vision"),
        name=f"gate-vision-{again.pair.key[:12]}-a1",
        container="app",
        image=f"{world.registry.name}/vision@{again.image}",
        pair=again.pair.key,
    )
    world.cluster.create_gate_pod("vision", left)
    world.pipeline().sweep()
    assert len(world.cluster.list_gate_pods("vision")) == 1
