"""What the contract suite cannot make a healthy API server do: its troubles, and the way to AKS."""

import base64
import datetime as dt
import ipaddress
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kubernetes.client import Configuration

from shipmate.core.answers import LONGEST_REPLY
from shipmate.edge.cluster import AKS_SCOPE, Cluster, aks_configuration
from shipmate.errors import Ambiguous, Conflict, Invalid, Misconfigured, NotAllowed, NotFound, Retryable, ShipmateError

RESOURCE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/c"
PATCH: list[dict[str, Any]] = [{"op": "test", "path": "/a", "value": 1}]


class Call(NamedTuple):
    method: str
    path: str
    authorization: str | None


class Server(ThreadingHTTPServer):
    """Answers every request with `status`, `headers` and `body`, after `delay`; keeps what was asked."""

    status = 200
    body = b"{}"
    delay = 0.0
    hang_up = False
    below_tls = b""  # sent as they are before it hangs up
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.extra: dict[str, str] = {}
        self.calls: list[Call] = []

    def say(self, status: int, message: str, **extra: Any) -> None:
        """Answer as the API server does: with a Status object."""
        self.status = status
        self.body = json.dumps({"kind": "Status", "apiVersion": "v1", "message": message, **extra}).encode()

    def handle_error(self, *_: object) -> None:
        """Say nothing when a client went away before its reply."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.calls.append(Call(self.command, self.path, self.headers["Authorization"]))
        time.sleep(self.server.delay)
        if self.server.hang_up:
            os.write(self.connection.fileno(), self.server.below_tls)
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(self.server.status)
        for name, value in ({"Content-Length": str(len(self.server.body))} | self.server.extra).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.server.body)

    do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815 - http.server finds methods by these names

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def kubeconfig(folder: Path, url: str, trust: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> str:
    content = {
        "clusters": [{"name": "c", "cluster": {"server": url} | (trust or {})}],
        "users": [{"name": "u", "user": {"token": "secret"} | (user or {})}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "here",
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(content))
    return f"kubeconfig:{path}#here"


@contextmanager
def connected(setting: str, timeout_seconds: float = 5) -> Iterator[Cluster]:
    cluster = Cluster.connect(setting, registry="registry.test", timeout_seconds=timeout_seconds)
    try:
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def cluster(server: Server, tmp_path: Path) -> Iterator[Cluster]:
    with connected(kubeconfig(tmp_path, server.url)) as cluster:
        yield cluster


# -- an API server in trouble --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "extra", "for_a_read", "for_a_write"),
    [
        (400, {}, Invalid, Misconfigured),
        (401, {}, NotAllowed, NotAllowed),
        (403, {}, NotAllowed, NotAllowed),
        (404, {}, NotFound, NotFound),
        (409, {}, Conflict, Conflict),
        (422, {}, Conflict, Conflict),
        (422, {"details": {"causes": [{"field": "spec"}]}}, Invalid, Misconfigured),
        (429, {}, Retryable, Retryable),
        (500, {}, Retryable, Ambiguous),
        (503, {}, Retryable, Ambiguous),
        (504, {}, Retryable, Ambiguous),
    ],
)
def test_each_trouble_names_the_next_move(
    server: Server,
    cluster: Cluster,
    status: int,
    extra: dict[str, Any],
    for_a_read: type[ShipmateError],
    for_a_write: type[ShipmateError],
) -> None:
    server.say(status, "so it is", **extra)
    with pytest.raises(for_a_read, match=r"GET /apis/apps/v1/namespaces/n/deployments/d: so it is"):
        cluster.deployment("n", "d")
    with pytest.raises(for_a_write, match=r"PATCH /apis/apps/v1/namespaces/n/deployments/d: so it is"):
        cluster.patch_deployment("n", "d", PATCH)


def test_a_server_that_asks_for_patience_says_how_much(server: Server, cluster: Cluster) -> None:
    server.say(429, "too many")
    server.extra["Retry-After"] = "3"
    with pytest.raises(Retryable) as raised:
        cluster.pods("n", "a=b")
    assert raised.value.after_seconds == 3


def test_a_long_refusal_keeps_its_end_where_the_reason_is(server: Server, cluster: Cluster) -> None:
    server.say(400, "x" * 5000 + "unknown field spec.nonsense")
    with pytest.raises(Invalid, match=r"unknown field spec\.nonsense") as raised:
        cluster.deployment("n", "d")
    assert len(str(raised.value)) < 1000


def test_a_reply_that_is_not_the_api_servers_is_quoted(server: Server, cluster: Cluster) -> None:
    server.status, server.body = 502, b"<h1>Bad gateway</h1>"
    with pytest.raises(Retryable, match="<h1>Bad gateway</h1>"):
        cluster.deployment("n", "d")


def test_a_write_without_a_reply_may_have_taken_effect(server: Server, tmp_path: Path) -> None:
    server.delay = 3
    with connected(kubeconfig(tmp_path, server.url), timeout_seconds=0.1) as cluster:
        with pytest.raises(Retryable, match="got no reply"):
            cluster.deployment("n", "d")
        with pytest.raises(Ambiguous, match="got no reply"):
            cluster.patch_deployment("n", "d", PATCH)
        with pytest.raises(Retryable, match="got no reply"):  # a question changes nothing
            cluster.ask_pod("n", "p", 8000, "POST", "/score", b"x", timeout=0.1)
    deadline = time.monotonic() + 30
    while len(server.calls) < 3 and time.monotonic() < deadline:  # what was not waited for may be read late
        time.sleep(0.05)
    assert sorted(call.method for call in server.calls) == ["GET", "PATCH", "POST"], "nothing is sent twice"


def test_a_write_whose_connection_broke_may_have_taken_effect(server: Server, cluster: Cluster) -> None:
    server.hang_up = True
    with pytest.raises(Ambiguous, match="got no reply"):
        cluster.delete_gate_pod("n", "p", "u")
    assert len(server.calls) == 1


def test_a_write_that_did_not_arrive_may_be_repeated(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        setting = kubeconfig(tmp_path, f"http://127.0.0.1:{taken.getsockname()[1]}")
        with connected(setting) as cluster, pytest.raises(Retryable, match="did not reach the API server"):
            cluster.patch_deployment("n", "d", PATCH)


def test_a_pod_that_cannot_be_asked_is_not_a_pod_that_says_no(server: Server, cluster: Cluster) -> None:
    server.say(503, "error trying to reach service: dial tcp: connection refused")
    with pytest.raises(Retryable, match="GET /readyz of pod n/p: error trying to reach service"):
        cluster.ask_pod("n", "p", 8000, "GET", "/readyz")
    server.status, server.body = 503, b'{"kind": "Status", "title": "not ready"}'
    assert cluster.ask_pod("n", "p", 8000, "GET", "/readyz")[0] == 503
    server.body = b"[1]"
    assert cluster.ask_pod("n", "p", 8000, "GET", "/readyz")[2] == b"[1]"


def test_a_pods_reply_is_read_up_to_a_limit(server: Server, cluster: Cluster) -> None:
    server.body = b"x" * LONGEST_REPLY
    for _ in range(2):
        assert cluster.ask_pod("n", "p", 8000, "POST", "/score", b"?")[2] == server.body
    server.body += b"x"
    with pytest.raises(Retryable, match=r"POST /score of pod n/p has a reply of more than 1 MiB"):
        cluster.ask_pod("n", "p", 8000, "POST", "/score", b"?")
    server.body = b"fine"
    assert cluster.ask_pod("n", "p", 8000, "GET", "/")[2] == b"fine"


def test_a_pods_reply_that_breaks_off_is_asked_for_again(server: Server, cluster: Cluster) -> None:
    server.body, server.extra = b"half", {"Content-Length": "8"}
    with pytest.raises(Retryable, match=r"got no reply"):
        cluster.ask_pod("n", "p", 8000, "GET", "/")


def test_names_cannot_leave_their_place_in_a_path(server: Server, cluster: Cluster) -> None:
    server.say(404, "no")
    with pytest.raises(NotFound):
        cluster.deployment("../../x", "d?y")
    assert server.calls[0].path == "/apis/apps/v1/namespaces/..%2F..%2Fx/deployments/d%3Fy"


# -- TLS -----------------------------------------------------------------------------------------------------------


class Authority:
    """A CA like those of older clusters: neither it nor what it signs has a key identifier. Each has the same name."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._signed("ca", self.key, x509.BasicConstraints(ca=True, path_length=None))
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)
        self.trust = {"certificate-authority-data": base64.b64encode(self.pem).decode()}

    def issue(self, address: str = "127.0.0.1") -> tuple[bytes, bytes]:
        """Return a certificate of an address, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return self._signed("apiserver", key, names).public_bytes(serialization.Encoding.PEM), private

    def _signed(self, name: str, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(extension, critical=False)
            .sign(self.key, hashes.SHA256())
        )


class TlsServer(Server):
    """The same over TLS, with no pods; `show` says with which certificate."""

    body = b'{"items": []}'

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.socket = self.tls.wrap_socket(self.socket, server_side=True)

    def show(self, certificate: bytes, key: bytes) -> None:
        """Show this certificate on each connection from now on."""
        path = self.folder / "apiserver.pem"
        path.write_bytes(certificate + key)
        self.tls.load_cert_chain(path)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server_port}"


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[TlsServer]:
    server = TlsServer(tmp_path)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def authority(tls_server: TlsServer) -> Authority:
    """The CA of what the server shows."""
    authority = Authority()
    tls_server.show(*authority.issue())
    return authority


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
        lambda: aks_configuration(RESOURCE, FakeCredential(), resource_manager=server.url), registry="registry.test"
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
        configuration.refresh_api_key_hook = linger
        return configuration

    def ask_late() -> None:
        with pytest.raises(NotAllowed, match=NOT_TRUSTED):
            cluster.pods("n", "a=b")
        refused.append(True)

    cluster, refused = Cluster(find, registry="registry.test"), []
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


# -- where the cluster is ------------------------------------------------------------------------------------------


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


class GrantedToken(NamedTuple):
    token: str
    expires_on: int


class FakeCredential:
    """Grants tokens that are good for an hour of the test's own clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.granted: list[str] = []

    def get_token(self, *scopes: str) -> GrantedToken:
        self.granted.append(scopes[0])
        return GrantedToken(f"token-{len(self.granted)}", int(self.now) + 3600)


