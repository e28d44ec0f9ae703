"""Who yields to whom: what ends a release before users met it, because something else goes first.

Rules over the state of a target, asked by `shipmate.core.plan` for each step, by the rollout, and by commands for what
they tell people. Each says in words what a release yields to, None if it goes on; what comes in its place is for `plan`
to say.
"""

from shipmate.core import pairs
from shipmate.core.ledger import Phase
from shipmate.core.refs import Pair
from shipmate.core.state import Release, Request, State

LASTING_AFTER_ATTEMPTS = 3
"""Attempts at a stage after which its trouble counts as lasting: what is in it yields to what a person asks for."""

EARLY = (Phase.PLANNED, Phase.BUILT, Phase.GATED)
"""Where a release is on its way and did not touch traffic yet."""


def is_lasting(release: Release) -> bool:
    """Whether a release is in trouble that does not pass by itself, as far as anybody can tell."""
    return release.stage_attempt > LASTING_AFTER_ATTEMPTS


def wish(state: State) -> str | None:
    """Return in words what a person wants instead of what is on its way."""
    if state.rollback_request is not None:
        return f"{state.rollback_request.author} rolled back: {state.rollback_request.reason}"
    return request_words(state.request) if state.request is not None else None


def request_words(asked: Request) -> str:
    """Return a person's request as what it ends has it on record."""
    return f"{asked.author} asked for another release"


def yields_to_wish(state: State, release: Release) -> str | None:
    """Return the wish that ends a release: one that has not touched traffic yet, or for a rollback one that has.

    A rollback itself yields where it is in lasting trouble.
    """
    if release.is_rollback:
        ends = release.phase in EARLY and is_lasting(release)
    else:
        ends = release.phase in EARLY or state.rollback_request is not None
    return wish(state) if ends else None


def yields_once_shut_out(state: State, release: Release) -> str | None:
    """Return the wish that ends a release with a fence, in lasting trouble, unless it is patched in already."""
    return wish(state) if is_lasting(release) else None


def yields_to_live(state: State, release: Release) -> str | None:
    """Return what is live and newer than an automatic release: it was published again meanwhile."""
    if not _is_automatic_and_early(release):
        return None
    what = pairs.older_than_live(state, release.pair)
    return f"{what} was published again and is live: this pair is older by now" if what is not None else None


def yields_to_newer(state: State, release: Release) -> str | None:
    """Return that something newer could go, in the place of an automatic release in trouble."""
    if not _is_automatic_and_early(release) or release.retry_at is None:
        return None
    if release.blames is not None:
        is_passed = pairs.newest_halves(state) != state.release(release.blames).pair
    else:
        newest, _ = pairs.newest_pair(state)
        is_passed = newest not in (None, release.pair)
    return f"a newer pair was published while this one was in trouble: {release.message}" if is_passed else None


def yields_while_held(state: State, held: Release, newest: Pair | None) -> str | None:
    """Return what ends a release that passed its gate and waits under a hold."""
    if state.is_quarantined(held.pair):
        return "its pair, or a half of it, is quarantined by now"
    if newest not in (None, held.pair) and state.halves_changed_at is not None:
        return "a newer pair was published"
    if held.trigger == "request":
        return None
    if newest not in (None, held.pair):
        return "another pair is the newest that may ship by now"
    what = pairs.older_than_live(state, held.pair)
    return f"{what} is live and was published later: this pair is older by now" if what is not None else None


def rollback_yielded(state: State, bad: Release) -> bool:
    """Whether a person's wish goes before the rollback of what failed: that was tried, and was in lasting trouble."""
    last = next((old for old in reversed(state.releases) if old.is_rollback and old.number > bad.number), None)
    return state.request is not None and last is not None and last.phase is Phase.SUPERSEDED


def brings(state: State, pair: Pair) -> Release | None:
    """Return the release on its way that brings a pair to users as things are, None if there is none.

    One that is in trouble may yield, one that a hold or a person's wish stops comes late or not at all, and a cross
    pair only tells which half is at fault.
    """
    active = state.active
    if active is None or active.pair != pair or active.stage_attempt > 1 or active.blames is not None:
        return None
    return active if wish(state) is None and state.hold_on(pair) is None else None


def _is_automatic_and_early(release: Release) -> bool:
    """Whether nobody asked for a release by name, and users did not meet it yet."""
    return release.phase in EARLY and release.trigger in ("model", "app", "blame")
