"""What the Event Grid relay delivered during a drill, and what the Functions app acknowledged, in which order."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drill.world import app_repository
from localcloud.eventgrid.client import RelayClient

PAGE = 500
WINDOW_SECONDS = 10.0


@dataclass(frozen=True)
class Taken:
    """Deliveries of the burst. Only those of publishes are counted, but `acknowledged` has the ids of all events."""

    acknowledged: frozenset[str]
    deliveries: int
    """Acknowledged deliveries of publishes, duplicates among them."""
    twice: int
    """Publishes whose event was acknowledged more than once."""
    out_of_order: int
    """Deliveries that came after one of a newer publish of the same half of the same target."""
    failed_attempts: int
    """Attempts that were not answered with success, because what should answer was killed or away."""
    dead_lettered: int
    seconds: float
    """From the first event to the last acknowledgement, with what was waited for parts that were away."""
    busiest: float
    """Deliveries of publishes acknowledged a second, in the busiest ten seconds."""

    @property
    def a_second(self) -> float:
        """Deliveries of publishes acknowledged a second."""
        return self.deliveries / self.seconds if self.seconds else 0.0


def taken_in(relay: RelayClient, since: float, targets: Collection[str]) -> Taken:
    """Return what was delivered of the events that came since a Unix time."""
    return judge([each for each in _all(relay) if each["publishedAt"] >= since], targets)


def _all(relay: RelayClient) -> Iterator[Mapping[str, Any]]:
    after = 0
    while page := relay.deliveries(after=after, limit=PAGE):
        yield from page
        after = page[-1]["number"]


def judge(deliveries: Sequence[Mapping[str, Any]], targets: Collection[str]) -> Taken:
    """Return what a list of deliveries, as the relay tells them, amounts to."""
    publishes = [each for each in deliveries if is_publish(each["subject"], targets)]
    arrived = sorted(
        (at, each["eventNumber"], half_of(each["subject"])) for each in publishes if (at := _acknowledged_at(each))
    )
    times = Counter(number for _, number, _ in arrived)
    first = min((each["publishedAt"] for each in publishes), default=0.0)
    return Taken(
        acknowledged=frozenset(each["eventId"] for each in deliveries if each["state"] == "delivered"),
        deliveries=len(arrived),
        twice=sum(count > 1 for count in times.values()),
        out_of_order=_out_of_order(arrived),
        failed_attempts=sum(attempt["outcome"] != "Delivered" for each in deliveries for attempt in each["attempts"]),
        dead_lettered=sum(each["state"] == "dead_lettered" for each in deliveries),
        seconds=max((at for at, _, _ in arrived), default=first) - first,
        busiest=_busiest([at for at, _, _ in arrived]),
    )


def is_publish(subject: str, targets: Collection[str]) -> bool:
    """Return whether an event is about a model that is complete, or about an app image of one of the targets."""
    repository = subject.partition(":")[0]
    return subject.endswith("/manifest.json") or any(repository == app_repository(target) for target in targets)


def half_of(subject: str) -> str:
    """Return the target's half that an event is about: a model's folder, or an app repository."""
    return subject.rsplit("/", 2)[0] if subject.endswith("/manifest.json") else subject


def _acknowledged_at(delivery: Mapping[str, Any]) -> float | None:
    return next(
        (attempt["at"] + attempt["seconds"] for attempt in delivery["attempts"] if attempt["outcome"] == "Delivered"),
        None,
    )


def _busiest(instants: Sequence[float]) -> float:
    """Return how many of some ascending instants were a second, in those ten seconds that had most."""
    most = max((bisect_left(instants, at + WINDOW_SECONDS) - place for place, at in enumerate(instants)), default=0)
    return most / WINDOW_SECONDS


def _out_of_order(arrived: Iterable[tuple[float, int, str]]) -> int:
    newest: defaultdict[str, int] = defaultdict(int)
    late = 0
    for _, number, half in arrived:
        late += number < newest[half]
        newest[half] = max(newest[half], number)
    return late
