"""Every single fault at every call of a few fixed histories; nothing repairs them but the pipeline itself."""

import pytest

from tests.sim.faults import NoFaults
from tests.sim.invariants import check
from tests.sim.memory import many_runs
from tests.sim.reach import reached
from tests.sim.scenario import live_versions
from tests.sim.simulation import Simulation
from tests.sim.single_faults import SCRIPTS, single_faults, with_fault


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_single_fault_breaks_a_promise(name):
    plan = SCRIPTS[name].plan
    broken = []
    with many_runs():
        for fault in single_faults(plan):
            try:
                check(with_fault(plan, *fault))
            except Exception as error:  # noqa: BLE001 - all faults are tried before any is told
                broken.append((*fault, f"{type(error).__name__}: {error}"))
    assert broken == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_without_a_fault_each_history_goes_well_and_comes_by_what_it_is_about(name):
    script = SCRIPTS[name]
    run = Simulation(0, script.plan, NoFaults())
    history = run.run()
    check(history)
    assert history.settled
    assert live_versions(history) == {"vision-0": script.live}
    assert script.reaches <= reached(run.hub, history)


@pytest.mark.parametrize("name", ["a rollback of what rolls out", "a hold while something rolls out, and a resume"])
def test_people_ask_while_something_rolls_out(name):
    entries = [entry.kind_name for entry in Simulation(0, SCRIPTS[name].plan, NoFaults()).run().targets[0].entries]
    asked = next(place for place, kind in enumerate(entries) if kind in ("rollback_requested", "hold_set"))
    assert entries[asked - 1] == "intended"
