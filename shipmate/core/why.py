"""Why: what a name means in a ledger, and what became of it, in words, with the entries behind it.

Pure; for the HTTP API and everything that explains a target to people. A name is looked up among all names that the
entries mention: digests, pairs, releases, events, blobs, tags, requests, holds. What became of what goes by it is for
`fates` to say.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence, Set
from datetime import datetime

import msgspec

from shipmate.core.book import Book, words_of
from shipmate.core.events import ImagePushed, ModelPublished
from shipmate.core.fates import Kind, fate_of
from shipmate.core.ledger import (
    AnyEntry,
    AppHalf,
    Built,
    HoldSet,
    IgnoredEvent,
    Live,
    Planned,
    Received,
    Refused,
    Requested,
    Resolved,
    Resumed,
    RollbackRequested,
    Skipped,
)
from shipmate.core.state import State
from shipmate.errors import Invalid, NotFound

UNDERSTOOD = (
    "a digest of a model, an app image or a release image (or its first 12 digits or more), a release (r-42), a pair's "
    "key, an event's id, a version, a blob's path, repository:tag, the key of a request, the id of a hold"
)
"""What may be asked for, in words."""
LONGEST_NAME = 2048
"""Characters of what is asked for: a blob's address."""
_MOST_ALSO = 10

# an Event Grid subject, or the address of a blob in Azure or in a local emulator, which has the account in its path
_BLOB = re.compile(r"(/blobServices/default/containers/|https://[^/]+/|http://[^/]+/[a-z0-9]+/)")
_IN_SUBJECT = re.compile(r"^([^/]+)/blobs/")
_HEX = re.compile(r"(sha256:)?(?P<digits>[0-9a-f]{12,64})")
_TOLD_AGAIN = frozenset({"Duplicate", "Stale"})
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


_BY_RANK: tuple[Kind, ...] = ("release", "half", "pair", "hold", "request", "event")


@dataclasses.dataclass(frozen=True)
class Subject:
    """Something that has a name in a ledger; `key` is the name that no other of its kind has."""

    kind: Kind
    key: str


def explain(of: str, target: str, state: State, entries: Sequence[AnyEntry], upcoming: str) -> Explanation:
    """Return what became of what goes by a name in a target's ledger.

    `state` is the fold of `entries`; `upcoming` says what happens next to the target. Raises NotFound if no entry
    mentions the name, Invalid if it is none, or the beginning of several digests.
    """
    book = Book(target, state, entries, upcoming)
    subjects = _named(parse_name(of), entries)
    if not subjects:
        raise NotFound(f"nothing in the ledger of {target} is called {of[:100]!r}; understood are: {UNDERSTOOD}")
    subject, *others = subjects
    found = fate_of(book, subject.kind, subject.key)
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
        entries=tuple(Line(entry.id, entry.at, entry.kind_name, words_of(entry)) for entry in found.behind),
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


def _named(name: str, entries: Sequence[AnyEntry]) -> list[Subject]:
    """Return what goes by a name: the most telling kind first, of each kind the newest first, and repeats last.

    An event that told again of what was known, as the sweep and Event Grid both do at times, has its own fate only for
    who asks by its id.
    """
    exact: dict[Subject, int] = {}
    begun: dict[Subject, int] = {}
    full: set[str] = set()
    digits = _HEX.fullmatch(name.lower())
    for index, (known, subject) in enumerate(names_in(entries)):
        if known == name:
            exact[subject] = index
        elif digits is not None and _is_digest(known, digits["digits"]):
            begun[subject] = index
            full.add(known.removeprefix("sha256:"))
    if not exact and len(full) > 1:
        raise Invalid(f"{len(full)} digests begin with {name!r}: give more digits of {', '.join(sorted(full)[:3])}")
    found = exact or begun
    repeats = {Subject("event", key) for key in _repeats(entries)}
    return sorted(found, key=lambda subject: (_BY_RANK.index(subject.kind), subject in repeats, -found[subject]))


def _repeats(entries: Sequence[AnyEntry]) -> Iterator[str]:
    """Yield the ids of the events that told of nothing new."""
    for entry in entries:
        if isinstance(entry, Skipped) and entry.reason in _TOLD_AGAIN:
            yield entry.event_id
        elif isinstance(entry, IgnoredEvent) and entry.event.reason in _TOLD_AGAIN:
            yield entry.event.event_id


def names_in(entries: Sequence[AnyEntry]) -> Iterator[tuple[str, Subject]]:
    """Yield each name that the entries, oldest first, mention, with what goes by it."""
    rollbacks = {entry.release for entry in entries if isinstance(entry, Planned) and entry.to is not None}
    for entry in entries:
        yield from _names(entry, rollbacks)


def _is_digest(known: str, digits: str) -> bool:
    return _FULL.fullmatch(known) is not None and known.removeprefix("sha256:").startswith(digits)


def _names(entry: AnyEntry, rollbacks: Set[int]) -> Iterator[tuple[str, Subject]]:
    """Yield each name that an entry mentions, with what goes by it."""
    match entry:
        case Received(event=event):
            subject = Subject("event", event.event_id)
            names = [event.event_id, *_places(event)]
        case IgnoredEvent(event=ignored):
            subject = Subject("event", ignored.event_id)
            names = [ignored.event_id, ignored.subject, _IN_SUBJECT.sub(r"\1/", _BLOB.sub("", ignored.subject))]
        case Resolved(half=half):
            subject = Subject("half", half.digest)
            names = [half.digest, half.version, *([half.pushed] if isinstance(half, AppHalf) else [])]
        case Planned():
            yield from ((name, Subject("pair", entry.pair.key)) for name in (entry.pair.key, entry.pair.tag))
            subject, names = Subject("release", str(entry.release)), [f"r-{entry.release}"]
        case Built():
            subject, names = Subject("release", str(entry.release)), [entry.image]
        case HoldSet():
            subject, names = Subject("hold", entry.id), [entry.id, entry.request]
        case Live() if entry.release in rollbacks:  # it holds the target
            subject, names = Subject("hold", entry.id), [entry.id]
        case Requested() | RollbackRequested() | Resumed() | Refused():
            subject, names = Subject("request", entry.request), [entry.request]
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


def _kind(book: Book, subject: Subject) -> str:
    if subject.kind != "half":
        return subject.kind
    return "app" if isinstance(book.half(subject.key).half, AppHalf) else "model"
