"""The host's parts that need no process: routes, schedules, host.json, settings, keys, the seam's version."""

import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from localcloud.config import Cloud
from localcloud.functions_host import configuration, keys, keys_file, program
from localcloud.functions_host.bindings import understand
from localcloud.functions_host.errors import AppError
from localcloud.functions_host.routes import parse_route
from localcloud.functions_host.schedules import parse_schedule
from localcloud.functions_host.worker import RUNTIME_VERSION, IndexedFunction


@pytest.mark.parametrize(
    ("template", "path", "parameters"),
    [
        ("api/x", "/api/x", {}),
        ("api/x", "/API/X/", {}),
        ("api/x", "/api/x/y", None),
        ("api/{a}", "/api/", None),
        ("api/{a}/{b}", "/api/1/2", {"a": "1", "b": "2"}),
        ("api/{a?}", "/api", {}),
        ("api/{a?}", "/api/1", {"a": "1"}),
        ("api/{a=7}", "/api", {"a": "7"}),
        ("api/{name}.{ext}", "/api/a.b.c", {"name": "a", "ext": "b.c"}),
        ("api/v{n:int}", "/api/v12", {"n": "12"}),
        ("api/v{n:int}", "/api/vx", None),
        ("{*all}", "/", {}),
        ("{*all}", "/a/b", {"all": "a/b"}),
        ("x/{**all}", "/x/a/b", {"all": "a/b"}),
        ("{n:int}", "/2147483648", None),
        ("{n:long}", "/-2147483649", {"n": "-2147483649"}),
        ("{n:bool}", "/True", {"n": "True"}),
        ("{n:alpha}", "/ab1", None),
        ("{n:guid}", "/512d38b6-c7b8-40c8-89fe-f46f9e9622b6", {"n": "512d38b6-c7b8-40c8-89fe-f46f9e9622b6"}),
        ("{n:guid}", "/512", None),
        ("{n:double}", "/1e3", {"n": "1e3"}),
        ("{n:decimal}", "/x", None),
        ("{n:int:min(3)}", "/2", None),
        ("{n:max(3)}", "/3", {"n": "3"}),
        ("{n:range(3,5)}", "/6", None),
        ("{n:length(2)}", "/abc", None),
        ("{n:length(2,3)}", "/abc", {"n": "abc"}),
        ("{n:minlength(2)}", "/a", None),
        ("{n:maxlength(2)}", "/ab", {"n": "ab"}),
    ],
)
def test_routes(template: str, path: str, parameters: dict[str, str] | None) -> None:
    assert parse_route(template, "here").match(path) == parameters


def test_the_special_route_comes_before_the_general() -> None:
    templates = ["a/{*rest}", "a/{b}", "a/{*rest:alpha}", "a/b", "a/{b:int}"]
    ordered = sorted((parse_route(template, "here") for template in templates), key=lambda route: route.precedence)
    assert [route.template for route in ordered] == ["a/b", "a/{b:int}", "a/{b}", "a/{*rest:alpha}", "a/{*rest}"]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a/{b", "function f: cannot read the route segment '{b' of 'a/{b'"),
        ("{a}/{a}", "function f: the route '{a}/{a}' names {a} twice"),
        ("{*a}/b", "function f: {*a} must be the whole last segment of the route '{*a}/b'"),
        ("{a?}/b", "function f: {a?} must be the whole last segment of the route '{a?}/b'"),
        ("{a:int(x)}", "function f: int(x) in the route '{a:int(x)}' has wrong arguments"),
    ],
)
def test_routes_that_are_not_understood(template: str, message: str) -> None:
    with pytest.raises(AppError) as caught:
        parse_route(template, "function f")
    assert str(caught.value) == message


