"""What a drill found: verdicts that must be zero, figures beside them, as a table, as JSON and for the documents."""

import json
import os
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from drill.monitors import Evidence, fates, lost, moved_backwards, released_twice, seconds_to_live
from drill.taking import Taken
from drill.world import Size
from localcloud.cloud import ROOT
from localcloud.demo.users import Count
from localcloud.talk import WORDS
from shipmate.core.ledger import Live, Planned, Received, Superseded

REPORT = Path(".drill/report.json")
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- drill: begin -->", "<!-- drill: end -->"
BESIDE_A_PEER = re.compile(r"^\| Shipmate, this drill \|.*$", re.MULTILINE)
FINDINGS_KEPT = 50


@dataclass(frozen=True)
class Fault:
    """Something that was broken: how many releases were under way, and the seconds until it was back."""

    what: str
    under_way: int
    seconds: float


@dataclass(frozen=True)
class Seen:
    """What the drill itself noted. Seconds."""

    first_seconds: float
    seconds: float
    converged_seconds: float
    publish_again: int
    watch_gaps: int
    replayed: int = 0
    poisoned: int = 0
    gate_pods: int = 0


@dataclass(frozen=True)
class Verdict:
    """A count that must be zero, of how many, and the findings in words."""

    name: str
    count: int
    of: str
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """The outcome of a drill."""

    size: Size
    verdicts: tuple[Verdict, ...]
    figures: dict[str, Any]
    faults: tuple[Fault, ...]

    @classmethod
    def of(
        cls,
        *,
        size: Size,
        evidence: Evidence,
        users: Count,
        taken: Taken,
        faults: tuple[Fault, ...],
        seen: Seen,
    ) -> Self:
        """Judge the evidence."""
        entries = [entry for name in evidence.targets for entry in evidence.ledgers[name]]
        planned = [entry for entry in entries if isinstance(entry, Planned)]
        acknowledged = sum(publish.acknowledged for publish in evidence.publishes)  # what `lost` judges
        patches = [patch for patch in evidence.patches if patch.release]
        hole = ("the API server could not tell the watch what happened meanwhile",) * seen.watch_gaps
        left = (f"{seen.gate_pods} pods of gates are left behind",) if seen.gate_pods else ()
        verdicts = (
            _verdict("lost", (*lost(evidence), *left), f"{acknowledged} publishes"),
            _verdict("released twice", released_twice(evidence), f"{len(planned)} releases"),
            _verdict("moved backwards", (*moved_backwards(evidence), *hole), f"{len(patches)} patches"),
            Verdict(
                "user requests failed",
                users.failed,
                f"{users.requests} requests",
                tuple(f"{count} times {fault}" for fault, count in users.faults.items()),
            ),
        )
        live = seconds_to_live(evidence)
        figures = {
            "targets": size.targets,
            "publishes": size.events,
            "fates": dict(Counter(fates(evidence).values())),
            "deliveries_acknowledged": taken.deliveries,
            "delivered_twice": taken.twice,
            "delivered_out_of_order": taken.out_of_order,
            "failed_attempts": taken.failed_attempts,
            "dead_lettered": taken.dead_lettered,
            "taken_in_a_second": round(taken.a_second, 1),
            "taken_in_busiest_a_second": round(taken.busiest, 1),
            "repaired": sum(isinstance(entry, Received) and entry.repaired for entry in entries),
            "poisoned": seen.poisoned,
            "releases": len(planned),
            "releases_live": sum(isinstance(entry, Live) for entry in entries),
            "releases_superseded": sum(isinstance(entry, Superseded) for entry in entries),
            "rollbacks": sum(entry.to is not None for entry in planned),
            "publish_to_live_median_seconds": round(statistics.median(live), 1) if live else None,
            "publish_to_live_p95_seconds": round(live[int(0.95 * (len(live) - 1))], 1) if live else None,
            "user_requests": users.requests,
            "slowest_answer_seconds": round(users.slowest_seconds, 2),
            **{name: round(value, 1) for name, value in asdict(seen).items()},
        }
        return cls(size, verdicts, figures, faults)

    @property
    def passed(self) -> bool:
        """Whether everything that must be zero is."""
        return all(verdict.count == 0 for verdict in self.verdicts)

    def as_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {
            "passed": self.passed,
            "machine": {"cores": os.cpu_count(), "memory_gib": _memory_gib()},
            "size": asdict(self.size),
            "verdicts": {
                verdict.name: {"count": verdict.count, "of": verdict.of, "findings": verdict.findings[:FINDINGS_KEPT]}
                for verdict in self.verdicts
            },
            "faults": [asdict(fault) for fault in self.faults],
            "figures": self.figures,
        }


