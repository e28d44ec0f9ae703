"""Why: what became of anything that ever came in, in words, with the ledger's entries behind it.

Pure; for the HTTP API and everything that explains a target to people. A name is looked up among all names that the
entries mention: digests, pairs, releases, events, blobs, tags, requests, holds. What it names is then explained from
the state and from the entries, which may be many more than the state remembers.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence, Set
from datetime import datetime
from typing import Literal

import msgspec

from shipmate.core.events import ImagePushed, ModelPublished
from shipmate.core.fold import examined, fold
from shipmate.core.gate import Change, Predictions, Row
from shipmate.core.ledger import (
    AnyEntry,
    AppHalf,
    Built,
    Errored,
    HoldSet,
    IgnoredEvent,
    Live,
    Phase,
    Planned,
    Progressed,
    Received,
    Refused,
    Rejected,
    Release,
    Requested,
    Resolved,
    Resumed,
    RollbackRequested,
    Skipped,
    State,
    Superseded,
)
from shipmate.errors import Invalid, NotFound

UNDERSTOOD = (
    "a digest of a model, an app image or a release image (or its first 12 digits or more), a release (r-42), a pair's "
    "key, an event's id, a version, a blob's path, repository:tag, the key of a request, the id of a hold"
)
"""What may be asked for, in words."""
LONGEST_NAME = 2048
"""Characters of what is asked for: a blob's address."""
_MOST_ALSO = 10
_MOST_ROWS = 3
_WRONG = (Change.NEWLY_WRONG, Change.WRONG, Change.CHANGED)

# an Event Grid subject, or the address of a blob in Azure or in a local emulator, which has the account in its path
_BLOB = re.compile(r"(/blobServices/default/containers/|https://[^/]+/|http://[^/]+/[a-z0-9]+/)")
_IN_SUBJECT = re.compile(r"^([^/]+)/blobs/")
_HEX = re.compile(r"(sha256:)?(?P<digits>[0-9a-f]{12,64})")
_FULL = re.compile(r"(sha256:)?[0-9a-f]{64}")


class Line(msgspec.Struct, frozen=True):
    """One entry behind an answer: its id, when, of what kind, and what it says."""

    id: str
    at: datetime
    kind: str
    words: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What became of something, and what to do next."""

    target: str
    kind: str  # release, model, app, pair, hold, request or event
    name: str  # what it is, for people
    fate: str
    verdict: str  # what became of it: a sentence
    next: str  # what happens next, or what to do: a sentence
    reason: str | None  # the code, where one is on record: docs/operating.md has a section for each
    release: str | None  # the release that it is or became part of
    also: tuple[str, ...]  # other things that go by the name asked for, newest first: ask for them by these
    entries: tuple[Line, ...]  # oldest first


type _Kind = Literal["release", "half", "pair", "hold", "request", "event"]
_BY_RANK: tuple[_Kind, ...] = ("release", "half", "pair", "hold", "request", "event")


@dataclasses.dataclass(frozen=True)
class _Subject:
    """Something that has a name in a ledger; `key` is the name that no other of its kind has."""

    kind: _Kind
    key: str


@dataclasses.dataclass(frozen=True)
class _Finding:
    """What is to be said about a subject."""

    name: str
    fate: str
    verdict: str
    next: str
    behind: Sequence[AnyEntry]
    reason: str | None = None
    release: str | None = None


@dataclasses.dataclass(frozen=True)
class _Book:
    """A target's ledger, open."""

    target: str
    state: State
    entries: Sequence[AnyEntry]
    upcoming: str

    def of[Entry](self, kind: type[Entry]) -> Iterator[Entry]:
        """Yield the entries of a kind, oldest first."""
        return (entry for entry in self.entries if isinstance(entry, kind))

    def about(self, number: int) -> list[AnyEntry]:
        """Return the entries about a release, oldest first; of signs of life only one that nothing followed yet."""
        own = [entry for entry in self.entries if getattr(entry, "release", None) == number]
        return [entry for entry in own if not isinstance(entry, Progressed) or entry is own[-1]]

    def release(self, number: int) -> Release:
        """Return a release as it stands, also one that the state has forgotten."""
        if any(release.number == number for release in self.state.releases):
            return self.state.release(number)
        state, known = State(), dict[int, Release]()
        for entry in self.entries:
            state = fold([entry], state)
            known |= {release.number: release for release in state.releases if release.number == number}
        return known[number]

    def command(self, path: str) -> str:
        """Return a command of the API as people write it."""
        return f"POST /api/targets/{self.target}/{path}"


