"""What the pipeline needs of the outside, as Protocols.

The real sides are in `shipmate.edge`, in-memory ones in `tests.fakes`.

Errors are those of `shipmate.errors`; an implementation raises nothing else on purpose.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from shipmate.core.answers import Answer, Version
from shipmate.core.ledger import AnyEntry, State
from shipmate.core.rollout import DeploymentView, Object, Operation, PodView

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

    def history(self, target: str) -> Iterator[AnyEntry]:
        """Yield every entry from the first. Raises Retryable."""
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
        NotFound, Invalid.
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
    """The public address of an application, asked on a new connection each time."""

    def ask(self, url: str, photo: bytes) -> Answer:
        """Return the answer about one photograph. Raises Retryable, with what was said instead."""
        ...

    def version(self, url: str) -> Version:
        """Return which pair answers now. Raises Retryable."""
        ...
