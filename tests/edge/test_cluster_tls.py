"""Certificates of API servers: which are taken, which refused, and how rotated ones are found."""

import base64
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import Configuration

from shipmate.edge.cluster import Cluster
from shipmate.edge.cluster_address import aks_configuration
from shipmate.errors import Ambiguous, Misconfigured, NotAllowed, Retryable
from tests.fakes.aks import RESOURCE, Credential, user_credentials
from tests.fakes.api_server import Server, TlsServer, connected, kubeconfig
from tests.fakes.certificates import Authority

PATCH: list[dict[str, Any]] = [{"op": "test", "path": "/a", "value": 1}]
NOT_TRUSTED = "at https://.*: the API server's certificate is not the one the settings trust: .*"


def test_a_certificate_of_an_older_cluster_is_taken(
    tls_server: TlsServer, authority: Authority, tmp_path: Path
) -> None:
    with connected(kubeconfig(tmp_path, tls_server.url, authority.trust)) as cluster:
        assert cluster.pods("n", "a=b") == ()
    assert tls_server.calls[-1].authorization == "Bearer secret"


def test_a_server_that_asks_for_a_clients_certificate_gets_it(
    tls_server: TlsServer, authority: Authority, tmp_path: Path
) -> None:
    tls_server.tls.verify_mode = ssl.CERT_REQUIRED
    tls_server.tls.load_verify_locations(cadata=authority.pem.decode())
    certificate, key = (base64.b64encode(pem).decode() for pem in authority.issue())
    user = {"client-certificate-data": certificate, "client-key-data": key}
    with connected(kubeconfig(tmp_path, tls_server.url, authority.trust, user)) as cluster:
        assert cluster.pods("n", "a=b") == ()


def test_a_server_that_gets_no_clients_certificate_may_have_taken_the_request(
    tls_server: TlsServer, authority: Authority, tmp_path: Path
) -> None:
    """With TLS 1.3 a server tells so behind the handshake, when the request is on its way."""
    tls_server.tls.verify_mode = ssl.CERT_REQUIRED
    with connected(kubeconfig(tmp_path, tls_server.url, authority.trust)) as cluster:
        with pytest.raises(Retryable, match="got no reply"):
            cluster.pods("n", "a=b")
        with pytest.raises(Ambiguous, match="got no reply"):
            cluster.patch_deployment("n", "d", PATCH)


