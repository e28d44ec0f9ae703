"""Fates: what became of a release, a half, a pair, an event, a request or a hold, in words, and what to do next.

Pure; for `why`, which finds what a name means and asks here about it by its kind and key. Knows nothing of the names
that people use.
"""

import dataclasses
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Literal

from shipmate.core import pairs, plan
from shipmate.core.book import Book, event_of, words_of
from shipmate.core.gate import WRONG, Predictions, Row
from shipmate.core.history import release_history
from shipmate.core.ledger import (
    AnyEntry,
    AppHalf,
    Errored,
    HoldSet,
    IgnoredEvent,
    Live,
    ModelHalf,
    Phase,
    Planned,
    Received,
    Requested,
    Resolved,
    Resumed,
    RollbackRequested,
    Skipped,
    Superseded,
)
from shipmate.core.publications import examined
from shipmate.core.state import Release

_MOST_ROWS = 3

type Kind = Literal["release", "half", "pair", "hold", "request", "event"]
"""What has a fate. Its key is a release's number, a half's digest, a pair's key, and the id of any other."""

type Fate = Literal[
    "waiting",
    "on its way",
    "held",
    "live",
    "retired",
    "rejected",
    "failed",
    "rolled back",
    "superseded",
    "skipped",
    "ignored",
    "errored",
    "quarantined",
    "refused",
    "in force",
    "lifted",
    "replaced",
]
"""What became of it; docs/api.md says what each means."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """What is to be said about a subject."""

    name: str
    fate: Fate
    verdict: str
    next: str
    behind: Sequence[AnyEntry]
    reason: str | None = None
    release: str | None = None


def fate_of(book: Book, kind: Kind, key: str) -> Finding:
    """Return what is to be said about something that the book's entries mention."""
    return _FATES[kind](book, key)


# -- releases ------------------------------------------------------------------------------------------------------

_UNDER_WAY = {
    Phase.PLANNED: "is planned; the build is next",
    Phase.BUILT: "is built; the gate is next",
    Phase.GATED: "passed its gate; the rollout is next",
    Phase.INTENDED: "is rolling out",
    Phase.ROLLED_OUT: "runs, and is being verified through the public door",
}


def _of_release(book: Book, key: str) -> Finding:
    release = book.release(int(key))
    if release.retry_at is not None and release.phase not in _ENDED:
        words = f"is in trouble with something outside (attempt {release.attempt}): {release.message}"
        return _told(book, release, "errored", words, f"it is tried again at {_at(release.retry_at)}; nothing is lost")
    if release.phase in _UNDER_WAY:
        words = _UNDER_WAY[release.phase]
        if release.is_rollback and release.phase is Phase.BUILT:
            words = "needs no gate: its pair was live before; the rollout is next"
        words += f": {release.message}" if release.message else ""
        return _told(book, release, "on its way", words, book.upcoming)
    return _PHASES[release.phase](book, release)


def _told(book: Book, release: Release, fate: Fate, words: str, todo: str, *more: AnyEntry) -> Finding:
    name = f"{release.name} (app {release.app_version}, model {release.model_version})"
    behind = [*book.about(release.number), *more]
    return Finding(name, fate, f"{name} {words}", todo, behind, release.ended_because, release.name)


def _held(book: Book, release: Release) -> Finding:
    hold = book.state.hold_on(release.pair)
    if hold is None:
        return _told(book, release, "on its way", "passed its gate, and no hold keeps it any more", book.upcoming)
    words = f"passed its gate, and {hold.words} keeps it from traffic since {_at(hold.set_at)}: {hold.reason}"
    return _told(book, release, "held", words, f"to let it go: {book.command('resume')}")


def _cleared(book: Book, release: Release) -> Finding:
    words = f"passed its gate, asked to tell which half of r-{release.blames} is at fault"
    return _told(book, release, "on its way", words, book.upcoming)


def _live(book: Book, release: Release) -> Finding:
    words, failed = f"is live since {_at(release.moved_at)}", book.state.rollback_due
    if failed is not None:
        words += f"; users may meet r-{failed} all the same, which is not undone yet"
        return _told(book, release, "live", words, book.upcoming)
    if (back := _failed_rollback(book, release)) is not None:
        words += f"; users may meet {back.name} all the same, a rollback that failed: {back.message}"
        return _told(book, release, "live", words, f"to try it again: {book.command('rollback')}")
    words += ": users are answered by it"
    return _told(book, release, "live", words, "nothing to do")


