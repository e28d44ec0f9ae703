"""The histories that are written down hold, and still come by what they were written for."""

import pytest

from tests.sim.invariants import check
from tests.sim.reach import REACH, reached
from tests.sim.scenario import FOLDER, live_versions, load, records, simulation

SCENARIOS = sorted(FOLDER.glob("*.json"))


@pytest.mark.parametrize("path", SCENARIOS, ids=[path.stem for path in SCENARIOS])
def test_a_written_history_holds_and_comes_by_what_it_is_about(path):
    scenario = load(path)
    run = simulation(scenario)
    history = run.run()
    check(history)
    assert set(scenario.reaches) <= reached(run.hub, history)
    assert scenario.live.items() <= live_versions(history).items()
    assert scenario.records.items() <= records(history).items()
    assert scenario.reaches == () or set(scenario.reaches) <= set(REACH)
