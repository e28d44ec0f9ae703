"""HTTP: what people ask of a target, and what they are shown. `shipmate.commands` has the meaning of each."""

import re
import uuid
from collections.abc import Callable

import azure.functions as func

from functions.problems import answered, read_body
from shipmate import wiring
from shipmate.commands import Answer, Commands, HoldBody, ReleaseBody, RollbackBody
from shipmate.errors import Invalid

blueprint = func.Blueprint()

_KEY = re.compile(r"[\x21-\x7e]{1,128}")


@blueprint.function_name("targets")
@blueprint.route(route="targets", methods=["GET"])
def targets(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/targets: where every target stands."""
    return answered(lambda: wiring.commands().statuses())


@blueprint.function_name("target")
@blueprint.route(route="targets/{target}", methods=["GET"])
def target(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/targets/{target}: where one target stands, and what happens next."""
    return answered(lambda: wiring.commands().status(req.route_params["target"]))


@blueprint.function_name("releases")
@blueprint.route(route="targets/{target}/releases", methods=["GET"])
def releases(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/targets/{target}/releases: all releases, newest first."""
    return answered(lambda: wiring.commands().releases(req.route_params["target"]))


@blueprint.function_name("release")
@blueprint.route(route="targets/{target}/releases/{release}", methods=["GET"])
def release(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/targets/{target}/releases/{release}: one release with its stages, its gate report and its costs."""
    return answered(lambda: wiring.commands().history(req.route_params["target"], req.route_params["release"]))


@blueprint.function_name("request")
@blueprint.route(route="targets/{target}/requests/{request}", methods=["GET"])
def request(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/targets/{target}/requests/{request}: what became of a command."""
    return answered(lambda: wiring.commands().request(req.route_params["target"], req.route_params["request"]))


@blueprint.function_name("request_release")
@blueprint.route(route="targets/{target}/releases", methods=["POST"])
def request_release(req: func.HttpRequest) -> func.HttpResponse:
    """POST /api/targets/{target}/releases: release the newest pair, or an explicit one."""
    return _command(req, ReleaseBody, lambda commands: commands.release)


@blueprint.function_name("request_rollback")
@blueprint.route(route="targets/{target}/rollback", methods=["POST"])
def request_rollback(req: func.HttpRequest) -> func.HttpResponse:
    """POST /api/targets/{target}/rollback: go back to a release that was live before, and stay there."""
    return _command(req, RollbackBody, lambda commands: commands.rollback)


@blueprint.function_name("hold")
@blueprint.route(route="targets/{target}/hold", methods=["POST"])
def hold(req: func.HttpRequest) -> func.HttpResponse:
    """POST /api/targets/{target}/hold: nothing new ships."""
    return _command(req, HoldBody, lambda commands: commands.hold)


@blueprint.function_name("resume")
@blueprint.route(route="targets/{target}/resume", methods=["POST"])
def resume(req: func.HttpRequest) -> func.HttpResponse:
    """POST /api/targets/{target}/resume: lift the hold."""
    return _command(req, HoldBody, lambda commands: commands.resume)


def _command[Body: (ReleaseBody, RollbackBody, HoldBody)](
    req: func.HttpRequest, kind: type[Body], verb: Callable[[Commands], Callable[[str, str, str, Body], Answer]]
) -> func.HttpResponse:
    name = req.route_params["target"]
    key = req.headers.get("idempotency-key") or uuid.uuid4().hex

    def run() -> Answer:
        if not _KEY.fullmatch(key):
            raise Invalid("the header Idempotency-Key holds up to 128 visible ASCII characters, no spaces")
        body = read_body(req, kind)
        return verb(wiring.commands())(name, key, _author(req, body.author), body)

    return answered(run, {"Location": f"/api/targets/{name}/requests/{key}"})


def _author(req: func.HttpRequest, named: str | None) -> str:
    """Return who asks: the person who signed in (App Service authentication), else whom the body names."""
    signed_in: str | None = req.headers.get("x-ms-client-principal-name")
    if signed_in:
        return signed_in
    if named:
        return named
    raise Invalid('say who asks: sign in, or give "author" in the body')
