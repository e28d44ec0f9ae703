"""The drill, small: each part is broken once under a burst, and nothing is lost, doubled or undone."""

import pytest

from drill.report import lines
from drill.run import run
from drill.world import Size
from localcloud.config import Cloud

SMALL = Size(
    targets=4,
    events=60,
    kills=1,
    outage_seconds=3.0,
    doors=4,
    late_seconds=8.0,
    quiet_seconds=0.3,
    quiet_cap_seconds=1.0,
    lease_seconds=2.0,
    stalled_seconds=5.0,
    sweep_schedule="*/5 * * * * *",
    time_scale=0.1,
    within_seconds=300.0,
)


@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("cluster_alone")
def test_a_small_drill_finds_nothing_lost_doubled_or_undone() -> None:
    report = run(SMALL, Cloud("drill"))
    assert report.passed, "\n".join(lines(report.as_json()))
    assert report.figures["publishes"] == 60
    assert report.figures["delivered_twice"] > 0
    assert report.figures["delivered_out_of_order"] > 0
    assert report.figures["replayed"] == 8
    assert report.figures["user_requests"] > 0
    assert [fault.what for fault in report.faults] == [
        "Azurite restarted",
        "API server away",
        "Functions workers killed",
    ]