def test_an_unknown_constraint_names_the_known() -> None:
    with pytest.raises(AppError, match=r"does not know the constraint 'colour' of the route .*; it knows int, long"):
        parse_route("{a:colour}", "function f")


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        ("0 */5 * * * *", "2024-01-01T00:00:00", "2024-01-01T00:05:00"),
        ("*/5 * * * *", "2024-01-01T00:00:00", "2024-01-01T00:05:00"),
        ("*/10 * * * * *", "2024-01-01T00:00:09.5", "2024-01-01T00:00:10"),
        ("30 15 10 * * MON-FRI", "2024-01-05T11:00:00", "2024-01-08T10:15:30"),
        ("0 0 0 13 * 5", "2024-01-01T00:00:00", "2024-09-13T00:00:00"),
        ("00:00:30", "2024-01-01T00:00:10", "2024-01-01T00:00:40"),
    ],
    ids=["five minutes", "five fields", "seconds", "names", "day and weekday both", "time span"],
)
def test_schedules(schedule: str, after: str, expected: str) -> None:
    moment = datetime.fromisoformat(after).replace(tzinfo=UTC)
    assert parse_schedule(schedule, "here").next_after(moment) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


def test_only_schedules_of_a_minute_and_more_are_monitored() -> None:
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    assert parse_schedule("0 * * * * *", "here").is_monitored(moment)
    assert not parse_schedule("*/30 * * * * *", "here").is_monitored(moment)


@pytest.mark.parametrize(
    "text", ["", "* * *", "0 0 0 31 2 *", "61 * * * * *", "0 0 0 L * *", "0 0 0 * * 7", "0 0 0 * * 5#2"]
)
def test_schedules_that_azure_would_not_take(text: str) -> None:
    with pytest.raises(AppError) as caught:
        parse_schedule(text, "function f")
    assert str(caught.value).startswith(f"function f: {text!r} is not a schedule (")
    assert str(caught.value).endswith('write six fields, second minute hour day month weekday, such as "0 */5 * * * *"')


QUEUE = {"type": "queueTrigger", "name": "m", "queueName": "q", "connection": "AzureWebJobsStorage"}
TIMER = {"type": "timerTrigger", "name": "t", "schedule": "0 * * * * *"}
HTTP = {"type": "httpTrigger", "name": "req", "route": "x", "authLevel": "FUNCTION"}


def found(name: str, *bindings: dict[str, Any], has_retry_policy: bool = False) -> IndexedFunction:
    return IndexedFunction(name, f"id of {name}", bindings, has_retry_policy)


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        pytest.param(
            [found("f", QUEUE, {"type": "blob", "name": "out"})],
            "function f: the local Functions host does not know binding type blob (parameter out); "
            "it knows httpTrigger, eventGridTrigger, queueTrigger, timerTrigger, http and queue",
            id="unknown binding",
        ),
        pytest.param(
            [found("f", {**TIMER, "schedule": "%NOT_SET%"})],
            "function f: schedule of timerTrigger refers to the app setting NOT_SET, which is not set: "
            "set it in the environment or under Values in local.settings.json",
            id="setting",
        ),
        pytest.param(
            [found("f", TIMER, has_retry_policy=True)],
            "function f: the local Functions host does not know retry policies of timers",
            id="retry",
        ),
        pytest.param(
            [found("f", {**QUEUE, "connection": "ELSEWHERE"})],
            "function f: queueTrigger (parameter m) connects by the app setting ELSEWHERE, which is not set: "
            "set it to a storage connection string (identity-based connections are for Azure only)",
            id="connection",
        ),
        pytest.param(
            [found("f", {**QUEUE, "queueName": ""})],
            "function f: queueTrigger (parameter m) needs queueName",
            id="member",
        ),
        pytest.param(
            [found("f", {**HTTP, "authLevel": "USER"})],
            "function f: the local Functions host does not know the auth level USER",
            id="level",
        ),
        pytest.param([found("f")], "function f has 0 triggers: a function has exactly one", id="no trigger"),
        pytest.param([found("f", TIMER, HTTP)], "function f has 2 triggers: a function has exactly one", id="triggers"),
        pytest.param(
            [found("f", TIMER), found("F", HTTP)], "2 functions are called f: give each a name of its own", id="names"
        ),
    ],
)
def test_functions_that_cannot_run_here(functions: list[IndexedFunction], message: str) -> None:
    with pytest.raises(AppError) as caught:
        understand(functions, configuration.HostOptions(), {"AzureWebJobsStorage": "A=1"})
    assert str(caught.value) == message


