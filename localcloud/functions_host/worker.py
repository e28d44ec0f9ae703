"""The seam to Microsoft's worker runtime, PyPI `azure-functions-runtime`: the only module that knows its insides.

Written against 1.3.0, which constraints.txt pins and a test compares: `native_invocation` is its entry for hosts
without protobuf and is not a public interface, and the message classes it fills are injected, so plain ones do. Its
registry of functions is global: one app a process.
"""

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import azure_functions_runtime as runtime
from azure_functions_runtime import native_invocation
from azure_functions_runtime.bindings.datumdef import Datum

from localcloud.functions_host.errors import AppError

RUNTIME_VERSION = "1.3.0"
"""The version of azure-functions-runtime this module was written against."""

current_invocation = runtime.invocation_id_cv
"""The id of the invocation the current task or pool thread works on, for log lines."""


@dataclass(frozen=True)
class Value:
    """What goes in and out of a function: `kind` is string, bytes or json (then `data` is JSON text)."""

    kind: str
    data: str | bytes


@dataclass(frozen=True)
class HttpCall:
    """A request for an HTTP function, its header names in lower case."""

    method: str
    url: str
    headers: Mapping[str, str]
    route: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class HttpReply:
    """What an HTTP function answered, one header a line."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True)
class IndexedFunction:
    """A function as the runtime found it."""

    name: str
    id: str
    bindings: tuple[Mapping[str, Any], ...]
    has_retry_policy: bool


@dataclass(frozen=True)
class Result:
    """How an invocation ended: its return value and outputs, or the error and its traceback."""

    succeeded: bool
    returned: Value | HttpReply | None = None
    outputs: Mapping[str, Value] = field(default_factory=dict)
    error: str = ""
    traceback: str = ""


class _Message:
    """Stands for any of the runtime's protobuf messages: made by keyword, read by attribute."""

    Success, Failure = 1, 0

    def __init__(self, **fields: object) -> None:
        self.__dict__.update(fields)


class _BindingInfo(_Message):
    out, inout = 1, 2


setattr(_BindingInfo, "in", 0)  # the direction `in` is a Python keyword


class _Messages:
    """The runtime's `protos` module: a class for each name it asks for."""

    BindingInfo = _BindingInfo

    def __getattr__(self, name: str) -> type[_Message]:
        made = type(name, (_Message,), {})
        setattr(self, name, made)
        return made


async def start(app_dir: Path) -> list[IndexedFunction]:
    """Import the app, start the thread pool and return the functions. Raises AppError if the app does not import."""
    sys.path.insert(0, str(app_dir))
    spoken = logging.getLogger("azure.functions")
    spoken.addFilter(_is_news)
    spoken.setLevel(logging.CRITICAL)  # what goes wrong here is told once, by the error below
    runtime.start_threadpool_executor()
    messages = _Messages()
    request = SimpleNamespace(worker_init_request=SimpleNamespace(capabilities={}, function_app_directory=str(app_dir)))
    reply = await runtime.worker_init_request(
        SimpleNamespace(request=request, properties={"protos": messages, "host": "127.0.0.1"})
    )
    if reply.result.status != _Message.Success:
        last = reply.result.exception.stack_trace.rpartition("another exception occurred:\n\n")[2]
        raise AppError(f"the app in {app_dir} does not start:\n{last.rstrip()}")
    spoken.setLevel(logging.NOTSET)
    found = await runtime.functions_metadata_request(SimpleNamespace(request=None))
    if not found.function_metadata_results:
        raise AppError(f"the app in {app_dir} has no functions: is there a function_app.py that registers some?")
    return [
        IndexedFunction(
            name=function.name,
            id=function.function_id,
            bindings=tuple(json.loads(binding) for binding in function.raw_bindings),
            has_retry_policy=function.retry_options is not None,
        )
        for function in found.function_metadata_results
    ]


async def invoke(
    function_id: str,
    invocation_id: str,
    parameter: str,
    trigger: Value | HttpCall,
    metadata: Mapping[str, Value],
) -> Result:
    """Call a function with what triggered it; the trigger goes to its parameter of that name."""
    token = current_invocation.set(invocation_id)
    try:
        succeeded, returned, outputs, error, traceback = await native_invocation.invocation_request_native(
            invocation_id,
            function_id,
            [(parameter, _datum(trigger))],
            {name: _datum(value) for name, value in metadata.items()},
        )
    finally:
        current_invocation.reset(token)
    if not succeeded:
        return Result(succeeded=False, error=error, traceback=traceback)
    return Result(
        succeeded=True,
        returned=None if returned is None else _from_datum(returned),
        outputs={name: value for name, datum in outputs if isinstance(value := _from_datum(datum), Value)},
    )


def _datum(value: Value | HttpCall) -> Any:
    if isinstance(value, Value):
        return Datum(value.data, value.kind)

    def strings(mapping: Mapping[str, str]) -> dict[str, Any]:
        return {name: Datum(text, "string") for name, text in mapping.items()}

    return Datum(
        {
            "method": Datum(value.method, "string"),
            "url": Datum(value.url, "string"),
            "headers": strings(value.headers),
            "params": strings(value.route),
            "query": strings(value.query),
            "body": Datum(value.body, "bytes"),
        },
        "http",
    )


def _from_datum(datum: Any) -> Value | HttpReply:
    if datum.type != "http":
        return Value(kind=datum.type, data=datum.value)
    reply = datum.value
    headers = [(name, value.value) for name, value in reply["headers"].items()]
    for cookies in reply["cookies"] or ():
        headers += [("set-cookie", morsel.OutputString()) for morsel in cookies.values()]
    return HttpReply(int(reply["status_code"].value), tuple(headers), reply["body"].value)


def _is_news(record: logging.LogRecord) -> bool:
    """Drop what the host says itself: a failed invocation with its traceback."""
    return record.msg != "Native invocation failed"
