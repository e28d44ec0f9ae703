"""Where the cluster is: settings that name none, kubeconfigs, and the way to AKS."""

import socket
from pathlib import Path

import pytest
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError
from kubernetes.client import Configuration

from shipmate.edge.cluster import Cluster
from shipmate.edge.cluster_address import AKS_SCOPE, aks_configuration
from shipmate.errors import Misconfigured, NotAllowed, Retryable, ShipmateError
from tests.fakes.aks import RESOURCE, Credential, GrantedToken, user_credentials
from tests.fakes.api_server import Call, Server, connected, kubeconfig


@pytest.mark.parametrize("setting", ["", "kubeconfig:", "aks:", f"aks:{RESOURCE}", "https://x", "in-cluster:x"])
def test_a_setting_that_names_no_cluster_is_told_what_it_should_be(setting: str) -> None:
    with pytest.raises(
        Misconfigured, match=r"names no cluster: expected kubeconfig:<path>#<context>, in-cluster or aks:"
    ):
        Cluster.connect(setting, registry="r")


def test_a_kubeconfig_that_is_missing_or_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"there is no kubeconfig at .*/none: correct SHIPMATE_CLUSTER"):
        Cluster.connect(f"kubeconfig:{tmp_path}/none#x", registry="r")
    setting = kubeconfig(tmp_path, "http://127.0.0.1:9").replace("#here", "#there")
    with pytest.raises(Misconfigured, match=r"cannot be used with context 'there': .*; correct SHIPMATE_CLUSTER"):
        Cluster.connect(setting, registry="r")


def test_a_kubeconfig_may_be_at_home(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    kubeconfig(tmp_path, server.url)
    monkeypatch.setenv("HOME", str(tmp_path))
    server.body = b'{"items": []}'
    with connected("kubeconfig:~/kubeconfig#here") as cluster:
        assert cluster.pods("n", "a=b") == ()
    with pytest.raises(
        Misconfigured, match=r"SHIPMATE_CLUSTER names ~nobody-here/x, and there is no such home directory"
    ):
        Cluster.connect("kubeconfig:~nobody-here/x", registry="r")


def test_outside_a_pod_there_is_no_service_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(Misconfigured, match="this is no pod with a service account"):
        Cluster.connect("in-cluster", registry="r")


# -- AKS -----------------------------------------------------------------------------------------------------------


def test_aks_is_reached_with_a_token_of_our_own_that_is_renewed_in_time(server: Server) -> None:
    server.body = user_credentials(server.url)
    credential = Credential()
    found = aks_configuration(RESOURCE, credential, resource_manager=server.url, now=lambda: credential.now)
    assert server.calls == [
        Call("POST", f"{RESOURCE}/listClusterUserCredential?api-version=2025-05-01", "Bearer token-1")
    ]
    assert found.host == server.url
    assert found.ca_cert_data == "-----BEGIN CERTIFICATE-----"
    assert credential.granted == ["https://management.azure.com/.default", AKS_SCOPE]

    cluster = Cluster(lambda: found, registry="r")
    server.body = b'{"items": []}'
    for now, token in [(3299.0, "token-2"), (3301.0, "token-3"), (3302.0, "token-3")]:
        credential.now = now
        assert cluster.pods("n", "a=b") == ()
        assert server.calls[-1].authorization == f"Bearer {token}"
    cluster.close()


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (403, NotAllowed, "give the identity the role Azure Kubernetes Service Cluster User Role"),
        (404, Misconfigured, "correct SHIPMATE_CLUSTER"),
        (400, Misconfigured, "answered 400 about .*; correct SHIPMATE_CLUSTER"),
        (429, Retryable, "answered 429 about"),
        (503, Retryable, "answered 503 about"),
    ],
)
def test_azure_resource_managers_troubles_name_the_next_move(
    server: Server, status: int, error: type[ShipmateError], words: str
) -> None:
    server.status, server.body, server.extra = status, b'{"error": {}}', {"Retry-After": "5"}
    with pytest.raises(error, match=words) as raised:
        aks_configuration(RESOURCE, Credential(), resource_manager=server.url)
    assert not isinstance(raised.value, Retryable) or raised.value.after_seconds == 5


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"kubeconfigs": [{"value": "e30="}]}', b'{"kubeconfigs": [{"value": 1}]}']
)
def test_credentials_of_another_shape_are_refused(server: Server, body: bytes) -> None:
    server.body = body
    with pytest.raises(Misconfigured, match="gave no usable credentials of"):
        aks_configuration(RESOURCE, Credential(), resource_manager=server.url)


