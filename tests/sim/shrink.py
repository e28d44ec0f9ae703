"""From a failing seed to a small history that fails alike: fewer targets, happenings and faults, and no chance left.

First smaller worlds near the seed are tried (one target, few publishes); then the run is written down as a scenario,
what is special in its setting is made plain, happenings, faults and other troubles are left out one half, one quarter,
… at a time, and what is special in a happening is made plain, as long as it fails.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from tests.sim.faults import Faults
from tests.sim.invariants import Violation, check
from tests.sim.memory import many_runs
from tests.sim.plans import Happening, Setting, drawn
from tests.sim.scenario import FOLDER, ListedFault, Scenario, save, simulation
from tests.sim.simulation import Simulation

NEAR = 300
"""How many seeds are searched for one that fails alike with less."""
_PLAIN_SETTING = ("targets", "segment_entries", "guarded", "most_deliveries", "skews")
_PLAIN_HAPPENING = ("target", "contract", "quality", "folder", "deliveries", "again", "to", "override", "if_live")
"""The fields that are given their defaults where the failure does not need what they are."""


def failure(run: Simulation) -> str | None:
    """Return what is wrong with a run, in words without its numbers; None if nothing is."""
    try:
        check(run.run())
    except Violation as error:
        return f"{error.number}: {error.name}: {_without_numbers(error.what.partition(', ')[2])}"
    except Exception as error:  # noqa: BLE001 - whatever ends a run is what it fails with
        return f"{type(error).__name__}: {_without_numbers(str(error))}"
    return None


def _without_numbers(words: str) -> str:
    return re.sub(r"[0-9a-f]{7,}|\d+", "N", words)[:80]


def written_down(seed: int) -> Scenario:
    """Return a seed's history as a scenario: what happened, each fault at its call, and the other troubles."""
    faults = Faults(seed)
    plan = drawn(seed, faults)
    run = Simulation(seed, plan, faults, telling=True)
    failure(run)
    fired = run.hub.fired
    listed = [
        ListedFault(actor, name, number, fault, seconds) for actor, name, number, (fault, seconds) in fired if fault
    ]
    return Scenario(
        why=f"seed {seed}",
        setting=plan.setting,
        happenings=(*plan.happenings, *run.happened),
        faults=tuple(listed),
        chances=run.hub.chances,
        jitter=seed,
    )


def shrunk(seed: int) -> Scenario | None:
    """Return the smallest scenario found that fails as a seed does; None if it does not fail written down."""
    with many_runs():
        faults = Faults(seed)
        wanted = failure(Simulation(seed, drawn(seed, faults), faults))
        if wanted is None:
            return None
        for near in (seed, *_smaller(seed, wanted)):
            scenario = written_down(near)
            if failure(simulation(scenario)) == wanted:
                return smallest(scenario, lambda each: failure(simulation(each)) == wanted)
    return None


def _smaller(seed: int, wanted: str) -> list[int]:
    """Return seeds near that fail alike, those with the fewest happenings first."""
    found: list[tuple[int, int]] = []
    for near in range(seed + 1, seed + NEAR):
        faults = Faults(near)
        plan = drawn(near, faults)
        if plan.setting.targets == 1 and failure(Simulation(near, plan, faults)) == wanted:
            found.append((len(plan.happenings), near))
    return [near for _, near in sorted(found)]


def smallest(scenario: Scenario, fails: Callable[[Scenario], bool]) -> Scenario:
    """Leave out whatever the failure does not need."""

    def with_changes(**changes: object) -> Scenario:
        return msgspec.structs.replace(scenario, **changes)  # type: ignore[arg-type] # fields of a scenario

    while True:
        before = scenario
        setting = _plainest(scenario.setting, _PLAIN_SETTING, lambda plain: fails(with_changes(setting=plain)))
        setting = _without_skews(setting, lambda right: fails(with_changes(setting=right)))
        scenario = with_changes(setting=setting)
        if scenario.jitter is not None and fails(with_changes(jitter=None)):
            scenario = with_changes(jitter=None)
        scenario = with_changes(
            happenings=_fewest(scenario.happenings, lambda left: fails(with_changes(happenings=left)))
        )
        scenario = with_changes(faults=_fewest(scenario.faults, lambda left: fails(with_changes(faults=left))))
        chances = _fewest(tuple(scenario.chances.items()), lambda left: fails(with_changes(chances=dict(left))))
        scenario = with_changes(chances=dict(chances))
        scenario = with_changes(
            happenings=_plain(scenario.happenings, lambda plain: fails(with_changes(happenings=plain)))
        )
        if scenario == before:
            return scenario


def _without_skews(setting: Setting, fails: Callable[[Setting], bool]) -> Setting:
    """Return the setting with as many right clocks as can be."""
    for host in range(len(setting.skews)):
        right = msgspec.structs.replace(setting, skews=_replaced(setting.skews, host, 0.0))
        if setting.skews[host] and fails(right):
            setting = right
    return setting


def _plain(happenings: tuple[Happening, ...], fails: Callable[[tuple[Happening, ...]], bool]) -> tuple[Happening, ...]:
    """Return the happenings without what is special in each of them."""
    for place, happening in enumerate(happenings):
        put = partial(_replaced, happenings, place)
        happenings = put(_plainest(happening, _PLAIN_HAPPENING, lambda plain, put=put: fails(put(plain))))
    return happenings


def _replaced[Item](items: tuple[Item, ...], place: int, item: Item) -> tuple[Item, ...]:
    return (*items[:place], item, *items[place + 1 :])


def _plainest[Described: Setting | Happening](
    described: Described, fields: Sequence[str], fails: Callable[[Described], bool]
) -> Described:
    """Return what is described with each field at its default that can be."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(described)}
    for field in fields:
        plain = msgspec.structs.replace(described, **{field: defaults[field]})
        if plain != described and fails(plain):
            described = plain
    return described


def _fewest[Item](items: Sequence[Item], fails: Callable[[tuple[Item, ...]], bool]) -> tuple[Item, ...]:
    """Return the items without those that can be left out: half of them at a time, then fewer."""
    left = tuple(items)
    step = max(1, len(left) // 2)
    while step:
        start = 0
        while start < len(left):
            fewer = left[:start] + left[start + step :]
            if fails(fewer):
                left = fewer
            else:
                start += step
        step //= 2
    return left


def keep(scenario: Scenario, name: str, folder: Path = FOLDER) -> Path:
    """Write a scenario among those that a test replays, and return its file."""
    path = folder / f"{name}.json"
    save(scenario, path)
    return path
