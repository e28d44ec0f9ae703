"""The graft over ports in memory: what is moved, what is found done, and what publishes nothing."""

import json
from typing import Any

import pytest

from shipmate.core.image import DOCKER_INDEX, OCI_MANIFEST
from shipmate.core.layer import layer_plan
from shipmate.core.manifest import parse_manifest
from shipmate.core.refs import Digest, Pair
from shipmate.errors import NotFound, Rejected, Retryable
from shipmate.stages.graft import Grafted, ModelFolder, graft, resolve_app
from tests.fakes.app_images import AppImage
from tests.fakes.models import FakeModels
from tests.fakes.registry import FakeRegistry

WEIGHTS = b"w" * (2 << 20)
FILES = {"model.onnx": WEIGHTS, "labels.txt": b"cat\n", "golden/cat.jpg": b"jpg"}
FOLDER = ModelFolder("models", "net/1")


class Shop:
    """A registry with an app image, a storage with a model, and the graft of both."""

    def __init__(self, app: AppImage | None = None) -> None:
        self.registry = FakeRegistry()
        self.models = FakeModels(chunk=1 << 19)
        self.app = app or AppImage()
        self.app.push(self.registry, "vision-app", "main")
        self.manifest = self.models.publish("net/1", FILES, version="1")
        self.registry.uploads = 0

    def graft(self, known: Grafted | None = None, **changes: Any) -> Grafted:
        model = parse_manifest(self.manifest)
        arguments: dict[str, Any] = {
            "pair": Pair(self.app.digest, model.digest),
            "app_repository": "vision-app",
            "release_repository": "vision",
            "model": model,
            "folder": FOLDER,
            "known_layers": known.layers if known else (),
        }
        return graft(self.registry, self.models, **{**arguments, **changes})


def test_a_release_image_is_the_app_image_and_the_model() -> None:
    shop = Shop()
    made = shop.graft()
    stored = shop.registry.get_manifest("vision", made.image)
    document = json.loads(stored.data)
    assert stored.media_type == document["mediaType"] == OCI_MANIFEST
    app_layers = [layer["digest"] for layer in json.loads(shop.app.manifest)["layers"]]
    assert [layer["digest"] for layer in document["layers"]] == [*app_layers, *(layer.digest for layer in made.layers)]
    assert [layer.key for layer in made.layers] == [files.key for files in layer_plan(parse_manifest(shop.manifest))]
    assert document["annotations"]["org.opencontainers.image.base.name"] == "registry.example:5000/vision-app"
    weights = shop.registry.get_blob("vision", made.layers[0].digest, 4 << 20)
    assert WEIGHTS in weights


def test_the_tag_is_the_pairs_own() -> None:
    shop = Shop()
    made = shop.graft()
    pair = Pair(shop.app.digest, parse_manifest(shop.manifest).digest)
    assert shop.registry.tags["vision"] == {pair.tag: made.image}


def test_the_cost_sheet_tells_what_was_moved() -> None:
    shop = Shop()
    made = shop.graft()
    config = len(shop.registry.get_blob("vision", _config_of(shop, made), 1 << 20))
    assert made.cost.uploaded == sum(layer.size for layer in made.layers) + config
    assert made.cost.mounted == sum(len(layer) for layer in shop.app.layers)
    assert made.cost.reused == 0


def _config_of(shop: Shop, made: Grafted) -> Digest:
    return Digest(json.loads(shop.registry.get_manifest("vision", made.image).data)["config"]["digest"])


def test_a_pair_that_was_built_is_found_built() -> None:
    shop = Shop()
    first = shop.graft()
    uploads = shop.registry.uploads
    second = shop.graft()
    assert (second.image, second.layers) == (first.image, first.layers)
    assert shop.registry.uploads == uploads
    assert (second.cost.uploaded, second.cost.mounted) == (0, 0)
    assert second.cost.reused == first.cost.uploaded + first.cost.mounted


def test_a_tag_that_holds_something_else_is_built_over() -> None:
    shop = Shop()
    pair = Pair(shop.app.digest, parse_manifest(shop.manifest).digest)
    shop.app.push(shop.registry, "vision", pair.tag)
    made = shop.graft()
    assert shop.registry.resolve("vision", pair.tag).digest == made.image


def test_new_code_moves_no_model_bytes() -> None:
    shop = Shop()
    first = shop.graft()
    shop.app = AppImage(content=b"other code")
    shop.app.push(shop.registry, "vision-app", "main")
    second = shop.graft(first)
    assert second.layers == first.layers
    assert second.image != first.image
    assert second.cost.reused == sum(layer.size for layer in first.layers)
    assert second.cost.uploaded < 4096  # the config


def test_a_known_layer_that_is_gone_is_uploaded_again() -> None:
    shop = Shop()
    first = shop.graft()
    shop.registry.tags["vision"].clear()
    del shop.registry.blobs["vision"][first.layers[0].digest]
    second = shop.graft(first)
    assert second.image == first.image
    assert second.cost.uploaded == first.layers[0].size