def explain(of: str, target: str, state: State, entries: Sequence[AnyEntry], upcoming: str) -> Explanation:
    """Return what became of what goes by a name in a target's ledger.

    `state` is the fold of `entries`; `upcoming` says what happens next to the target. Raises NotFound if no entry
    mentions the name, Invalid if it is none, or the beginning of several digests.
    """
    book = _Book(target, state, entries, upcoming)
    subjects = _named(parse_name(of), entries)
    if not subjects:
        raise NotFound(f"nothing in the ledger of {target} is called {of[:100]!r}; understood are: {UNDERSTOOD}")
    subject, *others = subjects
    found = _FINDINGS[subject.kind](book, subject.key)
    return Explanation(
        target=target,
        kind=_kind(book, subject),
        name=found.name,
        fate=found.fate,
        verdict=found.verdict,
        next=found.next,
        reason=found.reason,
        release=found.release,
        also=tuple(other.key for other in others if other.kind == subject.kind)[:_MOST_ALSO],
        entries=tuple(Line(entry.id, entry.at, entry.kind_name, _words(entry)) for entry in found.behind),
    )


# -- names ---------------------------------------------------------------------------------------------------------


def parse_name(of: str) -> str:
    """Return a name as the ledger spells it; raise Invalid, with what is understood, for what can be none."""
    name = of.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise Invalid(f"say what you ask for, in at most {LONGEST_NAME} characters: {UNDERSTOOD}")
    if "@sha256:" in name:
        return name.rpartition("@")[2]
    return _IN_SUBJECT.sub(r"\1/", _BLOB.sub("", name, count=1))


def _named(name: str, entries: Sequence[AnyEntry]) -> list[_Subject]:
    """Return what goes by a name: the most telling kind first, and of each kind the newest first."""
    exact: dict[_Subject, int] = {}
    begun: dict[_Subject, int] = {}
    full: set[str] = set()
    digits = _HEX.fullmatch(name.lower())
    rollbacks = {entry.release for entry in entries if isinstance(entry, Planned) and entry.to is not None}
    for index, entry in enumerate(entries):
        for known, subject in _names(entry, rollbacks):
            if known == name:
                exact[subject] = index
            elif digits is not None and _is_digest(known, digits["digits"]):
                begun[subject] = index
                full.add(known.removeprefix("sha256:"))
    if not exact and len(full) > 1:
        raise Invalid(f"{len(full)} digests begin with {name!r}: give more digits of {', '.join(sorted(full)[:3])}")
    found = exact or begun
    return sorted(found, key=lambda subject: (_BY_RANK.index(subject.kind), -found[subject]))


def _is_digest(known: str, digits: str) -> bool:
    return _FULL.fullmatch(known) is not None and known.removeprefix("sha256:").startswith(digits)


def _names(entry: AnyEntry, rollbacks: Set[int]) -> Iterator[tuple[str, _Subject]]:
    """Yield each name that an entry mentions, with what goes by it."""
    match entry:
        case Received(event=event):
            subject = _Subject("event", event.event_id)
            names = [event.event_id, *_places(event)]
        case IgnoredEvent(event=ignored):
            subject = _Subject("event", ignored.event_id)
            names = [ignored.event_id, ignored.subject, _IN_SUBJECT.sub(r"\1/", _BLOB.sub("", ignored.subject))]
        case Resolved(half=half):
            subject = _Subject("half", half.digest)
            names = [half.digest, half.version, *([half.pushed] if isinstance(half, AppHalf) else [])]
        case Planned():
            yield from ((name, _Subject("pair", entry.pair.key)) for name in (entry.pair.key, entry.pair.tag))
            subject, names = _Subject("release", str(entry.release)), [f"r-{entry.release}"]
        case Built():
            subject, names = _Subject("release", str(entry.release)), [entry.image]
        case HoldSet():
            subject, names = _Subject("hold", entry.id), [entry.id, entry.request]
        case Live() if entry.release in rollbacks:  # it holds the target
            subject, names = _Subject("hold", entry.id), [entry.id]
        case Requested() | RollbackRequested() | Resumed() | Refused():
            subject, names = _Subject("request", entry.request), [entry.request]
        case _:
            return
    yield from ((name, subject) for name in names)


def _places(event: ModelPublished | ImagePushed) -> list[str]:
    """Return the names of what was published: a blob with its folder and version, a tag with its digest."""
    if isinstance(event, ImagePushed):
        return [f"{event.repository}:{event.tag}", event.digest]
    folder, _, _ = event.path.rpartition("/")
    names = [f"{event.container}/{event.path}", event.path, f"{event.container}/{folder}", folder]
    return [*names, folder.rpartition("/")[2]]