def user_credentials(api_server: str, authority: Authority | None = None) -> bytes:
    ca = authority.pem if authority else b"-----BEGIN CERTIFICATE-----"
    content = {
        "clusters": [
            {
                "name": "c",
                "cluster": {
                    "server": api_server,
                    "certificate-authority-data": base64.b64encode(ca).decode(),
                },
            }
        ],
        "users": [{"name": "u", "user": {"exec": {"command": "kubelogin"}}}],
    }
    value = base64.b64encode(yaml.safe_dump(content).encode()).decode()
    return json.dumps({"kubeconfigs": [{"name": "clusterUser", "value": value}]}).encode()


def test_aks_is_reached_with_a_token_of_our_own_that_is_renewed_in_time(server: Server) -> None:
    server.body = user_credentials(server.url)
    credential = FakeCredential()
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
        aks_configuration(RESOURCE, FakeCredential(), resource_manager=server.url)
    assert not isinstance(raised.value, Retryable) or raised.value.after_seconds == 5


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"kubeconfigs": [{"value": "e30="}]}', b'{"kubeconfigs": [{"value": 1}]}']
)
def test_credentials_of_another_shape_are_refused(server: Server, body: bytes) -> None:
    server.body = body
    with pytest.raises(Misconfigured, match="gave no usable credentials of"):
        aks_configuration(RESOURCE, FakeCredential(), resource_manager=server.url)


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
        return aks_configuration(RESOURCE, FakeCredential(), resource_manager=server.url)

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


def test_an_aks_cluster_that_was_never_used_is_closed() -> None:
    cluster = Cluster.connect(f"aks:{RESOURCE}", registry="r", credential=FakeCredential())
    assert cluster.registry == "r"
    cluster.close()


def test_an_azure_resource_manager_that_is_away_is_retried() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Retryable, match=r"Azure Resource Manager did not answer about"):
            aks_configuration(RESOURCE, FakeCredential(), resource_manager=url)
