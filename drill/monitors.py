"""What a drill is judged by: pure, over what was published, what is on record, and what the cluster was told.

Each monitor returns its findings in words; none is good. They ask Shipmate nothing: ledgers are read entry by entry,
and the order of halves is that in which they were published.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from drill.publishers import Publish
from drill.watching import Patch
from shipmate.core.events import ImagePushed
from shipmate.core.ledger import (
    AnyEntry,
    Failed,
    IgnoredEvent,
    Live,
    Planned,
    Received,
    Rejected,
    Resolved,
    RolledOut,
    Skipped,
    Superseded,
)
from shipmate.core.refs import Digest, Pair, PairKey

BETTER = ("superseded", "rejected", "failed", "live")
"""How a release may end, the last being what its halves were published for."""


@dataclass(frozen=True)
class Door:
    """Which release and which model answer at a target's public door."""

    release: str
    model: str


@dataclass(frozen=True)
class Evidence:
    """All that a drill left: by target, the publishes, the ledger, the patches, and who answers in the end."""

    publishes: tuple[Publish, ...]
    ledgers: Mapping[str, Sequence[AnyEntry]]
    """Also that of events which concern no target."""
    acknowledged: frozenset[str]
    """Ids of the events whose delivery the Functions app answered with success."""
    patches: tuple[Patch, ...]
    doors: Mapping[str, Door]
    replica_sets: Mapping[str, Sequence[str]]
    """Keys of the pairs that a target's ReplicaSets were made for."""

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets that something was published for."""
        return tuple(dict.fromkeys(publish.target for publish in self.publishes))

    def published(self, target: str) -> Iterator[Publish]:
        """Yield a target's publishes."""
        return (publish for publish in self.publishes if publish.target == target)

    def newest(self, target: str) -> Pair:
        """Return the pair of a target's newest halves."""
        newest: dict[str, Publish] = {}
        for publish in self.published(target):
            if publish.half not in newest or publish.serial > newest[publish.half].serial:
                newest[publish.half] = publish
        return Pair(newest["app"].digest, newest["model"].digest)


# -- lost ----------------------------------------------------------------------------------------------------------


def fates(evidence: Evidence) -> dict[Publish, str]:
    """Return what became of every acknowledged publish: how it ended, or `lost: …` if it has no end."""
    return {
        publish: fate
        for target in evidence.targets
        for publish, fate in _fates(
            tuple(evidence.published(target)), evidence.ledgers.get(target, ()), evidence.newest(target)
        )
        if publish.acknowledged
    }


def _fates(publishes: Sequence[Publish], entries: Sequence[AnyEntry], newest: Pair) -> Iterator[tuple[Publish, str]]:
    told: defaultdict[str, set[str]] = defaultdict(set)  # what was published → ids of its events on record
    skipped: dict[str, str] = {}  # event → reason
    resolved: set[Digest] = set()
    for entry in entries:
        match entry:
            case Received(event=event):
                told[event.digest if isinstance(event, ImagePushed) else _version(event.path)].add(event.event_id)
            case Skipped(event_id=event_id, reason=reason):
                skipped[event_id] = reason
            case Resolved(half=half):
                resolved.add(half.digest)
            case _:
                pass
    ends = _ends(entries)
    for publish in publishes:
        events = told[publish.digest] if publish.half == "app" else told[publish.version]
        later = any(
            other.half == publish.half and other.serial > publish.serial and other.digest in resolved
            for other in publishes
        )
        if publish.digest in ends:
            yield publish, ends[publish.digest]
        elif publish.digest in resolved:
            yield publish, "superseded" if later else "lost: it was read and nothing became of it"
        elif not events:
            yield publish, "lost: no event of it is on record"
        elif events <= skipped.keys():
            is_newest = publish.digest in (newest.app, newest.model)
            reasons = ", ".join(sorted({skipped[event] for event in events}))
            yield publish, f"lost: the newest was skipped ({reasons})" if is_newest else "skipped"
        else:
            yield publish, "lost: its event is on record and was never taken up"


def _version(path: str) -> str:
    return path.split("/")[1]


def _ends(entries: Iterable[AnyEntry]) -> dict[Digest, str]:
    """Return for each half that a release took up the best that became of it."""
    pairs: dict[int, Pair] = {}
    ends: dict[Digest, str] = {}
    for entry in entries:
        if isinstance(entry, Planned):
            pairs[entry.release] = entry.pair
        elif isinstance(entry, Live | Rejected | Failed | Superseded):
            pair, word = pairs[entry.release], entry.kind_name
            for half in (pair.app, pair.model):
                ends[half] = max(ends.get(half, word), word, key=BETTER.index)
    return ends


def lost(evidence: Evidence) -> list[str]:
    """Return the publishes without an end, the acknowledged events not on record, the targets without their newest."""
    found = [
        f"{publish.target} {publish.half} {publish.version}: {fate}"
        for publish, fate in fates(evidence).items()
        if fate.startswith("lost")
    ]
    on_record = {
        entry.event.event_id
        for entries in evidence.ledgers.values()
        for entry in entries
        if isinstance(entry, Received | IgnoredEvent)
    }
    found += [f"event {event}: acknowledged and not on record" for event in evidence.acknowledged - on_record]
    for target in evidence.targets:
        found += _not_newest(evidence, target)
    return found


