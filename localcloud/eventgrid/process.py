"""How a local cloud, or a test, starts its Event Grid relay."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from localcloud.config import Cloud
from localcloud.processes import Program, answers

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Relay:
    """One relay. `of` makes the one of a cloud; a test gives another folder and port, and its own time scale."""

    cloud: Cloud
    folder: Path
    port: int
    time_scale: float = field(default=1.0, kw_only=True)
    """A factor for every wait between attempts and for time to live."""
    timeout_seconds: float = field(default=30.0, kw_only=True)
    """How long an endpoint may take to answer."""
    config: Path | None = field(default=None, kw_only=True)
    """A JSON or YAML file with topics and subscriptions; see `subscriptions.Configuration`."""
    access_log: Path | None = field(default=None, kw_only=True)
    """Another access log of Azurite than the cloud's."""
    connection_string: str | None = field(default=None, kw_only=True)
    """Another storage than the cloud's."""
    seed: int = field(default=0, kw_only=True)

    @classmethod
    def of(cls, cloud: Cloud, *, time_scale: float = 1.0) -> "Relay":
        """Return the relay of a cloud."""
        return cls(cloud, cloud.state, cloud.eventgrid_port, time_scale=time_scale)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def program(self) -> Program:
        """Return the program."""
        command = [sys.executable, "-m", "localcloud.eventgrid", "--cloud", self.cloud.name]
        command += ["--folder", str(self.folder / "eventgrid"), "--port", str(self.port)]
        command += ["--time-scale", str(self.time_scale), "--timeout", str(self.timeout_seconds)]
        command += ["--seed", str(self.seed)]
        if self.config is not None:
            command += ["--config", str(self.config)]
        if self.access_log is not None:
            command += ["--access-log", str(self.access_log)]
        if self.connection_string is not None:
            command += ["--connection-string", self.connection_string]
        return Program(
            name="eventgrid", command=command, folder=self.folder, working_directory=_ROOT, ports=(self.port,)
        )

    def start(self) -> Program:
        """Start it unless it runs and return it when it answers. Raises StartError."""
        program = self.program()
        program.start(answers(f"{self.url}/healthz"), within_seconds=60)
        return program


def program(cloud: Cloud) -> Program:
    """Return a cloud's relay, to ask about or to stop."""
    return Relay.of(cloud).program()


def start(cloud: Cloud, *, time_scale: float = 1.0) -> Program:
    """Start a cloud's relay unless it runs. Raises StartError."""
    return Relay.of(cloud, time_scale=time_scale).start()


def stop(cloud: Cloud) -> None:
    """Stop a cloud's relay if it runs; what it accepted goes on at its next start."""
    program(cloud).stop()


def restart(cloud: Cloud, *, time_scale: float = 1.0) -> Program:
    """Stop and start a cloud's relay."""
    stop(cloud)
    return start(cloud, time_scale=time_scale)
