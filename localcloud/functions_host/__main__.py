"""`python -m localcloud.functions_host`: run a Function App on this machine."""

import sys
from pathlib import Path

import click

from localcloud.config import state_root
from localcloud.functions_host.errors import AppError
from localcloud.functions_host.supervisor import Host, InstanceError, supervise
from localcloud.processes import talk_directly


@click.command()
@click.option(
    "--app",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="The folder of host.json and function_app.py.",
)
@click.option("--port", type=click.IntRange(1, 65535), required=True, help="The port to listen on, on 127.0.0.1.")
@click.option(
    "--instances", type=click.IntRange(1, 16), default=1, show_default=True, help="How many instances share the work."
)
@click.option(
    "--state", type=click.Path(path_type=Path), help="The folder for keys and timers.  [default: by the port]"
)
@click.option(
    "--answer-seconds",
    type=float,
    default=230,
    show_default=True,
    help="When a caller that waits for a function is let go.",
)
@click.option(
    "--lease-seconds",
    type=click.FloatRange(2),
    default=600,
    show_default=True,
    help="How long a message stays invisible when its instance was killed.",
)
def main(
    *, app: Path, port: int, instances: int, state: Path | None, answer_seconds: float, lease_seconds: float
) -> None:
    """Run a Python Function App (v2 model) in Microsoft's worker runtime. Ends by SIGTERM or Ctrl-C."""
    talk_directly()
    folder = (state or state_root() / f"functions-{port}").resolve()
    try:
        supervise(Host(app.resolve(), port, instances, folder, answer_seconds, lease_seconds))
    except (AppError, InstanceError) as error:
        print(f"The Functions host ends: {error}", file=sys.stderr)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
