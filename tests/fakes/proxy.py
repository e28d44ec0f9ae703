"""An HTTP proxy on loopback in front of one server, which does to chosen requests what networks do.

It forwards real requests of real clients; a fault is asked for by a word that the request line must hold, and befalls
the next such request only.
"""

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Fault(Enum):
    """What befalls a request."""

    LOSE_REQUEST = "lose request"  # the connection drops before it is forwarded
    LOSE_REPLY = "lose reply"  # it is forwarded and served; the connection drops before the reply
    SEND_TWICE = "send twice"  # it arrives twice, and the client sees the second reply


@dataclass
class Rule:
    """A fault, or a status to answer with, or something to do first, for the next request that holds the word."""

    word: str
    what: Fault | int | Callable[[], object]


@dataclass
class Proxy:
    """A running proxy."""

    server_port: int
    port: int = 0
    rules: list[Rule] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)  # request lines that were forwarded

    def on_next(self, word: str, *what: Fault | int | Callable[[], object]) -> None:
        """Have these befall the next requests whose line holds the word, one each."""
        self.rules += [Rule(word, each) for each in what]

    def take_rule(self, line: str) -> Fault | int | Callable[[], object] | None:
        """Return what befalls this request, and forget it."""
        for rule in self.rules:
            if rule.word in line:
                self.rules.remove(rule)
                return rule.what
        return None


@contextmanager
def proxy(server_port: int) -> Iterator[Proxy]:
    """Run a proxy in front of a port of 127.0.0.1."""
    state = Proxy(server_port)

    class Handler(_Handler):
        proxy = state

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        state.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
    assert not state.rules, f"no request met {state.rules}"


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        what = self.proxy.take_rule(self.requestline)
        if callable(what):
            what()
        elif isinstance(what, int):
            self._reply(what, {"x-ms-error-code": "Injected"}, b"")
            return
        if what is Fault.LOSE_REQUEST:
            self._hang_up()
            return
        try:
            status, headers, reply = self._forward(body)
            if what is Fault.SEND_TWICE:
                status, headers, reply = self._forward(body)
        except ConnectionRefusedError:  # the server is away, and so is whoever stands before it
            self._hang_up()
            return
        if what is Fault.LOSE_REPLY:
            self._hang_up()
            return
        self._reply(status, headers, reply)

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        self.proxy.requests.append(self.requestline)
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy.server_port, timeout=30)
        try:
            connection.request(self.command, self.path, body or None, dict(self.headers.items()))
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def _reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "keep-alive", "content-length"):
                self.send_header(name, value)
        length = headers.get("content-length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("content-length", length)
        self.end_headers()
        self.wfile.write(body)

    def _hang_up(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as it is called in the base class
        """Say nothing."""
