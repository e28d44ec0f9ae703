"""Why a Function App cannot run in the local Functions host."""

CANNOT_RUN = 78
"""The exit code of an instance whose app or settings are wrong (EX_CONFIG of sysexits.h)."""


class AppError(Exception):
    """The app, its host.json or its settings cannot run here: the host ends, and the message says what to change."""
