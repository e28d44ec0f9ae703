"""A Function App with something of everything the local Functions host knows; each call leaves a line in RECORD."""

import asyncio
import base64
import json
import logging
import os
import signal
import time
from pathlib import Path
from typing import List  # noqa: UP035 - the worker refuses list[str]

import azure.functions as func

log = logging.getLogger("sample")
app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)


def record(function: str, **what: object) -> None:
    line = json.dumps({"function": function, "pid": os.getpid(), "at": time.time(), **what})
    with Path(os.environ["RECORD"]).open("a") as file:
        file.write(line + "\n")


def as_json(value: object) -> func.HttpResponse:
    return func.HttpResponse(json.dumps(value), mimetype="application/json")


@app.route(route="whoami", methods=["GET"])
def whoami(req: func.HttpRequest) -> func.HttpResponse:
    return as_json({"pid": os.getpid(), "folder": str(Path.cwd()), "setting": os.environ["FROM_SAMPLE"]})


@app.route(route="echo/{id:int}/{*rest}")
def echo(req: func.HttpRequest) -> func.HttpResponse:
    return as_json(
        {
            "method": req.method,
            "url": req.url,
            "headers": dict(req.headers),
            "query": dict(req.params),
            "route": dict(req.route_params),
            "body": base64.b64encode(req.get_body()).decode(),
        }
    )


@app.route(route="echo/special", methods=["GET"])
def special(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse("special")


@app.route(methods=["GET", "HEAD"])
def named_by_itself(req: func.HttpRequest) -> str:
    return "as text"


@app.route(route="guarded", methods=["GET"], auth_level=func.AuthLevel.FUNCTION)
def guarded(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse("in")


@app.route(route="vault", methods=["GET"], auth_level=func.AuthLevel.ADMIN)
def vault(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse("deep in")


@app.route(route="picture")
def picture(req: func.HttpRequest) -> func.HttpResponse:
    answer = func.HttpResponse(bytes(range(256)), mimetype="image/x-all", headers={"X-Release": "r-1"})
    answer.headers.add("Set-Cookie", "a=1; Path=/; HttpOnly")
    answer.headers.add("Set-Cookie", "b=2")
    return answer


@app.route(route="status/{code}")
def status(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(status_code=int(req.route_params["code"]))


@app.route(route="slow")
def slow(req: func.HttpRequest) -> func.HttpResponse:
    record("slow")
    time.sleep(float(req.params["seconds"]))
    return as_json({"pid": os.getpid()})


@app.route(route="slow-async")
async def slow_async(req: func.HttpRequest) -> func.HttpResponse:
    await asyncio.sleep(float(req.params["seconds"]))
    log.info("slept asynchronously")
    return as_json({"pid": os.getpid()})


@app.route(route="boom")
def boom(req: func.HttpRequest) -> func.HttpResponse:
    log.info("about to fail")
    raise ValueError("boom on purpose")


@app.route(route="fill", methods=["POST"])
@app.queue_output(arg_name="one", queue_name="%WORK_QUEUE%", connection="AzureWebJobsStorage")
@app.queue_output(arg_name="many", queue_name="%WORK_QUEUE%", connection="AzureWebJobsStorage")
def fill(req: func.HttpRequest, one: func.Out[str], many: func.Out[List[str]]) -> func.HttpResponse:  # noqa: UP006
    given = req.get_json()
    if "one" in given:
        one.set(given["one"])
    if "many" in given:
        many.set(given["many"])
    return func.HttpResponse(status_code=202)


@app.queue_trigger(arg_name="msg", queue_name="%COPY_QUEUE%", connection="AzureWebJobsStorage")
@app.queue_output(arg_name="$return", queue_name="%WORK_QUEUE%", connection="AzureWebJobsStorage")
def copy(msg: func.QueueMessage) -> str:
    return msg.get_body().decode()


@app.queue_trigger(arg_name="msg", queue_name="%WORK_QUEUE%", connection="AzureWebJobsStorage")
def worker(msg: func.QueueMessage, context: func.Context) -> None:
    body = msg.get_body().decode()
    task = json.loads(body) if body.startswith("{") else {"id": body}
    record(
        "worker",
        id=task["id"],
        message=msg.id,
        tries=msg.dequeue_count,
        inserted=msg.insertion_time.isoformat(),
        expires=msg.expiration_time.isoformat(),
        next_visible=msg.time_next_visible.isoformat(),
        receipt=msg.pop_receipt,
        invocation=context.invocation_id,
    )
    log.info("works on %s", task["id"])
    if task.get("kills"):
        os.kill(os.getpid(), signal.SIGKILL)
    if msg.dequeue_count <= task.get("slow_tries", 99):
        time.sleep(task.get("seconds", 0))
    record("worker done", id=task["id"])
    if task.get("fails", 0) >= msg.dequeue_count:
        raise ValueError(f"{task['id']} fails")


@app.event_grid_trigger(arg_name="event")
def on_event(event: func.EventGridEvent) -> None:
    kind = event.type if isinstance(event, func.CloudEvent) else event.event_type
    record("on_event", id=event.id, type=kind, data=event.get_json())
    if event.get_json().get("fails"):
        raise ValueError("this event fails")


@app.timer_trigger(arg_name="timer", schedule="%TICK_SCHEDULE%")
def tick(timer: func.TimerRequest) -> None:
    record("tick", past_due=timer.past_due, status=timer.schedule_status)  # type: ignore[attr-defined]


@app.timer_trigger(arg_name="timer", schedule="0 0 0 1 1 *", run_on_startup=True)
def at_start(timer: func.TimerRequest) -> None:
    record("at_start", past_due=timer.past_due)
