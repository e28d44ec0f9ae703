"""What the demo prints, to the letter: plain text that survives a pipe."""

import pytest

from localcloud.demo.show import Screen, closing_table
from localcloud.demo.story import _row

STAGES = [
    {"stage": "intake", "outcome": "received", "seconds": 0.02, "message": ""},
    {"stage": "build", "outcome": "errored", "seconds": 0.5, "message": "the registry is away"},
    {"stage": "build", "outcome": "built", "seconds": 0.25, "message": ""},
]
LIVE = {
    "release": {"number": 7, "phase": "live", "message": None},
    "stages": STAGES,
    "cost": {"uploaded": 5439, "mounted": 47_627, "reused": 127_816_114},
    "publish_to_live_seconds": 12.498,
}
BY_HAND = {**LIVE, "publish_to_live_seconds": None}
REJECTED = {
    "release": {"number": 8, "phase": "rejected", "message": "5 of 6 are wrong"},
    "stages": STAGES[:1],
    "cost": None,
    "publish_to_live_seconds": None,
}


def squeezed(line: str) -> str:
    """Return a line without its alignment."""
    return " ".join(line.split())


def test_the_closing_table_has_a_line_for_each_release() -> None:
    _, _, live, by_hand, rejected = closing_table(
        [_row(LIVE, "code publish"), _row(BY_HAND, "rollback"), _row(REJECTED, "a bad model")]
    )
    assert squeezed(live) == "r-7 code publish 0.02 - 0.75 - - - 12.50 5.4 kB up, 47.6 kB mounted, 127.8 MB reused"
    assert squeezed(by_hand) == "r-7 rollback 0.02 - 0.75 - - - 0.77 5.4 kB up, 47.6 kB mounted, 127.8 MB reused"
    assert squeezed(rejected) == "r-8 a bad model 0.02 - - - - - rejected 0 B up, 0 B mounted, 0 B reused"


def test_a_stage_that_went_wrong_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    for stage in STAGES:
        Screen().stage(stage)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["✔", "intake", "received", "0.02", "s"],
        ["✗", "build", "errored", "0.50", "s", "the", "registry", "is", "away"],
        ["✔", "build", "built", "0.25", "s"],
    ]


def test_a_report_shows_both_answers_to_each_photo(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {
            "file": "golden/flower.jpg",
            "expected": "daisy",
            "live": [["daisy", 0.42], ["bee", 0.1]],
            "candidate": [["honeycomb", 0.04]],
            "change": "newly wrong",
        },
        {
            "file": "golden/china.jpg",
            "expected": "palace",
            "live": None,
            "candidate": [["palace", 0.54]],
            "change": "same",
        },
    ]
    Screen().report({"rows": rows})
    _, wrong, same = capsys.readouterr().out.splitlines()
    assert squeezed(wrong) == "flower.jpg daisy daisy 0.42 honeycomb 0.04 ✗ newly wrong"
    assert squeezed(same) == "china.jpg palace - palace 0.54 same"
