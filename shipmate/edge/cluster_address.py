"""Where a cluster is, what is trusted there, and who Shipmate is to it: a kubeconfig, a pod of its own, or AKS."""

import base64
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import httpx
import yaml
from azure.core.exceptions import AzureError, ClientAuthenticationError
from kubernetes import config
from kubernetes.client import Configuration

from shipmate.errors import Misconfigured, NotAllowed, Retryable, ShipmateError

AKS_SCOPE = "6dae42f8-4368-4678-94ff-3960e28e3630/.default"
"""The scope of a token for the API server of any AKS cluster with Entra ID; the id is Microsoft's AKS AAD server."""
ARM_API_VERSION = "2025-05-01"  # of Microsoft.ContainerService/managedClusters
RENEW_BEFORE_SECONDS = 300.0


class Token(Protocol):
    """An access token, as azure-identity gives it."""

    @property
    def token(self) -> str:
        """The bearer token."""

    @property
    def expires_on(self) -> int:
        """When it ends, in seconds of Unix time."""


class Credential(Protocol):
    """What azure-identity's credentials are to this module."""

    def get_token(self, *scopes: str) -> Token:
        """Return an access token for the scopes."""


def finder(setting: str, credential: Credential | None) -> Callable[[], Configuration]:
    """Return what finds the cluster that a setting names: called, it returns how to reach it.

    `kubeconfig:<path>#<context>`, `in-cluster`, or `aks:<resource id>`, which needs a credential. Raises Misconfigured
    for another form. A call raises Misconfigured for a file that cannot be read and a context that is not in it; of AKS
    see `aks_configuration`.
    """
    kind, _, rest = setting.partition(":")
    if kind == "aks" and rest and credential is not None:
        return partial(aks_configuration, rest, credential)
    if kind == "kubeconfig" and rest:
        return partial(_from_kubeconfig, rest)
    if setting == "in-cluster":
        return _from_pod
    raise Misconfigured(
        f"SHIPMATE_CLUSTER is {setting!r}, which names no cluster: expected kubeconfig:<path>#<context>, "
        "in-cluster or aks:<resource id> (with a credential)"
    )


def _from_kubeconfig(place: str) -> Configuration:
    path, _, context = place.partition("#")
    try:
        path = str(Path(path).expanduser())
    except RuntimeError as error:
        raise Misconfigured(
            f"SHIPMATE_CLUSTER names {path}, and there is no such home directory: write it out"
        ) from error
    if not Path(path).is_file():
        raise Misconfigured(f"there is no kubeconfig at {path}: correct SHIPMATE_CLUSTER, or start the cluster")
    configuration = Configuration()
    try:
        config.load_kube_config(
            config_file=path, context=context or None, client_configuration=configuration, persist_config=False
        )
    except config.ConfigException as error:
        words = f"the kubeconfig {path} cannot be used with context {context!r}: {error}; correct SHIPMATE_CLUSTER"
        raise Misconfigured(words) from error
    return configuration


def _from_pod() -> Configuration:
    configuration = Configuration()
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException as error:
        raise Misconfigured(
            f"SHIPMATE_CLUSTER is in-cluster, and this is no pod with a service account: {error}"
        ) from error
    return configuration


def aks_configuration(
    resource_id: str,
    credential: Credential,
    *,
    resource_manager: str = "https://management.azure.com",
    now: Callable[[], float] = time.time,
) -> Configuration:
    """Return how to reach an AKS cluster with Entra ID: its address and CA from Azure Resource Manager, our own token.

    The user in the credentials that Resource Manager gives is dropped: it calls a program (kubelogin). Tokens are
    renewed five minutes before they end. Raises NotAllowed, Retryable, and Misconfigured if there is no such cluster:
    NotFound would say to the caller that what it asked the cluster for is not there.
    """
    cluster = _aks_cluster(resource_id, credential, resource_manager)
    configuration = Configuration(host=cluster["server"])
    configuration.ca_cert_data = base64.b64decode(cluster["certificate-authority-data"]).decode()
    token: Token | None = None

    def renew(target: Configuration) -> None:
        nonlocal token
        if token is None or token.expires_on - RENEW_BEFORE_SECONDS <= now():
            token = _granted(credential, AKS_SCOPE)
            target.api_key["authorization"] = f"Bearer {token.token}"

    renew(configuration)  # the client calls its hook only once there is a key
    configuration.refresh_api_key_hook = renew  # type: ignore[assignment]  # the client declares it as None
    return configuration


def _granted(credential: Credential, scope: str) -> Token:
    """Return a token; raise NotAllowed if this identity gets none, Retryable if Entra ID is in trouble."""
    try:
        return credential.get_token(scope)
    except ClientAuthenticationError as error:
        raise NotAllowed(f"Azure gives Shipmate no token for the cluster: {error.message}") from error
    except (AzureError, OSError) as error:
        raise Retryable(f"Azure gave no token for the cluster: {error}") from error


def _aks_cluster(resource_id: str, credential: Credential, resource_manager: str) -> dict[str, str]:
    """Return server and CA of an AKS cluster.

    Managed Clusters - List Cluster User Credentials, Azure REST reference.
    """
    url = f"{resource_manager}/{resource_id.strip('/')}/listClusterUserCredential"
    token = _granted(credential, "https://management.azure.com/.default")
    try:
        reply = httpx.post(
            url,
            params={"api-version": ARM_API_VERSION},
            headers={"authorization": f"Bearer {token.token}"},
            timeout=20.0,
        )
    except httpx.HTTPError as error:
        raise Retryable(f"Azure Resource Manager did not answer about {resource_id}: {error}") from error
    if reply.status_code != 200:
        raise _resource_manager_error(reply, resource_id)
    try:
        kubeconfig = yaml.safe_load(base64.b64decode(reply.json()["kubeconfigs"][0]["value"]))
        cluster: dict[str, str] = kubeconfig["clusters"][0]["cluster"]
        return {key: cluster[key] for key in ("server", "certificate-authority-data")}
    except (ValueError, LookupError, TypeError, yaml.YAMLError) as error:
        raise Misconfigured(
            f"Azure Resource Manager gave no usable credentials of {resource_id}: {error!r}; correct SHIPMATE_CLUSTER"
        ) from error


def _resource_manager_error(reply: httpx.Response, resource_id: str) -> ShipmateError:
    message = f"Azure Resource Manager answered {reply.status_code} about {resource_id}: {reply.text[:300]}"
    if reply.status_code in (401, 403):
        return NotAllowed(f"{message}; give the identity the role Azure Kubernetes Service Cluster User Role")
    if reply.status_code == 429 or reply.status_code >= 500:
        after = reply.headers.get("retry-after", "")
        return Retryable(message, after_seconds=float(after) if after.isdigit() else None)
    return Misconfigured(f"{message}; correct SHIPMATE_CLUSTER")
