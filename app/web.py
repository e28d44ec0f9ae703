"""The routes: translate a request in, ask, translate the answer out. `server` makes the application with `create`."""

import base64
import io
import ipaddress
import json
import time
from http import HTTPStatus
from typing import IO, Any

import flask
import onnxruntime
from flask.json.provider import DefaultJSONProvider
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from app import inference_protocol, metrics, scoring
from app.images import FORMATS, MAX_REQUEST_BYTES
from app.lifecycle import Lifecycle
from app.metrics import Metrics
from app.places import Places
from app.problems import Problem, ProblemError
from app.scoring import Scored

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

OPERATIONS = "operations"
"""The routes that are answered however many users there are."""

BODILESS = frozenset({"GET", "HEAD"})
"""So are requests of these methods: they cost next to nothing, and gateways probe with them."""

DROPPED_BYTES = 4 * MAX_REQUEST_BYTES
DROPPED_SECONDS = 5.0
"""How much of a refused request is still read, and how long."""


class Request(flask.Request):
    """A request whose uploads stay in memory: they are bounded, and the file system is read-only."""

    def _get_file_stream(self, *_: Any, **__: Any) -> IO[bytes]:
        return io.BytesIO()


class _Json(DefaultJSONProvider):
    sort_keys = False  # people read these too: what matters comes first


def create(lifecycle: Lifecycle) -> flask.Flask:
    """Return the WSGI application over this lifecycle."""
    app = flask.Flask(__name__)
    app.json = _Json(app)
    app.request_class = Request
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BYTES
    numbers = Metrics(lifecycle)
    _watch(app, lifecycle, numbers)
    _explain_errors(app)
    app.register_blueprint(inference_protocol.blueprint(lifecycle))
    app.register_blueprint(_operations(lifecycle, numbers))
    app.register_blueprint(_answers(lifecycle, numbers))
    return app


def _watch(app: flask.Flask, lifecycle: Lifecycle, numbers: Metrics) -> None:
    """Count every request in and out, and put the headers on every reply, of whatever kind."""

    @app.before_request
    def begin() -> None:
        flask.g.started = time.perf_counter()
        if flask.request.blueprint != OPERATIONS and flask.request.method not in BODILESS:
            lifecycle.places.admit()
            flask.g.admitted = True

    @app.after_request
    def finish(response: flask.Response) -> flask.Response:
        response.headers.update(lifecycle.headers())
        response.headers["X-Content-Type-Options"] = "nosniff"
        route = flask.request.url_rule.rule if flask.request.url_rule else "none"
        seconds = time.perf_counter() - flask.g.get("started", time.perf_counter())
        numbers.count(route, flask.request.method, response.status_code, seconds)
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            _drop_body(flask.request, lifecycle.places)
        return response

    @app.teardown_request
    def end(_: BaseException | None) -> None:
        if flask.g.pop("admitted", False):
            lifecycle.places.leave()


def _drop_body(request: flask.Request, places: Places) -> None:
    """Read what was not read of a refused request: most clients read no reply before they have sent everything.

    They would see a broken connection. Who waits for the word to go on (`Expect`) is better off without it.
    """
    if request.blueprint == OPERATIONS or "Expect" in request.headers:
        return
    if "admitted" in flask.g:
        _read_on(request.environ["wsgi.input"])
        return
    with places.refusing() as may_be_read:
        if may_be_read:
            _read_on(request.environ["wsgi.input"])


def _read_on(stream: IO[bytes]) -> None:
    dropped, ends_at = 0, time.monotonic() + DROPPED_SECONDS
    while dropped < DROPPED_BYTES and time.monotonic() < ends_at:
        piece = stream.read(1 << 16)
        if not piece:
            return
        dropped += len(piece)


def _explain_errors(app: flask.Flask) -> None:
    @app.errorhandler(ProblemError)
    def problem(error: ProblemError) -> flask.Response:
        return error.problem.response()

    @app.errorhandler(RequestEntityTooLarge)
    def too_large(_: RequestEntityTooLarge) -> flask.Response:
        detail = f"The request has more than {MAX_REQUEST_BYTES // 2**20} MiB. Send fewer or smaller images at once."
        return Problem(413, "too-large", detail).response()

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> flask.Response:
        headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
        return Problem(error.code or 500, "blank", error.description or error.name, headers=headers).response()