def _not_newest(evidence: Evidence, target: str) -> Iterator[str]:
    """Yield where a target does not run its newest pair: by ledger, in the cluster, at the door."""
    wanted = evidence.newest(target)
    entries = evidence.ledgers.get(target, ())
    pairs = {entry.release: entry.pair for entry in entries if isinstance(entry, Planned)}
    live = next((entry for entry in reversed(entries) if isinstance(entry, Live)), None)
    if live is None or pairs[live.release] != wanted:
        now = f"r-{live.release}" if live is not None else "nothing"
        yield f"{target}: the newest pair is not live, {now} is"
    patched = next((patch for patch in reversed(evidence.patches) if patch.target == target), None)
    if patched is None or patched.pair != wanted.key:
        yield f"{target}: the Deployment does not ask for the newest pair"
    door = evidence.doors.get(target)
    if door is None or door.model != wanted.model:
        yield f"{target}: the newest model does not answer at the door"
    elif live is not None and door.release != f"r-{live.release}":
        yield f"{target}: {door.release} answers at the door where r-{live.release} is live"


# -- released twice ------------------------------------------------------------------------------------------------


def released_twice(evidence: Evidence) -> list[str]:
    """Return the pairs that were brought out more than once, though no half was published again.

    A release that was superseded before it met users, and a rollback on record, do not count.
    """
    found: list[str] = []
    for target in evidence.targets:
        entries = evidence.ledgers.get(target, ())
        found += [f"{target}: {words}" for words in _recorded_twice(entries)]
        back = {PairKey(pair) for pair in _rollbacks(entries).values()}
        again = [pair for pair, times in Counter(_episodes(evidence, target)).items() if times > 1 and pair not in back]
        found += [f"{target}: pair {pair[:12]} was patched in twice" for pair in again]
        made = Counter(pair for pair in evidence.replica_sets.get(target, ()) if pair not in back)
        found += [f"{target}: pair {pair[:12]} has {times} ReplicaSets" for pair, times in made.items() if times > 1]
    return found


def _recorded_twice(entries: Sequence[AnyEntry]) -> Iterator[str]:
    ended = {entry.release for entry in entries if isinstance(entry, Superseded)}
    kept: defaultdict[PairKey, list[int]] = defaultdict(list)
    for entry in entries:
        if isinstance(entry, Planned) and entry.to is None and entry.release not in ended:
            kept[entry.pair.key].append(entry.release)
    for pair, releases in kept.items():
        if len(releases) > 1:
            yield f"pair {pair[:12]} has the releases {', '.join(f'r-{number}' for number in releases)}"
    for kind in (Planned, RolledOut, Live):
        times = Counter(entry.release for entry in entries if isinstance(entry, kind))
        for release, count in times.items():
            if count > 1:
                yield f"r-{release} is on record {count} times as {kind.__name__}"


def _episodes(evidence: Evidence, target: str) -> Iterator[PairKey]:
    """Yield the pair of every template that a Deployment got."""
    last = None
    for patch in evidence.patches:
        if patch.target == target and patch.release and (patch.pair, patch.release) != last:
            last = patch.pair, patch.release
            yield PairKey(patch.pair)


def _rollbacks(entries: Iterable[AnyEntry]) -> dict[str, PairKey]:
    """Return the rollbacks on record: by the release's name, the pair that comes back."""
    return {f"r-{entry.release}": entry.pair.key for entry in entries if isinstance(entry, Planned) and entry.to}


# -- moved backwards -----------------------------------------------------------------------------------------------


def moved_backwards(evidence: Evidence) -> list[str]:
    """Return the patches that brought an older half than the one before, or a fence that did not rise."""
    return [
        f"{target}: {words}"
        for target in evidence.targets
        for words in _backwards(evidence, target, _rollbacks(evidence.ledgers.get(target, ())))
    ]


def _backwards(evidence: Evidence, target: str, rollbacks: Mapping[str, PairKey]) -> Iterator[str]:
    apps = {publish.digest: publish.serial for publish in evidence.published(target) if publish.half == "app"}
    models = {publish.digest: publish.serial for publish in evidence.published(target) if publish.half == "model"}
    ages = {Pair(app, model).key: (apps[app], models[model]) for app in apps for model in models}
    fence, age = -1, (0, 0)
    for patch in evidence.patches:
        if patch.target != target:
            continue
        if patch.fence < fence:
            yield f"the fence fell from {fence} to {patch.fence}"
        fence = patch.fence
        if not patch.release:
            continue
        now = ages.get(PairKey(patch.pair))
        if now is None:
            yield f"{patch.release} brought a pair that was never published"
            continue
        if (now[0] < age[0] or now[1] < age[1]) and patch.release not in rollbacks:
            yield f"{patch.release} brought app {now[0]}, model {now[1]} after app {age[0]}, model {age[1]}"
        age = now


# -- figures -------------------------------------------------------------------------------------------------------


def seconds_to_live(evidence: Evidence) -> list[float]:
    """Return for each publish that came to users itself the seconds from its acknowledgement, ascending."""
    found: list[float] = []
    for target in evidence.targets:
        entries = evidence.ledgers.get(target, ())
        pairs = {entry.release: entry.pair for entry in entries if isinstance(entry, Planned)}
        first: dict[Digest, float] = {}
        for entry in entries:
            if isinstance(entry, Live):
                for half in (pairs[entry.release].app, pairs[entry.release].model):
                    first.setdefault(half, entry.at.timestamp())
        found += [first[each.digest] - each.at for each in evidence.published(target) if each.digest in first]
    return sorted(found)
