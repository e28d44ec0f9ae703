"""The drill's report: zeros that are not zero, the closing table, and the page it is written into."""

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from drill import report as reports
from drill.__main__ import main
from drill.monitors import Evidence
from drill.report import Fault, Report, Seen
from drill.taking import Taken
from drill.world import Size
from localcloud.demo.users import Count
from tests.drill.test_monitors import TARGET, good

PEER = "| a peer | 63 | 62 | moves back |\n"
SEEN = Seen(first_seconds=20.0, seconds=60.0, converged_seconds=30.0, publish_again=2, watch_gaps=0)


def report(*, evidence: Evidence | None = None, users: Count | None = None, seen: Seen = SEEN) -> Report:
    return Report.of(
        size=Size(targets=1, events=4, doors=1),
        evidence=evidence or good(),
        users=users or Count(requests=500, slowest_seconds=0.25),
        taken=Taken(frozenset(), 5, 1, 2, 3, 0, 2.0, 4.0),
        faults=(Fault("API server away", 1, 10.0),),
        seen=seen,
    )


def test_a_good_drill_passes() -> None:
    found = report()
    assert found.passed
    assert [verdict.name for verdict in found.verdicts] == [
        "lost",
        "released twice",
        "moved backwards",
        "user requests failed",
    ]


@pytest.mark.parametrize(
    ("found", "name", "finding"),
    [
        (report(seen=replace(SEEN, gate_pods=2)), "lost", "2 pods of gates are left behind"),
        (
            report(seen=replace(SEEN, watch_gaps=1)),
            "moved backwards",
            "the API server could not tell the watch what happened meanwhile",
        ),
    ],
    ids=["gate pods", "a hole in the history"],
)
def test_what_was_not_seen_or_left_behind_fails(found: Report, name: str, finding: str) -> None:
    assert not found.passed
    verdict = next(each for each in found.verdicts if each.name == name)
    assert (verdict.count, verdict.findings) == (1, (finding,))


def test_a_publish_that_was_not_acknowledged_is_neither_judged_nor_counted() -> None:
    evidence = good()
    first, *others = evidence.publishes
    found = report(evidence=replace(evidence, publishes=(replace(first, acknowledged=False), *others)))
    assert found.verdicts[0].of == "5 publishes"
    assert sum(found.figures["fates"].values()) == 5


def test_a_failed_request_of_a_user_fails() -> None:
    users = Count(requests=500, failed=2)
    users.faults["RemoteDisconnected"] = 2
    found = report(users=users)
    assert not found.passed
    assert "      2 times RemoteDisconnected" in reports.lines(found.as_json())


def test_the_closing_table_has_the_zeros_and_the_figures() -> None:
    table = "\n".join(reports.lines(report().as_json()))
    assert "✔ lost                        0   of 6 publishes" in table
    assert "4 publishes; with each target's first: 4 live, 1 skipped, 1 superseded" in table
    assert "5 deliveries acknowledged, 4.0 a second in the busiest ten seconds, 2.5 with all waits" in table
    assert "median 11.0 s, p95 15.0 s" in table
    assert "API server away        for 10.0 s, with 1 releases under way" in table


def test_the_report_is_kept_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reports.write(report().as_json())
    assert reports.read()["figures"]["targets"] == 1
    assert TARGET not in (tmp_path / ".drill" / "report.json").read_text()


def test_the_table_takes_its_place_in_the_page(tmp_path: Path) -> None:
    page = tmp_path / "reliability.md"
    page.write_text(
        f"before\n{reports.BEGIN}\nan old table\n{reports.END}\nafter\n{PEER}| Shipmate, this drill | 1 | 1 |\n"
    )
    reports.write_docs(report().as_json(), page)
    text = page.read_text()
    assert text.startswith(f"before\n{reports.BEGIN}\nMeasured by `make drill` on one machine with ")
    assert text.endswith(f"\n{reports.END}\nafter\n{PEER}| Shipmate, this drill | 5 | 0 | changes nothing |\n")
    assert "an old table" not in text
    assert "| lost | **0** | 6 publishes |" in text


def test_a_drill_that_moved_something_back_says_so_beside_the_peer() -> None:
    row = reports.beside_a_peer(report(seen=replace(SEEN, watch_gaps=1)).as_json())
    assert row == "| Shipmate, this drill | 5 | 0 | see above: 1 findings |"


def test_a_page_without_the_peers_table_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "reliability.md"
    page.write_text(f"{reports.BEGIN}\nan old table\n{reports.END}\n")
    with pytest.raises(ValueError, match="has 0 rows"):
        reports.write_docs(report().as_json(), page)
    assert "an old table" in page.read_text()


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "reliability.md"
    page.write_text("no table here\n")
    with pytest.raises(ValueError, match="has no lines <!-- drill: begin --> and <!-- drill: end -->: put them"):
        reports.write_docs(report().as_json(), page)
    assert page.read_text() == "no table here\n"


def test_without_a_report_the_page_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(main, ["--write-docs"])
    assert refused.exit_code == 2
    assert "there is no .drill/report.json: run a drill first, in this folder" in refused.stderr
