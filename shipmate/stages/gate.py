"""Gate: one pod of the candidate outside the Service answers the golden questions; so does the live pair, for the diff.

The pod is named by the release and the attempt, so that two workers share it. It is removed once its verdict is on
record: a pod removed before could be started again by a worker that wakes late, with nobody left to remove it.
"""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta

import msgspec

from shipmate.core.answers import parse_answer, question, writable
from shipmate.core.gate import Reply, is_as_live, judge
from shipmate.core.gate_pod import former_gate_name, gate_name, gate_pod
from shipmate.core.ledger import Gated, Phase, Rejected
from shipmate.core.manifest import MOST_GOLDEN
from shipmate.core.pairs import blamed
from shipmate.core.progress import Complete, Failed, explain, gate_progress
from shipmate.core.refs import Digest
from shipmate.core.state import Release, State
from shipmate.core.targets import LONGEST_ANSWER_SECONDS, Target
from shipmate.core.views import PodView
from shipmate.errors import NotFound, Retryable, ShipmateError, Silent, Unusable, at_fault
from shipmate.errors import Rejected as RejectedError
from shipmate.ports import Cluster
from shipmate.stages.build import restore
from shipmate.stages.context import Context
from shipmate.stages.questions import Asked, PhotosGone, golden_questions
from shipmate.stages.rollout import image_reference, log_of

POLL_SECONDS = 0.2
COUNTS_AT_ATTEMPT = 3
"""The attempt at the gate from which an answer that stays away counts."""
END_WITHIN_SECONDS = 5.0
"""How long the cluster may take to tell that a pod which gives no answer has ended."""
_MOST_ANSWERS = 2 * 2 * MOST_GOLDEN
"""The questions of two models, each asked twice: a pod that ends before them would keep its release from a verdict."""
_SPARE_SECONDS = 120
_FINAL_PROBLEMS = ("urn:shipmate:app:broken-model", "urn:shipmate:app:no-model")


def gate(release: Release, target: Target, state: State, context: Context) -> Gated | Rejected:
    """Return the verdict on a built release. Raises Retryable, Ambiguous, Conflict, NotFound, NotAllowed."""
    serving = state.serving
    is_live = release.pair == state.live_pair
    try:
        asked = _questions(release, target, state, context)
    except PhotosGone as error:  # nobody's fault, and nobody answered: neither half is withdrawn or blamed
        return Rejected(
            **context.stamp(),
            release=release.number,
            reason="GoldenPhotosGone",
            message=str(error),
            quarantine=() if is_live else (release.pair.key,),
        )
    live = _live_replies(release, target, asked, context) if serving is not None else {}
    restore(release, target, state, context)
    pod = _start(release, target, context)
    try:
        _until_ready(pod, target, context)
        candidate = {}
        for each in asked:
            candidate[each.question.file] = _ask_candidate(context, target, pod, release, each)
            context.progress(f"{len(candidate)} of {len(asked)} golden questions are answered")
    except RejectedError as error:
        return Rejected(
            **context.stamp(),
            release=release.number,
            reason=error.reason,
            message=str(error),
            quarantine=blamed(state, release.pair),
        )
    compared_with = serving.number if serving is not None else None
    report = judge([each.question for each in asked], candidate, live, target.gate, compared_with)
    if report.passed:
        return Gated(**context.stamp(), release=release.number, report=report)
    is_new_code = not is_live and _is_live(release.pair.model, state)
    is_lives_fault = is_new_code and is_as_live(report, target.gate)
    return Rejected(
        **context.stamp(),
        release=release.number,
        reason="GateFailed",
        message="; ".join(report.faults),
        quarantine=(release.pair.key,) if is_lives_fault else blamed(state, release.pair),
        report=report,
    )


