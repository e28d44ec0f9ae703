"""host.json, local settings and `%SETTING%` references, read once when an instance starts."""

import json
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcloud.config import AZURITE_ACCOUNT, AZURITE_KEY
from localcloud.functions_host.errors import AppError

_TIME_SPAN = re.compile(r"(?:(\d+)\.)?(\d{1,2}):(\d{1,2}):(\d{1,2}(?:\.\d+)?)")
_REFERENCE = re.compile(r"%([^%]+)%")
_DEVELOPMENT_STORAGE = (
    f"DefaultEndpointsProtocol=http;AccountName={AZURITE_ACCOUNT};AccountKey={AZURITE_KEY};"
    f"QueueEndpoint=http://127.0.0.1:10001/{AZURITE_ACCOUNT};"
)
"""What "UseDevelopmentStorage=true" stands for: an Azurite on its own default port."""
_LEVELS = {
    "Trace": "DEBUG",
    "Debug": "DEBUG",
    "Information": "INFO",
    "Warning": "WARNING",
    "Error": "ERROR",
    "Critical": "CRITICAL",
    "None": "CRITICAL",
}


@dataclass(frozen=True)
class QueueOptions:
    """`extensions.queues` of host.json; the defaults are those of Azure Functions."""

    max_polling_interval_seconds: float = 60
    visibility_timeout_seconds: float = 0
    batch_size: int = 16
    new_batch_threshold: int = 8
    max_dequeue_count: int = 5
    message_encoding: str = "base64"


@dataclass(frozen=True)
class HostOptions:
    """What host.json says, as far as this host knows it."""

    route_prefix: str = "api"
    queues: QueueOptions = QueueOptions()
    function_timeout_seconds: float | None = 1800
    log_level: str = "INFO"


def read_host_json(app_dir: Path) -> HostOptions:
    """Read host.json. Raises AppError for a file that is missing, broken or of another version than 2.0."""
    path = app_dir / "host.json"
    document = _read_object(path, hint='write at least {"version": "2.0"}')
    if document.get("version") != "2.0":
        raise AppError(f'{path}: "version" must be "2.0", not {document.get("version")!r}')
    extensions = _section(document, "extensions", path)
    http, queues = _section(extensions, "http", path), _section(extensions, "queues", path)
    batch_size = _whole(queues, "batchSize", 16, low=1, high=32, path=path)
    encoding = str(queues.get("messageEncoding", "base64")).lower()
    if encoding not in ("base64", "none"):
        raise AppError(f'{path}: messageEncoding must be "base64" or "none", not {encoding!r}')
    timeout = document.get("functionTimeout", "00:30:00")
    level = _section(_section(document, "logging", path), "logLevel", path).get("default", "Information")
    if level not in _LEVELS:
        raise AppError(f"{path}: logLevel default must be one of {', '.join(_LEVELS)}, not {level!r}")
    return HostOptions(
        route_prefix=str(http.get("routePrefix", "api")).strip("/"),
        queues=QueueOptions(
            max_polling_interval_seconds=_seconds(
                queues.get("maxPollingInterval", "00:01:00"), "maxPollingInterval", path
            ),
            visibility_timeout_seconds=_seconds(queues.get("visibilityTimeout", "00:00:00"), "visibilityTimeout", path),
            batch_size=batch_size,
            new_batch_threshold=_whole(queues, "newBatchThreshold", batch_size // 2, low=0, high=1000, path=path),
            max_dequeue_count=_whole(queues, "maxDequeueCount", 5, low=1, high=1_000_000, path=path),
            message_encoding=encoding,
        ),
        function_timeout_seconds=None if timeout == "-1" else _seconds(timeout, "functionTimeout", path),
        log_level=_LEVELS[level],
    )


def load_local_settings(app_dir: Path, environment: MutableMapping[str, str]) -> None:
    """Put the "Values" of local.settings.json, or else of its sample, into the environment, which wins."""
    for name in ("local.settings.json", "local.settings.sample.json"):
        path = app_dir / name
        if not path.exists():
            continue
        document = _read_object(path, hint="")
        if document.get("IsEncrypted"):
            raise AppError(f"{path} is encrypted: decrypt it with `func settings decrypt`")
        for key, value in _section(document, "Values", path).items():
            if not isinstance(value, str):
                raise AppError(f"{path}: the value of {key} must be a string, not {json.dumps(value)}")
            environment.setdefault(key, value)
        return


def resolve(text: str, environment: Mapping[str, str], where: str) -> str:
    """Replace each `%SETTING%` in a binding's text by the app setting; `where` names the binding in the error."""

    def setting(match: re.Match[str]) -> str:
        try:
            return environment[match[1]]
        except KeyError:
            raise AppError(
                f"{where} refers to the app setting {match[1]}, which is not set: "
                "set it in the environment or under Values in local.settings.json"
            ) from None

    return _REFERENCE.sub(setting, text)


def connection_string(name: str, environment: Mapping[str, str], where: str) -> str:
    """Return the storage connection string in the app setting a binding's `connection` names, as Azure looks it up."""
    for key in (name, f"AzureWebJobs{name}"):
        value = environment.get(key)
        if value:
            if value.rstrip(";").lower() == "usedevelopmentstorage=true":
                return _DEVELOPMENT_STORAGE
            if "=" not in value:
                raise AppError(f"{where}: the app setting {key} is not a storage connection string")
            return value
    raise AppError(
        f"{where} connects by the app setting {name}, which is not set: "
        "set it to a storage connection string (identity-based connections are for Azure only)"
    )


def seconds_of(time_span: object) -> float | None:
    """Return the seconds of a .NET time span, `[d.]hh:mm:ss[.f]`, or None if this is not one."""
    match = _TIME_SPAN.fullmatch(time_span) if isinstance(time_span, str) else None
    if match is None:
        return None
    days, hours, minutes, seconds = match.groups()
    return int(days or 0) * 86400 + int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _seconds(value: object, key: str, path: Path) -> float:
    seconds = seconds_of(value)
    if seconds is None:
        raise AppError(f'{path}: {key} must be a time span such as "00:00:01", not {json.dumps(value)}')
    return seconds


def _whole(section: Mapping[str, Any], key: str, default: int, *, low: int, high: int, path: Path) -> int:
    value = section.get(key, default)
    if not isinstance(value, int) or not low <= value <= high:
        raise AppError(f"{path}: {key} must be a number from {low} to {high}, not {json.dumps(value)}")
    return value


def _section(document: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    section = document.get(key, {})
    if not isinstance(section, dict):
        raise AppError(f"{path}: {key} must be an object")
    return section


def _read_object(path: Path, hint: str) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        raise AppError(f"{path} is missing: {hint}") from None
    except ValueError as error:
        raise AppError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise AppError(f"{path} must hold a JSON object")
    return document