def test_a_route_of_the_hosts_own_is_refused() -> None:
    with pytest.raises(AppError, match="function f: the route 'admin/x' is one of the host's own: choose another"):
        understand([found("f", {**HTTP, "route": "admin/x"})], configuration.HostOptions(route_prefix=""), {})


def test_a_function_may_be_disabled() -> None:
    settings = {"AzureWebJobs.f.Disabled": "TRUE", "AzureWebJobs.g.Disabled": "0"}
    functions = understand([found("f", TIMER), found("g", TIMER)], configuration.HostOptions(), settings)
    assert [function.is_disabled for function in functions] == [True, False]


def app(folder: Path, document: Any) -> Path:
    text = document if isinstance(document, str) else json.dumps(document)
    (folder / "host.json").write_text(text)
    return folder


def test_host_json_has_azures_defaults(tmp_path: Path) -> None:
    assert configuration.read_host_json(app(tmp_path, {"version": "2.0"})) == configuration.HostOptions()


def test_host_json_is_read(tmp_path: Path) -> None:
    document = {
        "version": "2.0",
        "functionTimeout": "1.00:00:30",
        "logging": {"logLevel": {"default": "Warning"}},
        "extensions": {
            "http": {"routePrefix": "/v1/"},
            "queues": {
                "maxPollingInterval": "00:00:01",
                "visibilityTimeout": "00:00:02.5",
                "batchSize": 4,
                "newBatchThreshold": 1,
                "maxDequeueCount": 7,
                "messageEncoding": "None",
            },
        },
    }
    assert configuration.read_host_json(app(tmp_path, document)) == configuration.HostOptions(
        route_prefix="v1",
        queues=configuration.QueueOptions(1, 2.5, 4, 1, 7, "none"),
        function_timeout_seconds=86430,
        log_level="WARNING",
    )


def test_a_function_timeout_may_be_none(tmp_path: Path) -> None:
    document = {"version": "2.0", "functionTimeout": "-1"}
    assert configuration.read_host_json(app(tmp_path, document)).function_timeout_seconds is None


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "host.json is not JSON: Expecting property name"),
        ([], "host.json must hold a JSON object"),
        ({"version": "1"}, """host.json: "version" must be "2.0", not '1'"""),
        ({"version": "2.0", "extensions": 1}, "host.json: extensions must be an object"),
        ({"version": "2.0", "functionTimeout": 5}, 'functionTimeout must be a time span such as "00:00:01", not 5'),
        ({"extensions": {"queues": {"batchSize": 33}}}, "batchSize must be a number from 1 to 32, not 33"),
        ({"extensions": {"queues": {"messageEncoding": "rot13"}}}, """must be "base64" or "none", not 'rot13'"""),
        ({"logging": {"logLevel": {"default": "Loud"}}}, "logLevel default must be one of Trace, Debug, Information"),
    ],
)
def test_host_json_that_is_wrong(tmp_path: Path, document: Any, message: str) -> None:
    if isinstance(document, dict):
        document = {"version": "2.0", **document}
    with pytest.raises(AppError) as caught:
        configuration.read_host_json(app(tmp_path, document))
    assert message in str(caught.value)


def test_a_missing_host_json(tmp_path: Path) -> None:
    with pytest.raises(AppError, match=r'host.json is missing: write at least \{"version": "2.0"\}'):
        configuration.read_host_json(tmp_path)


