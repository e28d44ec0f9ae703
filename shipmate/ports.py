"""What the pipeline needs of the outside, as Protocols.

The real sides are in `shipmate.edge`, in-memory ones in `tests.fakes`.

Errors are those of `shipmate.errors`; an implementation raises nothing else on purpose.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from shipmate.core.answers import Answer, Version
from shipmate.core.fence import Operation
from shipmate.core.image import Descriptor
from shipmate.core.ledger import AnyEntry
from shipmate.core.refs import Digest
from shipmate.core.state import State
from shipmate.core.views import DeploymentView, Object, PodView

# -- ledger, queue, clock ------------------------------------------------------------------------------------------


class Reading(msgspec.Struct, frozen=True):
    """A target's state, and the place in its ledger that the state is true of."""

    state: State
    segment: int = 0
    offset: int = 0  # bytes of the segment that were read
    entries: int = 0  # entries in the segment


class Ledgers(Protocol):
    """The ledgers of all targets: append-only, one writer wins."""

    def read(self, target: str) -> Reading:
        """Return the target's state. Raises Retryable."""
        ...

    def append(self, target: str, reading: Reading, entries: Sequence[AnyEntry]) -> Reading:
        """Append all entries at once, if nothing was written since the reading, and return the new reading.

        Raises Conflict if somebody else wrote since, Ambiguous if the outcome is unknown, and Retryable.
        """
        ...

    def history(self, target: str, since: datetime | None = None) -> Iterator[AnyEntry]:
        """Yield every entry from the first; with `since`, perhaps without some written before. Raises Retryable."""
        ...


class Queue(Protocol):
    """Messages that hold a target's name and nothing else; delivered at least once."""

    def enqueue(self, target: str, delay_seconds: float = 0) -> None:
        """Have the target advanced, after a delay. Raises Retryable."""
        ...


class Clock(Protocol):
    """Time, and ids that were never used before."""

    def now(self) -> datetime:
        """Return the present instant, aware, in UTC."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""
        ...

    def new_id(self) -> str:
        """Return an id that nobody else chooses."""
        ...


# -- cluster and public door ---------------------------------------------------------------------------------------


class Cluster(Protocol):
    """The Kubernetes cluster that targets run in. Every read is of the present; nothing is cached.

    Each method raises NotAllowed and Retryable, and those that write Ambiguous.
    """

    @property
    def registry(self) -> str:
        """The login server that image references name, as the nodes pull them."""
        ...

    def deployment(self, namespace: str, name: str) -> DeploymentView:
        """Return a Deployment. Raises NotFound."""
        ...

    def patch_deployment(self, namespace: str, name: str, operations: Sequence[Operation]) -> DeploymentView:
        """Apply a JSON Patch and return the Deployment after it.

        Raises Conflict, and changes nothing, if one of its tests fails; NotAllowed if the cluster's policy refuses it;
        NotFound, Misconfigured.
        """
        ...

    def pods(self, namespace: str, selector: str) -> tuple[PodView, ...]:
        """Return the pods that a label selector finds, by name."""
        ...

    def pod_logs(self, namespace: str, pod: str, *, container: str | None = None, tail: int = 20) -> str:
        """Return the last lines that a container wrote, of its run that ended if there is one. Raises NotFound."""
        ...

    def create_gate_pod(self, namespace: str, manifest: Object) -> PodView:
        """Create a gate's pod, or return the one that is there for the same pair; Conflict if it is for another."""
        ...

    def gate_pod(self, namespace: str, name: str) -> PodView:
        """Return a gate's pod. Raises NotFound."""
        ...

    def list_gate_pods(self, namespace: str) -> tuple[PodView, ...]:
        """Return every gate pod of a namespace, by name."""
        ...

    def delete_gate_pod(self, namespace: str, name: str, uid: str) -> None:
        """Delete this very pod, if it is still there; Conflict if another one has its name by now."""
        ...

    def ask_pod(  # noqa: PLR0917 - where, then what, in the order HTTP says it
        self,
        namespace: str,
        pod: str,
        port: int,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = 10.0,
    ) -> tuple[int, dict[str, str], bytes]:
        """Ask a pod over HTTP; return the status, headers (lower-case) and body that its container replied.

        Raises NotFound, and Retryable if the pod could not be asked.
        """
        ...


