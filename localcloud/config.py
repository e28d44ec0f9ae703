"""Where one local cloud lives: its ports, folders and well-known development credentials.

Every part of the local cloud takes a `Cloud`. Clouds with different names have different ports and folders, so a demo
that was left running and a test run do not meet. Kubernetes is the exception: one cluster serves all clouds of a
machine, which keep apart by namespace.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CLOUDS = ("demo", "test", "bench", "drill", "e2e")
"""Names a cloud may have; the place in this list decides its ports."""

AZURITE_ACCOUNT = "devstoreaccount1"
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account and key that every Azurite has and its documentation prints: no secret."""

NEVER_BY_PROXY = ("127.0.0.1", "localhost", "127.0.0.0/8", "10.213.0.0/16")
"""This machine and the cluster's networks, as NO_PROXY spells them; not every program understands the networks."""


def without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that keep a program from asking a proxy for what is on this machine.

    The machine's proxy stays for everything else, and so do its own exceptions. Both spellings, because programs
    differ in which they read first.
    """
    there = [word.strip() for name in ("no_proxy", "NO_PROXY") for word in environment.get(name, "").split(",")]
    words = dict.fromkeys([*filter(None, there), *NEVER_BY_PROXY])
    exceptions = "*" if "*" in words else ",".join(words)  # a star counts only where it stands alone
    return {"NO_PROXY": exceptions, "no_proxy": exceptions}


def cache_root() -> Path:
    """Return the folder outside the tree that keeps what is slow to make, keyed by version."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shipmate"


def state_root() -> Path:
    """Return the folder that keeps the state of every local cloud of this machine."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "shipmate"


@dataclass(frozen=True)
class Cloud:
    """One local cloud: a name, and everything that follows from it."""

    name: str = "demo"

    def __post_init__(self) -> None:
        if self.name not in CLOUDS:
            raise ValueError(f"no local cloud is called {self.name!r}: use one of {', '.join(CLOUDS)}")

    @property
    def state(self) -> Path:
        """The folder of this cloud's state and logs."""
        return state_root() / self.name

    def _port(self, offset: int) -> int:
        return 17000 + 100 * CLOUDS.index(self.name) + offset

    @property
    def blob_port(self) -> int:
        """Azurite's blob endpoint."""
        return self._port(0)

    @property
    def queue_port(self) -> int:
        """Azurite's queue endpoint."""
        return self._port(1)

    @property
    def table_port(self) -> int:
        """Azurite's table endpoint (Azurite starts it; Shipmate does not use it)."""
        return self._port(2)

    @property
    def registry_port(self) -> int:
        """The container registry."""
        return self._port(10)

    @property
    def eventgrid_port(self) -> int:
        """The Event Grid relay: its publish endpoint, its control API and the registry's notifications."""
        return self._port(20)

    @property
    def functions_port(self) -> int:
        """The Functions host: HTTP routes and the Event Grid webhook."""
        return self._port(30)

    @property
    def blob_url(self) -> str:
        """The blob endpoint of the account, without a trailing slash."""
        return f"http://127.0.0.1:{self.blob_port}/{AZURITE_ACCOUNT}"

    @property
    def connection_string(self) -> str:
        """A storage connection string for azure-storage-blob and azure-storage-queue."""
        return connection_string(self.blob_port, self.queue_port)

    @property
    def registry(self) -> str:
        """The registry's login server, as image references spell it."""
        return f"127.0.0.1:{self.registry_port}"

    @property
    def eventgrid_url(self) -> str:
        """The Event Grid relay."""
        return f"http://127.0.0.1:{self.eventgrid_port}"

    @property
    def functions_url(self) -> str:
        """The Functions host."""
        return f"http://127.0.0.1:{self.functions_port}"


def connection_string(blob_port: int, queue_port: int) -> str:
    """Return the connection string of an Azurite at these ports."""
    return (
        f"DefaultEndpointsProtocol=http;AccountName={AZURITE_ACCOUNT};AccountKey={AZURITE_KEY};"
        f"BlobEndpoint=http://127.0.0.1:{blob_port}/{AZURITE_ACCOUNT};"
        f"QueueEndpoint=http://127.0.0.1:{queue_port}/{AZURITE_ACCOUNT};"
    )