def _verdict(name: str, findings: Sequence[str], of: str) -> Verdict:
    return Verdict(name, len(findings), of, tuple(findings))


def _memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def lines(report: dict[str, Any]) -> list[str]:
    """Return the closing table for the terminal."""
    table = []
    for name, verdict in report["verdicts"].items():
        glyph = WORDS["failed"] if verdict["count"] else WORDS["done"]
        table.append(f"{glyph} {name:<22} {verdict['count']:>6}   of {verdict['of']}")
        table += [f"      {finding}" for finding in verdict["findings"][:10]]
    table += [f"  {what:<22} {value}" for what, value in rows(report)]
    return table


def rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the figures in words: what, and how much."""
    found, size = report["figures"], report["size"]
    fate = ", ".join(f"{count} {what}" for what, count in sorted(found["fates"].items()))
    return [
        ("world", f"{found['targets']} targets, {size['instances']} Functions workers, users at {size['doors']} doors"),
        (
            "faults of Event Grid",
            f"{size['duplicates']:.0%} twice, all others late or overtaken, by up to {size['late_seconds']:.0f} s",
        ),
        ("burst", f"{found['publishes']} publishes; with each target's first: {fate}"),
        (
            "events taken in",
            (
                f"{found['deliveries_acknowledged']} deliveries acknowledged, {found['taken_in_busiest_a_second']} a "
                f"second in the busiest ten seconds, {found['taken_in_a_second']} with all waits for what was away; "
                f"{found['delivered_twice']} events twice, {found['delivered_out_of_order']} out of order"
            ),
        ),
        (
            "releases",
            (
                f"{found['releases']}, of them {found['releases_live']} came live, "
                f"{found['releases_superseded']} superseded, {found['rollbacks']} rollbacks"
            ),
        ),
        (
            "publish to live",
            f"median {found['publish_to_live_median_seconds']} s, p95 {found['publish_to_live_p95_seconds']} s",
        ),
        *[
            (fault["what"], f"for {fault['seconds']} s, with {fault['under_way']} releases under way")
            for fault in report["faults"]
        ],
        (
            "on the way",
            (
                f"{found['failed_attempts']} deliveries refused or cut off, {found['publish_again']} publishes tried "
                f"again, {found['repaired']} repaired by the sweep, {found['poisoned']} poisoned messages, "
                f"{found['dead_lettered']} dead letters"
            ),
        ),
        ("told again at the end", f"{found['replayed']} old events, under new ids"),
        ("slowest user", f"{found['slowest_answer_seconds']} s"),
        (
            "duration",
            (
                f"{found['seconds']:.0f} s from the first event, {found['converged_seconds']:.0f} s of them after "
                f"the last fault; {found['first_seconds']:.0f} s before for the first releases"
            ),
        ),
    ]


def markdown(report: dict[str, Any]) -> str:
    """Return the table for docs/reliability.md."""
    machine = report["machine"]
    head = [
        (
            f"Measured by `make drill` on one machine with {machine['cores']} cores and {machine['memory_gib']} GiB "
            "that ran everything: the cloud, the cluster, the publishers and the users."
        ),
        "",
        "| must be zero | found | of |",
        "|---|---|---|",
    ]
    head += [f"| {name} | **{found['count']}** | {found['of']} |" for name, found in report["verdicts"].items()]
    return "\n".join(
        [*head, "", "| figure | |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows(report))]
    )


def beside_a_peer(report: dict[str, Any]) -> str:
    """Return Shipmate's row of the table that has a peer in it."""
    found = {name: verdict["count"] for name, verdict in report["verdicts"].items()}
    wrong = found["released twice"] + found["moved backwards"]
    told_again = f"see above: {wrong} findings" if wrong else "changes nothing"
    acknowledged = report["figures"]["deliveries_acknowledged"]
    return f"| Shipmate, this drill | {acknowledged:,} | {found['lost']:,} | {told_again} |"


def write_docs(report: dict[str, Any], page: Path = PAGE) -> None:
    """Put the table into the documents, between its two marks, and the row beside a peer in the place of the last one.

    Raises ValueError if the marks or the row are not there.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no lines {BEGIN} and {END}: put them where the table belongs")
    after, rows_beside = BESIDE_A_PEER.subn(beside_a_peer(report), after)
    if rows_beside != 1:
        raise ValueError(f"{page} has {rows_beside} rows | Shipmate, this drill | behind {END}: it needs one")
    page.write_text(f"{before}{BEGIN}\n{markdown(report)}\n{END}{after}", encoding="utf-8")


def read() -> dict[str, Any]:
    """Return the report of the last drill. Raises FileNotFoundError."""
    found: dict[str, Any] = json.loads(REPORT.read_text())
    return found


def write(report: dict[str, Any]) -> None:
    """Keep the report of a drill."""
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
