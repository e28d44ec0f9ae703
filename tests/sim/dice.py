"""Random numbers that are told by what they are for: (seed, actor, operation, occurrence).

A decision does not depend on how many others were made before it, so that a seed survives small edits of the code it
drives, and not on the hashes of Python's strings, so that it is the same in every process.
"""

from collections.abc import Sequence
from zlib import crc32

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mixed(number: int) -> int:
    """Return 64 well mixed bits of a number (the finaliser of splitmix64)."""
    number &= MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & MASK
    return number ^ (number >> 31)


class Dice:
    """The dice of one seed."""

    def __init__(self, seed: int) -> None:
        self._base = mixed(seed * GOLDEN + 1)

    def bits(self, key: str, occurrence: int = 0) -> int:
        """Return 64 bits for a purpose."""
        number = (self._base + crc32(key.encode()) * 0xD1342543DE82EF95 + occurrence * GOLDEN) & MASK
        number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & MASK  # as mixed(), without a call
        number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & MASK
        return number ^ (number >> 31)

    def draw(self, key: str, occurrence: int = 0) -> float:
        """Return a number from 0 to 1 for a purpose."""
        return self.bits(key, occurrence) / 2**64

    def between(self, low: float, high: float, key: str, occurrence: int = 0) -> float:
        """Return a number between two others."""
        return low + (high - low) * self.draw(key, occurrence)

    def pick[Item](self, items: Sequence[Item], key: str, occurrence: int = 0) -> Item:
        """Return one of some items."""
        return items[self.bits(key, occurrence) % len(items)]
