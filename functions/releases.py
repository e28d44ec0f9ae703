"""HTTP: what people ask of a target, and what they are shown. `shipmate.commands` has the meaning of each."""

import re
import uuid
from collections.abc import Callable

import azure.functions as func

from functions.problems import answered, read_body
from shipmate import wiring
from shipmate.commands import Answer, Commands, HoldBody, ReleaseBody, ResumeBody, RollbackBody
from shipmate.errors import Invalid

blueprint = func.Blueprint()

LONGEST_AUTHOR = 200
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


@blueprint.function_name("plan")
@blueprint.route(route="targets/{target}/plan", methods=["GET"])
def plan(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/targets/{target}/plan: the newest pair that may ship, and what happens next."""
    return answered(lambda: wiring.commands().plan(req.route_params["target"]))


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
    return _command(req, ResumeBody, lambda commands: commands.resume)


def _command[Body: (ReleaseBody, RollbackBody, HoldBody, ResumeBody)](
    req: func.HttpRequest, kind: type[Body], verb: Callable[[Commands], Callable[[str, str, str, Body], Answer]]
) -> func.HttpResponse:
    name = req.route_params["target"]
    key = req.headers.get("idempotency-key") or uuid.uuid4().hex

    def run() -> Answer:
        if not _KEY.fullmatch(key):
            raise Invalid("the header Idempotency-Key holds up to 128 visible ASCII characters, no spaces")
        body = read_body(req, kind)
        author = author_of(req, body.author, sign_in=wiring.settings().sign_in)
        return verb(wiring.commands())(name, key, author, body)

    return answered(run, {"Location": f"/api/targets/{name}/requests/{key}"})


def author_of(req: func.HttpRequest, named: str | None, *, sign_in: bool) -> str:
    """Return who asks: the person who signed in, else whom the body names. Raises Invalid.

    Where App Service authentication is on (`sign_in`), it sets the header and removes what callers sent under that
    name; where it is off, anybody could have written it, and it counts for nothing.
    Source: "Work with user identities in Azure App Service authentication".
    """
    signed_in: str | None = req.headers.get("x-ms-client-principal-name") if sign_in else None
    author = (signed_in or named or "").strip()
    if not author:
        raise Invalid('say who asks: sign in, or give "author" in the body')
    if len(author) > LONGEST_AUTHOR or not author.isprintable():
        raise Invalid(f"an author's name has at most {LONGEST_AUTHOR} characters, and no control characters")
    return author
