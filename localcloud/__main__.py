"""`python -m localcloud`: a small Azure on this machine, as one command.

Verbs are thin; `localcloud.cloud` does the work. Talk goes to standard error, what was asked for to standard output.
Exit codes: 0 done, 1 something did not work, 2 wrong usage, 130 interrupted.
"""

import errno
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import click

from localcloud import debian, images
from localcloud import setup as ensure
from localcloud.access import AccessError
from localcloud.cloud import LocalCloud
from localcloud.config import CLOUDS, Cloud, cache_root, state_root
from localcloud.eventgrid.client import RelayError
from localcloud.functions_host.errors import AppError
from localcloud.kubernetes import cluster
from localcloud.kubernetes.layout import default_layout
from localcloud.making import SetupError
from localcloud.processes import StartError, talk_directly
from localcloud.talk import WORDS, say
from shipmate.errors import ShipmateError

KUBERNETES = "cluster"
"""What the Kubernetes that all clouds share is called where clouds are named."""

SETUP: Mapping[str, Callable[[], object]] = {
    "packages": debian.ensure_packages,
    "kubernetes": ensure.ensure_kubernetes,
    "registry": ensure.ensure_registry,
    "crane": ensure.ensure_crane,
    "azurite": ensure.ensure_azurite,
    "images": images.ensure_inputs,
}


INTERRUPTED = "what was started goes on (`make down` stops it); run it again, it goes on where it was"


class Verbs(click.Group):
    """Verbs that end with a sentence, not a traceback, when something outside did not work."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except (StartError, SetupError, AccessError, RelayError, AppError, ShipmateError, images.ImageError) as error:
            say("failed", str(error))
            ctx.exit(1)
        except KeyboardInterrupt:
            say("failed", f"interrupted: {INTERRUPTED}")
            ctx.exit(130)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            say("failed", no_room(error))
            ctx.exit(1)


@click.group(cls=Verbs, help="A small Azure on this machine: storage, registry, Event Grid, Functions, Kubernetes.")
def main() -> None:
    """Make ready what every verb needs."""
    talk_directly()


@main.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(SETUP)))
def setup(parts: tuple[str, ...]) -> None:
    """Install and build what is missing (all, or the parts named). May be interrupted and repeated."""
    for part in parts or SETUP:
        SETUP[part]()
    say("done", f"set up    {', '.join(parts or SETUP)}")


@main.command()
@click.option("--cloud", "name", type=click.Choice(CLOUDS), default="demo", show_default=True)
@click.option("--context", help="A context of your kubeconfig in the place of the local Kubernetes.")
@click.option(
    "--targets",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The targets file.  [default: examples/targets.yaml]",
)
@click.option("--instances", type=click.IntRange(1, 16), default=1, show_default=True, help="Functions workers.")
def up(*, name: str, context: str | None, targets: Path | None, instances: int) -> None:
    """Start a cloud, and Kubernetes if it does not run."""
    local = LocalCloud(Cloud(name), context)
    local.start(targets_yaml=targets.read_text() if targets else None, instances=instances)
    say("done", f"started   the cloud {name}")
    _show(local)


@main.command()
@click.argument("names", nargs=-1, type=click.Choice([*CLOUDS, KUBERNETES]))
@click.option("--all", "everything", is_flag=True, help="Every cloud and Kubernetes.")
def down(*, names: tuple[str, ...], everything: bool) -> None:
    """Stop clouds (demo, or those named; `cluster` is Kubernetes). What they keep is there at the next start."""
    wanted = (*CLOUDS, KUBERNETES) if everything else names or ("demo",)
    running = [name for name in _running() if name in wanted]
    for name in running:
        if name == KUBERNETES:
            cluster.down()
        else:
            LocalCloud(Cloud(name)).stop()
        say("done", f"stopped   {name}")
    if KUBERNETES in wanted and KUBERNETES not in running and cluster.is_left_over():
        cluster.down()
        running.append(KUBERNETES)
        say("done", "cleaned   what a Kubernetes left that no longer runs")
    if not running:
        say("idle", f"not running: {', '.join(wanted)}")


@main.command()
@click.option("--running", is_flag=True, help="Only the names of what runs, one a line.")
def status(*, running: bool) -> None:
    """Show what runs, where it answers and which log to read."""
    names = _running()
    if running:
        for name in names:
            click.echo(name)
        return
    for name in names:
        if name == KUBERNETES:
            _show_cluster()
        else:
            _show(LocalCloud(Cloud(name)))
    if not names:
        click.echo(f"{WORDS['idle']} nothing runs")


@main.command()
@click.option("--context", help="A context of your kubeconfig in the place of the local Kubernetes.")
@click.option(
    "--registry",
    callback=lambda _context, _option, text: text and registry_address(text),
    help="A registry that this machine and the cluster's nodes reach by this name, in the place of the local one.",
)
def demo(*, context: str | None, registry: str | None) -> None:
    """Run the main job on real input, show it, and leave it running."""
    from localcloud.demo import run  # noqa: PLC0415 - a second of imports that no other verb needs

    if registry is not None and context is None:
        raise click.UsageError("a registry of yours goes with a cluster of yours: name its --context too")
    sys.exit(run(context, registry))


def registry_address(text: str) -> str:
    """Return a registry's address with its scheme; raise BadParameter for what Shipmate would not take."""
    url = text.rstrip("/") if "://" in text else f"https://{text.rstrip('/')}"
    scheme, _, host = url.partition("://")
    local = host.rpartition(":")[0] in ("127.0.0.1", "localhost")
    if scheme not in ("http", "https") or not host or "/" in host or "@" in host:
        raise click.BadParameter(f"{text!r}: write <name>.azurecr.io, or http://localhost:<port>")
    if scheme == "http" and not local:
        raise click.BadParameter(f"{text!r}: plain http is for a registry on this machine (http://localhost:<port>)")
    return url


def no_room(error: OSError) -> str:
    """Return what to do about a full disk."""
    return (
        f"{error}: make room and run it again, it goes on where it was. "
        f"`du -sh {cache_root()} {state_root()}` shows what the local cloud keeps"
    )


def _running() -> list[str]:
    found = [name for name in CLOUDS if LocalCloud(Cloud(name)).is_running()]
    return [*found, KUBERNETES] if any(cluster.status().values()) else found


def _show(local: LocalCloud) -> None:
    """Print a cloud's parts, and what a person needs to use it."""
    click.echo(f"cloud {local.cloud.name}")
    for part in local.status():
        state = f"{WORDS['done']} runs   " if part.pid else f"{WORDS['failed']} stopped"
        click.echo(f"  {state}  {part.name:<10} {part.address:<40} log {part.log}")
    click.echo(f"  models     AZURE_STORAGE_CONNECTION_STRING={local.cloud.connection_string!r}")
    click.echo(f"  images     {local.cloud.registry}/<app repository>:<followed tag>")
    click.echo(
        f"  API        {local.cloud.functions_url}/api/targets  (x-functions-key: host.default in {local.keys_file})"
    )
    click.echo(f"  targets    {local.targets_file}")


def _show_cluster() -> None:
    parts, layout = cluster.status(), default_layout()
    stopped = ", ".join(name for name, pid in parts.items() if pid is None)
    state = f"{WORDS['failed']} stopped  {stopped}" if stopped else f"{WORDS['done']} runs   "
    click.echo(f"Kubernetes\n  {state}  logs {layout.state / 'logs'}")
    click.echo(f"  kubectl    {cluster.kubectl()[0]} --kubeconfig {layout.kubeconfig}")


if __name__ == "__main__":
    main(prog_name="python -m localcloud")
