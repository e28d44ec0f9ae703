"""The page of measurements says what the report says, and where a goal was missed."""

import pytest

from bench.document import document
from bench.figures import Comparison, Figure


def measured(name: str, *values: float, baseline: float, goal: float, at_most: bool = True) -> dict[str, object]:
    return Comparison(name, Figure("ours", values), Figure("theirs", (baseline,)), goal, at_most).as_json()


USERS = {"users": {"releases": 20, "requests": 8044, "failed": 0, "slowest_seconds": 0.431}}


@pytest.mark.parametrize(
    ("comparison", "row"),
    [
        pytest.param(
            measured("a publish", 11.0, 13.0, 12.0, baseline=6.0, goal=2.5),
            "| a publish | ours: 12.0 s (11.0 to 13.0, n=3) | theirs: 6.0 s | **2.00** | at most 2.5 |",
            id="a goal that is met",
        ),
        pytest.param(
            measured("a publish", 18.0, baseline=6.0, goal=2.5),
            "| a publish | ours: 18.0 s | theirs: 6.0 s | **3.00** | at most 2.5 (missed) |",
            id="a goal that is missed",
        ),
        pytest.param(
            measured("an append", 2.0, baseline=6.0, goal=3.0, at_most=False),
            "| an append | ours: 2.0 s | theirs: 6.0 s | **3.00** | at least 3 |",
            id="more is better",
        ),
    ],
)
def test_a_comparison_is_a_row(comparison: dict[str, object], row: str) -> None:
    assert row in document({"rollouts": [comparison], **USERS})


def test_users_and_memory_are_told_in_words() -> None:
    text = document({"rollouts": [], **USERS, "graft": [], "peak_memory_mib": {"4 GiB": 130.2, "256 MiB": 128.0}})
    assert "Users' requests over 20 releases: 8,044, of them failed: **0** (goal 0)." in text
    assert "Python and libraries included: 130 MiB (goal at most 150 MiB)." in text


def test_the_baselines_of_the_graft_bound_what_can_be_reached() -> None:
    grafts = [
        Comparison("a graft", Figure("ours", (8.0,)), Figure("curl to curl", (6.0,)), 1.3).as_json(),
        Comparison("a graft", Figure("ours", (8.0,)), Figure("crane append", (15.0,)), 3.0, at_most=False).as_json(),
    ]
    text = document({"graft": grafts, "peak_memory_mib": {"4 GiB": 130.2}})
    assert "In the same run curl to curl was 2.50 times as fast as `crane append`" in text


def test_a_half_that_was_not_measured_is_left_out() -> None:
    assert "## The graft" not in document({"rollouts": [], **USERS})
    assert "## From publish" not in document({})
