"""The container registry of the local cloud: CNCF distribution, over plain HTTP on loopback.

It tells the Event Grid relay about every push and deletion by its notifications; while the relay is down they wait in
the registry's memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from localcloud.config import Cloud
from localcloud.processes import Program, answers
from localcloud.setup import ensure_registry


@dataclass(frozen=True)
class TokenAuth:
    """Bearer tokens, as Azure's registry asks for them; a registry without this lets everybody in."""

    realm: str
    service: str
    issuer: str
    root_certificates: Path
    """PEM file with the certificates whose keys may sign tokens."""


@dataclass(frozen=True)
class Registry:
    """One registry: where it listens, keeps its blobs and sends its notifications. `of` makes the one of a cloud."""

    folder: Path
    port: int
    notify_url: str | None = None
    token_auth: TokenAuth | None = None
    name: str = field(default="registry", kw_only=True)

    @classmethod
    def of(cls, cloud: Cloud) -> "Registry":
        """Return the registry of a cloud, which tells the cloud's relay."""
        return cls(cloud.state, cloud.registry_port, f"{cloud.eventgrid_url}/sources/registry")

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        """The folder with manifests and blobs."""
        return self.folder / self.name

    @property
    def configuration_file(self) -> Path:
        """The file it is configured by; `start` writes it."""
        return self.folder / "run" / f"{self.name}.yml"

    def configuration(self) -> Mapping[str, Any]:
        """Return the configuration (distribution.github.io/distribution/about/configuration)."""
        document: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "warn", "formatter": "text", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.data)},
                "delete": {"enabled": True},
                "redirect": {"disable": True},
            },
            "http": {
                "addr": f"127.0.0.1:{self.port}",
                "secret": "local",  # signs upload sessions: with a fixed one they outlive a restart
                "headers": {"X-Content-Type-Options": ["nosniff"]},
            },
        }
        if self.token_auth is not None:
            document["auth"] = {
                "token": {
                    "realm": self.token_auth.realm,
                    "service": self.token_auth.service,
                    "issuer": self.token_auth.issuer,
                    "rootcertbundle": str(self.token_auth.root_certificates),
                }
            }
        if self.notify_url is not None:
            endpoint = {
                "name": "eventgrid",
                "url": self.notify_url,
                "timeout": "5s",
                "threshold": 3,
                "backoff": "500ms",
                "ignore": {"actions": ["pull", "mount"]},
            }
            document["notifications"] = {"endpoints": [endpoint]}
        return document

    def program(self, executable: Path = Path("registry")) -> Program:
        """Return the program; without the executable it can be asked about and stopped, not started."""
        return Program(
            name=self.name,
            command=[str(executable), "serve", str(self.configuration_file)],
            folder=self.folder,
            environment={"OTEL_TRACES_EXPORTER": "none"},
            ports=(self.port,),
        )

    def start(self, *, within_seconds: float = 30) -> Program:
        """Start it unless it runs, build it first if need be, and return it when it answers. Raises StartError."""
        program = self.program(ensure_registry())
        if program.pid() is None:
            self.data.mkdir(parents=True, exist_ok=True)
            self.configuration_file.parent.mkdir(parents=True, exist_ok=True)
            self.configuration_file.write_text(yaml.safe_dump(dict(self.configuration())))
        program.start(answers(f"{self.url}/v2/"), within_seconds=within_seconds)
        return program


def program(cloud: Cloud) -> Program:
    """Return a cloud's registry, to ask about or to stop."""
    return Registry.of(cloud).program()


def start(cloud: Cloud) -> Program:
    """Start a cloud's registry unless it runs. Raises StartError."""
    return Registry.of(cloud).start()


def stop(cloud: Cloud) -> None:
    """Stop a cloud's registry if it runs; its images stay."""
    program(cloud).stop()


def restart(cloud: Cloud) -> Program:
    """Stop and start a cloud's registry."""
    stop(cloud)
    return start(cloud)
