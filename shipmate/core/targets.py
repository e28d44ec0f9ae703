"""What a target is: a Deployment's container and what feeds it, as the targets file says.

`shipmate.settings` reads the file; the classes here are its schema, and `schema/targets.schema.json` is made from them.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Name = Annotated[
    str, Meta(pattern=r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$", description="lower-case letters, digits, dashes")
]
Repository = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$",  # as refs.parse_repository
        max_length=255,
        description="a repository of the registry",
    ),
]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class AppSource(_Section, frozen=True):
    """Where app images come from: the followed tag of a repository."""

    repository: Repository
    tag: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")] = "main"


class ModelSource(_Section, frozen=True):
    """Where models come from: `<container>/<name>/<version>/`, complete when its manifest.json is there.

    With `file` set, a single blob `<container>/<name>/<version>/<file>` is a model of its own, without manifest.
    """

    container: Annotated[str, Meta(pattern=r"^[a-z0-9](-?[a-z0-9])*$", min_length=3, max_length=63)]
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    file: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.onnx$")] | None = None
    contract: str = "1"

    @property
    def marker(self) -> str:
        """The file whose upload publishes a version."""
        return self.file or "manifest.json"


class ReleaseRepository(_Section, frozen=True):
    """Where release images go; Shipmate alone pushes there."""

    repository: Repository


class DeploymentRef(_Section, frozen=True):
    """The Deployment that users are answered by, and the container in it that Shipmate owns the image of."""

    namespace: Name
    name: Name
    container: Name = "app"
    port: Annotated[int, Meta(ge=1, le=65535)] = 8000


class GateThresholds(_Section, frozen=True):
    """What a candidate may do worse before it is rejected."""

    max_wrong: Count = 0  # golden questions answered wrongly or below their min_confidence
    max_newly_wrong: Count = 0  # of those, the ones the live pair answers rightly
    max_moved: Count | None = None  # same label, confidence moved by more than `moved_by`; None: reported only
    moved_by: Share = 0.2
    max_seconds: Seconds = 5.0  # slowest answer
    ready_within_seconds: Seconds = 90.0


class VerifyRules(_Section, frozen=True):
    """What is asked through the public door before a release is called live."""

    replies: Annotated[int, Meta(ge=1, le=100)] = 5  # in a row from the new release, each on a new connection
    within_seconds: Seconds = 30.0


class Target(_Section, frozen=True):
    """One target."""

    name: Name
    app: AppSource
    model: ModelSource
    release: ReleaseRepository
    deployment: DeploymentRef
    public_url: Annotated[
        str, Meta(pattern=r"^https?://[^\s/]+(/\S*)?$", description="where users ask, without a trailing /score")
    ]
    platform: Annotated[str, Meta(pattern=r"^[a-z0-9]+/[a-z0-9]+(/[a-z0-9]+)?$")] = "linux/amd64"
    quiet_seconds: Seconds = 1.0  # a model and a code publish this close together make one release
    quiet_cap_seconds: Seconds = 10.0  # a steady stream of publishes cannot hold a release back longer
    rollout_within_seconds: Seconds = 300.0
    gate: GateThresholds = msgspec.field(default_factory=GateThresholds)
    verify: VerifyRules = msgspec.field(default_factory=VerifyRules)


class TargetsFile(_Section, frozen=True):
    """The whole targets file."""

    targets: Annotated[tuple[Target, ...], Meta(min_length=1)]
    version: Literal[1] = 1
