"""Start the app: granian in front, one worker process, the model loaded in that worker.

`python -m app` serves; granian calls `create` in its worker. One worker a pod: Kubernetes adds pods, and the numbers at
/metrics are then the pod's own.
"""

import os

import flask
from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings

from app import settings
from app.places import THREADS


def create() -> flask.Flask:
    """Return the application of this process, its model on the way."""
    # in here, so that granian's main process, which only watches, does without ONNX Runtime and NumPy
    from app import web  # noqa: PLC0415
    from app.lifecycle import Lifecycle  # noqa: PLC0415

    lifecycle = Lifecycle(settings.from_environment(os.environ))
    lifecycle.start_loading()
    return web.create(lifecycle)


def serve() -> None:
    """Serve until SIGTERM; then answer what has been asked, and end. Raises SettingsError."""
    own = settings.from_environment(os.environ)
    Granian(
        "app.server:create",
        factory=True,
        address=own.host,
        port=own.port,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        websockets=False,
        workers=1,
        blocking_threads=THREADS,
        http1_settings=HTTP1Settings(header_read_timeout=30_000),
        log_access=False,
    ).serve()