class NoIdentity:
    """Gives a token for nothing but some scopes."""

    def __init__(self, error: Exception, *good: str) -> None:
        self.error, self.good = error, good

    def get_token(self, *scopes: str) -> GrantedToken:
        if scopes[0] not in self.good:
            raise self.error
        return GrantedToken("token", 0)


@pytest.mark.parametrize(
    ("trouble", "error", "words"),
    [
        (
            ClientAuthenticationError("no managed identity"),
            NotAllowed,
            "gives Shipmate no token for the cluster: no man",
        ),
        (ServiceRequestError("no route"), Retryable, "Azure gave no token for the cluster: no route"),
        (ConnectionResetError("reset"), Retryable, "Azure gave no token for the cluster: reset"),
    ],
)
def test_no_token_is_an_error_with_the_next_move(
    server: Server, trouble: Exception, error: type[ShipmateError], words: str
) -> None:
    server.body = user_credentials(server.url)
    arm = "https://management.azure.com/.default"
    for credential in (NoIdentity(trouble), NoIdentity(trouble, arm)):
        with pytest.raises(error, match=words):
            aks_configuration(RESOURCE, credential, resource_manager=server.url)
    credential = NoIdentity(trouble, arm, AKS_SCOPE)
    found = aks_configuration(RESOURCE, credential, resource_manager=server.url)
    cluster = Cluster(lambda: found, registry="r")
    credential.good = ()
    with pytest.raises(error, match=words):
        cluster.deployment("n", "d")
    cluster.close()


def test_an_aks_cluster_is_looked_for_at_its_first_use_and_again_if_that_failed(server: Server) -> None:
    looked: list[str] = []

    def find() -> Configuration:
        looked.append(server.url)
        return aks_configuration(RESOURCE, Credential(), resource_manager=server.url)

    cluster = Cluster(find, registry="r")
    assert looked == []
    server.status = 503
    for _ in range(2):
        with pytest.raises(Retryable, match="Azure Resource Manager answered 503"):
            cluster.deployment("n", "d")
    server.status, server.body = 200, user_credentials(server.url)
    with pytest.raises(KeyError):
        cluster.deployment("n", "d")  # what answers is no Deployment, but it was asked for
    assert server.calls[-1].path == "/apis/apps/v1/namespaces/n/deployments/d"
    assert len(looked) == 3
    cluster.close()


def test_an_aks_cluster_that_was_made_anew_is_looked_for_again(server: Server) -> None:
    """Under the same id it has another name; the one that is kept is nobody's any more."""
    looked: list[str] = []
    places = ["http://gone.invalid:1", server.url]

    def find() -> Configuration:
        looked.append(places[len(looked)])
        return Configuration(host=looked[-1])

    cluster = Cluster(find, registry="r")
    server.body = b'{"items": []}'
    with pytest.raises(Retryable, match=r"did not reach the API server: .*Failed to resolve 'gone\.invalid'"):
        cluster.pods("n", "a=b")
    for _ in range(2):
        assert cluster.pods("n", "a=b") == ()
    assert looked == places
    cluster.close()


def test_an_aks_cluster_that_was_never_used_is_closed() -> None:
    cluster = Cluster.connect(f"aks:{RESOURCE}", registry="r", credential=Credential())
    assert cluster.registry == "r"
    cluster.close()


def test_an_azure_resource_manager_that_is_away_is_retried() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Retryable, match=r"Azure Resource Manager did not answer about"):
            aks_configuration(RESOURCE, Credential(), resource_manager=url)
