"""How a storage account is reached: connections and patience that blobs, queue and models have in common."""

import requests
from azure.core.pipeline.transport import RequestsTransport
from requests.adapters import HTTPAdapter

from shipmate.edge.api_server import CONNECTIONS

CONNECT_SECONDS = 5
SILENCE_SECONDS = 20
"""How long storage may say nothing while it is asked; both are the transport's, and azure-core's own are 300 s."""
PIECE_SIZE = 256 << 10
"""Bytes taken from a connection at once: what the allocator keeps and a processor's cache holds."""


def transport() -> RequestsTransport:
    """Return a transport that keeps a connection for every thread: the SDK's own keeps 10 and opens others anew.

    A client that is given a transport sets no timeouts and no block size on it (`_create_pipeline` in the SDK).
    """
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS))
    return RequestsTransport(
        session=session,
        connection_timeout=CONNECT_SECONDS,
        read_timeout=SILENCE_SECONDS,
        connection_data_block_size=PIECE_SIZE,
    )
