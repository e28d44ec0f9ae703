"""The cluster's certificates, in a real TLS handshake, and the image of one static program."""

import datetime as dt
import io
import json
import socket
import ssl
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from localcloud.kubernetes.certificates import IDENTITIES, KUBECONFIGS, ensure_certificates
from localcloud.kubernetes.static_image import image_archive

NOW = dt.datetime.now(dt.UTC)


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    folder = tmp_path / "certificates"
    ensure_certificates(folder, now=NOW)
    return folder


def peer_after_handshake(pki: Path, *, client: str, server: str, name: str) -> dict[str, str]:
    """Connect as `client` to `server` under a name, both checking the other; return the subject the server saw."""
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pki / "ca.crt")
    serving.verify_mode = ssl.CERT_REQUIRED
    serving.load_cert_chain(pki / f"{server}.crt", pki / f"{server}.key")
    asking = ssl.create_default_context(cafile=pki / "ca.crt")
    asking.load_cert_chain(pki / f"{client}.crt", pki / f"{client}.key")
    ours, theirs = socket.socketpair()
    seen: list[dict[str, str]] = []

    def serve() -> None:
        with theirs, serving.wrap_socket(theirs, server_side=True) as connection:
            connection.recv(1)
            subject: Any = (connection.getpeercert() or {})["subject"]
            seen.append({key: value for pairs in subject for key, value in pairs})

    thread = threading.Thread(target=serve)
    thread.start()
    with ours, asking.wrap_socket(ours, server_hostname=name) as connection:
        connection.send(b"?")
        thread.join()
    return seen[0]


@pytest.mark.parametrize(
    ("client", "server", "name", "user"),
    [
        ("admin", "apiserver", "127.0.0.1", "shipmate-local-admin"),
        ("apiserver-kubelet-client", "kubelet", "10.213.0.1", "kube-apiserver-kubelet-client"),
        ("apiserver-etcd-client", "etcd", "127.0.0.1", "kube-apiserver"),
        ("kubelet", "apiserver", "kubernetes.default.svc", "system:node:local"),
    ],
)
def test_programs_know_each_other(client: str, server: str, name: str, user: str, pki: Path) -> None:
    assert peer_after_handshake(pki, client=client, server=server, name=name)["commonName"] == user


def test_the_node_and_the_administrator_are_in_their_groups(pki: Path) -> None:
    assert peer_after_handshake(pki, client="admin", server="apiserver", name="localhost")["organizationName"] == (
        "system:masters"
    )
    assert peer_after_handshake(pki, client="kubelet", server="apiserver", name="localhost")["organizationName"] == (
        "system:nodes"
    )


def test_certificates_are_kept_until_they_are_about_to_expire(pki: Path) -> None:
    first = (pki / "ca.crt").read_bytes()
    ensure_certificates(pki, now=NOW + dt.timedelta(days=300))
    assert (pki / "ca.crt").read_bytes() == first
    later = NOW + dt.timedelta(days=340)
    ensure_certificates(pki, now=later)
    assert (pki / "ca.crt").read_bytes() != first
    for identity in IDENTITIES:
        made = x509.load_pem_x509_certificate((pki / f"{identity.file}.crt").read_bytes())
        assert made.not_valid_after_utc > later + dt.timedelta(days=300)


def test_what_is_missing_is_made_again(pki: Path) -> None:
    (pki / "kubelet.key").unlink()
    ensure_certificates(pki, now=NOW)
    assert peer_after_handshake(pki, client="admin", server="kubelet", name="local")


def test_what_a_power_cut_damaged_is_made_again(pki: Path) -> None:
    (pki / "ca.crt").write_bytes(bytes(600))
    ensure_certificates(pki, now=NOW)
    assert peer_after_handshake(pki, client="admin", server="kubelet", name="local")


def test_keys_are_for_their_owner_alone(pki: Path) -> None:
    secret = [*pki.glob("*.key"), *pki.glob("*.kubeconfig")]
    assert len(secret) == len(IDENTITIES) + 1 + len(KUBECONFIGS)
    assert {path.stat().st_mode & 0o777 for path in secret} == {0o600}
    assert pki.stat().st_mode & 0o777 == 0o700


def test_the_kubeconfig_has_the_clouds_context(pki: Path) -> None:
    kubeconfig = yaml.safe_load((pki / "admin.kubeconfig").read_text())
    assert kubeconfig["current-context"] == "shipmate-local"
    assert kubeconfig["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:16443"


def test_an_image_of_one_program_is_the_same_every_time(tmp_path: Path) -> None:
    program = tmp_path / "wait"
    program.write_bytes(b"\x7fELF")
    archive = image_archive(program, name="localhost/wait:1")
    program.touch()
    assert image_archive(program, name="localhost/wait:1") == archive
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        index = json.loads(tar.extractfile("index.json").read())
        digest = index["manifests"][0]["digest"].removeprefix("sha256:")
        manifest = json.loads(tar.extractfile(f"blobs/sha256/{digest}").read())
        config = json.loads(tar.extractfile(f"blobs/sha256/{manifest['config']['digest'][7:]}").read())
    assert config["config"] == {"Entrypoint": ["/wait"], "User": "65535:65535"}
    assert config["rootfs"]["diff_ids"] == [manifest["layers"][0]["digest"]]
