"""Every single fault at every call of a few fixed histories; nothing repairs them but the pipeline itself."""

import pytest

from tests.sim.faults import NoFaults
from tests.sim.invariants import check
from tests.sim.memory import many_runs
from tests.sim.simulation import Simulation
from tests.sim.single_faults import SCRIPTS, single_faults, with_fault


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_single_fault_breaks_a_promise(name):
    plan = SCRIPTS[name]
    broken = []
    with many_runs():
        for fault in single_faults(plan):
            try:
                check(with_fault(plan, *fault))
            except Exception as error:  # noqa: BLE001 - all faults are tried before any is told
                broken.append((*fault, f"{type(error).__name__}: {error}"))
    assert broken == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_without_a_fault_each_history_goes_well(name):
    history = Simulation(0, SCRIPTS[name], NoFaults()).run()
    check(history)
    state = history.targets[0].state
    assert state.serving is not None
    assert history.settled