def _failed_rollback(book: Book, live: Release) -> Release | None:
    """Return the last rollback since a release is live, if it failed and may have been patched in."""
    back = next((old for old in reversed(book.state.releases) if old.is_rollback), None)
    if back is None or back.number < live.number or back.phase is not Phase.FAILED or back.ended_because == "ImageGone":
        return None
    return back


def _retired(book: Book, release: Release) -> Finding:
    lives = list(book.of(Live))
    own = max(index for index, entry in enumerate(lives) if entry.release == release.number)
    after = lives[own + 1]
    words = f"was live from {_at(release.moved_at)} until {_at(after.at)}, when r-{after.release} went live"
    todo = f'to go back to it: {book.command("rollback")} with "to": "{release.name}"'
    return _told(book, release, "retired", words, todo, after)


def _rejected(book: Book, release: Release) -> Finding:
    words = f"was rejected ({release.ended_because}), and users never met it: {release.message}"
    report = release_history(release, book.entries).report
    if report is not None:
        rows = [_row(row) for row in report.rows if row.change in WRONG]
        words += "".join(f"; {row}" for row in rows[:_MOST_ROWS])
    return _told(book, release, "rejected", words, _mend(book, release))


def _undone(book: Book, release: Release) -> Finding:
    """Tell of a release that failed, or that was live and was undone."""
    words = f"failed ({release.ended_because}): {release.message}" if release.ended_because else "was live"
    backs = [entry for entry in book.of(Planned) if entry.undoes == release.number]
    if not backs:
        return _told(book, release, "failed", words, _mend(book, release))
    back = book.release(backs[-1].release)
    words += f"; {back.author} rolled it back by {back.name} to r-{back.to}, which is {back.phase}: {back.reason}"
    fate: Fate = "rolled back" if release.phase is Phase.ROLLED_BACK else "failed"
    return _told(book, release, fate, words, _mend(book, release), backs[-1])


def _superseded(book: Book, release: Release) -> Finding:
    words, more = f"was superseded: {release.message}", list[AnyEntry]()
    ended = False
    for entry in book.entries:
        ended = ended or (isinstance(entry, Superseded) and entry.release == release.number)
        if ended and isinstance(entry, Planned):
            words, more = f"{words}; r-{entry.release} went first", [entry]
            break
    override = ' and "override": true' if book.state.is_quarantined(release.pair) else ""
    todo = f'if it is wanted all the same: {book.command("releases")} with "release": "{release.name}"{override}'
    return _told(book, release, "superseded", words, todo, *more)


def _mend(book: Book, release: Release) -> str:
    """Return what to do about a release that did not stay."""
    if release.is_rollback:
        return f"to try again: {book.command('rollback')}"
    if not book.state.is_quarantined(release.pair):
        again = f'{book.command("releases")} with "release": "{release.name}"'
        return f"mend what the reason says, then publish a newer version, or {again}"
    pair = release.pair
    guilty = [f"app {release.app_version}"] if pair.app in book.state.quarantine else []
    guilty += [f"model {release.model_version}"] if pair.model in book.state.quarantine else []
    return (
        f"{' and '.join(guilty) or 'the pair'} is quarantined: publish a better version; if it is meant: "
        f'{book.command("releases")} with "release": "{release.name}" and "override": true, which is on record'
    )


def _row(row: Row) -> str:
    live = "" if row.live is None else f", live says {_top(row.live)}"
    return f"{row.file}: expected {row.expected}, it says {_top(row.candidate)}{live}"


def _top(predictions: Predictions) -> str:
    return f"{predictions[0][0]} {predictions[0][1]:.2f}" if predictions else "nothing"


_PHASES: dict[Phase, Callable[[Book, Release], Finding]] = {
    Phase.HELD: _held,
    Phase.CLEARED: _cleared,
    Phase.LIVE: _live,
    Phase.RETIRED: _retired,
    Phase.REJECTED: _rejected,
    Phase.FAILED: _undone,
    Phase.ROLLED_BACK: _undone,
    Phase.SUPERSEDED: _superseded,
}
_ENDED = {*_PHASES} - {Phase.HELD, Phase.CLEARED}

# -- halves and pairs ----------------------------------------------------------------------------------------------


