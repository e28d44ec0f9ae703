"""The people of a simulated history: how a happening becomes a command."""

from shipmate.commands import Commands, HoldBody, ReleaseBody, ResumeBody, RollbackBody
from shipmate.views import Answer
from tests.sim.plans import Happening


def give(commands: Commands, asked: Happening) -> Answer:
    """Give a command and return its answer. Raises as the command does."""
    name, key, live = asked.target, asked.key, asked.if_live
    match asked.what:
        case "rollback":
            return commands.rollback(name, key, "bo", RollbackBody(reason="worse", to=asked.to, if_live=live))
        case "resume":
            return commands.resume(name, key, "ana", ResumeBody(reason="go on"))
        case "release":
            body = ReleaseBody(reason="now", release=asked.to, override=asked.override, if_live=live)
            return commands.release(name, key, "ana", body)
        case _:
            return commands.hold(name, key, "ana", HoldBody(reason="stop", scope=asked.scope, if_live=live))
