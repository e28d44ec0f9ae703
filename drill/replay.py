"""Old news, told again: after all is at rest, the oldest event of each half comes once more, as if it had been lost.

It comes under a new id, so nothing knows it as a duplicate by that. Nothing may move: no release, no patch.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import httpx
import msgspec

from drill.taking import PAGE, half_of, is_publish
from localcloud.config import Cloud
from localcloud.eventgrid.client import RelayClient
from localcloud.eventgrid.events import Event, as_event_grid
from localcloud.eventgrid.subscriptions import ACCESS_KEY


def replay(relay: RelayClient, cloud: Cloud, since: float, targets: Collection[str]) -> int:
    """Publish the oldest event of each target's half since a Unix time again; return how many that were."""
    oldest: dict[str, Mapping[str, Any]] = {}
    for each in _events(relay):
        subject = each["event"]["subject"]
        if each["publishedAt"] >= since and is_publish(subject, targets):
            oldest.setdefault(half_of(subject), each)
    for each in oldest.values():
        event = msgspec.convert(each["event"], Event)
        again = msgspec.structs.replace(event, id=f"again-{event.id}")
        reply = httpx.post(
            f"{cloud.eventgrid_url}/topics/{each['topic']}/api/events",
            json=[as_event_grid(again)],
            headers={"aeg-sas-key": ACCESS_KEY},
            timeout=30,
            trust_env=False,
        )
        reply.raise_for_status()
    return len(oldest)


def _events(relay: RelayClient) -> Iterator[Mapping[str, Any]]:
    after = 0
    while page := relay.events(after=after, limit=PAGE):
        yield from page
        after = page[-1]["number"]
