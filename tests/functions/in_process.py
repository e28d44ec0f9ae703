"""The HTTP API in this process: the local Functions host's own front, with its routes and keys, over a world in memory.

Only the worker between the two is left out: a function is called here with the request that the worker would make.
"""

import asyncio
import base64
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import azure.functions as func
import httpx
import pytest
from starlette.applications import Starlette

from functions.callers import auth_level
from localcloud.functions_host.bindings import Function, understand
from localcloud.functions_host.configuration import read_host_json
from localcloud.functions_host.front import build
from localcloud.functions_host.keys import Keys
from localcloud.functions_host.worker import HttpCall, HttpReply, IndexedFunction, Result
from shipmate import wiring
from shipmate.settings import read_settings
from tests.world import World

ROOT = Path(__file__).parents[2]
HOST_KEY = "host-key"
KEYS = Keys(master="master-key", host={"default": HOST_KEY}, system={"eventgrid_extension": "webhook-key"})
ENVIRONMENT = {
    "SHIPMATE_STORAGE": "https://account.blob.core.windows.net",
    "AzureWebJobsStorage": "UseDevelopmentStorage=true",
    "SHIPMATE_REGISTRY": "registry.azurecr.io",
    "SHIPMATE_CLUSTER": "in-cluster",
    "SHIPMATE_TARGETS": "examples/targets.yaml",
}


@dataclass(frozen=True)
class Client:
    """Asks an application; with the key, unless a header gives another or none ("")."""

    application: Starlette
    headers: Mapping[str, str]

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", path, content=content, headers=headers)

    def ask(self, method: str, path: str, *, headers: Mapping[str, str], **request: Any) -> httpx.Response:
        given = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.application)
            async with httpx.AsyncClient(transport=transport, base_url="http://api.test", headers=given) as client:
                return await client.request(method, f"/api/{path}", **request)

        return asyncio.run(ask())


class _Called:
    """Calls functions in place of the worker; what a function raises is a failure that the host answers with 500."""

    def __init__(self, found: Sequence[Any]) -> None:
        self._functions = {each.get_function_name(): each.get_user_function() for each in found}

    async def run(self, function: Function, call: HttpCall) -> Result:
        request = func.HttpRequest(
            method=call.method,
            url=call.url,
            headers=dict(call.headers),
            params=dict(call.query),
            route_params=dict(call.route),
            body=call.body,
        )
        try:
            reply = self._functions[function.name](request)
        except Exception as error:  # noqa: BLE001 - as the worker does
            return Result(succeeded=False, error=repr(error), traceback=repr(error))
        headers = (*reply.headers.items(), ("content-type", reply.mimetype))
        return Result(succeeded=True, returned=HttpReply(reply.status_code, headers, reply.get_body()))


def application(*, sign_in: bool = False, keys: Keys = KEYS) -> Starlette:
    """Return the front of the Functions host over the HTTP functions, read anew: a level, once set, stays."""
    spec = importlib.util.spec_from_file_location("releases_read_anew", ROOT / "functions" / "releases.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    app = func.FunctionApp(http_auth_level=auth_level({"WEBSITE_AUTH_ENABLED": str(sign_in)}))
    app.register_functions(module.blueprint)
    found = app.get_functions()
    indexed = [
        IndexedFunction(
            each.get_function_name(),
            "",
            tuple(json.loads(each.get_function_json())["bindings"]),
            has_retry_policy=False,
        )
        for each in found
    ]
    functions = understand(indexed, read_host_json(ROOT), ENVIRONMENT)
    return build(functions, _Called(found), keys, answer_seconds=30, status={})  # type: ignore[arg-type] # in its place


@contextmanager
def api(world: World, *, sign_in: bool = False, keys: Keys = KEYS) -> Iterator[Client]:
    """Yield a client of the API over a world: with the host's key where that is asked for."""
    settings = read_settings({**ENVIRONMENT, "WEBSITE_AUTH_ENABLED": str(sign_in)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wiring, "commands", world.commands)
        patch.setattr(wiring, "settings", lambda: settings)
        yield Client(application(sign_in=sign_in, keys=keys), {} if sign_in else {"x-functions-key": HOST_KEY})


def signed_in(name: str, *roles: str, claim: str = "roles", role_typ: str = "") -> dict[str, str]:
    """Return the headers that App Service sets for somebody who signed in."""
    claims = [{"typ": "name", "val": name}, *({"typ": claim, "val": role} for role in roles)]
    principal = {"auth_typ": "aad", "claims": claims, "name_typ": "name", "role_typ": role_typ}
    encoded = base64.b64encode(json.dumps(principal).encode()).decode()
    return {"X_MS_CLIENT_PRINCIPAL": encoded, "X_MS_CLIENT_PRINCIPAL_NAME": name}
