"""An API server that answers as it is told to, with or without TLS, and the settings that lead to it."""

import json
import os
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from shipmate.edge.cluster import Cluster


class Call(NamedTuple):
    method: str
    path: str
    authorization: str | None


class Server(ThreadingHTTPServer):
    """Answers every request with `status`, `headers` and `body`, after `delay`; keeps what was asked."""

    status = 200
    body = b"{}"
    delay = 0.0
    drop_seconds = 0.0  # between one byte of the body and the next
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
        if not self.server.drop_seconds:
            self.wfile.write(self.server.body)
            return
        for drop in self.server.body:
            self.wfile.write(bytes([drop]))
            time.sleep(self.server.drop_seconds)

    do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815 - http.server finds methods by these names

    def log_message(self, *_: object) -> None:
        pass


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
