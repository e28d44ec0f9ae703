"""Timer: repair what no event told us, and take up what a dead worker left."""

import logging

import azure.functions as func

from shipmate import wiring

blueprint = func.Blueprint()


@blueprint.function_name("sweep")
@blueprint.timer_trigger(schedule="%SHIPMATE_SWEEP_SCHEDULE%", arg_name="timer", run_on_startup=False)
def sweep(timer: func.TimerRequest) -> None:
    """Sweep all targets."""
    repaired = {name: count for name, count in wiring.pipeline().sweep().items() if count}
    logging.info("sweep repaired %s", repaired or "nothing")  # noqa: LOG015 - the worker follows the root logger
