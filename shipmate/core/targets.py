"""What a target is: a Deployment's container and what feeds it, as the targets file says.

`shipmate.settings` reads the file; the classes here are its schema, and `schema/targets.schema.json` is made from them:
editors show each field's description to whoever writes the file.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Name = Annotated[str, Meta(pattern=r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$")]
Repository = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$",  # as refs.parse_repository
        max_length=255,
    ),
]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]
LONGEST_ANSWER_SECONDS = 30.0
"""How long an answer is waited for at all."""
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class AppSource(_Section, frozen=True):
    """Where app images come from: the followed tag of a repository."""

    repository: Annotated[Repository, Meta(description="the repository of the registry that app images are pushed to")]
    tag: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$", description="the tag that is followed")
    ] = "main"


class ModelSource(_Section, frozen=True):
    """Where models come from: `<container>/<name>/<version>/`, complete when its manifest.json is there.

    With `file` set, a single blob `<container>/<name>/<version>/<file>` is a model of its own, without manifest.
    """

    container: Annotated[
        str,
        Meta(
            pattern=r"^[a-z0-9](-?[a-z0-9])*$",
            min_length=3,
            max_length=63,
            description="the container in Blob Storage that models are uploaded to",
        ),
    ]
    name: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="the model's folder in the container")
    ]
    file: Annotated[
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.onnx$")] | None,
        Meta(description="a model is this one file, without a manifest; null: a folder with manifest.json"),
    ] = None
    contract: Annotated[str, Meta(description="with `file`: the app contract that such models need")] = "1"

    @property
    def marker(self) -> str:
        """The file whose upload publishes a version."""
        return self.file or "manifest.json"


class ReleaseRepository(_Section, frozen=True):
    """Where release images go; Shipmate alone pushes there."""

    repository: Annotated[
        Repository, Meta(description="a repository of the registry that is no target's app repository")
    ]


class DeploymentRef(_Section, frozen=True):
    """The Deployment that users are answered by, and the container in it that Shipmate owns the image of."""

    namespace: Annotated[Name, Meta(description="the Deployment's namespace")]
    name: Annotated[Name, Meta(description="the Deployment's name; it belongs to one target")]
    container: Annotated[Name, Meta(description="its container that Shipmate owns the image of")] = "app"
    port: Annotated[int, Meta(ge=1, le=65535, description="the port on which that container answers")] = 8000


class GateThresholds(_Section, frozen=True):
    """What a candidate may do worse before it is rejected."""

    max_wrong: Annotated[
        Count, Meta(description="golden questions that it may answer with another label or below their min_confidence")
    ] = 0
    max_newly_wrong: Annotated[Count, Meta(description="how many of those the live pair may answer rightly")] = 0
    max_moved: Annotated[
        Count | None, Meta(description="right answers whose confidence may have moved; null: any number, reported only")
    ] = None
    moved_by: Annotated[
        Share, Meta(description="an answer has moved if its confidence differs from the live pair's by more than this")
    ] = 0.2
    max_seconds: Annotated[
        float, Meta(ge=0, le=LONGEST_ANSWER_SECONDS, description="how long its slowest answer may take, at most 30")
    ] = 5.0
    ready_within_seconds: Annotated[Seconds, Meta(description="how long it may take to get ready")] = 90.0


class VerifyRules(_Section, frozen=True):
    """What is asked through the public door before a release is called live."""

    replies: Annotated[
        int,
        Meta(ge=1, le=100, description="answers in a row that come from the new release, each on a new connection"),
    ] = 5
    within_seconds: Annotated[Seconds, Meta(description="how long that may take")] = 30.0


class Target(_Section, frozen=True):
    """One target."""

    name: Annotated[
        Name, Meta(description="what people and the API call the target: up to 40 lower-case letters, digits, dashes")
    ]
    app: AppSource
    model: ModelSource
    release: ReleaseRepository
    deployment: DeploymentRef
    public_url: Annotated[
        str, Meta(pattern=r"^https?://[^\s/]+(/\S*)?$", description="where users ask, without a trailing /score")
    ]
    platform: Annotated[
        str,
        Meta(
            pattern=r"^[a-z0-9]+/[a-z0-9]+(/[a-z0-9]+)?$",
            description="which image of an image index is taken: operating system/architecture",
        ),
    ] = "linux/amd64"
    quiet_seconds: Annotated[
        Seconds, Meta(description="a model and a code publish this close together make one release")
    ] = 1.0
    quiet_cap_seconds: Annotated[
        Seconds, Meta(description="a steady stream of publishes cannot hold a release back longer")
    ] = 10.0
    rollout_within_seconds: Annotated[Seconds, Meta(description="how long a rollout may take")] = 300.0
    gate: GateThresholds = msgspec.field(default_factory=GateThresholds)
    verify: VerifyRules = msgspec.field(default_factory=VerifyRules)


class TargetsFile(_Section, frozen=True):
    """The whole targets file."""

    targets: Annotated[tuple[Target, ...], Meta(min_length=1, description="every Deployment that Shipmate releases to")]
    version: Annotated[Literal[1], Meta(description="of the form of this file")] = 1
