"""Faults planted on purpose: the proof that the simulator and its invariants would find them.

Each mutant replaces a piece of the real code, or of a port's promise, by one with a fault (`tests.sim.planted`) of a
class that controllers like this one are known to have. `python -m tests.sim.mutants` prints for each the first seed
that finds it.
"""

import dataclasses
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
import pytest

from shipmate import commands, pipeline
from shipmate.core import fold, intake, pairs, plan, precedence
from shipmate.core.ledger import IllegalStep, Live, Planned
from shipmate.core.state import State
from shipmate.edge.ledger_store import LedgerStore
from shipmate.pipeline import Pipeline
from shipmate.stages import build, gate, graft, record, resolve, rollout, verify
from tests.sim import hosts, ledgers, planted
from tests.sim.invariants import Violation, check
from tests.sim.ledgers import FastLedgers
from tests.sim.plans import REAL_STORE
from tests.sim.simulation import simulate
from tests.sim.world import SimModels

SEEDS = 2000
"""Each mutant is found by one of so many."""
ON_REAL_STORE = range(REAL_STORE.start, SEEDS, REAL_STORE.step)
CLASSES = {
    1: "an effect is done and its outcome is not recorded",
    2: "an append is applied, its reply is lost, and it is appended again",
    3: "a worker that slept acts on a decision that is stale",
    4: "a resource version is taken for a fence",
    5: "gate pods are made twice or left behind",
    6: "a gate pod comes back after the clean-up",
    7: "a record without the message that has it acted upon",
    8: "messages are lost or poisoned",
    9: "an event is acknowledged before it is recorded",
    10: "work goes on for ever and gets nowhere",
    11: "two workers roll a segment",
    12: "what is read is older than what was written",
    13: "an older version ships",
    14: "a change is missed",
    15: "what ships was not judged itself",
    16: "a rollback is fought, blocked or unfounded",
    17: "a tag moves between the look and the use",
    18: "a quarantine is got around",
    19: "a hold is too late, or holds nothing",
    20: "a command is repeated late",
    21: "a clock that is wrong decides",
    22: "the sweep and people's wishes race with everything else",
}
"""Classes of faults, as found in other controllers."""


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A planted fault of one of `CLASSES`. `patches`: place, attribute (or a dict's key), what stands there instead."""

    name: str
    bug_class: int
    patches: tuple[tuple[Any, Any, Any], ...]
    seeds: Sequence[int] = range(SEEDS)  # where to look for it; for one that is rarely found, not from the beginning

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Let the fault be there for a while."""
        with pytest.MonkeyPatch.context() as patch:
            for place, attribute, instead in self.patches:
                (patch.setitem if isinstance(place, dict) else patch.setattr)(place, attribute, instead)
            yield


def finds(seed: int) -> str | None:
    """Return what is wrong with a seed's history, in one line; None if nothing is.

    Whatever else the seed raises is raised: a fault that only crashes would be found by any test.
    """
    try:
        check(simulate(seed))
    except Violation as violation:
        return f"{violation.number}: {violation.what}"
    except IllegalStep as error:
        return f"refused: {error}"
    return None


def first(mutant: Mutant) -> tuple[int, str] | None:
    """Return the first of the mutant's seeds that finds it, and what it finds."""
    with mutant.planted():
        found = ((seed, finds(seed)) for seed in mutant.seeds)
        return next(((seed, what) for seed, what in found if what is not None), None)


MUTANTS = (
    Mutant("a patch that was made is made again", 1, ((rollout, "_under_fence", planted.patched_in_again),)),
    Mutant("two releases are on their way at once", 1, ((State, "active", property(planted.active_until_intended)),)),
    Mutant("an own append behind a 412 is appended again", 2, ((FastLedgers, "append", planted.append_own_again),)),
    Mutant(
        "a decision is recorded whatever came in between", 2, ((pipeline, "append", planted.append_what_was_decided),)
    ),
    Mutant(
        "the store appends again what it finds behind a 412",
        2,
        ((LedgerStore, "_write", planted.append_own_again_in_the_store),),
        ON_REAL_STORE,
    ),
    Mutant(
        "the store takes another's entry for its own",
        2,
        ((LedgerStore, "_is_written", planted.whatever_is_behind_is_own),),
        ON_REAL_STORE,
    ),
    Mutant("appends compare with nothing", 3, ((FastLedgers, "append", planted.append_anyway),)),
    Mutant(
        "patches have no fence",
        3,
        ((rollout, "fence_patch", planted.patch_without_tests), (rollout, "classify_fence", planted.always_patchable)),
    ),
    Mutant(
        "the resource version is the fence",
        4,
        (
            (rollout, "fence_patch", planted.patch_by_resource_version),
            (rollout, "classify_fence", planted.always_patchable),
        ),
    ),
    Mutant("gate pods have random names", 5, ((gate, "gate_name", planted.random_gate_names()),)),
    Mutant("a gate pod that is there already fails the candidate", 5, ((gate, "_start", planted.only_a_new_gate_pod),)),
    Mutant("gate pods are never removed", 5, ((Pipeline, "_remove_gate_pods", lambda self, target: 0),)),
    Mutant("gate pods of earlier attempts are forgotten", 6, ((gate, "_finished", planted.pods_of_the_last_attempt),)),
    Mutant("the sweep leaves gate pods that came back", 6, ((Pipeline, "sweep", planted.sweep_without_janitor),)),
    Mutant("a repeated event sends no message", 7, ((Pipeline, "intake", planted.intake_without_a_second_message),)),
    Mutant("errors end the work on a message", 7, ((Pipeline, "advance", planted.swallow_errors),)),
    Mutant("messages are deleted before they are worked on", 8, ((hosts.Queue, "_again", lambda *what: None),)),
    Mutant("the sweep wakes nobody", 8, ((Pipeline, "_wake", lambda self, target: 0),), range(1000, SEEDS)),
    Mutant("events are acknowledged before they are recorded", 9, ((Pipeline, "intake", planted.acknowledge_anyway),)),
    Mutant("events are recorded as often as they come", 9, ((intake, "is_duplicate", lambda state, event: False),)),
    Mutant("what cannot succeed is tried for ever", 10, ((gate, "COUNTS_AT_ATTEMPT", 1_000_000),)),
    Mutant("what is in trouble is waited for", 10, ((precedence, "yields_to_newer", lambda state, release: None),)),
    Mutant(
        "an append that came too late is tried again as it is",
        10,
        tuple((place, "append", planted.append_to_what_was_read_first) for place in (pipeline, commands, record)),
    ),
    Mutant("a segment is rolled without a seal", 11, ((LedgerStore, "_write", planted.unsealed),), ON_REAL_STORE),
    Mutant(
        "a segment is sealed without a condition", 11, ((ledgers.Blobs, "append", planted.seal_anyway),), ON_REAL_STORE
    ),
    Mutant(
        "every second read of a ledger is of what was read before",
        12,
        ((LedgerStore, "read", planted.read_what_was_read_before),),
        ON_REAL_STORE,
    ),
    Mutant("the newest model is the one that came last", 13, ((fold, "_published", lambda half: 0),)),
    Mutant("a blob is as old as its metadata", 13, ((SimModels, "touch", planted.touch_as_if_written),)),
    Mutant("an event of a tag that moved on is taken", 13, ((resolve, "_app", planted.resolve_the_event_alone),)),
    Mutant("what is live is not published again", 13, ((pairs, "older_than_live", lambda state, pair: None),)),
    Mutant(
        "what is older goes in the place of what is lost",
        13,
        ((pairs, "_not_older_than_lost", lambda state: (state.apps, state.models)),),
    ),
    Mutant("the sweep repairs nothing", 14, ((Pipeline, "_repair", lambda self, target: 0),)),
    Mutant("what is rolled out is called live", 14, ((pipeline, "verify", planted.live_unasked),)),
    Mutant("a verdict counts for other pairs of the app", 15, ((pipeline, "gate", planted.verdict_of_another_pair),)),
    Mutant("a rollback sets no hold", 16, ((fold._FOLD, Live, planted.rollback_without_hold),)),
    Mutant(
        "a rollback's image is not looked for",
        16,
        (
            (build, "_found", planted.rollback_image_unseen),
            (rollout, "restore", planted.restored_but_for_rollbacks),
        ),
    ),
    Mutant("what was undone is not quarantined", 16, ((verify, "guilty", lambda bad, good: ()),)),
    Mutant("a failed rollout is not undone", 16, ((plan, "last_good", lambda state: None),)),
    Mutant("the build reads the app by its tag", 17, ((graft, "_app_image", planted.app_by_its_tag),)),
    Mutant(
        "a quarantined half that is published again is forgiven",
        18,
        (
            (pipeline, "resolve", planted.forgive_what_is_published_again),
            (pairs, "_unquarantined", planted.newest_halves_of_all),
            (State, "is_quarantined", lambda self, pair: False),
        ),
    ),
    Mutant("the quarantine takes both halves", 18, ((gate, "blamed", lambda state, bad: (bad.app, bad.model)),)),
    Mutant("a hold does not raise the fence", 19, ((commands.Commands, "_raise_fence", lambda self, target: None),)),
    Mutant("a hold is looked at when a release is planned", 19, ((plan, "_to_traffic", lambda s, r: plan.Intend(r)),)),
    Mutant("a hold on one kind of half holds nothing", 19, ((State, "hold_on", lambda self, pair: None),)),
    Mutant("a repeated command is taken again", 20, ((commands, "append", planted.append_whatever_the_key),)),
    Mutant(
        "a worker's clock tells what was published anew",
        21,
        ((pairs, "tried_by", planted.tried_by_the_clock),),
        range(900, SEEDS),
    ),
    Mutant("the sweep records what is known", 22, ((Pipeline, "_repair", planted.repair_what_is_known),)),
    Mutant("a wish is forgotten when anything is planned", 22, ((fold._FOLD, Planned, planted.forget_the_wish),)),
    Mutant("a release forgets who asked for it", 22, ((plan, "_requested", planted.forget_who_asked),)),
    Mutant("an override is not recorded", 22, ((commands, "Requested", planted.request_without_override),)),
)


@click.command()
@click.option("--seeds", type=click.IntRange(1), default=SEEDS, show_default=True, help="In how many to look for each.")
@click.option("--only", multiple=True, metavar="TEXT", help="Only planted faults whose name has this in it.")
def main(seeds: int, only: tuple[str, ...]) -> None:
    """Print for each planted fault the first seed that finds it. The exit code is 1 if one is not found."""
    chosen = [each for each in MUTANTS if not only or any(text in each.name for text in only)]
    if not chosen:
        raise click.BadParameter(f"no planted fault has {' or '.join(only)!r} in its name", param_hint="--only")
    click.echo(f"{'class':>5}  {'planted fault':55} {'first':>6}  found as")
    missed = 0
    for mutant in chosen:
        found = first(dataclasses.replace(mutant, seeds=mutant.seeds[:seeds]))
        seed, what = found or ("", "NOT FOUND")
        click.echo(f"{mutant.bug_class:5}  {mutant.name:55} {seed:>6}  {what[:90]}")
        missed += found is None
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    logging.disable()  # a fault is told in the table, not by each worker that comes upon it
    main()
