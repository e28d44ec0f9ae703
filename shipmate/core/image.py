"""A release image: an app image with a model's layers appended, told by nothing but its inputs.

Pure: takes the app image's manifest and config as bytes and returns those of the release image. Used by the stages plan
(`app_facts`, `pick_platform`) and build (`read_app_image`, `append_layers`). OCI's words are used as OCI means them.

Two rules decide most of what is here. A layer is told twice: the manifest lists the digest of the stored bytes, the
config the diff ID, which is the digest of the uncompressed tar. And one manifest is either Docker's or OCI's: what came
as Docker's is turned into OCI's whole.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from shipmate.core.manifest import ModelManifest
from shipmate.core.refs import Digest, Pair, digest_of
from shipmate.errors import Rejected

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
INDEXES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})

_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_LAYERS = {
    OCI_LAYER: OCI_LAYER,
    f"{OCI_LAYER}+gzip": f"{OCI_LAYER}+gzip",
    f"{OCI_LAYER}+zstd": f"{OCI_LAYER}+zstd",
    _DOCKER_LAYER: OCI_LAYER,
    f"{_DOCKER_LAYER}.gzip": f"{OCI_LAYER}+gzip",
    f"{_DOCKER_LAYER}.zstd": f"{OCI_LAYER}+zstd",
}
"""Media types of layers that are taken, and what they are called in an OCI manifest. Stored bytes stay as they are."""

MOST_LAYERS = 127
"""overlayfs mounts no more (Docker's and containerd's limit)."""
EPOCH = "1970-01-01T00:00:00Z"
"""The creation time of an image whose builder left it out."""
CONFIG_LIMIT = 4 << 20
"""The size of the largest config that is read, in bytes: that of a manifest in Azure Container Registry."""

CONTRACT_LABEL = "dev.shipmate.contract"
PAIR_LABEL = "dev.shipmate.pair"
FILES_ANNOTATION = "dev.shipmate.files.sha256"
"""On a layer's descriptor: the `LayerFiles.key` of what is in it."""


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What OCI calls a descriptor: a blob or manifest by media type, digest and size in bytes."""

    media_type: str
    digest: Digest
    size: int
    annotations: dict[str, str] | None = None
    urls: tuple[str, ...] | None = None
    platform: dict[str, Any] | None = None


class AppFacts(msgspec.Struct, frozen=True):
    """What an app image says about itself."""

    contract: str
    version: str
    revision: str | None
    created: str
    platform: str


class AppImage(msgspec.Struct, frozen=True):
    """An app image that may be released: its manifest's layers and annotations, and its config."""

    layers: tuple[Descriptor, ...]
    annotations: dict[str, str]
    config: dict[str, Any]
    facts: AppFacts


class ReleaseImage(msgspec.Struct, frozen=True):
    """A release image, ready to be pushed: the config first, then the manifest."""

    config: bytes
    config_digest: Digest
    manifest: bytes
    digest: Digest


class ImageManifest(msgspec.Struct, frozen=True):
    """The manifest of one platform's image."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str] | None = None


class _Index(msgspec.Struct, frozen=True):
    manifests: tuple[Descriptor, ...]


# -- reading -------------------------------------------------------------------------------------------------------


def pick_platform(index: bytes, platform: str) -> Descriptor:
    """Return the descriptor of one platform's image (`linux/amd64`, `linux/arm64/v8`) in an index.

    Attestation manifests, which describe other manifests and would be stale in a release, are never picked.
    Raises Rejected: NoSuchPlatform, UnreadableImage.
    """
    images = [found for found in _decode(index, _Index).manifests if found.media_type in MANIFESTS]
    images = [found for found in images if not _is_attestation(found)]
    for found in images:
        if _runs_on(_platform_of(found.platform or {}), platform):
            return found
    there_are = ", ".join(sorted(_platform_of(found.platform or {}) for found in images)) or "none"
    raise Rejected(
        "NoSuchPlatform",
        f"the app image has no {platform} in its index (there are: {there_are}); push one for {platform}",
    )


def _is_attestation(descriptor: Descriptor) -> bool:
    annotated = (descriptor.annotations or {}).get("vnd.docker.reference.type") == "attestation-manifest"
    return annotated or (descriptor.platform or {}).get("os") == "unknown"


def _platform_of(fields: Mapping[str, Any]) -> str:
    parts = (fields.get("os"), fields.get("architecture"), fields.get("variant"))
    return "/".join(str(part) for part in parts if part)


def _runs_on(found: str, wanted: str) -> bool:
    """Return whether an image's platform is the wanted one; without a wanted variant, any will do."""
    return found == wanted or found.startswith(f"{wanted}/")


def app_facts(config: bytes) -> AppFacts:
    """Return what an app image's config says about itself. Raises Rejected as `read_app_image` does."""
    return _facts(_decode(config, dict[str, Any]))


def _facts(config: dict[str, Any]) -> AppFacts:
    labels = _labels(config)
    if PAIR_LABEL in labels:
        raise Rejected(
            "AppIsReleaseImage",
            f"the pushed image is a release image (label {PAIR_LABEL}): push the app image alone, without a model",
        )
    contract = labels.get(CONTRACT_LABEL)
    if not contract:
        raise Rejected(
            "NoContractLabel",
            f"the app image has no label {CONTRACT_LABEL}, which says how it wants its model: "
            f'build it with LABEL {CONTRACT_LABEL}="1"',
        )
    return AppFacts(
        contract=contract,
        version=labels.get("org.opencontainers.image.version") or "unversioned",
        revision=labels.get("org.opencontainers.image.revision"),
        created=str(config.get("created") or EPOCH),
        platform=_platform_of(config),
    )


