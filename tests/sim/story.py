"""The story of a target's run, for people who look at why a seed fails."""

from shipmate.core.ledger import AnyEntry
from shipmate.core.refs import Pair
from tests.sim.history import Patch, TargetRun


def story(run: TargetRun) -> str:
    """Return the ledger and the cluster's patches in one order, a line each, for people."""
    lines = []
    patches = [patch for patch in run.patches if patch.operations]
    for index, entry in enumerate(run.entries):
        lines += [_patch_line(patch) for patch in patches if patch.entries == index]
        lines.append(_entry_line(index, entry))
    lines += [_patch_line(patch) for patch in patches if patch.entries >= len(run.entries)]
    return "\n".join(lines)


def _entry_line(index: int, entry: AnyEntry) -> str:
    told = {field: getattr(entry, field) for field in entry.__struct_fields__ if field not in ("id", "at", "by")}
    told.pop("report", None)
    words = ", ".join(f"{field} {_short(value)}" for field, value in told.items() if value not in (None, (), ""))
    return f"{index:3} {entry.at:%H:%M:%S.%f} {entry.by:>10} {entry.kind_name:18} {words}"


def _patch_line(patch: Patch) -> str:
    return (
        f"    {patch.at:%H:%M:%S.%f} {patch.worker:>10} patched            {patch.before.release} → "
        f"{patch.after.release}, fence {patch.before.fence} → {patch.after.fence}"
    )


def _short(value: object) -> str:
    text = str(value)
    if isinstance(value, Pair):
        text = f"({value.app[7:15]}, {value.model[7:15]})"
    return text if len(text) <= 160 else text[:157] + "..."
