"""The relay's HTTP side: publishing as in Azure, the registry's notifications, and the control API."""

import secrets
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from localcloud.eventgrid.events import MAX_EVENT_BYTES, BadEvent, parse_published
from localcloud.eventgrid.faults import BadFault, parse_fault
from localcloud.eventgrid.grid import Grid
from localcloud.eventgrid.registry_notifications import BadEnvelope, parse_envelope
from localcloud.eventgrid.subscriptions import ACCESS_KEY, REGISTRY_TOPIC, BadSubscription, parse_subscription

_CODES = {400: "BadRequest", 401: "Unauthorized", 404: "NotFound", 413: "RequestEntityTooLarge"}


def build(grid: Grid) -> Starlette:
    """Return the application over a grid that runs."""
    server = _Server(grid)
    return Starlette(
        routes=[
            Route("/healthz", server.health),
            Route("/topics", server.topics),
            Route("/topics/{topic}", server.put_topic, methods=["PUT"]),
            Route("/topics/{topic}/api/events", server.publish, methods=["POST"]),
            Route("/sources/registry", server.take_notifications, methods=["POST"]),
            Route("/subscriptions", server.subscriptions),
            Route("/subscriptions/{name}", server.put_subscription, methods=["PUT"]),
            Route("/subscriptions/{name}", server.delete_subscription, methods=["DELETE"]),
            Route("/subscriptions/{name}/validate", server.validate),
            Route("/faults", server.faults),
            Route("/faults", server.add_fault, methods=["POST"]),
            Route("/faults", server.remove_faults, methods=["DELETE"]),
            Route("/faults/{number:int}", server.remove_faults, methods=["DELETE"]),
            Route("/events", server.events),
            Route("/deliveries", server.deliveries),
            Route("/stats", server.stats),
        ],
        exception_handlers={HTTPException: _problem},
    )


class _Server:
    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    async def health(self, _request: Request) -> Response:
        return PlainTextResponse("Healthy")

    # -- as in Azure

    async def publish(self, request: Request) -> Response:
        """Take events: 200 when they are durable."""
        topic = request.path_params["topic"]
        topic_id = self._grid.store.topics().get(topic)
        if topic_id is None:
            raise HTTPException(404, f"there is no topic {topic!r}")
        key = request.headers.get("aeg-sas-key", "")
        if not secrets.compare_digest(key.encode(), ACCESS_KEY.encode()):
            raise HTTPException(401, f"the header aeg-sas-key is missing or wrong: here it is {ACCESS_KEY!r}")
        body = await request.body()
        try:
            self._grid.publish(topic, parse_published(body, topic_id))
        except BadEvent as error:
            raise HTTPException(413 if len(body) > MAX_EVENT_BYTES else 400, str(error)) from error
        return Response(status_code=200)

    # -- sources

    async def take_notifications(self, request: Request) -> Response:
        try:
            events = parse_envelope(await request.body())
        except BadEnvelope as error:
            raise HTTPException(400, str(error)) from error
        if events:
            self._grid.publish(REGISTRY_TOPIC, events)
        return Response(status_code=202)

    # -- control

    async def topics(self, _request: Request) -> Response:
        return JSONResponse(self._grid.store.topics())

    async def put_topic(self, request: Request) -> Response:
        document = await _json(request)
        resource_id = document.get("id") if isinstance(document, dict) else None
        if not isinstance(resource_id, str) or not resource_id:
            raise HTTPException(400, 'send {"id": "/subscriptions/…"}, the resource id of the topic')
        self._grid.store.put_topic(request.path_params["topic"], resource_id)
        return Response(status_code=204)

    async def subscriptions(self, _request: Request) -> Response:
        listed = [
            {**msgspec.to_builtins(subscription), "active": active, "error": error}
            for subscription, active, _, error in self._grid.store.subscriptions()
        ]
        return JSONResponse(listed)

    async def put_subscription(self, request: Request) -> Response:
        """Make or change a subscription: 202, for its endpoint is validated after."""
        document = await _json(request)
        name = request.path_params["name"]
        if isinstance(document, dict):
            document = {**document, "name": name}
        try:
            self._grid.subscribe(parse_subscription(document))
        except BadSubscription as error:
            raise HTTPException(400, str(error)) from error
        return Response(status_code=202)

    async def delete_subscription(self, request: Request) -> Response:
        self._grid.unsubscribe(request.path_params["name"])
        return Response(status_code=204)

    async def validate(self, request: Request) -> Response:
        if not self._grid.validate_by_hand(request.path_params["name"], request.query_params.get("code", "")):
            raise HTTPException(404, "no subscription of this name waits for this code")
        return PlainTextResponse("The subscription is active.")

    async def faults(self, _request: Request) -> Response:
        return JSONResponse(self._grid.faults.listed())

    async def add_fault(self, request: Request) -> Response:
        try:
            number = self._grid.faults.add(parse_fault(await _json(request)))
        except BadFault as error:
            raise HTTPException(400, str(error)) from error
        return JSONResponse({"number": number}, status_code=201)

    async def remove_faults(self, request: Request) -> Response:
        self._grid.faults.remove(request.path_params.get("number"))
        return Response(status_code=204)

    async def events(self, request: Request) -> Response:
        return JSONResponse(
            self._grid.store.listed_events(_number(request, "after", 0), _number(request, "limit", 500))
        )

    async def deliveries(self, request: Request) -> Response:
        after, limit = _number(request, "after", 0), _number(request, "limit", 500)
        return JSONResponse(
            self._grid.store.listed_deliveries(after, limit, request.query_params.get("subscription") or None)
        )

    async def stats(self, _request: Request) -> Response:
        return JSONResponse(self._grid.store.stats())


async def _json(request: Request) -> Any:
    try:
        return msgspec.json.decode(await request.body())
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is no JSON: {error}") from error


def _number(request: Request, name: str, usual: int) -> int:
    text = request.query_params.get(name, str(usual))
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise HTTPException(400, f"{name} must be a number, and is {text[:30]!r}")
    return int(text)


async def _problem(_request: Request, error: Exception) -> Response:
    """Answer an error as Event Grid does."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = error.detail if isinstance(error, HTTPException) else "the relay failed; see its log"
    body = {"error": {"code": _CODES.get(status, "Error"), "message": detail}}
    return JSONResponse(body, status_code=status)
