"""The access keys of the Functions host: master, host, function and system keys in one JSON file.

{"master": "…", "host": {"default": "…"}, "functions": {"NAME": {"default": "…"}},
 "system": {"eventgrid_extension": "…"}}
"""

import json
import os
import secrets
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from urllib.parse import urlencode

from localcloud.functions_host.errors import AppError

EVENT_GRID_KEY = "eventgrid_extension"
"""The name of the system key that opens the Event Grid webhook, here as in Azure."""


class Level(IntEnum):
    """What a key opens; `auth_level` of an HTTP trigger is one of the first, second and last."""

    ANONYMOUS = 0
    FUNCTION = 1
    SYSTEM = 2
    ADMIN = 3


@dataclass(frozen=True)
class Keys:
    """The keys of one Functions host."""

    master: str
    host: Mapping[str, str] = field(default_factory=dict)
    functions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    system: Mapping[str, str] = field(default_factory=dict)

    @property
    def event_grid(self) -> str:
        """The key an Event Grid subscription carries."""
        return self.system[EVENT_GRID_KEY]

    def opens_function(self, key: str | None, function: str, level: Level) -> bool:
        """Tell whether this key may call an HTTP function of this level."""
        if level is Level.ANONYMOUS:
            return True
        if self.is_master(key):
            return True
        own = self.functions.get(function, {})
        return level is Level.FUNCTION and _is_one_of(key, [*self.host.values(), *own.values()])

    def opens_event_grid(self, key: str | None) -> bool:
        """Tell whether this key may deliver events."""
        return _is_one_of(key, [self.event_grid, self.master])

    def is_master(self, key: str | None) -> bool:
        """Tell whether this is the master key."""
        return _is_one_of(key, [self.master])


def ensure_keys(path: Path) -> Keys:
    """Read the keys; generate them first if the file is not there (mode 0600, and two at once agree on one)."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "master": secrets.token_urlsafe(32),
            "host": {"default": secrets.token_urlsafe(32)},
            "functions": {},
            "system": {EVENT_GRID_KEY: secrets.token_urlsafe(32)},
        }
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".keys-")
        with os.fdopen(handle, "w") as file:
            json.dump(document, file, indent=2)
        with suppress(FileExistsError):
            os.link(name, path)
        Path(name).unlink()
    return read_keys(path)


def read_keys(path: Path) -> Keys:
    """Read the keys. Raises AppError if there are none or one that is needed is missing."""
    try:
        document = json.loads(path.read_text())
        keys = Keys(
            master=_text(document["master"]),
            host={name: _text(key) for name, key in document.get("host", {}).items()},
            functions={
                function: {name: _text(key) for name, key in own.items()}
                for function, own in document.get("functions", {}).items()
            },
            system={name: _text(key) for name, key in document["system"].items()},
        )
        _text(keys.event_grid)
    except FileNotFoundError:
        raise AppError(f"there is no key file {path}: start the Functions host once, it makes one") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AppError(
            f'{path} is no key file: it needs "master" and "system": {{"{EVENT_GRID_KEY}": …}}, '
            f"each a string ({error!r}). Remove it, and the next start makes new keys"
        ) from error
    return keys


def webhook_url(base: str, function: str, keys: Keys) -> str:
    """Return the address, with its key, at which a function takes events from Event Grid."""
    query = urlencode({"functionName": function, "code": keys.event_grid})
    return f"{base.rstrip('/')}/runtime/webhooks/eventgrid?{query}"


def _is_one_of(key: str | None, accepted: Iterable[str]) -> bool:
    presented = (key or "").encode()
    return any(secrets.compare_digest(presented, one.encode()) for one in accepted)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a key must be a string that is not empty")
    return value
