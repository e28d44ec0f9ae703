"""One line a log record on standard output, with the instance, and the invocation it belongs to."""

import logging
import sys
from datetime import UTC, datetime

from localcloud.functions_host.worker import current_invocation

log = logging.getLogger("functions_host")
"""What the host itself says."""


class _Line(logging.Formatter):
    def __init__(self, instance: int) -> None:
        super().__init__(f"%(asctime)s instance {instance} %(levelname)s %(invocation)s%(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802, ARG002 - its name
        return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"

    def format(self, record: logging.LogRecord) -> str:
        invocation = None if record.name == log.name else current_invocation.get()
        record.invocation = f"[{invocation}] " if invocation else ""
        return super().format(record)


def write_to_stdout(instance: int, level: str) -> None:
    """Send every record of this process to standard output; `level` is the app's, from host.json."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Line(instance))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    log.setLevel(min(logging.getLevelName(level), logging.INFO))
    for chatty in ("asyncio", "uvicorn"):  # the host's own; what the app's libraries say is the app's to choose
        logging.getLogger(chatty).setLevel(logging.WARNING)
