"""Scenarios: histories that are written down, happening by happening and fault by fault, where a seed only points.

A seed dies with the next change of the code that it drives; a scenario says what it is about and lives on. The files in
`tests/sim/scenarios/` are replayed by a test; the shrinker (`tests.sim.shrink`) writes new ones.
"""

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from tests.sim.faults import Fate, Fault, ListedFaults
from tests.sim.history import History
from tests.sim.plans import Happening, Plan, Setting
from tests.sim.simulation import Simulation

FOLDER = Path(__file__).parent / "scenarios"


class ListedFault(msgspec.Struct, frozen=True, omit_defaults=True):
    """What happens to the n-th call (from 0) of an operation by an actor; `seconds` that the call takes or waits."""

    actor: str
    operation: str
    occurrence: int
    fault: Fault
    seconds: Annotated[float, Meta(ge=0)] = 0.05


class Scenario(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A history to be, and what it must come by to be worth its place."""

    why: str
    setting: Setting
    happenings: tuple[Happening, ...]
    faults: tuple[ListedFault, ...] = ()
    chances: dict[str, float] = {}  # trouble that belongs to no call: see `hub.chance`
    reaches: tuple[str, ...] = ()  # names of tests.sim.reach
    live: dict[str, str] = {}  # target → the versions that are live at the end, as "app with model"
    records: dict[str, tuple[str, ...]] = {}  # target and release, "vision-0 r-2" → the kinds of its entries, in order
    jitter: int | None = None  # the seed of the times that calls take; without, each takes the same


def simulation(scenario: Scenario, *, telling: bool = False) -> Simulation:
    """Return a scenario's history before it begins."""
    listed: dict[tuple[str, str, int], Fate] = {
        (each.actor, each.operation, each.occurrence): (each.fault, each.seconds) for each in scenario.faults
    }
    faults = ListedFaults(listed, scenario.chances, jitter=scenario.jitter)
    plan = Plan(setting=scenario.setting, happenings=scenario.happenings)
    return Simulation(1, plan, faults, telling=telling)


def live_versions(history: History) -> dict[str, str]:
    """Return what is live at the end, by the ledger."""
    found = {run.target.name: run.state.serving for run in history.targets}
    return {name: f"{live.app_version} with {live.model_version}" for name, live in found.items() if live is not None}


def records(history: History) -> dict[str, tuple[str, ...]]:
    """Return the kinds of the entries of each release, as `Scenario.records` has them."""
    found: dict[str, tuple[str, ...]] = {}
    for run in history.targets:
        for entry in run.entries:
            number = getattr(entry, "release", None)
            if isinstance(number, int):
                name = f"{run.target.name} r-{number}"
                found[name] = (*found.get(name, ()), entry.kind_name)
    return found


def load(path: Path) -> Scenario:
    """Return the scenario of a file. Raises msgspec.ValidationError with what is wrong in it."""
    return msgspec.json.decode(path.read_bytes(), type=Scenario)


def save(scenario: Scenario, path: Path) -> None:
    """Write a scenario so that people can read it."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(scenario), indent=1) + b"\n")
