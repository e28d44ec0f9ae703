"""What became of something in a story, as `why` explains it, and stories that several tests ask about."""

from shipmate.core.gate import Change, GateReport, Row
from shipmate.core.ledger import Rejected
from shipmate.core.why import Explanation, explain
from tests.fakes.histories import Story, digest

SOON = "something happens next"
WRONG = Row("daisy.jpg", "daisy", 0.2, (("honeycomb", 0.03),), (("daisy", 0.32),), Change.NEWLY_WRONG)
FIRST = Row("bee.jpg", "bee", 0.2, (), None, Change.WRONG)
SAME = Row("vase.jpg", "vase", 0.2, (("vase", 0.5),), None, Change.SAME)
REPORT = GateReport(passed=False, faults=("x",), rows=(WRONG, FIRST, SAME), slowest_seconds=0.1, compared_with=1)


def why(story: Story, of: str) -> Explanation:
    return explain(of, "vision", story.state, story.entries, SOON)


def told(story: Story, of: str) -> tuple[str, str, str]:
    found = why(story, of)
    return found.fate, found.verdict, found.next


def rejected(story: Story) -> Story:
    """Ship A1 with M1, then have M2 rejected."""
    story.ship_first().model("M2").plan("A1", "M2", "model").build()
    return story.write(
        Rejected, release=2, reason="GateFailed", message="1 is wrong", quarantine=(digest("M2"),), report=REPORT
    )


def two_releases() -> Story:
    return Story().ship_first().app("A2").ship("A2", "M1")
