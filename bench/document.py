"""docs/measurements.md from the report of the last run: `python -m bench.document`.

Each table is of one run on one machine, so that its ratios can be trusted where its seconds cannot.
"""

import json
import sys
from pathlib import Path
from typing import Any

from bench.graft import CRANE, CURL, PEAK_GOAL_MIB
from bench.quick import REPORT

PAGE = Path(__file__).resolve().parents[1] / "docs" / "measurements.md"
HEAD = """# Measurements

Written by `python -m bench.document` from what `make bench-quick` measured (about 12 minutes; `python -m
bench.quick rollouts` and `… graft` measure a half each). Machines are noisy: believe the ratios, which are of
medians of one run, rather than the seconds. In brackets are the lowest and the highest value.
"""
ROLLOUTS = """
## From publish to live

Ours is the whole way: event, intake, plan, build, gate with golden questions, rollout of two pods without a lost
request, verification through the public door, while users keep asking. The baseline is `kubectl set image` and
`kubectl rollout status` of the same images on the same cluster, which the node has pulled before.

"""
GRAFT = """
## The graft

A model of float32 weights goes from Blob Storage (Azurite) into the registry as one layer; each graft is a process
of its own, and model, storage and registry are on the same machine. curl to curl brings the same bytes from the
same blob into the same registry by one GET and one PATCH, without looking at them. `crane append` adds the same
size as a local file to the same image; it compresses, as it always does.

"""


def document(report: dict[str, Any]) -> str:
    """Return the page for a report; a half that was not measured is left out."""
    text = HEAD
    if "rollouts" in report:
        users = report["users"]
        text += ROLLOUTS + _table(report["rollouts"])
        text += (
            f"\nUsers' requests over {users['releases']} releases: {users['requests']:,}, of them failed: "
            f"**{users['failed']}** (goal 0). The slowest took {users['slowest_seconds']:.2f} s.\n"
        )
    if "graft" in report:
        peak = max(report["peak_memory_mib"].values())
        text += GRAFT + _table(report["graft"]) + _floor(report["graft"])
        text += f"\nPeak memory of the whole process, Python and libraries included: {peak:.0f} MiB "
        text += f"(goal at most {PEAK_GOAL_MIB:.0f} MiB).\n"
    return text


def _floor(comparisons: list[dict[str, Any]]) -> str:
    """Return what the two baselines of the graft say of each other, if both were measured."""
    medians = {each["baseline"]["name"]: each["baseline"]["median"] for each in comparisons}
    if not {CURL, CRANE} <= medians.keys():
        return ""
    return (
        f"\nIn the same run {CURL} was {medians[CRANE] / medians[CURL]:.2f} times as fast as `{CRANE}`: no graft from "
        "this storage into this registry\ncan be much faster than that.\n"
    )


def _table(comparisons: list[dict[str, Any]]) -> str:
    rows = ["| | ours | baseline | ratio | goal |", "|---|---|---|---|---|"]
    for each in comparisons:
        goal = f"at {'most' if each['at_most'] else 'least'} {each['goal']:g}"
        missed = "" if each["met"] else " (missed)"
        ours, baseline = _figure(each["ours"]), _figure(each["baseline"])
        rows.append(f"| {each['what']} | {ours} | {baseline} | **{each['ratio']:.2f}** | {goal}{missed} |")
    return "\n".join(rows) + "\n"


def _figure(figure: dict[str, Any]) -> str:
    low, high, count = min(figure["values"]), max(figure["values"]), len(figure["values"])
    spread = f" ({low:.1f} to {high:.1f}, n={count})" if count > 1 else ""
    return f"{figure['name']}: {figure['median']:.1f} {figure['unit']}{spread}"


if __name__ == "__main__":
    if not REPORT.exists():
        sys.exit(f"✗ there is no {REPORT}: run `make bench-quick` first, in this folder")
    PAGE.write_text(document(json.loads(REPORT.read_text())))