def _kind(book: _Book, subject: _Subject) -> str:
    if subject.kind != "half":
        return subject.kind
    return "app" if isinstance(_half(book, subject.key).half, AppHalf) else "model"


# -- releases ------------------------------------------------------------------------------------------------------

_UNDER_WAY = {
    Phase.PLANNED: "is planned; the build is next",
    Phase.BUILT: "is built; the gate is next",
    Phase.GATED: "passed its gate; the rollout is next",
    Phase.INTENDED: "is rolling out",
    Phase.ROLLED_OUT: "runs, and is being verified through the public door",
}


def _of_release(book: _Book, key: str) -> _Finding:
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


def _told(book: _Book, release: Release, fate: str, words: str, todo: str, *more: AnyEntry) -> _Finding:
    name = f"{release.name} (app {release.app_version}, model {release.model_version})"
    behind = [*book.about(release.number), *more]
    return _Finding(name, fate, f"{name} {words}", todo, behind, release.ended_because, release.name)


def _held(book: _Book, release: Release) -> _Finding:
    hold = book.state.hold_on(release.pair)
    if hold is None:
        return _told(book, release, "on its way", "passed its gate, and no hold keeps it any more", book.upcoming)
    words = f"passed its gate, and {hold.words} keeps it from traffic since {_at(hold.set_at)}: {hold.reason}"
    return _told(book, release, "held", words, f"to let it go: {book.command('resume')}")


def _cleared(book: _Book, release: Release) -> _Finding:
    words = f"passed its gate, asked to tell which half of r-{release.blames} is at fault"
    return _told(book, release, "on its way", words, book.upcoming)


def _live(book: _Book, release: Release) -> _Finding:
    words = f"is live since {_at(release.moved_at)}: users are answered by it"
    return _told(book, release, "live", words, "nothing to do")


def _retired(book: _Book, release: Release) -> _Finding:
    lives = list(book.of(Live))
    own = max(index for index, entry in enumerate(lives) if entry.release == release.number)
    after = lives[own + 1]
    words = f"was live from {_at(release.moved_at)} until {_at(after.at)}, when r-{after.release} went live"
    todo = f'to go back to it: {book.command("rollback")} with "to": "{release.name}"'
    return _told(book, release, "retired", words, todo, after)


def _rejected(book: _Book, release: Release) -> _Finding:
    words = f"was rejected ({release.ended_because}), and users never met it: {release.message}"
    for entry in book.about(release.number):
        if isinstance(entry, Rejected) and entry.report is not None:
            rows = [_row(row) for row in entry.report.rows if row.change in _WRONG]
            words += "".join(f"; {row}" for row in rows[:_MOST_ROWS])
    return _told(book, release, "rejected", words, _mend(book, release))


def _undone(book: _Book, release: Release) -> _Finding:
    """Tell of a release that failed, or that was live and was undone."""
    words = f"failed ({release.ended_because}): {release.message}" if release.ended_because else "was live"
    backs = [entry for entry in book.of(Planned) if entry.undoes == release.number]
    if not backs:
        return _told(book, release, "failed", words, _mend(book, release))
    back = book.release(backs[-1].release)
    words += f"; {back.author} rolled it back by {back.name} to r-{back.to}, which is {back.phase}: {back.reason}"
    fate = "rolled back" if release.phase is Phase.ROLLED_BACK else "failed"
    return _told(book, release, fate, words, _mend(book, release), backs[-1])


def _superseded(book: _Book, release: Release) -> _Finding:
    words, more = f"was superseded: {release.message}", list[AnyEntry]()
    ended = False
    for entry in book.entries:
        ended = ended or (isinstance(entry, Superseded) and entry.release == release.number)
        if ended and isinstance(entry, Planned):
            words, more = f"{words}; r-{entry.release} went first", [entry]
            break
    todo = f'if it is wanted all the same: {book.command("releases")} with "release": "{release.name}"'
    return _told(book, release, "superseded", words, todo, *more)


def _mend(book: _Book, release: Release) -> str:
    """Return what to do about a release that did not stay."""
    if release.is_rollback:
        return f"to try again: {book.command('rollback')}"
    if not book.state.is_quarantined(release.pair):
        return f"mend what the reason says, then publish again, or {book.command('releases')}"
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


