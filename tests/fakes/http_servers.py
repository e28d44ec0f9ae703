"""HTTP servers of tests, on a free loopback port: one answers by a function, one passes on and fails on cue."""

import abc
import http.client
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar


@dataclass
class Seen:
    """A request that came in, over a connection from a port; `received` counts the bytes of its body that did."""

    method: str
    path: str
    headers: Mapping[str, str]
    received: int = 0
    body: bytes = b""
    port: int = 0


@dataclass
class Answer:
    """What to answer."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: connections are broken here on purpose."""


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    server = _Server(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler, abc.ABC):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    @abc.abstractmethod
    def do(self) -> None:
        """Answer the request, of whatever method."""

    def seen(self) -> Seen:
        return Seen(self.command, self.path, dict(self.headers.items()), port=self.client_address[1])

    def length(self) -> int:
        return int(self.headers.get("Content-Length") or 0)

    def reply(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if "content-length" not in {name.lower() for name in answer.headers}:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def do_GET(self) -> None:
        self.do()

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815


@contextmanager
def answering(
    answer: Callable[[Seen], Answer], *, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[str, list[Seen]]]:
    """Serve what a function answers; yield the address and the list of requests."""
    requests: list[Seen] = []

    class Handler(_Handler):
        def do(self) -> None:
            seen = self.seen()
            seen.body = self.rfile.read(self.length())
            requests.append(seen)
            self.reply(answer(seen))

    with _serving(Handler, tls) as url:
        yield url, requests


@dataclass
class Fault:
    """What goes wrong with the next request of a method whose path holds `path`."""

    method: str
    path: str = ""
    answer: Answer | None = None  # instead of passing the request on
    drop_after: int | None = None  # about so many bytes of the body are passed on, then both connections break
    drop_answer: bool = False  # the request is passed on, its answer is not
    without_query: bool = False  # passed on without the query
    changed: Mapping[str, str] = field(default_factory=dict)  # headers of the answer that are different
    above: int = -1  # only requests with more bytes than this
    times: int = 1

    def concerns(self, seen: Seen) -> bool:
        is_large = int(seen.headers.get("Content-Length", "0")) > self.above
        return self.times > 0 and seen.method == self.method and self.path in seen.path and is_large


class Dropped(Exception):
    """A connection that is broken on purpose."""


@contextmanager
def failing(host: str, faults: list[Fault]) -> Iterator[tuple[str, list[Seen]]]:
    """Serve what a host answers, but for the faults; yield the address and the list of requests."""
    requests: list[Seen] = []

    class Handler(_Handler):
        passed: ClassVar[frozenset[str]] = frozenset({"transfer-encoding", "connection", "content-length"})

        def do(self) -> None:
            seen = self.seen()
            requests.append(seen)
            fault = next((fault for fault in faults if fault.concerns(seen)), Fault(""))
            fault.times -= 1
            if fault.answer is not None:
                closing = {"Connection": "close"}  # the body is left unread
                self.reply(replace(fault.answer, headers={**fault.answer.headers, **closing}))
                return
            if fault.drop_after == 0:
                self.close_connection = True
                return
            path = self.path.partition("?")[0] if fault.without_query else self.path
            upstream = http.client.HTTPConnection(host, timeout=30)
            try:
                self.pass_on(upstream, path, seen, fault)
            except Dropped:
                self.close_connection = True
            finally:
                upstream.close()

        def pass_on(self, upstream: http.client.HTTPConnection, path: str, seen: Seen, fault: Fault) -> None:
            upstream.putrequest(self.command, path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                upstream.putheader(name, value)
            upstream.endheaders()
            left = self.length()
            while left:
                piece = self.rfile.read1(min(left, 1 << 16))
                if not piece:  # the client went away
                    raise Dropped
                left -= len(piece)
                seen.received += len(piece)
                upstream.send(piece)
                if fault.drop_after is not None and seen.received >= fault.drop_after:
                    raise Dropped
            response = upstream.getresponse()
            body = response.read()
            if fault.drop_answer:
                raise Dropped
            headers = {name: value for name, value in response.getheaders() if name.lower() not in self.passed}
            if self.command == "HEAD" and "Content-Length" in response.headers:
                headers["Content-Length"] = response.headers["Content-Length"]
            self.reply(Answer(response.status, body, {**headers, **fault.changed}))

    with _serving(Handler) as url:
        yield url, requests
