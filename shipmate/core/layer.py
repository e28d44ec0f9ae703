"""A layer: an uncompressed tar of some files of a model, the same bytes every time, made while it is read.

Uncompressed, so that the digest equals the diff ID and one pass over the bytes makes both; compressing a model costs
much time and saves little. Used by the stage build; knows neither where files come from nor where the layer goes.

Layout (raise LAYOUT_VERSION when it changes): every file below /model, its parent folders explicit, sorted, mtime 0,
uid and gid 0, files 0444, folders 0555, PAX records for what a plain header cannot say (names that are long or not
ASCII, 8 GiB and more), and two zero blocks at the end.
"""

import hashlib
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath

import msgspec

from shipmate.core.manifest import MANIFEST_NAME, ModelFile, ModelManifest
from shipmate.core.refs import Digest, digest_of, hex_of
from shipmate.errors import Rejected

LAYOUT_VERSION = 1
ROOT = "model"
"""The folder of a release image that holds the model."""
OWN_LAYER_SIZE = 1 << 20
"""Files from this size in bytes get a layer of their own, which stays when other files of the model change."""
_TRAILER = bytes(2 * tarfile.BLOCKSIZE)


class LayerFiles(msgspec.Struct, frozen=True):
    """The files of one layer, sorted by path."""

    files: tuple[ModelFile, ...]

    @property
    def key(self) -> str:
        """The layer's identity before it is made: 64 hex digits over its list of files and the layout."""
        listed = [LAYOUT_VERSION, [(file.path, file.size, file.sha256) for file in self.files]]
        return hashlib.sha256(msgspec.json.encode(listed)).hexdigest()


def layer_plan(manifest: ModelManifest) -> tuple[LayerFiles, ...]:
    """Return the layers of a model: each large file alone, then all small ones with the manifest."""
    files = sorted(manifest.files, key=lambda file: file.path)
    own = ModelFile(MANIFEST_NAME, len(manifest.data), hex_of(digest_of(manifest.data)))
    large = [LayerFiles((file,)) for file in files if file.size >= OWN_LAYER_SIZE]
    small = sorted([own, *(file for file in files if file.size < OWN_LAYER_SIZE)], key=lambda file: file.path)
    return (*large, LayerFiles(tuple(small)))


class _Part(msgspec.Struct, frozen=True):
    """A stretch of a layer: bytes known beforehand, or a file's content."""

    start: int
    size: int
    content: bytes | ModelFile


def _parts(layer: LayerFiles) -> tuple[_Part, ...]:
    parts: list[_Part] = []
    start = 0
    for content in _contents(layer):
        size = len(content) if isinstance(content, bytes) else content.size
        parts.append(_Part(start, size, content))
        start += size
    return tuple(parts)


def _contents(layer: LayerFiles) -> Iterator[bytes | ModelFile]:
    folders = {parent for file in layer.files for parent in PurePosixPath(ROOT, file.path).parents}
    members: list[tuple[PurePosixPath, ModelFile | None]] = [
        *((folder, None) for folder in folders if folder.name),
        *((PurePosixPath(ROOT, file.path), file) for file in layer.files),
    ]
    for path, file in sorted(members, key=lambda member: member[0].parts):
        yield _header(str(path), file)
        if file is not None:
            yield file
            if file.size % tarfile.BLOCKSIZE:
                yield bytes(-file.size % tarfile.BLOCKSIZE)
    yield _TRAILER


def _header(path: str, file: ModelFile | None) -> bytes:
    """Return the header blocks of a folder or a file; what TarInfo has by default is what the layout wants."""
    info = tarfile.TarInfo(path)
    if file is None:
        info.type, info.mode = tarfile.DIRTYPE, 0o555
    else:
        info.size, info.mode = file.size, 0o444
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def layer_size(layer: LayerFiles) -> int:
    """Return the size of a layer in bytes."""
    return sum(part.size for part in _parts(layer))


class LayerReader:
    """Reads a layer from any offset, and checks every file on the way; keeps no more than a chunk of it in memory.

    `open_file` is called with a file and an offset in it, and returns the file's bytes from there to its end. A stretch
    that is read again, after an upload was interrupted, is hashed once.
    """

    def __init__(self, layer: LayerFiles, open_file: Callable[[ModelFile, int], Iterable[bytes]]) -> None:
        self._parts = _parts(layer)
        self._open_file = open_file
        self.size = sum(part.size for part in self._parts)
        self._hashed = 0  # bytes of the layer that the hashes below have seen
        self._layer_hash = hashlib.sha256()
        self._file_hash = hashlib.sha256()

    @property
    def digest(self) -> Digest:
        """The layer's digest, which is its diff ID as well. To be asked once the layer was read to its end."""
        if self._hashed != self.size:
            raise ValueError(f"the layer was read up to byte {self._hashed} of {self.size}: it has no digest yet")
        return Digest("sha256:" + self._layer_hash.hexdigest())

    def open_at(self, offset: int) -> Iterator[bytes]:
        """Yield the layer's bytes from an offset that was reached before.

        Raises Rejected (SizeMismatch, DigestMismatch) before the layer's last bytes, if a file is not what was listed.
        """
        if not 0 <= offset <= self._hashed:
            raise ValueError(f"the layer was read up to byte {self._hashed}: it cannot go on at {offset}")
        for part in self._parts:
            skipped = max(0, offset - part.start)
            if skipped and skipped >= part.size:
                continue
            if isinstance(part.content, bytes):
                yield self._hash(part.start + skipped, part.content[skipped:])
            else:
                yield from self._file(part.content, part.start, skipped)

    def _file(self, file: ModelFile, start: int, skipped: int) -> Iterator[bytes]:
        if self._hashed == start:
            self._file_hash = hashlib.sha256()
        position = skipped
        for chunk in self._open_file(file, skipped):
            if position + len(chunk) > file.size:
                raise Rejected("SizeMismatch", _size_fault(file, f"more than {file.size}"))
            self._file_hash.update(memoryview(chunk)[max(0, self._hashed - start - position) :])
            yield self._hash(start + position, chunk)
            position += len(chunk)
        if position != file.size:
            raise Rejected("SizeMismatch", _size_fault(file, str(position)))
        if self._hashed == start + file.size:
            self._prove(file)

    def _prove(self, file: ModelFile) -> None:
        found = self._file_hash.hexdigest()
        if found != file.sha256:
            raise Rejected(
                "DigestMismatch",
                f"{file.path!r} has sha256 {found}, and the manifest lists {file.sha256}: "
                "the upload was damaged or the file was changed; publish a new version",
            )

    def _hash(self, position: int, chunk: bytes) -> bytes:
        new = memoryview(chunk)[max(0, self._hashed - position) :]
        self._layer_hash.update(new)
        self._hashed += len(new)
        return chunk


def _size_fault(file: ModelFile, found: str) -> str:
    return f"{file.path!r} has {found} bytes, and the manifest lists {file.size}; publish a new, complete version"
