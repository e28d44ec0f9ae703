"""Queue: take one target further. A message is a target's name and nothing else."""

import logging

import azure.functions as func

from shipmate import wiring

blueprint = func.Blueprint()


@blueprint.function_name("advance")
@blueprint.queue_trigger(arg_name="message", queue_name="%SHIPMATE_QUEUE%", connection="AzureWebJobsStorage")
def advance(message: func.QueueMessage) -> None:
    """Advance the target; an error makes the queue deliver the message again."""
    target = message.get_body().decode()
    logging.info("%s %s", target, wiring.pipeline().advance(target))  # noqa: LOG015 - the worker follows the root logger
