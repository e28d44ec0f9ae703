"""Faults on demand: what Event Grid may do to an event, done on purpose.

It promises delivery at least once, in no order and at no particular time; `drop` goes beyond it, for what happens when
an event never comes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Annotated, Any, Literal

import msgspec

type Kind = Literal["duplicate", "delay", "reorder", "drop"]

_DEFAULT_SECONDS = {"duplicate": 0.0, "delay": 2.0, "reorder": 5.0, "drop": 0.0}


class BadFault(Exception):
    """A fault that cannot be; the message says what to write instead."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to do to deliveries, to which and how often.

    duplicate: deliver twice, the second `seconds` later. delay: deliver `seconds` later. reorder: hold back until a
    later event of the subscription was delivered, `seconds` at most. drop: never deliver. Seconds are real ones.
    """

    kind: Kind
    count: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """How many deliveries; None means until the fault is taken away."""
    probability: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    seconds: Annotated[float, msgspec.Meta(ge=0)] | None = None
    subscription: str | None = None
    """Only deliveries of this subscription; None means all."""
    seed: int | None = None
    """For a fault with a probability: the same seed, the same choices. None takes the relay's."""

    @property
    def lasts(self) -> float:
        """The seconds, given or usual."""
        return _DEFAULT_SECONDS[self.kind] if self.seconds is None else self.seconds


def parse_fault(document: Any) -> Fault:
    """Return a fault from a decoded JSON object. Raises BadFault."""
    try:
        fault = msgspec.convert(document, Fault)
    except msgspec.ValidationError as error:
        raise BadFault(f"no fault: {error}") from None
    if fault.count is None and "probability" not in document:
        raise BadFault("no fault: say how often, by `count`, `probability` or both")
    return fault


@dataclass
class _Active:
    number: int
    fault: Fault
    random: Random
    applied: int = 0

    def is_over(self) -> bool:
        return self.fault.count is not None and self.applied >= self.fault.count


@dataclass
class Faults:
    """The faults that are on. They live in memory: a restarted relay has none."""

    seed: int = 0
    _active: list[_Active] = field(default_factory=list)
    _next: int = 1

    def add(self, fault: Fault) -> int:
        """Switch a fault on and return its number."""
        number, self._next = self._next, self._next + 1
        seed = f"{self.seed}/{number}" if fault.seed is None else str(fault.seed)
        self._active.append(_Active(number, fault, Random(seed)))  # noqa: S311 - choices to repeat, not secrets
        return number

    def remove(self, number: int | None = None) -> None:
        """Switch one fault off, or all."""
        self._active = [each for each in self._active if number is not None and each.number != number]

    def choose(self, subscription: str) -> Fault | None:
        """Return the fault that befalls the next delivery to a subscription: the oldest that applies."""
        for each in self._active:
            concerns = each.fault.subscription in (None, subscription) and not each.is_over()
            if concerns and each.random.random() < each.fault.probability:
                each.applied += 1
                return each.fault
        return None

    def listed(self) -> Sequence[dict[str, Any]]:
        """Return what is on and how often it has befallen a delivery."""
        return list(self._described())

    def _described(self) -> Iterator[dict[str, Any]]:
        for each in self._active:
            fields = {**msgspec.to_builtins(each.fault), "seconds": each.fault.lasts}
            yield {"number": each.number, **fields, "applied": each.applied, "over": each.is_over()}
