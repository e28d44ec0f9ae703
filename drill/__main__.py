"""`python -m drill`: carry out a drill, print its table, write `.drill/report.json`; exit code 1 if a promise broke."""

import signal
import sys

import click
import httpx
from azure.core.exceptions import AzureError

from drill import report as reports
from drill.app_image import PushError
from drill.run import DrillError, run
from drill.world import Size
from localcloud.access import AccessError
from localcloud.config import Cloud
from localcloud.eventgrid.client import RelayError
from localcloud.making import SetupError
from localcloud.processes import StartError, talk_directly
from localcloud.talk import say
from shipmate.errors import ShipmateError

USUAL = Size()
_EXPECTED = (
    AccessError,
    AzureError,
    DrillError,
    PushError,
    RelayError,
    SetupError,
    ShipmateError,
    StartError,
    httpx.HTTPError,
)


@click.command()
@click.option("--targets", type=click.IntRange(1, 150), default=USUAL.targets, show_default=True)
@click.option("--events", type=click.IntRange(1), default=USUAL.events, show_default=True, help="Publishes.")
@click.option("--kills", type=click.IntRange(0), default=USUAL.kills, show_default=True)
@click.option("--outage", type=click.FloatRange(0), default=USUAL.outage_seconds, show_default=True, help="Seconds.")
@click.option("--doors", type=click.IntRange(1), default=USUAL.doors, show_default=True, help="Where users ask.")
@click.option("--seed", type=int, default=USUAL.seed, show_default=True, help="Of what is published, and of faults.")
@click.option("--write-docs", is_flag=True, help="Only put the last report into docs/reliability.md.")
def main(*, targets: int, events: int, kills: int, outage: float, doors: int, seed: int, write_docs: bool) -> None:
    """Break a local cloud under a burst of publishes, and check that nothing was lost, doubled or undone."""
    if write_docs:
        try:
            reports.write_docs(reports.read())
        except FileNotFoundError as error:
            raise click.UsageError(f"there is no {error.filename}: run a drill first, in this folder") from error
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    talk_directly()
    size = Size(targets=targets, events=events, kills=kills, outage_seconds=outage, doors=doors, seed=seed)
    try:
        report = run(size, Cloud("drill")).as_json()
    except _EXPECTED as error:
        say("failed", str(error))
        sys.exit(1)
    reports.write(report)
    click.echo("\n".join(reports.lines(report)))
    sys.exit(0 if report["passed"] else 1)


if __name__ == "__main__":
    main(prog_name="python -m drill")
