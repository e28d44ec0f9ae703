"""Run the relay of a local cloud: python -m localcloud.eventgrid --cloud demo."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import click
import httpx
import uvicorn

from localcloud import storage
from localcloud.config import CLOUDS, Cloud
from localcloud.eventgrid.azurite_log import BlobEvents
from localcloud.eventgrid.grid import Grid
from localcloud.eventgrid.server import build
from localcloud.eventgrid.settings import Settings
from localcloud.eventgrid.store import Store
from localcloud.eventgrid.subscriptions import BadSubscription, Configuration, read_configuration
from localcloud.processes import talk_directly

_STOP_SECONDS = 3


class _Server(uvicorn.Server):
    """A server that leaves the signals to the relay."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Stopped(Exception):
    """The relay was asked to stop: cancels what its tasks wait for."""


@click.command()
@click.option("--cloud", "name", type=click.Choice(CLOUDS), default="demo", show_default=True)
@click.option("--config", type=click.Path(path_type=Path), help="JSON or YAML file with topics and subscriptions.")
@click.option("--time-scale", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="A factor for every wait.")
@click.option("--timeout", "timeout_seconds", type=float, default=30.0, help="Seconds an endpoint may take to answer.")
@click.option("--seed", type=int, default=0, help="For faults with a probability.")
@click.option("--port", type=int, help="Where to listen, if not at the cloud's port.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to keep state, if not in the cloud's folder.")
@click.option("--access-log", type=click.Path(path_type=Path), help="Azurite's access log, if not the cloud's.")
@click.option("--connection-string", help="That of the storage, if not the cloud's.")
def main(
    *,
    name: str,
    config: Path | None,
    time_scale: float,
    timeout_seconds: float,
    seed: int,
    port: int | None,
    folder: Path | None,
    access_log: Path | None,
    connection_string: str | None,
) -> None:
    """Run the Event Grid relay of a local cloud."""
    talk_directly()
    cloud = Cloud(name)
    settings = Settings(
        folder=folder or cloud.state / "eventgrid",
        port=port or cloud.eventgrid_port,
        connection_string=connection_string or cloud.connection_string,
        access_log=access_log or storage.program(cloud).log,
        time_scale=time_scale,
        timeout_seconds=timeout_seconds,
        seed=seed,
    )
    try:
        configuration = Configuration() if config is None else read_configuration(config)
        asyncio.run(_run(settings, configuration))
    except BadSubscription as error:
        raise click.ClickException(str(error)) from error


async def _run(settings: Settings, configuration: Configuration) -> None:
    """Run until SIGTERM or SIGINT. What is not finished then goes on at the next start."""
    store = Store(settings.folder / "eventgrid.sqlite")
    limits, limit = httpx.Limits(max_connections=None, max_keepalive_connections=20), settings.timeout_seconds
    async with httpx.AsyncClient(trust_env=False, follow_redirects=False, limits=limits, timeout=limit) as client:
        try:
            async with asyncio.TaskGroup() as tasks:
                grid = Grid(settings, store, client, tasks)
                for topic, resource_id in configuration.topics.items():
                    store.put_topic(topic, resource_id)
                grid.resume()
                for subscription in configuration.subscriptions:
                    grid.subscribe(subscription)
                blobs = BlobEvents(grid, settings.access_log, settings.connection_string)
                tasks.create_task(blobs.follow())
                await _serve(grid, settings.port)
                raise _Stopped  # noqa: TRY301 - it is how a task group is told to cancel its tasks
        except* _Stopped:
            store.close()


async def _serve(grid: Grid, port: int) -> None:
    server = _Server(
        uvicorn.Config(
            build(grid),
            host="127.0.0.1",
            port=port,
            access_log=False,
            lifespan="off",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
    )

    def stop() -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    await server.serve()


if __name__ == "__main__":
    main()
