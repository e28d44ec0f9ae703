"""The graft: an app image and a model become a release image by the registry's API alone.

No base image is pulled and nothing is unpacked: the model streams from Blob Storage into one layer for each large file,
the app image's blobs are referenced where they are, then come the config and last the manifest with its tag. Everything
is named by digest or pair, so that a repeat, or another worker at the same time, does no harm and finds it done.
"""

from collections.abc import Callable, Iterable, Iterator

import msgspec

from shipmate.core.image import (
    CONFIG_LIMIT,
    INDEXES,
    MANIFESTS,
    OCI_MANIFEST,
    AppFacts,
    AppImage,
    Descriptor,
    app_facts,
    append_layers,
    check_room,
    files_key,
    model_layer,
    pick_platform,
    read_app_image,
    read_app_manifest,
    release_manifest,
)
from shipmate.core.layer import LayerFiles, LayerReader, layer_plan
from shipmate.core.ledger import CostSheet, Layer
from shipmate.core.manifest import MANIFEST_NAME, ModelFile, ModelManifest
from shipmate.core.refs import Digest, Pair, digest_of
from shipmate.errors import Conflict, NotFound, Rejected, Retryable, at_fault
from shipmate.ports import Manifest, Models, Registry


class ModelFolder(msgspec.Struct, frozen=True):
    """Where a model version is: `path` without a slash at its end."""

    container: str
    path: str


class Grafted(msgspec.Struct, frozen=True):
    """A release image that is in the registry, the model layers in it, and what was moved to get it there."""

    image: Digest
    layers: tuple[Layer, ...]
    cost: CostSheet


# -- the app image -------------------------------------------------------------------------------------------------


def resolve_app(registry: Registry, repository: str, reference: str, platform: str) -> tuple[Digest, AppFacts]:
    """Return the digest of one platform's app image, and what the image says about itself.

    Raises NotFound, Rejected for what is not an app image, Retryable, NotAllowed.
    """
    manifest = registry.get_manifest(repository, reference)
    if manifest.media_type in INDEXES:
        manifest = registry.get_manifest(repository, pick_platform(manifest.data, platform).digest)
    facts = app_facts(_config(registry, repository, manifest))
    if facts.platform != platform and not facts.platform.startswith(f"{platform}/"):
        raise Rejected("NoSuchPlatform", f"the app image is for {facts.platform}; push one for {platform}")
    return manifest.digest, facts


def _config(registry: Registry, repository: str, manifest: Manifest) -> bytes:
    if manifest.media_type not in MANIFESTS:
        raise Rejected("NotAnImage", f"what was pushed is {manifest.media_type}; push a container image")
    return registry.get_blob(repository, read_app_manifest(manifest.data).config.digest, CONFIG_LIMIT)


def _app_image(registry: Registry, repository: str, digest: Digest) -> AppImage:
    try:
        manifest = registry.get_manifest(repository, digest)
        return read_app_image(manifest.data, _config(registry, repository, manifest))
    except NotFound as error:
        raise Rejected("Gone", f"the app image {repository}@{digest} is gone: {error}; push it again") from error


# -- the release image ---------------------------------------------------------------------------------------------