def _questions(release: Release, target: Target, state: State, context: Context) -> tuple[Asked, ...]:
    """Return the candidate's questions, and the live model's about photographs that the candidate's are not about.

    Another photograph under the same name is another question. A live model that cannot be read any more asks nothing:
    the candidate is not at fault. Raises PhotosGone if the candidate's model is live and has none to ask with.
    """
    half = state.model(release.pair.model)
    with at_fault("model"):
        if half is None:
            raise RejectedError("Gone", f"model {release.model_version} is not known any more; publish it again")
        asked = golden_questions(half, target.model, context.models, is_live=_is_live(half.digest, state))
    found = {each.question.file: each for each in asked}
    live = state.model(state.live_pair.model) if state.live_pair is not None else None
    if live is not None and live != half:
        with suppress(RejectedError):
            for each in golden_questions(live, target.model, context.models, is_live=True):
                own = found.setdefault(each.question.file, each)
                if own.photo != each.photo:
                    name = f"{each.question.file} of model {live.version}"
                    found[name] = Asked(msgspec.structs.replace(each.question, file=name), each.photo)
    return tuple(found.values())


def _is_live(model: Digest, state: State) -> bool:
    return state.live_pair is not None and state.live_pair.model == model


def _live_replies(release: Release, target: Target, asked: tuple[Asked, ...], context: Context) -> dict[str, Reply]:
    """Return what the live pair answers, for the diff, up to the first silence where that lasts.

    In lasting trouble it does not keep the candidate back: each further question would wait as long, for nothing.
    """
    replies = {}
    for each in asked:
        try:
            replies[each.question.file] = _ask_live(context, target, each)
        except Retryable:
            if release.stage_attempt < COUNTS_AT_ATTEMPT:
                raise
            break
        context.progress(f"the live pair was asked {each.question.file}")
    return replies


def _start(release: Release, target: Target, context: Context) -> PodView:
    where = target.deployment
    longest = target.gate.ready_within_seconds + _MOST_ANSWERS * target.gate.max_seconds
    manifest = gate_pod(
        context.cluster.deployment(where.namespace, where.name),
        name=gate_name(target.name, release.pair.key, release.number, release.attempt),
        container=where.container,
        image=image_reference(release, target, context.cluster),
        pair=release.pair.key,
        release=release.name,
        active_deadline_seconds=int(longest) + _SPARE_SECONDS,
    )
    return context.cluster.create_gate_pod(where.namespace, manifest)


def _until_ready(pod: PodView, target: Target, context: Context) -> None:
    """Return when the pod is ready; raise Rejected with what the candidate says when it will not be, Retryable."""
    cluster, clock = context.cluster, context.clock
    deadline = clock.now() + timedelta(seconds=target.gate.ready_within_seconds)
    while True:
        try:
            seen = cluster.gate_pod(pod.namespace, pod.name)
        except NotFound as error:
            raise Retryable(f"the gate's pod {pod.name} is gone: it is started again") from error
        progress = gate_progress(seen)
        if isinstance(progress, Complete):
            return
        words = (_readiness(seen, target, cluster) or "") if seen.phase == "Running" else ""
        if isinstance(progress, Failed):
            if progress.is_nobodys_fault:
                raise Retryable(progress.message)
            told = explain(progress, readiness=words, log=log_of(seen.name, target, cluster))
            raise RejectedError(told.reason, told.message)
        if _is_final(words):
            raise RejectedError("CandidateNotReady", f"the candidate will not become ready; it says: {_detail(words)}")
        if clock.now() > deadline:
            if seen.phase == "Pending":  # it never ran, so it is not known to be bad
                raise Retryable(f"the cluster did not start the gate's pod in time: {progress.message}")
            late = Failed("CandidateNotReady", f"not ready within {target.gate.ready_within_seconds:.0f} s")
            told = explain(late, readiness=words, log=log_of(seen.name, target, cluster))
            raise RejectedError(told.reason, told.message)
        context.progress(f"the candidate is not ready yet: {progress.message}")
        clock.sleep(POLL_SECONDS)


def _readiness(pod: PodView, target: Target, cluster: Cluster) -> str | None:
    """Return what the candidate's own readiness check says, None if it cannot be asked."""
    try:
        _, _, body = cluster.ask_pod(pod.namespace, pod.name, target.deployment.port, "GET", "/readyz", timeout=5)
    except ShipmateError:
        return None
    return body.decode(errors="replace")


def _is_final(words: str) -> bool:
    """Whether a readiness problem says that waiting will not mend it, by its type (the app contract)."""
    try:
        problem = json.loads(words)
    except (ValueError, RecursionError):
        return False
    return isinstance(problem, dict) and problem.get("type") in _FINAL_PROBLEMS


