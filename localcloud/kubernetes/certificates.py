"""The cluster's certificate authority and the certificates of its programs.

Names and groups are what Kubernetes binds its built-in roles to (PKI certificates and requirements, kubernetes.io).
Everything is made at once into one folder, and made again when it is about to expire.
"""

import base64
import datetime as dt
import ipaddress
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from localcloud.kubernetes.layout import API_PORT, CONTEXT, KUBERNETES_SERVICE, NODE, NODE_ADDRESS

VALID_DAYS = 365
RENEW_BEFORE_DAYS = 30


@dataclass(frozen=True)
class Identity:
    """One certificate: its file's name, the user and group it stands for, and the names it serves under."""

    file: str
    user: str
    group: str | None = None
    names: tuple[str, ...] = ()

    def subject(self) -> x509.Name:
        """Return the certificate's subject."""
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, self.user)]
        if self.group is not None:
            attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, self.group))
        return x509.Name(attributes)


IDENTITIES = (
    Identity("etcd", "etcd", names=("127.0.0.1", "localhost")),
    Identity("apiserver-etcd-client", "kube-apiserver"),
    Identity(
        "apiserver",
        "kube-apiserver",
        names=("127.0.0.1", KUBERNETES_SERVICE, "localhost", "kubernetes", "kubernetes.default.svc"),
    ),
    Identity("apiserver-kubelet-client", "kube-apiserver-kubelet-client", "system:masters"),
    Identity("kubelet", f"system:node:{NODE}", "system:nodes", names=(NODE, NODE_ADDRESS)),
    Identity("kube-controller-manager", "system:kube-controller-manager"),
    Identity("kube-scheduler", "system:kube-scheduler"),
    Identity("kube-proxy", "system:kube-proxy"),
    Identity("admin", "shipmate-local-admin", "system:masters"),
)

KUBECONFIGS = ("admin", "kubelet", "kube-controller-manager", "kube-scheduler", "kube-proxy")
"""The identities that talk to the API server by a kubeconfig."""


def ensure_certificates(folder: Path, *, now: dt.datetime) -> None:
    """Make all certificates in `folder` unless they are there and hold for another month."""
    if not _still_good(folder, now):
        make_certificates(folder, now=now)


def make_certificates(folder: Path, *, now: dt.datetime) -> None:
    """Make a new authority and everything it signs, and put the folder in place as one."""
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True, mode=0o700)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shipmate-local")])
    authority = (
        _builder(authority_name, authority_name, authority_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    (fresh / "ca.crt").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    for identity in IDENTITIES:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(identity.subject(), authority_name, key.public_key(), now)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            )
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
                critical=False,
            )
        )
        if identity.names:
            certificate = certificate.add_extension(
                x509.SubjectAlternativeName(list(_general_names(identity.names))), critical=False
            )
        signed = certificate.sign(authority_key, hashes.SHA256())
        (fresh / f"{identity.file}.crt").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        _write_key(fresh / f"{identity.file}.key", key)
    service_accounts = ec.generate_private_key(ec.SECP256R1())
    _write_key(fresh / "service-accounts.key", service_accounts)
    for name in KUBECONFIGS:
        write_private(fresh / f"{name}.kubeconfig", _kubeconfig(fresh, name))
    shutil.rmtree(folder, ignore_errors=True)
    fresh.replace(folder)


def write_private(path: Path, content: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    fresh = path.with_name(f".{path.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    fresh.replace(path)


def _still_good(folder: Path, now: dt.datetime) -> bool:
    wanted = [f"{identity.file}.{end}" for identity in IDENTITIES for end in ("crt", "key")]
    wanted += ["ca.crt", "service-accounts.key", *(f"{name}.kubeconfig" for name in KUBECONFIGS)]
    if not all((folder / name).is_file() for name in wanted):
        return False
    try:
        authority = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    except ValueError:  # as a machine that lost its power leaves files
        return False
    return authority.not_valid_before_utc <= now <= authority.not_valid_after_utc - dt.timedelta(days=RENEW_BEFORE_DAYS)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))  # a clock that is set back a little does no harm
        .not_valid_after(now + dt.timedelta(days=VALID_DAYS))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_names(names: Iterable[str]) -> Iterable[x509.GeneralName]:
    for name in names:
        try:
            yield x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            yield x509.DNSName(name)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    write_private(path, pem.decode())


def _kubeconfig(folder: Path, name: str) -> str:
    def embedded(file: str) -> str:
        return base64.b64encode((folder / file).read_bytes()).decode()

    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": CONTEXT,
                "cluster": {
                    "server": f"https://127.0.0.1:{API_PORT}",
                    "certificate-authority-data": embedded("ca.crt"),
                },
            }
        ],
        "users": [
            {
                "name": name,
                "user": {
                    "client-certificate-data": embedded(f"{name}.crt"),
                    "client-key-data": embedded(f"{name}.key"),
                },
            }
        ],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": name}}],
        "current-context": CONTEXT,
    }
    return yaml.safe_dump(config, sort_keys=False)
