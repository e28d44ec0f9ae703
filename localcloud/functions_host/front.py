"""The HTTP side of an instance: the functions' routes, the Event Grid webhook and the admin API."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

from localcloud.functions_host.bindings import EventGridTrigger, Function, HttpTrigger, TimerTrigger
from localcloud.functions_host.invocations import Invocations
from localcloud.functions_host.keys import Keys
from localcloud.functions_host.logs import log
from localcloud.functions_host.webhook import EventGridWebhook
from localcloud.functions_host.worker import HttpCall, HttpReply, Result, Value

_BODILESS = frozenset({204, 304})


def build(
    functions: Sequence[Function],
    invocations: Invocations,
    keys: Keys,
    *,
    answer_seconds: float,
    status: dict[str, Any],
) -> Starlette:
    """Return the ASGI application; callers are let go after `answer_seconds`, `status` is what it tells of itself."""
    routes = _FunctionRoutes(functions, invocations, keys, answer_seconds)
    admin = _Admin(functions, invocations, keys, status)
    webhook = EventGridWebhook(functions, invocations, keys)
    application = Starlette(
        routes=[
            Route("/admin/host/ping", admin.ping, methods=["GET", "POST"]),
            Route("/admin/host/status", admin.host_status),
            Route("/admin/functions", admin.list_functions),
            Route("/admin/functions/{name}", admin.one_function, methods=["GET", "POST"]),
            Route("/runtime/webhooks/eventgrid", webhook.answer, methods=["POST", "OPTIONS"]),
            Mount("/", app=_asgi(routes.answer)),
        ]
    )
    application.router.redirect_slashes = False
    return application


def _asgi(answer: Callable[[Request], Any]) -> Any:
    async def call(scope: Any, receive: Any, send: Any) -> None:
        response: Response = await answer(Request(scope, receive))
        await response(scope, receive, send)

    return call


def _key(request: Request) -> str | None:
    return request.headers.get("x-functions-key") or request.query_params.get("code")


class _FunctionRoutes:
    """Finds the function of a request and lets it answer."""

    def __init__(
        self, functions: Sequence[Function], invocations: Invocations, keys: Keys, answer_seconds: float
    ) -> None:
        served = [
            (function.trigger, function)
            for function in functions
            if isinstance(function.trigger, HttpTrigger) and not function.is_disabled
        ]
        self._served = sorted(served, key=lambda one: (one[0].route.precedence, one[1].name))
        self._invocations = invocations
        self._keys = keys
        self._answer_seconds = answer_seconds

    async def answer(self, request: Request) -> Response:
        """Answer a request. A path or a method that no function serves is 404, as in Azure, HEAD included."""
        path = request.scope["path"]
        for trigger, function in self._served:
            route = None if trigger.methods and request.method not in trigger.methods else trigger.route.match(path)
            if route is not None:
                if not self._keys.opens_function(_key(request), function.name, trigger.level):
                    return Response(status_code=401)
                return await self._call(function, request, route)
        return Response(status_code=204 if path == "/" and request.method in ("GET", "HEAD") else 404)

    async def _call(self, function: Function, request: Request, route: dict[str, str]) -> Response:
        call = HttpCall(
            method=request.method,
            url=str(request.url),
            headers=_joined(request.headers.items()),
            route=route,
            query=_joined(request.query_params.multi_items()),
            body=await request.body(),
        )
        invocation = asyncio.ensure_future(self._invocations.run(function, call))
        done, _ = await asyncio.wait({invocation}, timeout=self._answer_seconds)
        if not done:
            log.warning("%s did not answer in %g s: the caller was let go", function.name, self._answer_seconds)
            return PlainTextResponse("The function did not answer in time.", 504)
        return _response(function, invocation.result())


def _joined(pairs: Any) -> dict[str, str]:
    """Join what comes several times with commas and drop what is empty, as the Functions host does."""
    joined: dict[str, str] = {}
    for name, value in pairs:
        if value:
            joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _response(function: Function, result: Result) -> Response:
    if not result.succeeded:
        return Response(status_code=500)
    answer = result.returned
    if function.http_output is None:
        return Response(status_code=204)
    if function.http_output.parameter != "$return":
        answer = result.outputs.get(function.http_output.parameter)
    if isinstance(answer, HttpReply):
        response = Response(answer.body, answer.status)
        own = [(name, value) for name, value in answer.headers if name.lower() != "content-length"]
        length = [] if answer.status in _BODILESS else [("content-length", str(len(answer.body)))]
        response.raw_headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in own + length
        ]
        if answer.status in _BODILESS:
            response.body = b""
        return response
    return Response(status_code=204) if answer is None else PlainTextResponse(answer.data)


class _Admin:
    """The part of the Functions admin API people use: status, the list of functions, starting one by hand."""

    def __init__(
        self, functions: Sequence[Function], invocations: Invocations, keys: Keys, status: dict[str, Any]
    ) -> None:
        self._functions = {function.name.lower(): function for function in functions}
        self._invocations = invocations
        self._keys = keys
        self._status = status
        self._running: set[asyncio.Task[Result]] = set()

    async def ping(self, request: Request) -> Response:  # noqa: ARG002 - Starlette passes it
        """Say that the host answers; open to all."""
        return Response()

    async def host_status(self, request: Request) -> Response:
        """Say which instance answers and since when it runs."""
        return JSONResponse(self._status) if self._keys.is_master(_key(request)) else Response(status_code=401)

    async def list_functions(self, request: Request) -> Response:
        """List the functions with their bindings."""
        if not self._keys.is_master(_key(request)):
            return Response(status_code=401)
        return JSONResponse([self._described(function, request) for function in self._functions.values()])

    async def one_function(self, request: Request) -> Response:
        """Describe a function, or (POST {"input": …}) start one that HTTP does not trigger: 202 at once."""
        if not self._keys.is_master(_key(request)):
            return Response(status_code=401)
        function = self._functions.get(request.path_params["name"].lower())
        if function is None:
            return Response(status_code=404)
        if request.method == "GET":
            return JSONResponse(self._described(function, request))
        if isinstance(function.trigger, HttpTrigger):
            return PlainTextResponse(f"{function.name} is called by its own address", 400)
        try:
            given = json.loads(await request.body() or b"{}").get("input") or ""
        except (ValueError, AttributeError):
            given = None
        if not isinstance(given, str):
            return PlainTextResponse('the body must be a JSON object: {"input": "…"}', 400)
        task = asyncio.create_task(self._invocations.run(function, _by_hand(function, given)))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return Response(status_code=202)

    def _described(self, function: Function, request: Request) -> dict[str, Any]:
        described: dict[str, Any] = {
            "name": function.name,
            "language": "python",
            "isDisabled": function.is_disabled,
            "config": {"bindings": list(function.bindings)},
        }
        if isinstance(function.trigger, HttpTrigger):
            described["invoke_url_template"] = f"{request.base_url}{function.trigger.route.template}"
        return described


def _by_hand(function: Function, given: str) -> Value:
    if isinstance(function.trigger, TimerTrigger):
        return Value("json", json.dumps({"IsPastDue": False, "Schedule": {"AdjustForDST": True}, "ScheduleStatus": {}}))
    return Value("json" if isinstance(function.trigger, EventGridTrigger) else "string", given)