def _detail(words: str) -> str:
    return writable(str(json.loads(words).get("detail", words)))


def _ask_candidate(context: Context, target: Target, pod: PodView, release: Release, asked: Asked) -> Reply:
    """Return the candidate's answer. One that took too long is asked for again: this worker may have slept over it."""
    try:
        reply = _ask_once(context, target, pod, release, asked)
    except Silent:
        if release.stage_attempt < COUNTS_AT_ATTEMPT or _readiness(pod, target, context.cluster) is None:
            raise  # the way to it may be what is broken
        try:
            reply = _ask_once(context, target, pod, release, asked)
        except Silent as error:
            told = f"asked about {asked.question.file}, twice: {error}, though it answers /readyz"
            raise RejectedError("CandidateAnswerUnusable", told) from error
    if reply.seconds > target.gate.max_seconds:
        reply = min(reply, _ask_once(context, target, pod, release, asked), key=lambda reply: reply.seconds)
    return reply


def _ask_once(context: Context, target: Target, pod: PodView, release: Release, asked: Asked) -> Reply:
    where = target.deployment
    headers = {"content-type": "application/json"}
    started, counts = context.clock.now(), release.stage_attempt >= COUNTS_AT_ATTEMPT
    try:
        status, reply_headers, body = context.cluster.ask_pod(
            pod.namespace,
            pod.name,
            where.port,
            "POST",
            "/score",
            question([asked.photo]),
            headers,
            timeout=LONGEST_ANSWER_SECONDS,
        )
        seconds = (context.clock.now() - started).total_seconds()
        if status != 429 and (400 <= status < 500 or (status != 200 and counts)):
            words = body[:300].decode(errors="replace")
            raise RejectedError(
                "CandidateAnswerUnusable", f"/score answered {status} to {asked.question.file}: {words}"
            )
        answer = parse_answer(status, reply_headers, body, seconds)
    except Unusable as error:
        if not counts:
            raise
        raise RejectedError("CandidateAnswerUnusable", f"asked about {asked.question.file}: {error}") from error
    except Retryable as error:
        told = f"asked about {asked.question.file}: {error}"
        _reject_what_ended(pod, target, context, told, END_WITHIN_SECONDS if counts else 0.0)
        raise
    return Reply(answer.predictions, answer.seconds)


def _reject_what_ended(pod: PodView, target: Target, context: Context, asked: str, patience_seconds: float) -> None:
    """Raise Rejected if a candidate that gives no answer has ended of itself: of too little memory, for instance."""
    deadline = context.clock.now() + timedelta(seconds=patience_seconds)
    while True:
        try:
            progress = gate_progress(context.cluster.gate_pod(pod.namespace, pod.name))
        except NotFound:
            return
        if isinstance(progress, Failed) and not progress.is_nobodys_fault:
            told = explain(progress, log=log_of(pod.name, target, context.cluster))
            raise RejectedError(told.reason, f"{asked}; {told.message}")
        if context.clock.now() >= deadline:
            return
        context.clock.sleep(POLL_SECONDS)


def _ask_live(context: Context, target: Target, asked: Asked) -> Reply:
    answer = context.door.ask(target.public_url, asked.photo)
    return Reply(answer.predictions, answer.seconds)


def remove_finished_gate_pods(pods: Sequence[PodView], target: Target, state: State, cluster: Cluster) -> int:
    """Delete the target's gate pods whose release needs none any more; return how many. Called by the sweep.

    `pods` must have been listed before `state` was read: then a pod that is not in the state yet cannot be among them.
    """
    finished = list(_finished(pods, target, state))
    for pod in finished:
        cluster.delete_gate_pod(pod.namespace, pod.name, pod.uid)
    return len(finished)


def _finished(pods: Iterable[PodView], target: Target, state: State) -> Iterable[PodView]:
    names = dict[str, bool]()
    for old in state.releases:
        for attempt in range(1, old.attempt + 1):
            is_used = old.phase is Phase.BUILT and attempt == old.attempt
            names[gate_name(target.name, old.pair.key, old.number, attempt)] = is_used
            former = former_gate_name(target.name, old.pair.key, attempt)  # one for all releases of the pair
            names[former] = is_used or names.get(former, False)
    return (pod for pod in pods if not pod.deleting and names.get(pod.name) is False)