class Door(Protocol):
    """The public address of an application, asked on a new connection each time.

    Each method raises Unreachable if there is no connection.
    """

    def ask(self, url: str, photo: bytes) -> Answer:
        """Return the answer about one photograph. Raises Retryable, with what was said instead."""
        ...

    def version(self, url: str) -> Version:
        """Return which pair answers now. Raises Retryable."""
        ...


# -- registry ------------------------------------------------------------------------------------------------------


class Manifest(msgspec.Struct, frozen=True):
    """A manifest or index, as the registry keeps it."""

    data: bytes
    media_type: str
    digest: Digest


class Copied(msgspec.Struct, frozen=True):
    """What bringing blobs into a repository took, in bytes."""

    reused: int = 0  # were there
    mounted: int = 0  # the registry linked them from another repository
    uploaded: int = 0  # had to be sent


class Readable(Protocol):
    """Something to upload: of known size, it can be read again from any offset that was reached, and it hashes itself.

    Reading it may raise Rejected: then nothing of it is published.
    """

    @property
    def size(self) -> int:
        """Size in bytes."""
        ...

    @property
    def digest(self) -> Digest:
        """The digest, known once all was read."""
        ...

    def open_at(self, offset: int) -> Iterator[bytes]:
        """Yield the bytes from an offset to the end."""
        ...


class Registry(Protocol):
    """The container registry. Every method raises Retryable and NotAllowed; what is read is checked by its digest."""

    @property
    def name(self) -> str:
        """The registry as image references spell it: `host` or `host:port`."""
        ...

    def resolve(self, repository: str, reference: str) -> Descriptor:
        """Return what a tag or digest points to. Raises NotFound."""
        ...

    def get_manifest(self, repository: str, reference: str) -> Manifest:
        """Return a manifest or index by tag or digest. Raises NotFound."""
        ...

    def put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> Digest:
        """Store a manifest, byte for byte, whose blobs are there; repeating it is harmless."""
        ...

    def get_blob(self, repository: str, digest: Digest, limit: int) -> bytes:
        """Return a small blob. Raises NotFound, and Rejected (BlobTooLarge) above the limit in bytes."""
        ...

    def has_blob(self, repository: str, digest: Digest) -> bool:
        """Return whether the repository holds a blob."""
        ...

    def copy_blobs(self, repository: str, blobs: Sequence[Descriptor], *, source: str) -> Copied:
        """Have blobs of another repository in this one: linked by the registry if it can, else copied."""
        ...

    def upload(self, repository: str, content: Readable) -> Digest:
        """Store a blob of any size while it is read; goes on at the registry's offset when the connection breaks.

        Whatever `content` raises cancels the upload and is raised on.
        """
        ...


class ImageLocks(Protocol):
    """Images that the registry's clean-up, and people, must leave alone. Only Azure's registry has such locks."""

    def lock(self, repository: str, keep: Collection[Digest], let_go: Collection[Digest]) -> None:
        """Lock those images to keep that are there, and unlock those to let go; repeating it is harmless.

        Raises NotAllowed and Retryable.
        """
        ...


# -- models --------------------------------------------------------------------------------------------------------


class Blob(msgspec.Struct, frozen=True):
    """A blob of the model storage."""

    path: str
    size: int
    etag: str  # without quotes
    modified_at: datetime  # a change of its metadata is one, and changes the etag too
    created_at: datetime  # when these bytes were written: a metadata change leaves it, an upload in its place does not


class Models(Protocol):
    """The model storage. Every method raises Retryable and NotAllowed.

    With an etag, what was overwritten since raises Conflict.
    """

    def properties(self, container: str, path: str) -> Blob:
        """Return what the storage knows about a blob. Raises NotFound."""
        ...

    def read_manifest(self, container: str, path: str, etag: str | None = None) -> bytes:
        """Return a whole manifest. Raises NotFound, and Rejected (ManifestUnreadable) if it is too large to be one."""
        ...

    def open(self, container: str, path: str, *, offset: int = 0, etag: str | None = None) -> Iterator[bytes]:
        """Yield a blob from an offset to its end, a few MiB at a time. Raises NotFound."""
        ...

    def list(self, container: str, prefix: str) -> Iterator[Blob]:
        """Yield the blobs whose path begins so, in any order. Raises NotFound if there is no such container."""
        ...
