"""The scenarios of golden ledgers go on ending as they did when they were recorded."""

import pytest

from tests.golden.record import HERE, SCENARIOS

ENDINGS = {
    "main-job": ["retired", "retired", "live"],
    "rollback-hold-resume": ["retired", "rolled_back", "retired", "retired", "superseded", "live"],
    "rejection-quarantine": ["retired", "rejected", "retired", "rejected", "rolled_back", "live"],
    "waiting-for-partner": ["retired", "retired", "live"],
    "errors-and-retries": ["retired", "retired", "rejected", "live"],
    "blame": ["retired", "rejected", "rejected", "live"],
    "scoped-hold": ["retired", "superseded", "retired", "live"],
    "refusal": ["live"],
    "long-build": ["live"],
    "handed-over": ["live", "built"],
    "told-late": ["retired", "rejected", "retired", "live"],
    "held-twice": ["retired", "superseded", "retired", "live"],
    "live-model-lost": ["retired", "retired", "rejected", "live"],
    "given-way": ["retired", "retired", "rolled_back", "retired", "retired", "retired", "superseded", "live"],
    "lost-and-found": ["retired", "rejected", "retired", "live", "failed"],
    "rolled-back-on-the-way": ["retired", "retired", "rolled_back", "superseded", "retired", "live"],
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_is_recorded_and_still_ends_so(name: str) -> None:
    assert [str(release.phase) for release in SCENARIOS[name]().state.releases] == ENDINGS[name]
    assert (HERE / f"{name}.jsonl").exists(), "record it: python -m tests.golden.record"
