"""One blob on its way into a repository: an upload session of the distribution API.

Used by `shipmate.edge.registry`. POST begins a session, a few large PATCHes send the bytes while they are read, PUT
names the digest and makes them a blob. When a connection breaks, the session is asked how far it came and sending goes
on there; when the session itself is lost, another is begun: in Azure's registry the next PATCH may be the first to say
so (404 BLOB_UPLOAD_INVALID; azure-sdk-for-python#29738). Whatever else happens, the session is cancelled and the
repository holds nothing new.

Every request of a session goes to the address that the last answer gave: distribution keeps the offset in it, and
refuses one that is out of date.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NoReturn

import httpx

from shipmate.core.refs import Digest
from shipmate.edge.registry_http import BrokeOff, Interrupted, RegistryHttp, Reply, pause
from shipmate.errors import NotAllowed, Retryable, ShipmateError
from shipmate.ports import Readable

PATCH_SIZES = (1 << 30, 16 << 20, 4 << 20)
"""Bytes in one PATCH: few of them, since registries count writes, and not all lost when the last one breaks.

An upload begins with the first size and takes a smaller one where the registry, or what stands before it, refuses that,
breaks off, or answers for it with a 502 or 504. Azure's answered 413 to 20 MB in one PUT (goharbor/harbor#23015) and
closed connections on large chunks (azure-sdk-for-net#32059); its own clients send 4 MiB (azure-containerregistry,
`DEFAULT_CHUNK_SIZE`).
"""
MOST_BREAKS = 2
"""PATCHes that break off without progress, before they become smaller."""
MOST_INTERRUPTIONS = 6
"""In a row, without any progress between, before an upload is given up."""
LONGEST_WAIT_SECONDS = 10.0
"""A registry that wants an upload to wait longer ends it: the release is tried again later."""
_TRIES_TO_CANCEL = 4
_ACCEPTED = frozenset({202})


class Upload:
    """An upload session. `begun` is the answer that began it, if that was a mount which was not granted."""

    def __init__(
        self,
        http: RegistryHttp,
        repository: str,
        scopes: frozenset[str],
        content: Readable,
        begun: Reply | None = None,
    ) -> None:
        self._http = http
        self._path = f"/v2/{repository}/blobs/"
        self._scopes = scopes
        self._content = content
        self._feed = _Feed(content)
        self._session = _Session(http, self._feed)
        self._patch_size = _PatchSize()
        if begun is not None:
            self._session.began(begun)

    def run(self) -> Digest:
        """Send the content and return its digest.

        Raises what reading the content raises, Retryable, and NotAllowed; nothing is published then.
        """
        try:
            self._send_all()
        except BaseException:
            self._cancel()
            raise
        return self._content.digest

    def _send_all(self) -> None:
        session = self._session
        interruptions, furthest, size = 0, 0, self._patch_size.bytes
        while True:
            try:
                if interruptions and self._is_stored():
                    return
                self._open()
                while session.offset < self._content.size:
                    self._patch()
                self._complete()
            except Interrupted as error:
                gets_on = session.offset > furthest or self._patch_size.bytes < size
                interruptions = 1 if gets_on else interruptions + 1
                furthest, size = max(furthest, session.offset), self._patch_size.bytes
                wait = error.after_seconds or 0.0
                if interruptions > MOST_INTERRUPTIONS or wait > LONGEST_WAIT_SECONDS:
                    raise Retryable(f"an upload broke off: {error}", after_seconds=error.after_seconds) from error
                pause(interruptions, at_least_seconds=wait)
                session.is_certain = False
            else:
                return

    def _open(self) -> None:
        """Ask the session how far it came; begin one if there is none, or none any more."""
        if self._session.is_certain:
            return
        try:
            if self._session.location is not None:
                reply = self._http.send("GET", self._session.location, self._scopes, expected=frozenset({204, 404}))
                if reply.status == 204:
                    self._session.moved(reply)
                    return
            begun = self._http.send("POST", f"{self._path}uploads/", self._scopes, expected=_ACCEPTED, content=b"")
        except Retryable as error:
            raise Interrupted(str(error), error.after_seconds) from error
        self._session.began(begun)

    def _patch(self) -> None:
        start = self._session.offset
        size = min(self._patch_size.bytes, self._content.size - start)
        try:
            reply = self._request("PATCH", self._session.at(), size, lambda: self._feed.read(start, size), start)
        except BrokeOff:
            self._patch_size.broke(start, size)
            raise
        if reply.status == 413:
            self._refused(reply, size)
        if reply.status == 416:
            self._session.has_other_offset()
        if reply.status in (404, 416):
            raise self._lost(reply, f"cannot take bytes from {start}")
        if reply.status != 202:
            raise self._http.translated(reply, "PATCH")
        self._session.took(start + size, reply)

    def _refused(self, reply: Reply, size: int) -> NoReturn:
        """Go on with less in a PATCH than what was refused as too large; raise NotAllowed if there is no less."""
        if self._patch_size.refused(size):
            raise Interrupted(f"{self._http.name} refused {size} bytes at once: {reply.said}")
        raise NotAllowed(
            f"{self._http.name} refused {size} bytes of a layer at once: {reply.said}; let what stands before the "
            f"registry pass bodies of {PATCH_SIZES[-1]} bytes (nginx: client_max_body_size), or go round it"
        )

    def _lost(self, reply: Reply, what: str) -> Interrupted:
        """Return the interruption by a 404 or 416; after a 404 there is no session that could be asked."""
        if reply.status == 404:
            self._session.location = None
        return Interrupted(f"{self._http.name} {what}: {reply.said}")

    def _complete(self) -> None:
        """Make what was sent a blob; the registry refuses if it received other bytes than were hashed."""
        url = self._session.at().copy_merge_params({"digest": self._content.digest})
        reply = self._request("PUT", url, 0, lambda: iter(()))
        if reply.status in (404, 416):
            raise self._lost(reply, "cannot complete an upload")
        if "DIGEST_INVALID" in reply.codes:
            raise Retryable(f"{self._http.name} received other bytes than {self._content.digest}; they are sent again")
        if reply.status != 201:
            raise self._http.translated(reply, "PUT")

    def _request(
        self, method: str, url: httpx.URL, size: int, body: Callable[[], Iterator[bytes]], start: int | None = None
    ) -> Reply:
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        if start is not None:
            headers["Content-Range"] = f"{start}-{start + size - 1}"
        return self._http.send_once(method, url, self._scopes, headers=headers, body=body)

    def _is_stored(self) -> bool:
        """Return whether the last PUT took effect although its answer was lost."""
        try:
            digest = self._content.digest
        except ValueError:
            return False
        try:
            return self._http.exists(f"{self._path}{digest}", self._scopes)
        except Retryable as error:
            raise Interrupted(str(error), error.after_seconds) from error

    def _cancel(self) -> None:
        """End the session, so that the registry need not keep what was sent until it expires by itself.

        Distribution may still be writing when the connection broke a moment ago, and then the offset it named is out of
        date at once: hence several tries. If none helps, the registry removes the session in its own time.
        """
        session = self._session
        with suppress(ShipmateError):
            for attempt in range(_TRIES_TO_CANCEL if session.location is not None else 0):
                reply = self._http.send("GET", session.at(), self._scopes, expected=frozenset({204, 404}))
                if reply.status == 404:
                    return
                session.moved(reply)
                gone = frozenset({202, 204, 404})
                reply = self._http.send("DELETE", session.at(), self._scopes, expected=gone | {416})
                if reply.status in gone:
                    return
                pause(attempt)


class _Session:
    """Where an upload goes on: the address that the registry's last answer gave, and how many bytes it has.

    An answer says the bytes as a range. `0-0` is said of one byte and of none: it is taken for what the session should
    have, and for the other of the two once the registry wanted another offset (416).
    """

    def __init__(self, http: RegistryHttp, feed: "_Feed") -> None:
        self._http = http
        self._feed = feed
        self.location: httpx.URL | None = None
        self.offset = 0
        self.is_certain = False  # nothing was sent since the registry said both
        self._of_0_0 = 0  # bytes

    def at(self) -> httpx.URL:
        """Return the address of a session that was begun."""
        if self.location is None:
            raise AssertionError("an upload is used before it was begun")
        return self.location

    def began(self, reply: Reply) -> None:
        """Take note of the answer that began a session."""
        self.offset = self._of_0_0 = 0
        self.moved(reply)

    def took(self, end: int, reply: Reply) -> None:
        """Take note of the answer to a PATCH that the registry took, which need not say up to which byte."""
        self._of_0_0 = min(end, 1)
        self.offset = end
        self.moved(reply)

    def moved(self, reply: Reply) -> None:
        """Take note of what an answer says about the session; it cannot have more bytes than were ever sent."""
        location = reply.headers.get("Location")
        if location is None:
            raise Retryable(f"{self._http.name} began an upload without saying where; it is begun again")
        self.location = self._http.own(location, reply.url)
        first, _, last = reply.headers.get("Range", "").rpartition("=")[2].partition("-")
        if first == "0" and last.isdecimal():
            self.offset = min(int(last) + 1 if last != "0" else self._of_0_0, self._feed.furthest)
        self.is_certain = True

    def has_other_offset(self) -> None:
        """Take note that the session has another offset than its last answer said."""
        if self.offset in (0, 1):
            self._of_0_0 = 1 - self.offset


class _PatchSize:
    """How many bytes go in one PATCH: fewer once as many were refused, or broke off twice without getting on."""

    def __init__(self) -> None:
        self.bytes = PATCH_SIZES[0]
        self._breaks = 0  # PATCHes of this size that broke off, none of them further on than the one before
        self._broke_at = -1  # where the last one began

    def broke(self, start: int, size: int) -> None:
        """Take note that a PATCH of so many bytes broke off."""
        self._breaks = self._breaks + 1 if start <= self._broke_at else 1
        self._broke_at = start
        if self._breaks >= MOST_BREAKS:
            self.refused(size)

    def refused(self, size: int) -> bool:
        """Make the following PATCHes smaller than this; return whether there is a smaller size."""
        smaller = [other for other in PATCH_SIZES if other < size]
        if smaller:
            self.bytes, self._breaks = smaller[0], 0
        return bool(smaller)


class _Feed:
    """Content read forward as its pieces come, across requests; it goes back only if the registry did."""

    def __init__(self, content: Readable) -> None:
        self._content = content
        self.furthest = 0  # offset in the content
        self._position = 0
        self._chunks: Iterator[bytes] | None = None
        self._rest = b""

    def read(self, start: int, size: int) -> Iterator[bytes]:
        """Yield `size` bytes from an offset that was reached before."""
        if self._chunks is None or self._position != start:
            self._chunks = self._content.open_at(start)
            self._rest = b""
            self._position = start
        end = start + size
        while self._position < end:
            chunk = self._rest or self._next(self._chunks)
            left = end - self._position
            piece, self._rest = chunk[:left], chunk[left:]  # a whole one is not copied
            self._position += len(piece)
            self.furthest = max(self.furthest, self._position)
            yield piece

    def _next(self, chunks: Iterator[bytes]) -> bytes:
        for chunk in chunks:
            if chunk:
                return chunk
        raise ValueError(f"the content ended at byte {self._position} of {self._content.size}")