def _operations(lifecycle: Lifecycle, numbers: Metrics) -> flask.Blueprint:
    """Return the routes that Kubernetes and Prometheus ask."""
    routes = flask.Blueprint(OPERATIONS, __name__)

    @routes.get("/livez")
    def livez() -> ResponseReturnValue:
        return flask.Response("ok\n", mimetype="text/plain")

    @routes.get("/readyz")
    def readyz() -> ResponseReturnValue:
        problem = lifecycle.problem
        if problem is None:
            return {"status": "ready", **lifecycle.identity()}
        members = {**problem.members, **lifecycle.identity()}
        return Problem(problem.status, problem.kind, problem.detail, members, problem.headers).response()

    @routes.get("/drain")
    def drain() -> ResponseReturnValue:
        """Be called by the preStop hook: answers when the endpoints had time to forget this pod."""
        if not ipaddress.ip_address(flask.request.remote_addr or "0.0.0.0").is_loopback:  # noqa: S104 - not an address to bind
            raise ProblemError(Problem(403, "forbidden", "Only this pod's own preStop hook may drain it."))
        lifecycle.drain()
        lifecycle.hold()
        return flask.Response("drained\n", mimetype="text/plain")

    @routes.get("/metrics")
    def prometheus() -> ResponseReturnValue:
        return flask.Response(numbers.text(), content_type=metrics.CONTENT_TYPE)

    return routes


def _answers(lifecycle: Lifecycle, numbers: Metrics) -> flask.Blueprint:
    """Return the routes that users ask."""
    routes = flask.Blueprint("answers", __name__)
    routes.before_request(lifecycle.asked)

    def ask(*, with_thumbnail: bool = False) -> Scored:
        request = flask.request
        with lifecycle.places.serving(request.content_length, lambda: scoring.read(request)) as sent:
            scored = scoring.score(lifecycle.model, scoring.images_of(sent), with_thumbnail=with_thumbnail)
        numbers.images.inc(len(scored.predictions))
        return scored

    @routes.get("/")
    def healthy() -> ResponseReturnValue:
        return flask.Response("Healthy", mimetype="text/html")

    @routes.get("/version")
    def version() -> ResponseReturnValue:
        best = flask.request.accept_mimetypes.best_match(["text/plain", "application/json"], "text/plain")
        if best == "application/json":
            return {"runtime": onnxruntime.__version__, **lifecycle.identity()}
        return flask.Response(onnxruntime.__version__, mimetype="text/plain")

    @routes.post("/score")
    def score() -> ResponseReturnValue:
        # the first generation's spaces too: json.dumps, not Flask's compact form
        return flask.Response(json.dumps(ask().document()), mimetype="application/json")

    @routes.get("/try")
    def form() -> ResponseReturnValue:
        return _page(lifecycle)

    @routes.post("/try")
    def answer() -> ResponseReturnValue:
        if flask.request.mimetype != "multipart/form-data":
            detail = "Send the form of this page, with a photo in it."
            return _page(lifecycle, problem=Problem(415, "unsupported-media-type", detail))
        try:
            return _page(lifecycle, scored=ask(with_thumbnail=True))
        except RequestEntityTooLarge:
            detail = f"The photo has more than {MAX_REQUEST_BYTES // 2**20} MiB. Choose a smaller one."
            return _page(lifecycle, problem=Problem(413, "too-large", detail))

    @routes.errorhandler(ProblemError)
    def problem(error: ProblemError) -> ResponseReturnValue:
        of_page = flask.request.path == flask.url_for("answers.form")
        return _page(lifecycle, problem=error.problem) if of_page else error.problem.response()

    return routes


def _page(
    lifecycle: Lifecycle, *, scored: Scored | None = None, problem: Problem | None = None
) -> tuple[str, int, dict[str, str]]:
    """Return the page for people, with the answer or the problem if there is one."""
    view: dict[str, Any] = {"identity": lifecycle.identity(), "formats": FORMATS, "problem": problem}
    view["not_ready"] = lifecycle.problem
    if scored is not None:
        view["predictions"] = [(label, 100 * confidence) for label, confidence in scored.predictions[-1]]
        view["milliseconds"] = scored.milliseconds
        view["photo"] = base64.b64encode(scored.thumbnail or b"").decode()
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-store"}
    headers |= problem.headers if problem else {}
    return flask.render_template("try.html", **view), problem.status if problem else 200, headers
