"""Storage of the local cloud: Azurite, Microsoft's emulator, for blobs and queues.

Its access log, one line a request, goes to the program's log, which the Event Grid relay follows.
"""

from dataclasses import dataclass, field
from pathlib import Path

from localcloud.config import Cloud, connection_string
from localcloud.processes import Program, StartError, Stopped, answers
from localcloud.setup import ensure_azurite


@dataclass(frozen=True)
class Azurite:
    """One Azurite: where it listens and where it keeps its data. `of` makes the one of a cloud."""

    folder: Path
    blob_port: int
    queue_port: int
    table_port: int
    name: str = field(default="azurite", kw_only=True)

    @classmethod
    def of(cls, cloud: Cloud) -> "Azurite":
        """Return the Azurite of a cloud."""
        return cls(cloud.state, cloud.blob_port, cloud.queue_port, cloud.table_port)

    @property
    def data(self) -> Path:
        """The folder with blobs and queues."""
        return self.folder / "azurite"

    @property
    def connection_string(self) -> str:
        """A storage connection string for azure-storage-blob and azure-storage-queue."""
        return connection_string(self.blob_port, self.queue_port)

    def program(self, start_of_command: tuple[str, ...] = ("azurite",)) -> Program:
        """Return the program; without a start of its command line it can be asked about and stopped, not started."""
        options = {
            "--location": self.data,
            "--blobHost": "127.0.0.1",
            "--blobPort": self.blob_port,
            "--queueHost": "127.0.0.1",
            "--queuePort": self.queue_port,
            "--tableHost": "127.0.0.1",
            "--tablePort": self.table_port,
        }
        return Program(
            name=self.name,
            command=[
                *start_of_command,
                *(str(word) for pair in options.items() for word in pair),
                "--disableTelemetry",
                "--skipApiVersionCheck",
            ],
            folder=self.folder,
            ports=(self.blob_port, self.queue_port, self.table_port),
        )

    def start(self, *, within_seconds: float = 60) -> Program:
        """Start it unless it runs, install it first if need be, and return it when it answers. Raises StartError."""
        program = self.program(tuple(ensure_azurite()))
        known = self.data.exists()
        self.data.mkdir(parents=True, exist_ok=True)
        blobs, queues = (answers(f"http://127.0.0.1:{port}/") for port in (self.blob_port, self.queue_port))
        try:
            program.start(lambda: blobs() and queues(), within_seconds=within_seconds)
        except Stopped as error:
            if not known:
                raise
            raise StartError(
                f"{error}\nIf the machine lost its power or its disk was full, what Azurite stored may be damaged: "
                f"`rm -r {self.data}` gives it up, with the ledger in it, and the next start begins anew"
            ) from error
        return program


def program(cloud: Cloud) -> Program:
    """Return a cloud's Azurite, to ask about or to stop."""
    return Azurite.of(cloud).program()


def start(cloud: Cloud) -> Program:
    """Start a cloud's Azurite unless it runs. Raises StartError."""
    return Azurite.of(cloud).start()


def stop(cloud: Cloud) -> None:
    """Stop a cloud's Azurite if it runs; its blobs and queues stay."""
    program(cloud).stop()


def restart(cloud: Cloud) -> Program:
    """Stop and start a cloud's Azurite."""
    stop(cloud)
    return start(cloud)