def _of_half(book: Book, key: str) -> Finding:
    resolved, state = book.half(key), book.state
    half = resolved.half
    kind = "app" if isinstance(half, AppHalf) else "model"
    name = f"{kind} {half.version}"
    events = [entry for entry in book.entries if event_of(entry) == resolved.event_id]
    numbers = [entry.release for entry in book.of(Planned) if half.digest in (entry.pair.app, entry.pair.model)]
    serving, waiting = state.serving, state.waiting
    if serving is not None and half.digest in (serving.pair.app, serving.pair.model):
        numbers = [serving.number]
    elif waiting is not None and half.digest in (waiting.app, waiting.model) and half.digest not in state.quarantine:
        todo = f"publish the half that fits; {book.upcoming}"
        return Finding(name, "waiting", f"{name} waits: {waiting.message}", todo, [*events, waiting], waiting.reason)
    elif (alone := _without_partner(book, half)) is not None and not _was_barred(book, numbers):
        return Finding(name, "waiting", f"{name} waits: {alone.message}", book.upcoming, events, alone.reason)
    if numbers:
        return _led_to(_of_release(book, str(numbers[-1])), name, f"{name}: ", events)
    heads = state.apps[-1:] if kind == "app" else state.models[-1:]
    if all(head.digest != half.digest for head in heads):
        newer = " and ".join(head.version for head in heads)
        words = f"{name} was superseded before a release of it began: {kind} {newer} is newer"
        todo = f'if it is wanted all the same: {book.command("releases")} with "{kind}": "{half.digest}"'
        return Finding(name, "superseded", words, todo, events)
    return Finding(name, "on its way", f"{name} is known, and no release of it began yet", book.upcoming, events)


def _without_partner(book: Book, half: AppHalf | ModelHalf) -> plan.Idle | None:
    """Return why there is no pair to release, if it is for want of a partner for the newest half of its kind."""
    state = book.state
    newest, waiting = pairs.newest_pair(state)
    is_head = half in (*state.apps[-1:], *state.models[-1:]) and half.digest not in state.quarantine
    return plan.waiting_reason(state, waiting) if is_head and newest is None else None


def _was_barred(book: Book, numbers: Sequence[int]) -> bool:
    """Whether the pair of the last of these releases is quarantined: that says more than what is missing since."""
    return bool(numbers) and book.release(numbers[-1]).pair.key in book.state.quarantine


def _of_pair(book: Book, key: str) -> Finding:
    newest = [entry for entry in book.of(Planned) if entry.pair.key == key][-1]
    return _led_to(_of_release(book, str(newest.release)), f"pair {key[:12]}", "the pair of ")


# -- events --------------------------------------------------------------------------------------------------------


def _of_event(book: Book, key: str) -> Finding:
    behind = [entry for entry in book.entries if event_of(entry) == key]
    first = next((entry for entry in behind if isinstance(entry, Received)), None)
    if first is None:
        return _of_ignored(book, key)
    last = behind[-1]
    name = f"{examined(first.event)[0]} of {_at(first.event.occurred_at)}"
    told = "was found by the sweep, as no event told of it" if first.repaired else "came in"
    if isinstance(last, Resolved):
        return _led_to(_of_half(book, last.half.digest), name, f"{name} {told}; ", behind)
    if isinstance(last, Skipped):
        words = f"{name} {told} and leads to no release ({last.reason}): {last.message}"
        return Finding(name, "skipped", words, _about_reason(last.reason), behind, last.reason)
    if isinstance(last, Errored):
        words = f"{name} {told} and cannot be read yet: {last.message}"
        return Finding(name, "errored", words, f"it is read again at {_at(last.retry_at)}; nothing is lost", behind)
    return Finding(name, "on its way", f"{name} {told} and is about to be read", book.upcoming, behind)


def _of_ignored(book: Book, key: str) -> Finding:
    entry = next(entry for entry in book.of(IgnoredEvent) if entry.event.event_id == key)
    ignored = entry.event
    words = f"the event about {ignored.subject} was ignored ({ignored.reason}): {ignored.message}"
    return Finding(f"event {key}", "ignored", words, _about_reason(ignored.reason), [entry], ignored.reason)


_ABOUT_REASON = {
    "Stale": "nothing to do: something newer is known, and that is released",
    "Duplicate": "nothing to do: ask for the version that the bytes are known as",
    "Quarantined": 'publish a better version; if these bytes are meant, release them by hand with "override": true',
    "Gone": "publish it again",
    "ImageIncomplete": "push it again",
    "OwnPush": "nothing to do",
    "NoTag": "nothing to do: tags are followed",
    "NotTheManifest": "nothing to do: the upload of the manifest publishes a version",
    "BlobNotComplete": "nothing to do: the event that says it is done follows",
}


