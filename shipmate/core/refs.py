"""What things are called: digests, image references, pairs and releases.

Parsed once at the border, by everybody; a bare string that looks like a digest never travels further than that.
"""

import hashlib
import re
from typing import Annotated, NewType

import msgspec

from shipmate.errors import Invalid

RECIPE_VERSION = 1
"""Part of every pair key: raised when the same two halves would be built into other bytes."""

Digest = NewType("Digest", Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}$")])
"""A content digest as OCI spells it (image-spec, descriptor.md#digests): `sha256:` and 64 lower-case hex digits."""

PairKey = NewType("PairKey", Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")])
"""The identity of a pair: 64 hex digits."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# distribution-spec, "Pulling manifests": the grammar of <name> and of a tag
_REPOSITORY = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")


def parse_digest(text: str) -> Digest:
    """Return the text as a digest; raise Invalid if it is not one."""
    if not _DIGEST.fullmatch(text):
        raise Invalid(f"{text[:100]!r} is no digest: expected sha256: and 64 lower-case hex digits")
    return Digest(text)


def digest_of(data: bytes) -> Digest:
    """Return the sha256 digest of some bytes."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def hex_of(digest: Digest) -> str:
    """Return the 64 hex digits of a digest."""
    return digest.removeprefix("sha256:")


def parse_repository(text: str) -> str:
    """Return a repository name; raise Invalid if the distribution specification would not take it."""
    if not _REPOSITORY.fullmatch(text) or len(text) > 255:
        raise Invalid(f"{text[:100]!r} is no repository name: expected lower-case letters, digits and . _ - / between")
    return text


def parse_tag(text: str) -> str:
    """Return a tag; raise Invalid if the distribution specification would not take it."""
    if not _TAG.fullmatch(text):
        raise Invalid(f"{text[:100]!r} is no tag: expected up to 128 letters, digits, dots, dashes and underscores")
    return text


class Pair(msgspec.Struct, frozen=True):
    """An app image and a model, each by digest: what one release image holds."""

    app: Digest
    model: Digest

    @property
    def key(self) -> PairKey:
        """The pair's identity; the same pair always makes the byte-identical release image."""
        text = f"{self.app}|{self.model}|{RECIPE_VERSION}"
        return PairKey(hashlib.sha256(text.encode()).hexdigest())

    @property
    def names(self) -> frozenset[str]:
        """What a quarantine may name of it: each half by its digest, and the pair by its key."""
        return frozenset((self.app, self.model, self.key))

    @property
    def tag(self) -> str:
        """The release image's tag: unique to the pair and never moved."""
        return f"r-{self.key[:24]}"
