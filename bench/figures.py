"""Figures with their spread, and a table of them."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """Some measurements of one thing, in one unit."""

    name: str
    values: tuple[float, ...]
    unit: str = "s"

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        """Return median and spread as people read them."""
        low, high = min(self.values), max(self.values)
        return f"{self.median:.2f} {self.unit} ({low:.2f} to {high:.2f}, n={len(self.values)})"

    def as_json(self) -> dict[str, object]:
        """Return the figure for the report."""
        return {"name": self.name, "unit": self.unit, "median": round(self.median, 3), "values": list(self.values)}


@dataclass(frozen=True)
class Comparison:
    """A ratio of two medians of one run, and the goal for it: an upper bound if `at_most`, else a lower one."""

    what: str
    ours: Figure
    baseline: Figure
    goal: float
    at_most: bool = True

    @property
    def ratio(self) -> float:
        """Ours through the baseline's; the other way round where more is better."""
        ours, baseline = self.ours.median, self.baseline.median
        return ours / baseline if self.at_most else baseline / ours

    @property
    def met(self) -> bool:
        """Whether the goal is met."""
        return self.ratio <= self.goal if self.at_most else self.ratio >= self.goal

    def __str__(self) -> str:
        """Return one line for people."""
        glyph, bound = "✔" if self.met else "✗", "at most" if self.at_most else "at least"
        head = f"{glyph} {self.what}: {self.ratio:.2f}x, goal {bound} {self.goal:g}x"
        return f"{head}\n    {self.ours.name}: {self.ours}\n    {self.baseline.name}: {self.baseline}"

    def as_json(self) -> dict[str, object]:
        """Return the comparison for the report."""
        return {
            "what": self.what,
            "ratio": round(self.ratio, 3),
            "goal": self.goal,
            "at_most": self.at_most,
            "met": self.met,
            "ours": self.ours.as_json(),
            "baseline": self.baseline.as_json(),
        }


def lines(comparisons: Sequence[Comparison]) -> str:
    """Return the table."""
    return "\n".join(str(each) for each in comparisons)