def read_app_manifest(manifest: bytes) -> ImageManifest:
    """Return what an app image's manifest refers to. Raises Rejected: UnreadableImage, NotAnImage."""
    read = _decode(manifest, ImageManifest)
    if read.config.media_type not in (OCI_CONFIG, DOCKER_CONFIG):
        raise Rejected("NotAnImage", f"what was pushed holds {read.config.media_type}; push a container image")
    return read


def read_app_image(manifest: bytes, config: bytes) -> AppImage:
    """Return an app image of one platform.

    Raises Rejected: NotAnImage, UnreadableImage, ForeignLayer, UnsupportedLayer, AppIsReleaseImage, NoContractLabel.
    """
    read = read_app_manifest(manifest)
    document = _decode(config, dict[str, Any])
    facts = _facts(document)
    layers = tuple(_as_oci(layer) for layer in read.layers)
    if len(_diff_ids(document)) != len(layers):
        raise Rejected(
            "UnreadableImage",
            f"the app image has {len(layers)} layers and its config lists {len(_diff_ids(document))}; build it again",
        )
    return AppImage(layers, read.annotations or {}, document, facts)


def _as_oci(layer: Descriptor) -> Descriptor:
    if layer.urls or "foreign" in layer.media_type or "nondistributable" in layer.media_type:
        raise Rejected(
            "ForeignLayer",
            f"the app image's layer {layer.digest} is not in the registry ({layer.media_type}): "
            "build on a base image whose layers may be distributed",
        )
    if layer.media_type not in _LAYERS:
        raise Rejected(
            "UnsupportedLayer",
            f"the app image's layer {layer.digest} is a {layer.media_type}: push it uncompressed, as gzip or as zstd",
        )
    return msgspec.structs.replace(layer, media_type=_LAYERS[layer.media_type])


def _decode[T](data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected("UnreadableImage", f"the app image cannot be read: {error}; push it again") from error


def _labels(config: dict[str, Any]) -> dict[str, str]:
    return (config.get("config") or {}).get("Labels") or {}


def _diff_ids(config: dict[str, Any]) -> list[str]:
    return (config.get("rootfs") or {}).get("diff_ids") or []


# -- making --------------------------------------------------------------------------------------------------------


def model_layer(key: str, digest: Digest, size: int) -> Descriptor:
    """Return the descriptor of a model layer, which can be found again by the key of the files in it."""
    return Descriptor(OCI_LAYER, digest, size, {FILES_ANNOTATION: key})


def check_room(app: AppImage, more: int) -> None:
    """Raise Rejected, TooManyLayers, if so many more layers do not fit. To be asked before they are uploaded."""
    if len(app.layers) + more > MOST_LAYERS:
        raise Rejected(
            "TooManyLayers",
            f"the app image has {len(app.layers)} layers and the model {more}, and nodes mount {MOST_LAYERS}: "
            "squash the app image, or publish fewer large files",
        )


def append_layers(
    app: AppImage, layers: Sequence[Descriptor], *, pair: Pair, model: ModelManifest, base_name: str
) -> ReleaseImage:
    """Return the release image of an app image and a model's layers (uncompressed: the digest is the diff ID).

    `base_name` is the app repository as image references spell it, without tag. The same arguments always make the same
    bytes. Raises Rejected, TooManyLayers.
    """
    check_room(app, len(layers))
    marks = {
        PAIR_LABEL: pair.key,
        "dev.shipmate.app.digest": pair.app,
        "dev.shipmate.model.digest": pair.model,
        "dev.shipmate.model.name": model.name,
        "dev.shipmate.model.version": model.version,
        "org.opencontainers.image.base.name": base_name,
        "org.opencontainers.image.base.digest": pair.app,
    }
    config = _encode(_config(app, layers, model, marks))
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": Descriptor(OCI_CONFIG, digest_of(config), len(config)),
        "layers": [*app.layers, *layers],
        "annotations": {**app.annotations, **marks},
    }
    data = _encode(manifest)
    return ReleaseImage(config, digest_of(config), data, digest_of(data))


def _config(
    app: AppImage, layers: Sequence[Descriptor], model: ModelManifest, marks: Mapping[str, str]
) -> dict[str, Any]:
    config = app.config
    run = config.get("config") or {}
    history = [
        {"created": app.facts.created, "created_by": f"shipmate: model {model.name} {model.version}"} for _ in layers
    ]
    return {
        **config,
        "created": app.facts.created,
        "config": {**run, "Labels": {**_labels(config), **marks}},
        "rootfs": {"type": "layers", "diff_ids": [*_diff_ids(config), *(layer.digest for layer in layers)]},
        "history": [*_app_history(app), *history],
    }


def _app_history(app: AppImage) -> list[dict[str, Any]]:
    """Return the app image's history, which must have one entry a layer besides those that made none.

    Some builders leave it out or miscount; tools that convert images stumble over that, so it is then made plain.
    """
    history = app.config.get("history") or []
    if sum(not entry.get("empty_layer") for entry in history) == len(app.layers):
        return list(history)
    return [{"created": app.facts.created, "created_by": "app image"} for _ in app.layers]


def _encode(document: object) -> bytes:
    return msgspec.json.encode(document, order="sorted")


def files_key(layer: Descriptor) -> str | None:
    """Return the key of the files in a model layer; None for a layer of an app image."""
    return (layer.annotations or {}).get(FILES_ANNOTATION)


def release_manifest(manifest: bytes, pair: Pair) -> ImageManifest | None:
    """Return what a release image's manifest refers to, or None if it is not this pair's."""
    try:
        read = msgspec.json.decode(manifest, type=ImageManifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return read if (read.annotations or {}).get(PAIR_LABEL) == pair.key else None