def test_local_settings_fill_what_the_environment_leaves(tmp_path: Path) -> None:
    (tmp_path / "local.settings.sample.json").write_text('{"Values": {"A": "sample", "B": "sample"}}')
    environment = {"A": "environment"}
    configuration.load_local_settings(tmp_path, environment)
    assert environment == {"A": "environment", "B": "sample"}
    (tmp_path / "local.settings.json").write_text('{"Values": {"C": "own"}}')
    environment = {}
    configuration.load_local_settings(tmp_path, environment)
    assert environment == {"C": "own"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"IsEncrypted": true}', "is encrypted: decrypt it with `func settings decrypt`"),
        ('{"Values": {"A": 1}}', "the value of A must be a string, not 1"),
    ],
)
def test_local_settings_that_are_wrong(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "local.settings.json").write_text(text)
    with pytest.raises(AppError) as caught:
        configuration.load_local_settings(tmp_path, {})
    assert message in str(caught.value)


def test_settings_are_put_into_bindings() -> None:
    assert configuration.resolve("a-%X%-%Y%", {"X": "1", "Y": "2"}, "here") == "a-1-2"
    with pytest.raises(AppError) as caught:
        configuration.resolve("%NOT_SET%", {}, "function f: schedule of timerTrigger")
    assert str(caught.value) == (
        "function f: schedule of timerTrigger refers to the app setting NOT_SET, which is not set: "
        "set it in the environment or under Values in local.settings.json"
    )


def test_a_connection_is_looked_up_as_azure_does() -> None:
    assert configuration.connection_string("Own", {"Own": "A=1"}, "here") == "A=1"
    assert configuration.connection_string("Storage", {"AzureWebJobsStorage": "A=2"}, "here") == "A=2"
    development = configuration.connection_string("S", {"S": "UseDevelopmentStorage=true"}, "here")
    assert "QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1;" in development
    with pytest.raises(AppError, match="here: the app setting S is not a storage connection string"):
        configuration.connection_string("S", {"S": "https://account.queue.core.windows.net"}, "here")
    with pytest.raises(AppError, match="here connects by the app setting S, which is not set: set it to a storage"):
        configuration.connection_string("S", {}, "here")


def test_keys_are_made_once(tmp_path: Path) -> None:
    path = tmp_path / "state" / "keys.json"
    with pytest.raises(AppError, match=r"there is no key file .*: start the Functions host once, it makes one"):
        keys.read_keys(path)
    made = keys.ensure_keys(path)
    assert keys.ensure_keys(path) == made == keys.read_keys(path)
    assert [file.name for file in path.parent.iterdir()] == ["keys.json"]


@pytest.mark.parametrize(
    "text", ["", "{}", '{"master": "m"}', '{"master": "m", "system": {}}', '{"master": 1, "system": {}}']
)
def test_a_broken_key_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(
        AppError,
        match=r'is no key file: it needs "master" and "system": \{"eventgrid_extension": …\}.* Remove it, and the next',
    ):
        keys.read_keys(path)


def test_the_webhooks_address() -> None:
    own = keys.Keys(master="m", system={"eventgrid_extension": "a b&c"})
    assert keys.webhook_url("http://h/", "on_event", own) == (
        "http://h/runtime/webhooks/eventgrid?functionName=on_event&code=a+b%26c"
    )


def test_the_seam_is_written_against_the_installed_runtime() -> None:
    assert version("azure-functions-runtime") == RUNTIME_VERSION


def test_a_cloud_describes_its_host(tmp_path: Path) -> None:
    cloud = Cloud("test")
    described = program(cloud, tmp_path, {"A": "1"}, 2, lease_seconds=15)
    assert described.environment == {"A": "1"}
    assert described.folder == cloud.state
    assert list(described.command[1:]) == [
        *("-m", "localcloud.functions_host", "--app", str(tmp_path), "--port", str(cloud.functions_port)),
        *("--instances", "2", "--state", str(keys_file(cloud).parent), "--lease-seconds", "15"),
    ]
