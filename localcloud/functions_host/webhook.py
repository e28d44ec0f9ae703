"""The Event Grid webhook, `/runtime/webhooks/eventgrid?functionName=NAME&code=KEY`, and its answers.

202 every event's function succeeded, 500 one failed, 404 unknown function, 401 wrong key, 400 another aeg-event-type or
a body that is no event. The handshakes of both schemas are answered here; the function does not see them.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from localcloud.functions_host.bindings import EventGridTrigger, Function
from localcloud.functions_host.invocations import Invocations
from localcloud.functions_host.keys import Keys
from localcloud.functions_host.worker import Value


class EventGridWebhook:
    """Takes deliveries for all Event Grid functions of the app."""

    def __init__(self, functions: Sequence[Function], invocations: Invocations, keys: Keys) -> None:
        self._functions = {
            function.name.lower(): function
            for function in functions
            if isinstance(function.trigger, EventGridTrigger) and not function.is_disabled
        }
        self._invocations = invocations
        self._keys = keys

    async def answer(self, request: Request) -> Response:
        """Answer a delivery or a handshake."""
        if not self._keys.opens_event_grid(request.query_params.get("code") or request.headers.get("x-functions-key")):
            return Response(status_code=401)
        name = request.query_params.get("functionName", "")
        function = self._functions.get(name.lower())
        if function is None:
            return PlainTextResponse(f"cannot find function: '{name}'", 404)
        if request.method == "OPTIONS":
            return _allow(request)
        match request.headers.get("aeg-event-type", "").lower():
            case "subscriptionvalidation":
                return _validate(await request.body())
            case "notification":
                return await self._deliver(function, await request.body())
            case "unsubscribe":
                return Response(status_code=202)
            case unknown:
                return PlainTextResponse(f"no such aeg-event-type: {unknown!r}", 400)

    async def _deliver(self, function: Function, body: bytes) -> Response:
        events = _objects_in(body)
        if not events:
            return PlainTextResponse("the body is no event: expected a JSON object or an array of them", 400)
        results = await asyncio.gather(
            *(self._invocations.run(function, Value("json", json.dumps(event))) for event in events)
        )
        if all(result.succeeded for result in results):
            return Response(status_code=202)
        return PlainTextResponse(f"Exception while executing function: {function.name}", 500)


def _allow(request: Request) -> Response:
    """Answer the CloudEvents abuse protection handshake."""
    origin = request.headers.get("webhook-request-origin")
    if not origin:
        return PlainTextResponse("the header WebHook-Request-Origin is missing", 400)
    rate = request.headers.get("webhook-request-rate", "*")
    return Response(headers={"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": rate})


def _validate(body: bytes) -> Response:
    """Answer the validation handshake of the Event Grid schema."""
    events = _objects_in(body)
    data = events[0].get("data") if events else None
    code = data.get("validationCode") if isinstance(data, dict) else None
    if not isinstance(code, str):
        return PlainTextResponse("the body is no validation event: data.validationCode is missing", 400)
    return JSONResponse({"validationResponse": code})


def _objects_in(body: bytes) -> list[dict[str, Any]]:
    """Return the events of a body, one object or an array of them; none if it is anything else."""
    try:
        document = json.loads(body)
    except ValueError:
        return []
    events = document if isinstance(document, list) else [document]
    return events if all(isinstance(event, dict) for event in events) else []
