"""The controller's own way into a cluster: a kubeconfig of its service account, with the rights of k8s/ and no more.

`localcloud` calls it before it starts the Functions host, the tests before they ask as the controller would. The
administrator's kubeconfig is needed once, to ask for the token.
"""

import base64
import os
from pathlib import Path
from typing import Any

import yaml
from kubernetes import config
from kubernetes.client import ApiException, AuthenticationV1TokenRequest, CoreV1Api, V1TokenRequestSpec

ACCOUNT = "shipmate"
"""The service account that k8s/base makes for the controller."""
TOKEN_SECONDS = 30 * 24 * 3600
"""How long the token is asked to live; a cluster may grant less. Each start of a local cloud asks for a new one."""


class AccessError(Exception):
    """The controller's kubeconfig cannot be made; the message says what to do."""


def controller_kubeconfig(admin_kubeconfig: Path, namespace: str, out_path: Path, *, context: str | None = None) -> str:
    """Write a kubeconfig of the controller's account in a namespace, and return it as SHIPMATE_CLUSTER spells it.

    `context` is the administrator's; None takes the current one. The context in the new file is `shipmate@<namespace>`.
    Raises AccessError if the namespace has no such account, or the administrator may not ask for its token.
    """
    admin = yaml.safe_load(admin_kubeconfig.read_text())
    context = context or admin.get("current-context")
    client = config.new_client_from_config(str(admin_kubeconfig), context, persist_config=False)
    request = AuthenticationV1TokenRequest(spec=V1TokenRequestSpec(audiences=[], expiration_seconds=TOKEN_SECONDS))
    try:
        granted = CoreV1Api(client).create_namespaced_service_account_token(
            ACCOUNT, namespace, request, _request_timeout=10
        )
    except ApiException as error:
        raise AccessError(
            f"no token for the account {ACCOUNT} of namespace {namespace} ({error.status} {error.reason}): apply "
            "k8s/overlays/local first, with a context that may create serviceaccounts/token"
        ) from error
    finally:
        client.rest_client.close()
    if granted.status is None:
        raise AccessError(f"the cluster granted no token for the account {ACCOUNT} of namespace {namespace}: try again")
    name = f"{ACCOUNT}@{namespace}"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": _cluster(admin, context, admin_kubeconfig.parent)}],
        "users": [{"name": name, "user": {"token": granted.status.token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}],
        "current-context": name,
    }
    out_path.parent.mkdir(parents=True, exist_ok=True)
    fresh = out_path.with_name(f".{out_path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        yaml.safe_dump(content, file, sort_keys=False)
    fresh.replace(out_path)
    return f"kubeconfig:{out_path}#{name}"


def _cluster(admin: dict[str, Any], context: str | None, folder: Path) -> dict[str, Any]:
    """Return the cluster of a context, with its certificate authority inside rather than as a file beside."""
    wanted = next((each["context"]["cluster"] for each in admin["contexts"] if each["name"] == context), None)
    cluster = dict(next(each["cluster"] for each in admin["clusters"] if each["name"] == wanted))
    authority = cluster.pop("certificate-authority", None)
    if authority is not None:
        cluster["certificate-authority-data"] = base64.b64encode((folder / authority).read_bytes()).decode()
    return cluster
