"""What a relay is told when it starts."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Where a relay listens, keeps its state and looks for blobs, and how fast its time goes."""

    folder: Path
    """Its state: eventgrid.sqlite."""
    port: int
    connection_string: str
    """The storage whose blobs are told about, and that takes dead letters."""
    access_log: Path
    """The file with Azurite's access log."""
    time_scale: float = 1.0
    """A factor for every wait between attempts and for time to live; 0.01 makes 10 s of 1,000 s."""
    timeout_seconds: float = 30.0
    """How long an endpoint may take to answer; not scaled."""
    seed: int = 0
    """For faults with a probability."""

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"
