"""The controller's own way into a cluster: a kubeconfig of its service account, with the rights of k8s/ and no more.

`localcloud` calls it before it starts the Functions host, the tests before they ask as the controller would. The
administrator's kubeconfig is needed once, to ask for the token.
"""

import base64
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from kubernetes import config
from kubernetes.client import (
    ApiClient,
    ApiException,
    AuthenticationV1TokenRequest,
    CoreV1Api,
    RbacAuthorizationV1Api,
    RbacV1Subject,
    V1ObjectMeta,
    V1RoleBinding,
    V1RoleRef,
    V1TokenRequestSpec,
)

ACCOUNT = "shipmate"
"""The service account that k8s/base makes for the controller."""
TOKEN_SECONDS = 30 * 24 * 3600
"""How long the token is asked to live; a cluster may grant less. Each start of a local cloud asks for a new one."""


class AccessError(Exception):
    """The controller's kubeconfig cannot be made; the message says what to do."""


def controller_kubeconfig(
    admin_kubeconfig: Path,
    namespace: str,
    out_path: Path,
    *,
    context: str | None = None,
    also: Sequence[str] = (),
) -> str:
    """Write a kubeconfig of the controller's account in a namespace, and return it as SHIPMATE_CLUSTER spells it.

    `context` is the administrator's; None takes the current one. The account gets the same rights in the namespaces
    `also`, where other targets live. The context in the new file is `shipmate@<namespace>`. Raises AccessError if a
    namespace lacks what k8s/ puts there, or the administrator may not do this.
    """
    admin = yaml.safe_load(admin_kubeconfig.read_text())
    context = context or admin.get("current-context")
    client = config.new_client_from_config(str(admin_kubeconfig), context, persist_config=False)
    try:
        token = _token(client, namespace)
        for other in also:
            _bind(client, namespace, other)
    finally:
        client.rest_client.close()
    name = f"{ACCOUNT}@{namespace}"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": _cluster(admin, context, admin_kubeconfig.parent)}],
        "users": [{"name": name, "user": {"token": token}}],
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


def _token(client: ApiClient, namespace: str) -> str:
    """Return a token of the controller's account in a namespace."""
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
    if granted.status is None or not granted.status.token:
        raise AccessError(f"the cluster granted no token for the account {ACCOUNT} of namespace {namespace}: try again")
    return granted.status.token


def _bind(client: ApiClient, home: str, namespace: str) -> None:
    """Give the controller's account of one namespace the controller's rights in another."""
    binding = V1RoleBinding(
        metadata=V1ObjectMeta(name=f"{ACCOUNT}-of-{home}"),
        role_ref=V1RoleRef(api_group="rbac.authorization.k8s.io", kind="Role", name=ACCOUNT),
        subjects=[RbacV1Subject(kind="ServiceAccount", name=ACCOUNT, namespace=home)],
    )
    try:
        RbacAuthorizationV1Api(client).create_namespaced_role_binding(namespace, binding, _request_timeout=10)
    except ApiException as error:
        if error.status != 409:  # 409: it has them already
            raise AccessError(
                f"the account {ACCOUNT} of namespace {home} gets no rights in {namespace} ({error.status} "
                f"{error.reason}): apply k8s/overlays/local there first, with a context that may create rolebindings"
            ) from error


def _cluster(admin: dict[str, Any], context: str | None, folder: Path) -> dict[str, Any]:
    """Return the cluster of a context, with its certificate authority inside rather than as a file beside."""
    wanted = next((each["context"]["cluster"] for each in admin["contexts"] if each["name"] == context), None)
    cluster = dict(next(each["cluster"] for each in admin["clusters"] if each["name"] == wanted))
    authority = cluster.pop("certificate-authority", None)
    if authority is not None:
        cluster["certificate-authority-data"] = base64.b64encode((folder / authority).read_bytes()).decode()
    return cluster
