"""From the bindings a function declares to what this host does for it; anything it cannot do is an error at start."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from localcloud.functions_host.configuration import HostOptions, connection_string, resolve
from localcloud.functions_host.errors import AppError
from localcloud.functions_host.keys import Level
from localcloud.functions_host.routes import Route, parse_route
from localcloud.functions_host.schedules import Schedule, parse_schedule
from localcloud.functions_host.worker import IndexedFunction


@dataclass(frozen=True)
class HttpTrigger:
    """Called by a request whose path is the route's; no methods means all."""

    parameter: str
    route: Route
    methods: frozenset[str]
    level: Level


@dataclass(frozen=True)
class EventGridTrigger:
    """Called by the Event Grid webhook, once an event."""

    parameter: str


@dataclass(frozen=True)
class QueueTrigger:
    """Called by a message of a storage queue."""

    parameter: str
    queue: str
    connection: str


@dataclass(frozen=True)
class TimerTrigger:
    """Called by the clock."""

    parameter: str
    schedule: Schedule
    run_on_startup: bool
    use_monitor: bool


@dataclass(frozen=True)
class QueueOutput:
    """Takes what the function put into the parameter to a storage queue."""

    parameter: str
    queue: str
    connection: str


@dataclass(frozen=True)
class HttpOutput:
    """The answer of an HTTP function."""

    parameter: str


type Trigger = HttpTrigger | EventGridTrigger | QueueTrigger | TimerTrigger


@dataclass(frozen=True)
class Function:
    """A function this host can run."""

    name: str
    id: str
    trigger: Trigger
    queue_outputs: tuple[QueueOutput, ...]
    http_output: HttpOutput | None
    bindings: tuple[Mapping[str, Any], ...]
    is_disabled: bool = False


def understand(
    found: Iterable[IndexedFunction], options: HostOptions, environment: Mapping[str, str]
) -> list[Function]:
    """Return the app's functions. Raises AppError for a binding this host does not know or that is wrongly set."""
    functions = [_Reader(one, options, environment).function() for one in found]
    for name, times in Counter(function.name.lower() for function in functions).items():
        if times > 1:
            raise AppError(f"{times} functions are called {name}: give each a name of its own")
    return functions


class _Reader:
    """Reads the bindings of one function."""

    def __init__(self, found: IndexedFunction, options: HostOptions, environment: Mapping[str, str]) -> None:
        self._found = found
        self._options = options
        self._environment = environment
        self._where = f"function {found.name}"

    def function(self) -> Function:
        """Return the function; see `understand`."""
        triggers: list[Trigger] = []
        queue_outputs: list[QueueOutput] = []
        http_output: HttpOutput | None = None
        for binding in self._found.bindings:
            match binding["type"]:
                case "httpTrigger":
                    triggers.append(self._http(binding))
                case "eventGridTrigger":
                    triggers.append(EventGridTrigger(binding["name"]))
                case "queueTrigger":
                    triggers.append(QueueTrigger(binding["name"], *self._queue(binding)))
                case "timerTrigger":
                    triggers.append(self._timer(binding))
                case "http":
                    http_output = HttpOutput(binding["name"])
                case "queue":
                    queue_outputs.append(QueueOutput(binding["name"], *self._queue(binding)))
                case unknown:
                    raise AppError(
                        f"{self._where}: the local Functions host does not know binding type {unknown} "
                        f"(parameter {binding['name']}); it knows httpTrigger, eventGridTrigger, queueTrigger, "
                        "timerTrigger, http and queue"
                    )
        if len(triggers) != 1:
            raise AppError(f"{self._where} has {len(triggers)} triggers: a function has exactly one")
        disabled = self._environment.get(f"AzureWebJobs.{self._found.name}.Disabled", "false")
        return Function(
            name=self._found.name,
            id=self._found.id,
            trigger=triggers[0],
            queue_outputs=tuple(queue_outputs),
            http_output=http_output,
            bindings=self._found.bindings,
            is_disabled=disabled.lower() in ("true", "1"),
        )

    def _text(self, binding: Mapping[str, Any], key: str) -> str:
        value = binding.get(key)
        if not isinstance(value, str) or not value:
            raise AppError(f"{self._where}: {binding['type']} (parameter {binding['name']}) needs {key}")
        return resolve(value, self._environment, f"{self._where}: {key} of {binding['type']}")

    def _queue(self, binding: Mapping[str, Any]) -> tuple[str, str]:
        where = f"{self._where}: {binding['type']} (parameter {binding['name']})"
        setting = binding.get("connection") or "AzureWebJobsStorage"
        return self._text(binding, "queueName").lower(), connection_string(setting, self._environment, where)

    def _timer(self, binding: Mapping[str, Any]) -> TimerTrigger:
        if self._found.has_retry_policy:
            raise AppError(f"{self._where}: the local Functions host does not know retry policies of timers")
        return TimerTrigger(
            parameter=binding["name"],
            schedule=parse_schedule(self._text(binding, "schedule"), self._where),
            run_on_startup=binding.get("runOnStartup") is True,
            use_monitor=binding.get("useMonitor") is not False,
        )

    def _http(self, binding: Mapping[str, Any]) -> HttpTrigger:
        level = str(binding.get("authLevel") or "FUNCTION").upper()
        if level not in ("ANONYMOUS", "FUNCTION", "ADMIN"):
            raise AppError(f"{self._where}: the local Functions host does not know the auth level {level}")
        route = binding.get("route")
        template = resolve(self._found.name if route is None else route, self._environment, f"{self._where}: route")
        full = f"{self._options.route_prefix}/{template.lstrip('/')}".strip("/")
        if full.partition("/")[0].lower() in ("admin", "runtime"):
            raise AppError(f"{self._where}: the route {full!r} is one of the host's own: choose another")
        return HttpTrigger(
            parameter=binding["name"],
            route=parse_route(full, self._where),
            methods=frozenset(method.upper() for method in binding.get("methods") or ()),
            level=Level[level],
        )
