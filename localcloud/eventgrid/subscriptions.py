"""Topics, subscriptions and their filters. Pure.

Names and rules are those of Event Grid's resource model (learn.microsoft.com/azure/event-grid/event-filtering); a
subscription here is flat where Azure's nests.
"""

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
import yaml

from localcloud.eventgrid.events import Event, Schema, as_event_grid

STORAGE_TOPIC = "storage"
REGISTRY_TOPIC = "registry"

_RESOURCES = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/local/providers"

TOPICS: Mapping[str, str] = {
    STORAGE_TOPIC: f"{_RESOURCES}/Microsoft.Storage/storageAccounts/devstoreaccount1",
    REGISTRY_TOPIC: f"{_RESOURCES}/Microsoft.ContainerRegistry/registries/local",
}
"""The topics that are always there, by name, and their resource ids."""

ACCESS_KEY = "local-development-key"
"""Opens every topic for publishing. Fixed and printed here: it guards nothing but the way real clients work."""

type Operator = Literal["StringIn", "StringNotIn", "StringBeginsWith", "StringEndsWith", "StringContains"]

_OPERATORS: Mapping[str, Callable[[str, Sequence[str]], bool]] = {
    "StringIn": lambda value, wanted: value in wanted,
    "StringNotIn": lambda value, wanted: value not in wanted,
    "StringBeginsWith": lambda value, wanted: value.startswith(tuple(wanted)),
    "StringEndsWith": lambda value, wanted: value.endswith(tuple(wanted)),
    "StringContains": lambda value, wanted: any(each in value for each in wanted),
}


class BadSubscription(Exception):
    """A subscription or topic that cannot be; the message says what to write instead."""


class AdvancedFilter(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One condition on a value of the event, compared without regard to case, as Event Grid does."""

    operator_type: Operator
    key: str
    values: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]

    def matches(self, event: Event) -> bool:
        """Return whether the event's value at `key` (`data.api`, `subject`, …) fulfils the condition."""
        value: Any = as_event_grid(event)
        for part in self.key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            return self.operator_type == "StringNotIn"
        wanted = tuple(each.casefold() for each in self.values)
        return isinstance(value, str) and _OPERATORS[self.operator_type](value.casefold(), wanted)


class Filter(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Which events of a topic a subscription wants: all conditions must hold."""

    included_event_types: tuple[str, ...] = ()
    """None means all."""
    subject_begins_with: str = ""
    subject_ends_with: str = ""
    is_subject_case_sensitive: bool = False
    advanced_filters: tuple[AdvancedFilter, ...] = ()

    def matches(self, event: Event) -> bool:
        """Return whether the subscription wants the event."""
        types = {each.casefold() for each in self.included_event_types}
        fold = str if self.is_subject_case_sensitive else str.casefold
        subject = fold(event.subject)
        return (
            (not types or event.type.casefold() in types)
            and subject.startswith(fold(self.subject_begins_with))
            and subject.endswith(fold(self.subject_ends_with))
            and all(each.matches(event) for each in self.advanced_filters)
        )


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """When to give up; whichever comes first."""

    max_delivery_attempts: Annotated[int, msgspec.Meta(ge=1, le=30)] = 30
    event_time_to_live_in_minutes: Annotated[int, msgspec.Meta(ge=1, le=1440)] = 1440


class Subscription(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Who gets which events of a topic, and how."""

    name: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9-]{3,64}$")]
    topic: str
    endpoint_url: str
    event_delivery_schema: Schema = "EventGridSchema"
    filter: Filter = Filter()
    retry_policy: RetryPolicy = RetryPolicy()
    dead_letter_container: str | None = None
    """The blob container for what could not be delivered; without one it is dropped."""


class Configuration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The relay's configuration file: further topics (name to resource id) and subscriptions."""

    topics: dict[str, str] = {}
    subscriptions: tuple[Subscription, ...] = ()


def parse_subscription(document: Any) -> Subscription:
    """Return a subscription from a decoded JSON or YAML object. Raises BadSubscription."""
    try:
        return checked(msgspec.convert(document, Subscription))
    except msgspec.ValidationError as error:
        raise BadSubscription(f"no subscription: {error}") from None


def checked(subscription: Subscription) -> Subscription:
    """Return the subscription if its endpoint is on this machine, else raise BadSubscription."""
    parts = urlsplit(subscription.endpoint_url)
    if parts.scheme not in ("http", "https") or not _is_loopback(parts.hostname or ""):
        raise BadSubscription(
            f"the endpoint {subscription.endpoint_url!r} is not on this machine: the relay delivers to "
            "http://127.0.0.1:PORT/… only"
        )
    return subscription


def read_configuration(path: Path) -> Configuration:
    """Return what a JSON or YAML file says. Raises BadSubscription with the file's name."""
    try:
        configuration = msgspec.convert(yaml.safe_load(path.read_text()) or {}, Configuration)
        for subscription in configuration.subscriptions:
            checked(subscription)
    except (OSError, yaml.YAMLError, msgspec.ValidationError, BadSubscription) as error:
        raise BadSubscription(f"{path}: {error}") from error
    return configuration


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
