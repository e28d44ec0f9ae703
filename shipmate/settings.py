"""The settings of the Function App, and the targets file. Read once, by `shipmate.wiring`; checked whole.

Settings come from the environment (Azure: application settings; local: `local.settings.json`). A mistake raises
Misconfigured with the key and what it should be.
"""

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import msgspec

from shipmate.core.targets import Target, TargetsFile
from shipmate.errors import Misconfigured

APP_FOLDER = Path(__file__).parents[1]
"""Where function_app.py and host.json are: what a relative path in a setting begins at."""


class Settings(msgspec.Struct, frozen=True):
    """What the environment says."""

    storage: str  # a connection string, or an account's blob URL for a managed identity
    queue_storage: str  # the same for the queue: AzureWebJobsStorage
    registry: str  # base URL of the registry
    registry_name: str  # as events name it: the last part of its resource id
    account: str  # likewise
    cluster: str
    targets: Path
    queue: str
    ledger_container: str
    stalled_seconds: float
    sign_in: bool  # App Service authentication says who calls


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Return the settings of an environment; raise Misconfigured for what is missing or wrong."""
    storage = _needed(
        environment, "SHIPMATE_STORAGE", "a storage connection string or https://<account>.blob.core.windows.net"
    )
    account = _account(storage)
    registry = _needed(
        environment, "SHIPMATE_REGISTRY", "<name>.azurecr.io, or http://127.0.0.1:<port> for a local one"
    )
    registry, registry_name = _registry(registry)
    return Settings(
        storage=storage,
        queue_storage=_queue_storage(environment, storage),
        registry=registry,
        registry_name=environment.get("SHIPMATE_REGISTRY_NAME") or registry_name,
        account=account,
        cluster=_cluster(environment, {"SHIPMATE_STORAGE": storage, "SHIPMATE_REGISTRY": registry}),
        targets=_path("SHIPMATE_TARGETS", _needed(environment, "SHIPMATE_TARGETS", "the path of the targets file")),
        queue=environment.get("SHIPMATE_QUEUE") or "shipmate-advance",
        ledger_container=environment.get("SHIPMATE_LEDGER_CONTAINER") or "shipmate-ledger",
        stalled_seconds=_seconds(environment, "SHIPMATE_STALLED_SECONDS", 60.0),
        sign_in=is_sign_in_on(environment),
    )


def is_sign_in_on(environment: Mapping[str, str]) -> bool:
    """Return whether App Service authentication is on: the platform says so, never set it by hand."""
    return environment.get("WEBSITE_AUTH_ENABLED", "").lower() == "true"


def read_targets(path: Path) -> dict[str, Target]:
    """Return the targets of a file by name; raise Misconfigured with the key that is wrong and what it should be."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Misconfigured(
            f"SHIPMATE_TARGETS is {str(path)!r}: {error.strerror}; it should be the path of the targets file, "
            "absolute or relative to host.json"
        ) from error
    return parse_targets(data, f"{path.name} (SHIPMATE_TARGETS)")


def parse_targets(data: bytes, name: str) -> dict[str, Target]:
    """Return a YAML text's targets by name; raise Misconfigured with the key that is wrong and what it should be."""
    try:
        targets = msgspec.yaml.decode(data, type=TargetsFile).targets
    except msgspec.ValidationError as error:
        raise Misconfigured(f"{name}: {error}") from error
    except ValueError as error:  # DecodeError is one; a date that no calendar has is a bare one
        raise Misconfigured(f"{name} is no YAML: {error}") from error
    for index, target in enumerate(targets):
        _refuse(_check_alone(target), name, index)
    for (_, one), (index, other) in itertools.combinations(enumerate(targets), 2):
        _refuse(_check_together(one, other), name, index)
    return {each.name: msgspec.structs.replace(each, public_url=each.public_url.rstrip("/")) for each in targets}


class _Wrong(NamedTuple):
    """What is wrong with a target and should be instead, and the key below it where that stands."""

    words: str
    key: str


def _refuse(wrong: _Wrong | None, name: str, index: int) -> None:
    if wrong is not None:
        raise Misconfigured(f"{name}: {wrong.words} - at `$.targets[{index}].{wrong.key}`")


def _check_alone(target: Target) -> _Wrong | None:
    """Return what is wrong with a target whichever others there are."""
    if target.app.repository == target.release.repository:
        return _Wrong(_BOTH.format(target.app.repository), "release.repository")
    if not {"?", "#"}.isdisjoint(target.public_url):
        words = "has a query or fragment; /score and /version are asked below it, so give scheme, host and path"
        return _Wrong(f"{target.public_url!r} {words}", "public_url")
    try:
        httpx.URL(target.public_url)
    except httpx.InvalidURL as error:
        return _Wrong(f"{target.public_url!r} is no address: {error}", "public_url")
    return None


def _check_together(one: Target, other: Target) -> _Wrong | None:
    """Return what is wrong with the later of two targets because of the one before it."""
    if one.name == other.name:
        return _Wrong(f"two targets are called {other.name!r}", "name")
    names = f"{one.name!r} and {other.name!r}"
    place = (other.deployment.namespace, other.deployment.name)
    if place == (one.deployment.namespace, one.deployment.name):
        words = f"both own the Deployment {'/'.join(place)}; a Deployment belongs to one target"
        return _Wrong(f"{names} {words}", "deployment.name")
    if other.release.repository == one.app.repository:
        return _Wrong(_BOTH.format(other.release.repository), "release.repository")
    if other.app.repository == one.release.repository:
        return _Wrong(_BOTH.format(other.app.repository), "app.repository")
    if one.release.repository == other.release.repository and one.app.repository != other.app.repository:
        words = (
            "share a release repository but no app repository; a release image names the repository of its app, so "
            "give each a release repository of its own"
        )
        return _Wrong(f"{names} {words}", "release.repository")
    return None