_PHASES: dict[Phase, Callable[[_Book, Release], _Finding]] = {
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


def _half(book: _Book, digest: str) -> Resolved:
    """Return the last entry that told of a half."""
    return [entry for entry in book.of(Resolved) if entry.half.digest == digest][-1]


def _of_half(book: _Book, key: str) -> _Finding:
    resolved, state = _half(book, key), book.state
    half = resolved.half
    kind = "app" if isinstance(half, AppHalf) else "model"
    name = f"{kind} {half.version}"
    events = [entry for entry in book.entries if _event_of(entry) == resolved.event_id]
    numbers = [entry.release for entry in book.of(Planned) if half.digest in (entry.pair.app, entry.pair.model)]
    serving, waiting = state.serving, state.waiting
    if serving is not None and half.digest in (serving.pair.app, serving.pair.model):
        numbers = [serving.number]
    elif waiting is not None and half.digest in (waiting.app, waiting.model) and half.digest not in state.quarantine:
        todo = f"publish the half that fits; {book.upcoming}"
        return _Finding(name, "waiting", f"{name} waits: {waiting.message}", todo, [*events, waiting], waiting.reason)
    if numbers:
        found = _of_release(book, str(numbers[-1]))
        return dataclasses.replace(
            found, name=name, verdict=f"{name}: {found.verdict}", behind=[*events, *found.behind]
        )
    heads = state.apps[-1:] if kind == "app" else state.models[-1:]
    if all(head.digest != half.digest for head in heads):
        newer = " and ".join(head.version for head in heads)
        words = f"{name} was superseded before a release of it began: {kind} {newer} is newer"
        todo = f'if it is wanted all the same: {book.command("releases")} with "{kind}": "{half.digest}"'
        return _Finding(name, "superseded", words, todo, events)
    return _Finding(name, "on its way", f"{name} is known, and no release of it began yet", book.upcoming, events)


def _of_pair(book: _Book, key: str) -> _Finding:
    newest = [entry for entry in book.of(Planned) if entry.pair.key == key][-1]
    found = _of_release(book, str(newest.release))
    return dataclasses.replace(found, name=f"pair {key[:12]}", verdict=f"the pair of {found.verdict}")


# -- events --------------------------------------------------------------------------------------------------------


def _event_of(entry: AnyEntry) -> str | None:
    """Return the id of the event that an entry is about."""
    event = getattr(entry, "event", None)
    return event.event_id if event is not None else getattr(entry, "event_id", None)


def _of_event(book: _Book, key: str) -> _Finding:
    behind = [entry for entry in book.entries if _event_of(entry) == key]
    first = next((entry for entry in behind if isinstance(entry, Received)), None)
    if first is None:
        return _of_ignored(book, key)
    last = behind[-1]
    name = f"{examined(first.event)[0]} of {_at(first.event.occurred_at)}"
    told = "was found by the sweep, as no event told of it" if first.repaired else "came in"
    if isinstance(last, Resolved):
        found = _of_half(book, last.half.digest)
        seen = {entry.id for entry in found.behind}
        behind = [*(entry for entry in behind if entry.id not in seen), *found.behind]
        return dataclasses.replace(found, name=name, verdict=f"{name} {told}; {found.verdict}", behind=behind)
    if isinstance(last, Skipped):
        words = f"{name} {told} and leads to no release ({last.reason}): {last.message}"
        return _Finding(name, "skipped", words, _about_reason(last.reason), behind, last.reason)
    if isinstance(last, Errored):
        words = f"{name} {told} and cannot be read yet: {last.message}"
        return _Finding(name, "errored", words, f"it is read again at {_at(last.retry_at)}; nothing is lost", behind)
    return _Finding(name, "on its way", f"{name} {told} and is about to be read", book.upcoming, behind)


def _of_ignored(book: _Book, key: str) -> _Finding:
    entry = next(entry for entry in book.of(IgnoredEvent) if entry.event.event_id == key)
    ignored = entry.event
    words = f"the event about {ignored.subject} was ignored ({ignored.reason}): {ignored.message}"
    return _Finding(f"event {key}", "ignored", words, _about_reason(ignored.reason), [entry], ignored.reason)


_ABOUT_REASON = {
    "Stale": "nothing to do: something newer is known, and that is released",
    "Duplicate": "nothing to do: ask for the version that the bytes are known as",
    "Quarantined": 'publish a better version; if these bytes are meant, release them by hand with "override": true',
    "Gone": "publish it again",
    "OwnPush": "nothing to do",
    "NoTag": "nothing to do: tags are followed",
    "NotTheManifest": "nothing to do: the upload of the manifest publishes a version",
    "BlobNotComplete": "nothing to do: the event that says it is done follows",
}


def _about_reason(reason: str) -> str:
    """Return what to do about something that starts nothing."""
    return _ABOUT_REASON.get(reason, f"docs/operating.md says what to do, in its section {reason}")


# -- requests and holds --------------------------------------------------------------------------------------------


def _of_request(book: _Book, key: str) -> _Finding:
    behind = [entry for entry in book.entries if getattr(entry, "request", None) == key]
    asked = next((entry for entry in behind if isinstance(entry, Requested | RollbackRequested)), None)
    name = f"request {key}"
    if asked is None:
        return _of_answered(book, name, behind[-1])
    words = f"{asked.author} asked for it at {_at(asked.at)}: {asked.reason}"
    for entry in behind:
        if isinstance(entry, Planned):
            found = _of_release(book, str(entry.release))
            seen = {known.id for known in found.behind}
            behind = [*(known for known in behind if known.id not in seen), *found.behind]
            return dataclasses.replace(found, name=name, verdict=f"{words}; {found.verdict}", behind=behind)
    waits = book.state.request if isinstance(asked, Requested) else book.state.rollback_request
    if waits is not None and key in (getattr(waits, "id", None), getattr(waits, "request", None)):
        return _Finding(name, "on its way", f"{words}; no release was planned for it yet", book.upcoming, behind)
    if isinstance(asked, Requested) and book.state.is_quarantined(asked.pair):
        words += "; before its turn came, the pair or a half of it was quarantined"
        todo = f'if it is meant: {book.command("releases")} with "override": true'
        return _Finding(name, "quarantined", words, todo, behind)
    words += "; a later request took its place before its turn came"
    return _Finding(name, "superseded", words, "ask again if it is still wanted", behind)


def _of_answered(book: _Book, name: str, entry: AnyEntry) -> _Finding:
    """Tell of a request that asked for no release: a resume, or what was refused."""
    if isinstance(entry, Resumed):
        words = f"{entry.author} lifted the hold {entry.hold} at {_at(entry.at)}: {entry.reason}"
        return _Finding(name, "lifted", words, book.upcoming, [entry])
    words = f"{_words(entry)}; this was refused, as the role of who asked does not allow it"
    return _Finding(name, "refused", words, "have somebody ask who has the role releaser", [entry])


def _of_hold(book: _Book, key: str) -> _Finding:
    opened = next(entry for entry in book.entries if isinstance(entry, HoldSet | Live) and entry.id == key)
    who = opened if isinstance(opened, HoldSet) else book.release(opened.release)
    scope = opened.scope if isinstance(opened, HoldSet) else "all"
    what = {"all": "nothing new ships", "app": "no other app ships", "model": "no other model ships"}[scope]
    lifts = [entry for entry in book.of(Resumed) if entry.hold == opened.id]
    name, behind = f"hold {opened.id}", [opened, *lifts]
    words = f"{who.author} set this hold at {_at(opened.at)}: {who.reason}"
    if book.state.hold is not None and book.state.hold.id == opened.id:
        words += f"; it is in force, and {what}"
        return _Finding(name, "in force", words, f"to lift it: {book.command('resume')}", behind)
    if lifts:
        words += f"; {lifts[-1].author} lifted it at {_at(lifts[-1].at)}: {lifts[-1].reason}"
        return _Finding(name, "lifted", words, book.upcoming, behind)
    return _Finding(name, "replaced", f"{words}; another hold has its place", book.upcoming, behind)


_FINDINGS: dict[_Kind, Callable[[_Book, str], _Finding]] = {
    "release": _of_release,
    "half": _of_half,
    "pair": _of_pair,
    "hold": _of_hold,
    "request": _of_request,
    "event": _of_event,
}

# -- words ---------------------------------------------------------------------------------------------------------


def _words(entry: AnyEntry) -> str:
    """Return what an entry says, in one line."""
    said = entry.event if isinstance(entry, IgnoredEvent) else entry
    parts = [getattr(said, part, None) for part in ("author", "reason", "message")]
    words = ": ".join(part for part in parts if part)
    if isinstance(entry, Received):
        words = examined(entry.event)[0]
    if isinstance(entry, Resolved):
        words = f"{entry.half.version} is {entry.half.digest}"
    number = getattr(entry, "release", None)
    return " ".join(part for part in (f"r-{number}" if number else "", words) if part)


def _at(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC"
