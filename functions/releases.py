"""HTTP: what people ask of a target (`shipmate.commands` has the meaning of each), and what they are shown (`.views`).

Each function reads for who has the role reader (GET), or commands for who has the role releaser (POST).
"""

import re
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import azure.functions as func

from functions.callers import Role, author_of, caller_of
from functions.openapi import KEY, document
from functions.problems import answered, read_body, taken
from shipmate import wiring
from shipmate.commands import Commands, HoldBody, ReleaseBody, ResumeBody, RollbackBody
from shipmate.errors import Invalid, NotFound
from shipmate.views import Answer, Views

blueprint = func.Blueprint()


@blueprint.function_name("targets")
@blueprint.route(route="targets", methods=["GET"])
def targets(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/targets: where every target stands."""
    return _view(req, lambda views: views.statuses())


@blueprint.function_name("target")
@blueprint.route(route="targets/{target}", methods=["GET"])
def target(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/targets/{target}: where one target stands, and what happens next."""
    return _view(req, lambda views: views.status(req.route_params["target"]))


@blueprint.function_name("releases")
@blueprint.route(route="targets/{target}/releases", methods=["GET"])
def releases(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/targets/{target}/releases: all releases, newest first."""
    return _view(req, lambda views: views.releases(req.route_params["target"]))


@blueprint.function_name("release")
@blueprint.route(route="targets/{target}/releases/{release}", methods=["GET"])
def release(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/targets/{target}/releases/{release}: one release with its stages, its gate report and its costs."""
    return _view(req, lambda views: views.history(req.route_params["target"], req.route_params["release"]))


@blueprint.function_name("plan")
@blueprint.route(route="targets/{target}/plan", methods=["GET"])
def plan(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/targets/{target}/plan: the newest pair that may ship, and what happens next."""
    return _view(req, lambda views: views.plan(req.route_params["target"]))


@blueprint.function_name("request")
@blueprint.route(route="targets/{target}/requests/{request}", methods=["GET"])
def request(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/targets/{target}/requests/{request}: what became of a command."""
    return _view(req, lambda views: views.request(req.route_params["target"], req.route_params["request"]))


@blueprint.function_name("before_resume")
@blueprint.route(route="targets/{target}/resume", methods=["GET"])
def before_resume(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/targets/{target}/resume: the hold, and what would ship if it were lifted."""
    return _view(req, lambda views: views.before_resume(req.route_params["target"]))


@blueprint.function_name("why")
@blueprint.route(route="targets/{target}/why", methods=["GET"])
def why(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/targets/{target}/why?of=…: what became of anything that a target's ledger knows."""
    return _view(req, lambda views: views.why(req.route_params["target"], req.params.get("of", "")))


@blueprint.function_name("why_anywhere")
@blueprint.route(route="why", methods=["GET"])
def why_anywhere(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/why?of=…: the same from every ledger, also of events that concern no target."""
    return _view(req, lambda views: views.why_anywhere(req.params.get("of", "")))


@blueprint.function_name("openapi")
@blueprint.route(route="openapi.json", methods=["GET"])
def openapi(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/openapi.json: this API, as OpenAPI 3.1 describes it."""
    return _view(req, lambda _: document())


@blueprint.function_name("request_release")
@blueprint.route(route="targets/{target}/releases", methods=["POST"])
def request_release(req: func.HttpRequest) -> func.HttpResponse:
    """POST /api/targets/{target}/releases: release the newest pair, or an explicit one."""
    return _command(req, "release", ReleaseBody, lambda commands: commands.release)


@blueprint.function_name("request_rollback")
@blueprint.route(route="targets/{target}/rollback", methods=["POST"])
def request_rollback(req: func.HttpRequest) -> func.HttpResponse:
    """POST /api/targets/{target}/rollback: go back to a release that was live before, and stay there."""
    return _command(req, "rollback", RollbackBody, lambda commands: commands.rollback)


@blueprint.function_name("hold")
@blueprint.route(route="targets/{target}/hold", methods=["POST"])
def hold(req: func.HttpRequest) -> func.HttpResponse:
    """POST /api/targets/{target}/hold: nothing new ships, or no new app, or no new model."""
    return _command(req, "hold", HoldBody, lambda commands: commands.hold)


@blueprint.function_name("resume")
@blueprint.route(route="targets/{target}/resume", methods=["POST"])
def resume(req: func.HttpRequest) -> func.HttpResponse:
    """POST /api/targets/{target}/resume: lift the hold; the answer says what ships."""
    return _command(req, "resume", ResumeBody, lambda commands: commands.resume)


def _view(req: func.HttpRequest, view: Callable[[Views], Any]) -> func.HttpResponse:
    def read() -> Any:
        caller_of(req, sign_in=wiring.settings().sign_in).check(Role.READER)
        return view(wiring.commands().views)

    return answered(read)


def _command[Body: (ReleaseBody, RollbackBody, HoldBody, ResumeBody)](
    req: func.HttpRequest,
    name: str,
    kind: type[Body],
    verb: Callable[[Commands], Callable[[str, str, str, Body], Answer]],
) -> func.HttpResponse:
    target = req.route_params["target"]
    key = (req.headers.get("idempotency-key") or uuid.uuid4().hex).strip('"')  # the draft has it as a quoted string

    def run() -> Answer:
        caller = caller_of(req, sign_in=wiring.settings().sign_in)
        if not re.fullmatch(KEY, key):
            raise Invalid(
                "the header Idempotency-Key holds up to 128 visible ASCII characters, none of them a space or one of "
                '" # % / ? \\'
            )
        body = read_body(req, kind)
        author, commands = author_of(caller, body.author), wiring.commands()
        if not caller.may(Role.RELEASER):
            with suppress(NotFound):
                commands.refuse(target, key, author, name, body.reason)
            caller.check(Role.RELEASER)
        return verb(commands)(target, key, author, body)

    return taken(run, f"/api/targets/{target}/requests/{key}")