_BOTH = "{!r} is an app repository and a release repository at once; releases need a repository of their own"


def _needed(environment: Mapping[str, str], key: str, what: str) -> str:
    value = environment.get(key, "").strip()
    if not value:
        raise Misconfigured(f"the setting {key} is missing: expected {what}")
    return value


def _path(key: str, text: str) -> Path:
    """Return an absolute path: `~` is the home directory, and a relative one begins at the Function App's folder."""
    try:
        return APP_FOLDER / Path(text).expanduser()
    except RuntimeError as error:
        raise Misconfigured(
            f"the setting {key} is {text!r}, and there is no such home directory: write it out"
        ) from error


def _registry(text: str) -> tuple[str, str]:
    """Return the registry's base URL, and its name as events spell it."""
    url = text if "://" in text else f"https://{text}"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise Misconfigured(f"SHIPMATE_REGISTRY is {text!r}: {error}; expected <name>.azurecr.io") from error
    if not host or parts.scheme not in ("http", "https") or url.rstrip("/") != f"{parts.scheme}://{parts.netloc}":
        raise Misconfigured(f"SHIPMATE_REGISTRY is {text!r}: expected a login server such as <name>.azurecr.io")
    if "@" in parts.netloc:
        raise Misconfigured(
            "SHIPMATE_REGISTRY holds a user name: expected a login server alone, such as <name>.azurecr.io"
        )
    if parts.scheme == "https":
        # a registry's name has no dash: what follows one is the domain name label of its login server
        return url.rstrip("/"), re.split("[.-]", host)[0]
    if host not in ("127.0.0.1", "localhost", "::1"):
        raise Misconfigured(f"SHIPMATE_REGISTRY is {text!r}: plain http is for registries on this machine only")
    return url.rstrip("/"), "local"


def _seconds(environment: Mapping[str, str], key: str, default: float) -> float:
    text = environment.get(key, "").strip()
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 86_400:
        raise Misconfigured(f"the setting {key} is {text!r}: expected seconds, more than 0 and less than a day")
    return seconds


def _account(storage: str) -> str:
    """Return the storage account's name, as Event Grid's topics end with."""
    # between name and service may stand one of Azure's DNS zones: z12
    url = re.fullmatch(r"https://([a-z0-9]{3,24})(?:\.z\d+)?\.blob\.[a-z0-9.-]+/?", storage)
    if url is not None:
        return url[1]
    account = dict(item.partition("=")[::2] for item in storage.split(";")).get("AccountName")
    if not account:
        raise Misconfigured(
            "the setting SHIPMATE_STORAGE is neither https://<account>.blob.core.windows.net "
            "nor a connection string with AccountName"
        )
    return account


_OTHER_CLOUDS = re.compile(r"\b(azurecr\.(cn|us)|core\.(chinacloudapi\.cn|usgovcloudapi\.net))(?=[/:;]|$)")
"""Suffixes of registries and storage accounts in Azure's sovereign clouds."""


def _queue_storage(environment: Mapping[str, str], storage: str) -> str:
    """Return the queue's account, found as the Functions host finds it, so that both use the same queue.

    The host takes the connection string, then the account's name, which it completes with core.windows.net in every
    cloud, then the address (azure-sdk-for-net, StorageClientProvider.cs).
    """
    connection = environment.get("AzureWebJobsStorage")
    if connection:
        return connection
    account = environment.get("AzureWebJobsStorage__accountName")
    if account:
        other = _OTHER_CLOUDS.search(storage)
        if other is not None:
            raise Misconfigured(
                "the setting AzureWebJobsStorage__accountName is for accounts in core.windows.net, and "
                f"SHIPMATE_STORAGE is in {other[0]}: set AzureWebJobsStorage__queueServiceUri instead"
            )
        return f"https://{account}.queue.core.windows.net"
    address = environment.get("AzureWebJobsStorage__queueServiceUri")
    if address:
        if re.fullmatch(r"https://[a-z0-9.-]+/?", address) is None:  # not repeated: it may end in a token
            raise Misconfigured(
                "the setting AzureWebJobsStorage__queueServiceUri is no address of a queue service: "
                "expected https://<account>.queue.core.windows.net"
            )
        return address.rstrip("/")
    if not storage.startswith("http"):
        return storage
    raise Misconfigured(
        "none of the settings AzureWebJobsStorage, AzureWebJobsStorage__accountName and "
        "AzureWebJobsStorage__queueServiceUri is there: one of them names the queue's account"
    )


def _cluster(environment: Mapping[str, str], others: Mapping[str, str]) -> str:
    """Return how to reach the cluster. `others` are the settings that show in which of Azure's clouds it is."""
    cluster = _needed(environment, "SHIPMATE_CLUSTER", "kubeconfig:<path>#<context>, in-cluster, or aks:<resource id>")
    if cluster.startswith("aks:"):
        for key, value in others.items():
            other = _OTHER_CLOUDS.search(value)
            if other is not None:
                raise Misconfigured(
                    f"SHIPMATE_CLUSTER begins with aks:, which is asked of Azure's public cloud, and {key} is in "
                    f"{other[0]}: use in-cluster or kubeconfig:<path>#<context>"
                )
    return cluster