def graft(
    registry: Registry,
    models: Models,
    *,
    pair: Pair,
    app_repository: str,
    release_repository: str,
    model: ModelManifest,
    folder: ModelFolder,
    known_layers: Iterable[Layer] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> Grafted:
    """Make the pair's release image, or find it made.

    `known_layers` are those of earlier releases: one whose files are wanted again is taken, if it is still there.
    `progress` is told how far the model's files came; what it raises ends the graft.
    Raises Rejected for a half that cannot be released (nothing is published then), Retryable, NotAllowed.
    """
    made = _find_made(registry, release_repository, pair)
    if made is not None:
        return made
    wanted = layer_plan(model)
    with at_fault("app"):
        app = _app_image(registry, app_repository, pair.app)
        check_room(app, len(wanted))
    known = {layer.key: layer for layer in known_layers}
    layers: list[Descriptor] = []
    uploaded = reused = 0
    for files in wanted:
        layer = known.get(files.key)
        if layer is not None and registry.has_blob(release_repository, layer.digest):
            reused += layer.size
        else:
            with at_fault("model"):
                content = _reader(models, files, model, folder, progress)
                layer = Layer(files.key, registry.upload(release_repository, content), content.size)
            uploaded += layer.size
        layers.append(model_layer(layer.key, layer.digest, layer.size))
    copied = registry.copy_blobs(release_repository, app.layers, source=app_repository)
    image = append_layers(app, layers, pair=pair, model=model, base_name=f"{registry.name}/{app_repository}")
    if not registry.has_blob(release_repository, image.config_digest):
        registry.upload(release_repository, InMemory(image.config))
        uploaded += len(image.config)
    registry.put_manifest(release_repository, pair.tag, image.manifest, OCI_MANIFEST)
    return Grafted(
        image.digest,
        _model_layers(layers),
        CostSheet(uploaded=uploaded + copied.uploaded, mounted=copied.mounted, reused=reused + copied.reused),
    )


def _find_made(registry: Registry, repository: str, pair: Pair) -> Grafted | None:
    """Return the pair's release image if an earlier build, or another worker, finished it."""
    try:
        manifest = registry.get_manifest(repository, pair.tag)
    except NotFound:
        return None
    found = release_manifest(manifest.data, pair)
    if found is None:
        return None
    size = sum(blob.size for blob in (found.config, *found.layers))
    return Grafted(manifest.digest, _model_layers(found.layers), CostSheet(reused=size))


def _model_layers(layers: Iterable[Descriptor]) -> tuple[Layer, ...]:
    keyed = ((files_key(layer), layer) for layer in layers)
    return tuple(Layer(key, layer.digest, layer.size) for key, layer in keyed if key is not None)


def _reader(
    models: Models, files: LayerFiles, model: ModelManifest, folder: ModelFolder, progress: Callable[[str], None]
) -> LayerReader:
    """Return a layer to read, all of whose files are in the folder with the right size."""
    etags: dict[str, str] = {}
    for file in files.files:
        if file.path != MANIFEST_NAME:
            etags[file.path] = _check(models, file, folder)

    def read(file: ModelFile, offset: int) -> Iterator[bytes]:
        if file.path == MANIFEST_NAME:
            yield model.data[offset:]
            return
        path = f"{folder.path}/{file.path}"
        try:
            yield from models.open(folder.container, path, offset=offset, etag=etags[file.path])
        except (NotFound, Conflict) as error:
            raise Retryable(f"{path} was changed while it was read; it is read again from its start") from error

    def open_file(file: ModelFile, offset: int) -> Iterator[bytes]:
        for chunk in read(file, offset):
            yield chunk
            offset += len(chunk)
            progress(f"{file.path}: {offset >> 20} of {file.size >> 20} MiB are in the registry")

    return LayerReader(files, open_file)


def _check(models: Models, file: ModelFile, folder: ModelFolder) -> str:
    """Return the etag of a file that is there with the right size."""
    path = f"{folder.path}/{file.path}"
    try:
        found = models.properties(folder.container, path)
    except NotFound as error:
        raise Rejected(
            "MissingFile",
            f"the manifest lists {file.path!r}, and {folder.container}/{path} is not there: "
            "upload every file first and the manifest last; publish a new version",
        ) from error
    if found.size != file.size:
        raise Rejected(
            "SizeMismatch",
            f"{path} has {found.size} bytes, and the manifest lists {file.size}; publish a new, complete version",
        )
    return found.etag


class InMemory:
    """A few bytes to upload."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)
        self.digest = digest_of(data)

    def open_at(self, offset: int) -> Iterator[bytes]:
        """Yield the bytes from an offset on."""
        yield self._data[offset:]