def _about_reason(reason: str) -> str:
    """Return what to do about something that starts nothing."""
    return _ABOUT_REASON.get(reason, f"docs/operating.md says what to do, in its section {reason}")


# -- requests and holds --------------------------------------------------------------------------------------------


def _of_request(book: Book, key: str) -> Finding:
    behind = [entry for entry in book.entries if getattr(entry, "request", None) == key]
    asked = next((entry for entry in behind if isinstance(entry, Requested | RollbackRequested)), None)
    name = f"request {key}"
    if asked is None:
        return _of_answered(book, name, behind[-1])
    words = f"{asked.author} asked for it at {_at(asked.at)}: {asked.reason}"
    planned = next((entry for entry in behind if isinstance(entry, Planned)), None)
    if planned is not None:
        return _led_to(_of_release(book, str(planned.release)), name, f"{words}; ", behind)
    waits = book.state.request if isinstance(asked, Requested) else book.state.rollback_request
    if waits is not None and key in (getattr(waits, "id", None), getattr(waits, "request", None)):
        return Finding(name, "on its way", f"{words}; no release was planned for it yet", book.upcoming, behind)
    if _was_quarantined(book, asked):
        words += "; before its turn came, the pair or a half of it was quarantined"
        todo = f'if it is meant: {book.command("releases")} with "override": true'
        return Finding(name, "quarantined", words, todo, behind)
    words += "; a later request took its place before its turn came"
    return Finding(name, "superseded", words, "ask again if it is still wanted", behind)


def _was_quarantined(book: Book, asked: Requested | RollbackRequested) -> bool:
    """Whether what was asked for was found bad before its turn came."""
    if isinstance(asked, RollbackRequested):
        return book.state.is_quarantined(book.release(asked.to).pair)
    return not asked.override and book.state.is_quarantined(asked.pair)


def _of_answered(book: Book, name: str, entry: AnyEntry) -> Finding:
    """Tell of a request that asked for no release: a resume, or what was refused."""
    if isinstance(entry, Resumed):
        words = f"{entry.author} lifted the hold {entry.hold} at {_at(entry.at)}: {entry.reason}"
        return Finding(name, "lifted", words, book.upcoming, [entry])
    words = f"{words_of(entry)}; this was refused, as the role of who asked does not allow it"
    return Finding(name, "refused", words, "have somebody ask who has the role releaser", [entry])


def _of_hold(book: Book, key: str) -> Finding:
    opened = next(entry for entry in book.entries if isinstance(entry, HoldSet | Live) and entry.id == key)
    who = opened if isinstance(opened, HoldSet) else book.release(opened.release)
    scope = opened.scope if isinstance(opened, HoldSet) else "all"
    what = {"all": "nothing new ships", "app": "no other app ships", "model": "no other model ships"}[scope]
    lifts = [entry for entry in book.of(Resumed) if entry.hold == opened.id]
    name, behind = f"hold {opened.id}", [opened, *lifts]
    words = f"{who.author} set this hold at {_at(opened.at)}: {who.reason}"
    now = book.state.hold
    if now is not None and now.under is not None and now.under.id == opened.id:
        words += f"; {now.words} is over it: {now.reason}; when that is lifted, this one is in force again, and {what}"
        return Finding(name, "in force", words, f"to lift the other: {book.command('resume')}", behind)
    if now is not None and now.id == opened.id:
        words += f"; it is in force, and {what}"
        return Finding(name, "in force", words, f"to lift it: {book.command('resume')}", behind)
    if lifts:
        words += f"; {lifts[-1].author} lifted it at {_at(lifts[-1].at)}: {lifts[-1].reason}"
        return Finding(name, "lifted", words, book.upcoming, behind)
    return Finding(name, "replaced", f"{words}; another hold has its place", book.upcoming, behind)


_FATES: dict[Kind, Callable[[Book, str], Finding]] = {
    "release": _of_release,
    "half": _of_half,
    "pair": _of_pair,
    "hold": _of_hold,
    "request": _of_request,
    "event": _of_event,
}


# -- words ---------------------------------------------------------------------------------------------------------


def _led_to(found: Finding, name: str, words: str, before: Sequence[AnyEntry] = ()) -> Finding:
    """Return a finding as that of what led to it: under its name, and behind its words and entries."""
    known = {entry.id for entry in found.behind}
    behind = [*(entry for entry in before if entry.id not in known), *found.behind]
    return dataclasses.replace(found, name=name, verdict=words + found.verdict, behind=behind)


def _at(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC"
