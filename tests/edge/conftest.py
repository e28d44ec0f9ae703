"""API servers for the tests of this folder."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shipmate.edge.cluster import Cluster
from tests.fakes.api_server import Server, TlsServer, connected, kubeconfig
from tests.fakes.certificates import Authority


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def cluster(server: Server, tmp_path: Path) -> Iterator[Cluster]:
    with connected(kubeconfig(tmp_path, server.url)) as cluster:
        yield cluster


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
