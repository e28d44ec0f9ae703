"""Why a Function App cannot run in the local Functions host."""


class AppError(Exception):
    """The app, its host.json or its settings cannot run here: the host ends, and the message says what to change."""