def test_without_a_ca_in_the_settings_the_systems_are_trusted(
    tls_server: TlsServer, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = kubeconfig(tmp_path, tls_server.url)
    with connected(setting) as cluster, pytest.raises(NotAllowed, match=NOT_TRUSTED):
        cluster.pods("n", "a=b")
    (tmp_path / "system.pem").write_bytes(authority.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    with connected(setting) as cluster:
        assert cluster.pods("n", "a=b") == ()


def test_another_ca_is_refused_before_anything_is_sent(
    tls_server: TlsServer, authority: Authority, tmp_path: Path
) -> None:
    with connected(kubeconfig(tmp_path, tls_server.url, Authority().trust)) as cluster:
        with pytest.raises(NotAllowed, match=f"GET /api/v1/namespaces/n/pods {NOT_TRUSTED}signature failure"):
            cluster.pods("n", "a=b")
        with pytest.raises(NotAllowed, match=NOT_TRUSTED):
            cluster.patch_deployment("n", "d", PATCH)
        with pytest.raises(NotAllowed, match=NOT_TRUSTED):
            cluster.ask_pod("n", "p", 8000, "GET", "/")
    assert tls_server.calls == []


def test_another_hosts_certificate_is_refused(tls_server: TlsServer, authority: Authority, tmp_path: Path) -> None:
    tls_server.show(*authority.issue("127.0.0.2"))
    with (
        connected(kubeconfig(tmp_path, tls_server.url, authority.trust)) as cluster,
        pytest.raises(NotAllowed, match=f"{NOT_TRUSTED}IP address mismatch"),
    ):
        cluster.pods("n", "a=b")
    assert tls_server.calls == []


@pytest.mark.parametrize(
    "trust",
    [
        pytest.param({"certificate-authority-data": base64.b64encode(b"no PEM").decode()}, id="no PEM"),
        pytest.param(
            {"certificate-authority-data": base64.b64encode(b"-----BEGIN CERTIFICATE-----").decode()}, id="cut"
        ),
    ],
)
def test_a_ca_that_cannot_be_read_is_told_at_the_start(tmp_path: Path, trust: dict[str, str]) -> None:
    with pytest.raises(
        Misconfigured, match=r"the certificates for the API server at https://.* cannot be used: .*; correct what SHIPM"
    ):
        Cluster.connect(kubeconfig(tmp_path, "https://127.0.0.1:9", trust), registry="r")


def test_a_clients_certificate_of_another_key_is_told_at_the_start(tmp_path: Path) -> None:
    authority = Authority()
    (certificate, _), (_, key) = authority.issue(), authority.issue()
    user = {
        "client-certificate-data": base64.b64encode(certificate).decode(),
        "client-key-data": base64.b64encode(key).decode(),
    }
    with pytest.raises(Misconfigured, match=r"cannot be used: .*KEY_VALUES_MISMATCH.*; correct what SHIPMATE_CLUSTER"):
        Cluster.connect(kubeconfig(tmp_path, "https://127.0.0.1:9", authority.trust, user), registry="r")


def test_a_ca_of_azure_that_cannot_be_read_is_told(server: Server) -> None:
    server.body = user_credentials("https://127.0.0.1:9")
    cluster = Cluster(
        lambda: aks_configuration(RESOURCE, Credential(), resource_manager=server.url), registry="registry.test"
    )
    with pytest.raises(
        Misconfigured, match=r"the certificates for the API server at https://127.0.0.1:9 cannot be used"
    ):
        cluster.pods("n", "a=b")


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")  # as it should
def test_a_kubeconfig_may_trust_any_certificate(tls_server: TlsServer, authority: Authority, tmp_path: Path) -> None:
    tls_server.show(*authority.issue("127.0.0.2"))
    with connected(kubeconfig(tmp_path, tls_server.url, {"insecure-skip-tls-verify": True})) as cluster:
        assert cluster.pods("n", "a=b") == ()


def test_certificates_that_were_rotated_are_read_from_the_kubeconfig_again(
    tls_server: TlsServer, authority: Authority, tmp_path: Path
) -> None:
    with connected(kubeconfig(tmp_path, tls_server.url, authority.trust)) as cluster:
        assert cluster.pods("n", "a=b") == ()
        rotated = Authority()
        tls_server.show(*rotated.issue())
        kubeconfig(tmp_path, tls_server.url, rotated.trust)
        with pytest.raises(NotAllowed, match=NOT_TRUSTED):
            cluster.pods("n", "a=b")
        assert cluster.pods("n", "a=b") == ()


def test_azure_is_asked_again_once_certificates_were_rotated(
    server: Server, tls_server: TlsServer, authority: Authority
) -> None:
    server.body = user_credentials(tls_server.url, authority)
    cluster = Cluster(
        lambda: aks_configuration(RESOURCE, Credential(), resource_manager=server.url), registry="registry.test"
    )
    for _ in range(2):
        assert cluster.pods("n", "a=b") == ()
    assert len(server.calls) == 1

    rotated = Authority()
    tls_server.show(*rotated.issue())
    for asked in (1, 2):  # Azure tells of the old one for some time yet
        with pytest.raises(NotAllowed, match=NOT_TRUSTED):
            cluster.patch_deployment("n", "d", PATCH)
        assert len(server.calls) == asked
    server.body = user_credentials(tls_server.url, rotated)
    for _ in range(2):
        assert cluster.pods("n", "a=b") == ()
    assert len(server.calls) == 3
    cluster.close()


def test_who_meets_the_old_certificate_late_leaves_the_new_client_alone(
    tls_server: TlsServer, authority: Authority
) -> None:
    trusted = [authority, Authority()]
    looked: list[Authority] = []
    on_its_way, rotated = threading.Event(), threading.Event()

    def linger(_: Configuration) -> None:
        if threading.current_thread() is late:
            on_its_way.set()
            rotated.wait(30)

    def find() -> Configuration:
        looked.append(trusted[len(looked)])
        configuration = Configuration(host=tls_server.url)
        configuration.ca_cert_data = looked[-1].pem.decode()
        configuration.api_key["authorization"] = "Bearer secret"
        configuration.refresh_api_key_hook = linger  # type: ignore[assignment] # declared as None
        return configuration

    def ask_late() -> None:
        with pytest.raises(NotAllowed, match=NOT_TRUSTED):
            cluster.pods("n", "a=b")
        refused.append(True)

    cluster, refused = Cluster(find, registry="registry.test"), list[bool]()
    late = threading.Thread(target=ask_late)
    late.start()
    assert on_its_way.wait(30)
    tls_server.show(*trusted[1].issue())
    with pytest.raises(NotAllowed, match=NOT_TRUSTED):
        cluster.pods("n", "a=b")
    assert cluster.pods("n", "a=b") == ()
    rotated.set()
    late.join(30)
    assert refused == [True]
    assert cluster.pods("n", "a=b") == ()
    assert looked == trusted
    cluster.close()


@pytest.mark.parametrize(
    "below_tls",
    [
        pytest.param(b"", id="an end without notice"),
        pytest.param(b"\x15\x03\x03\x00\x02\x02\x50", id="an alert"),  # fatal, internal_error
        pytest.param(b"HTTP/1.0 502 Bad Gateway\r\n\r\n", id="no TLS"),
    ],
)
def test_a_connection_that_breaks_below_a_request_says_nothing_of_certificates(
    tls_server: TlsServer, authority: Authority, tmp_path: Path, below_tls: bytes
) -> None:
    tls_server.hang_up, tls_server.below_tls = True, below_tls
    with connected(kubeconfig(tmp_path, tls_server.url, authority.trust)) as cluster:
        with pytest.raises(Retryable, match=r"GET .* got no reply: "):
            cluster.pods("n", "a=b")
        with pytest.raises(Ambiguous, match=r"PATCH .* got no reply: "):
            cluster.patch_deployment("n", "d", PATCH)
        with pytest.raises(Retryable, match=r"POST .* got no reply: "):
            cluster.ask_pod("n", "p", 8000, "POST", "/score", b"x")
        assert [call.method for call in tls_server.calls] == ["GET", "PATCH", "POST"]
        tls_server.hang_up = False
        assert cluster.pods("n", "a=b") == ()
