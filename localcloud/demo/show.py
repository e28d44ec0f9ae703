"""What the demo prints: one thing a line, a glyph with a word, plain text that survives a pipe."""

import sys
import time
from typing import Any

STAGES = ("intake", "plan", "build", "gate", "rollout", "verify")
_GOOD = frozenset({"received", "repaired", "planned", "built", "gated", "rolled_out", "live"})


class Screen:
    """The terminal, with the seconds since the demo began before each step."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._began

    def step(self, title: str) -> None:
        """Print the title of a step."""
        self.line(f"\n► {title}  [{self.seconds:.0f} s]")

    def done(self, text: str) -> None:
        """Print something that went as it should."""
        self.line(f"  ✔ {text}")

    def note(self, text: str) -> None:
        """Print something to know."""
        self.line(f"  ○ {text}")

    def fault(self, text: str) -> None:
        """Print something that went wrong."""
        self.line(f"  ✗ {text}")

    def line(self, text: str) -> None:
        """Print a line."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def stage(self, stage: dict[str, Any]) -> None:
        """Print one stage of a release."""
        good = stage["outcome"] in _GOOD
        message = f"  {stage['message']}" if stage["message"] and not good else ""
        glyph = "✔" if good else "✗"
        self.line(f"  {glyph} {stage['stage']:<8} {stage['outcome']:<11} {stage['seconds']:6.2f} s{message}")

    def report(self, report: dict[str, Any]) -> None:
        """Print a gate report: each golden photo with the live and the new answer, worst first."""
        self.line(f"    {'photo':<14}{'expected':<12}{'live':<24}{'candidate':<24}")
        for row in report["rows"]:
            glyph = "✗" if row["change"] in ("newly wrong", "wrong", "changed") else " "
            live, candidate = _best(row["live"]), _best(row["candidate"])
            name = row["file"].rpartition("/")[2]
            self.line(f"    {name:<14}{row['expected']:<12}{live:<24}{candidate:<24}{glyph} {row['change']}")


def _best(predictions: list[list[Any]] | None) -> str:
    return f"{predictions[0][0]} {predictions[0][1]:.2f}" if predictions else "-"


def closing_table(releases: list[dict[str, Any]]) -> list[str]:
    """Return the lines of the closing table: seconds of each stage, from publish or command to live, and bytes."""
    head = f"{'release':<8} {'what':<28}" + "".join(f"{name:>9}" for name in STAGES) + f"{'to live':>9}  bytes"
    lines = [head, "─" * len(head)]
    for each in releases:
        seconds = each["stage_seconds"]
        cells = "".join(f"{seconds[name]:9.2f}" if name in seconds else f"{'-':>9}" for name in STAGES)
        live = f"{each['to_live_seconds']:9.2f}" if each["to_live_seconds"] is not None else f"{each['phase']:>9}"
        cost = each["bytes"]
        moved = f"{_size(cost['uploaded'])} up, {_size(cost['mounted'])} mounted, {_size(cost['reused'])} reused"
        lines.append(f"{each['release']:<8} {each['what']:<28}{cells}{live}  {moved}")
    return lines


def _size(number: int) -> str:
    size = float(number)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