def test_a_new_version_moves_only_the_files_that_changed() -> None:
    shop = Shop()
    first = shop.graft()
    shop.manifest = shop.models.publish("net/2", {**FILES, "labels.txt": b"dog\n"}, version="2")
    second = shop.graft(first, folder=ModelFolder("models", "net/2"))
    assert second.layers[0] == first.layers[0]
    assert second.layers[1] != first.layers[1]
    assert second.cost.uploaded < 20_000


def test_the_app_image_may_live_in_the_release_repository() -> None:
    shop = Shop()
    shop.app.push(shop.registry, "vision", "main")
    assert shop.graft(app_repository="vision").cost.mounted == 0


@pytest.mark.parametrize(
    ("spoil", "reason", "words"),
    [
        pytest.param(
            lambda shop: shop.models.delete("models", "net/1/labels.txt"),
            "MissingFile",
            "lists 'labels.txt', and models/net/1/labels.txt is not there: upload every file first",
            id="a file is missing",
        ),
        pytest.param(
            lambda shop: shop.models.put("models", "net/1/model.onnx", WEIGHTS[:-1]),
            "SizeMismatch",
            "has 2097151 bytes, and the manifest lists 2097152",
            id="a file is short",
        ),
        pytest.param(
            lambda shop: shop.models.put("models", "net/1/model.onnx", b"x" + WEIGHTS[1:]),
            "DigestMismatch",
            "publish a new version",
            id="a file has other content",
        ),
        pytest.param(
            lambda shop: shop.registry.manifests["vision-app"].clear(),
            "Gone",
            "push it again",
            id="the app image is gone",
        ),
        pytest.param(
            lambda shop: shop.registry.blobs["vision-app"].clear(), "Gone", "has no blob", id="the app's config is gone"
        ),
    ],
)
def test_a_half_that_cannot_be_released_publishes_nothing(spoil: Any, reason: str, words: str) -> None:
    shop = Shop()
    spoil(shop)
    with pytest.raises(Rejected) as caught:
        shop.graft()
    assert caught.value.reason == reason
    assert words in str(caught.value)
    assert not shop.registry.manifests["vision"]


def test_a_release_image_is_never_built_upon() -> None:
    shop = Shop(AppImage(labels={"dev.shipmate.pair": "x"}))
    with pytest.raises(Rejected) as caught:
        shop.graft()
    assert caught.value.reason == "AppIsReleaseImage"
    assert shop.registry.uploads == 0


def test_too_many_layers_are_refused_before_anything_is_uploaded() -> None:
    shop = Shop(AppImage(layers=126))
    with pytest.raises(Rejected) as caught:
        shop.graft()
    assert caught.value.reason == "TooManyLayers"
    assert shop.registry.uploads == 0


class Overwriting(FakeModels):
    """A publisher who overwrites a file just after it was looked at."""

    def properties(self, container: str, path: str) -> Any:
        found = super().properties(container, path)
        if path.endswith("model.onnx"):
            self.put(container, path, WEIGHTS)
        return found


def test_a_file_that_changes_while_it_is_read_is_read_again_later() -> None:
    shop = Shop()
    shop.models = Overwriting()
    shop.models.publish("net/1", FILES, version="1")
    with pytest.raises(Retryable, match=r"net/1/model.onnx was changed while it was read"):
        shop.graft()


# -- resolve_app


def test_an_app_image_is_resolved_to_its_digest_and_what_it_says() -> None:
    shop = Shop()
    digest, facts = resolve_app(shop.registry, "vision-app", "main", "linux/amd64")
    assert digest == shop.app.digest
    assert facts.version == "2.3.0"


def test_an_index_is_resolved_to_the_platforms_image() -> None:
    shop = Shop()
    listed = {
        "mediaType": OCI_MANIFEST,
        "digest": shop.app.digest,
        "size": len(shop.app.manifest),
        "platform": {"os": "linux", "architecture": "amd64"},
    }
    index = json.dumps({"schemaVersion": 2, "mediaType": DOCKER_INDEX, "manifests": [listed]}).encode()
    shop.registry.put_manifest("vision-app", "multi", index, DOCKER_INDEX)
    digest, _ = resolve_app(shop.registry, "vision-app", "multi", "linux/amd64")
    assert digest == shop.app.digest


def test_an_image_for_another_platform_is_refused() -> None:
    shop = Shop(AppImage(config={"architecture": "arm64", "variant": "v8"}))
    resolve_app(shop.registry, "vision-app", "main", "linux/arm64")
    with pytest.raises(Rejected, match=r"is for linux/arm64/v8; push one for linux/amd64") as caught:
        resolve_app(shop.registry, "vision-app", "main", "linux/amd64")
    assert caught.value.reason == "NoSuchPlatform"


def test_what_is_no_image_is_refused() -> None:
    shop = Shop()
    media_type = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    shop.registry.put_manifest("vision-app", "old", b"{}", media_type)
    with pytest.raises(
        Rejected, match=r"what was pushed is application/.*v1\+prettyjws; push a container image"
    ) as caught:
        resolve_app(shop.registry, "vision-app", "old", "linux/amd64")
    assert caught.value.reason == "NotAnImage"


def test_a_tag_that_is_not_there_is_not_found() -> None:
    with pytest.raises(NotFound):
        resolve_app(Shop().registry, "vision-app", "nothing", "linux/amd64")
