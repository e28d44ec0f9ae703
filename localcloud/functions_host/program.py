"""How a local cloud starts its Functions host."""

import sys
from collections.abc import Mapping
from pathlib import Path

from localcloud.config import Cloud
from localcloud.processes import Program

_ROOT = Path(__file__).resolve().parents[2]


def keys_file(cloud: Cloud) -> Path:
    """Return the file with the keys of this cloud's Functions host; see `keys.ensure_keys` and `keys.read_keys`."""
    return cloud.state / "functions" / "keys.json"


def program(
    cloud: Cloud,
    app_dir: Path,
    environment: Mapping[str, str],
    instances: int = 1,
    *,
    lease_seconds: float = 600,
) -> Program:
    """Return the Functions host of a local cloud as a program to start.

    `environment` holds the app settings. `lease_seconds` is how long a message stays invisible after the instance that
    took it was killed: Azure has 600 and no setting for it, a test that kills instances wants less.
    """
    command = [sys.executable, "-m", "localcloud.functions_host"]
    command += ["--app", str(app_dir), "--port", str(cloud.functions_port), "--instances", str(instances)]
    command += ["--state", str(cloud.state / "functions"), "--lease-seconds", str(lease_seconds)]
    return Program(
        name="functions",
        command=command,
        folder=cloud.state,
        environment=environment,
        working_directory=_ROOT,
        ports=(cloud.functions_port,),
    )
