"""The release image: each rule of the graft, and what each refusal says."""

import hashlib
import json
from typing import Any

import pytest

from shipmate.core.image import (
    DOCKER_CONFIG,
    DOCKER_INDEX,
    FILES_ANNOTATION,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    ReleaseImage,
    app_facts,
    append_layers,
    check_room,
    files_key,
    model_layer,
    pick_platform,
    read_app_image,
    release_manifest,
)
from shipmate.core.manifest import parse_manifest
from shipmate.core.refs import Digest, Pair, digest_of
from shipmate.errors import Rejected
from tests.fakes.app_images import AppImage
from tests.fakes.model_folders import encoded

MODEL = parse_manifest(encoded())
LAYERS = [
    model_layer(letter * 64, Digest("sha256:" + letter * 64), size) for letter, size in (("b", 20 << 20), ("c", 4096))
]
ZEROS = Digest("sha256:" + "0" * 64)


def made(app: AppImage | None = None) -> ReleaseImage:
    app = app or AppImage()
    pair = Pair(app.digest, MODEL.digest)
    image = read_app_image(app.manifest, app.config)
    return append_layers(image, LAYERS, pair=pair, model=MODEL, base_name="registry.example/vision-app")


def manifest_of(image: ReleaseImage) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(image.manifest)
    return document


def config_of(image: ReleaseImage) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(image.config)
    return document


# -- making


def test_the_manifest_lists_stored_bytes_and_the_config_uncompressed_ones() -> None:
    app = AppImage()
    layers = manifest_of(made(app))["layers"]
    assert [layer["digest"] for layer in layers[:2]] == [digest_of(layer) for layer in app.layers]
    diff_ids = config_of(made(app))["rootfs"]["diff_ids"]
    assert diff_ids[:2] == json.loads(app.config)["rootfs"]["diff_ids"]
    assert diff_ids[0] != layers[0]["digest"]
    assert diff_ids[2:] == [layer["digest"] for layer in layers[2:]] == [layer.digest for layer in LAYERS]


def test_the_digests_are_those_of_the_bytes() -> None:
    image = made()
    assert image.config_digest == "sha256:" + hashlib.sha256(image.config).hexdigest()
    assert image.digest == "sha256:" + hashlib.sha256(image.manifest).hexdigest()
    assert manifest_of(image)["config"] == {
        "mediaType": OCI_CONFIG,
        "digest": image.config_digest,
        "size": len(image.config),
    }


def test_the_same_inputs_always_make_the_same_bytes() -> None:
    assert made() == made()
    # raise RECIPE_VERSION together with this digest: it is part of the pair's key
    assert made(with_layer()).digest == "sha256:f973b9708c49aa1407d6f79de4d1a47a48d5a2dc2f89fa410172f6500f3e0ad2"


def test_a_docker_image_becomes_an_oci_image_whole() -> None:
    image = made(AppImage(docker=True))
    document = manifest_of(image)
    assert document["mediaType"] == OCI_MANIFEST
    assert document["config"]["mediaType"] == OCI_CONFIG
    assert [layer["mediaType"] for layer in document["layers"]] == [f"{OCI_LAYER}+gzip"] * 2 + [OCI_LAYER] * 2
    assert b"docker" not in image.manifest


@pytest.mark.parametrize(
    ("media_type", "becomes"),
    [
        (f"{OCI_LAYER}+zstd", f"{OCI_LAYER}+zstd"),
        (OCI_LAYER, OCI_LAYER),
        ("application/vnd.docker.image.rootfs.diff.tar", OCI_LAYER),
        ("application/vnd.docker.image.rootfs.diff.tar.zstd", f"{OCI_LAYER}+zstd"),
    ],
)
def test_stored_layers_stay_as_they_are_however_compressed(media_type: str, becomes: str) -> None:
    layer = {"mediaType": media_type, "digest": ZEROS, "size": 5}
    app = AppImage(layers=1, manifest={"layers": [layer]})
    assert manifest_of(made(app))["layers"][0] == layer | {"mediaType": becomes}


def test_the_pair_is_told_by_labels_and_annotations() -> None:
    app = AppImage(manifest={"annotations": {"org.opencontainers.image.source": "https://example.com"}})
    pair = Pair(app.digest, MODEL.digest)
    marks = {
        "dev.shipmate.pair": pair.key,
        "dev.shipmate.app.digest": app.digest,
        "dev.shipmate.model.digest": MODEL.digest,
        "dev.shipmate.model.name": "efficientnet-lite",
        "dev.shipmate.model.version": "1.0",
        "org.opencontainers.image.base.name": "registry.example/vision-app",
        "org.opencontainers.image.base.digest": app.digest,
    }
    image = made(app)
    labels = config_of(image)["config"]["Labels"]
    assert labels == {
        "dev.shipmate.contract": "1",
        "org.opencontainers.image.version": "2.3.0",
        "org.opencontainers.image.revision": "abc123",
        **marks,
    }
    assert manifest_of(image)["annotations"] == {"org.opencontainers.image.source": "https://example.com", **marks}


def test_the_rest_of_the_config_stays() -> None:
    app = AppImage(config={"variant": "v3", "something.new": {"kept": 1.5}})
    config = config_of(made(app))
    assert (config["config"]["User"], config["config"]["Cmd"]) == ("10001", ["app"])
    assert (config["variant"], config["something.new"]) == ("v3", {"kept": 1.5})


def test_created_and_history_derive_from_the_inputs() -> None:
    config = config_of(made())
    assert config["created"] == "2026-01-02T03:04:05Z"
    assert (
        config["history"][3:]
        == [{"created": "2026-01-02T03:04:05Z", "created_by": "shipmate: model efficientnet-lite 1.0"}] * 2
    )


def test_an_image_without_a_creation_time_gets_the_epoch() -> None:
    assert config_of(made(AppImage(config={"created": None})))["created"] == "1970-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "history", [pytest.param(None, id="none"), pytest.param([{"created_by": "COPY"}], id="miscounted")]
)
def test_history_has_an_entry_for_each_layer(history: list[dict[str, str]] | None) -> None:
    config = config_of(made(AppImage(config={"history": history})))
    entries = [entry for entry in config["history"] if not entry.get("empty_layer")]
    assert len(entries) == len(config["rootfs"]["diff_ids"])
    assert entries[0] == {"created": "2026-01-02T03:04:05Z", "created_by": "app image"}


def test_what_refers_to_the_app_image_does_not_come_along() -> None:
    subject = {"mediaType": OCI_MANIFEST, "digest": ZEROS, "size": 1}
    assert "subject" not in manifest_of(made(AppImage(manifest={"subject": subject})))


def test_at_most_127_layers() -> None:
    fits = AppImage(layers=125)
    check_room(read_app_image(fits.manifest, fits.config), 2)
    with pytest.raises(Rejected, match=r"has 126 layers and the model 2, and nodes mount 127: squash") as caught:
        made(AppImage(layers=126))
    assert caught.value.reason == "TooManyLayers"


def test_a_model_layer_is_found_again_by_the_files_in_it() -> None:
    image = made()
    assert [layer.get("annotations") for layer in manifest_of(image)["layers"][2:]] == [
        {FILES_ANNOTATION: "b" * 64},
        {FILES_ANNOTATION: "c" * 64},
    ]
    found = release_manifest(image.manifest, Pair(AppImage().digest, MODEL.digest))
    assert found is not None
    assert [files_key(layer) for layer in found.layers] == [None, None, "b" * 64, "c" * 64]


@pytest.mark.parametrize(
    "data", [b"{}", b"\xff", b"[" * 99_999, AppImage().manifest, made(AppImage(content=b"other")).manifest]
)
def test_another_manifest_is_not_taken_for_the_pairs(data: bytes) -> None:
    assert release_manifest(data, Pair(AppImage().digest, MODEL.digest)) is None


# -- reading


def test_what_an_app_image_says_about_itself() -> None:
    facts = app_facts(AppImage().config)
    assert (facts.contract, facts.version, facts.revision) == ("1", "2.3.0", "abc123")
    assert (facts.created, facts.platform) == ("2026-01-02T03:04:05Z", "linux/amd64")


def test_an_app_image_without_a_version_is_unversioned() -> None:
    facts = app_facts(AppImage(labels={"org.opencontainers.image.version": ""}).config)
    assert facts.version == "unversioned"


def spoilt(**changes: Any) -> AppImage:
    return AppImage(layers=1, **changes)


def with_layer(**fields: Any) -> AppImage:
    layer = {"mediaType": f"{OCI_LAYER}+gzip", "digest": ZEROS, "size": 1, **fields}
    return spoilt(manifest={"layers": [layer]})


@pytest.mark.parametrize(
    ("app", "reason", "words"),
    [
        pytest.param(
            spoilt(labels={"dev.shipmate.contract": ""}),
            "NoContractLabel",
            'build it with LABEL dev.shipmate.contract="1"',
            id="no contract",
        ),
        pytest.param(spoilt(config={"config": None}), "NoContractLabel", "how it wants its model", id="no labels"),
        pytest.param(
            spoilt(labels={"dev.shipmate.pair": "x"}),
            "AppIsReleaseImage",
            "push the app image alone",
            id="release image",
        ),
        pytest.param(
            spoilt(
                manifest={
                    "config": {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": ZEROS, "size": 1}
                }
            ),
            "NotAnImage",
            "push a container image",
            id="a chart",
        ),
        pytest.param(spoilt(manifest={"config": 1}), "UnreadableImage", "$.config", id="no descriptor"),
        pytest.param(
            spoilt(config={"rootfs": None}), "UnreadableImage", "1 layers and its config lists 0", id="no rootfs"
        ),
        pytest.param(
            with_layer(mediaType="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
            "ForeignLayer",
            "layers may be distributed",
            id="Docker's foreign layer",
        ),
        pytest.param(
            with_layer(mediaType="application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
            "ForeignLayer",
            "is not in the registry",
            id="OCI's nondistributable layer",
        ),
        pytest.param(with_layer(urls=["https://example.com/x"]), "ForeignLayer", "not in the registry", id="urls"),
        pytest.param(
            with_layer(mediaType=f"{OCI_LAYER}+gzip+encrypted"),
            "UnsupportedLayer",
            "as gzip or as zstd",
            id="encrypted",
        ),
    ],
)
def test_a_refusal_has_a_reason_and_says_what_to_do(app: AppImage, reason: str, words: str) -> None:
    with pytest.raises(Rejected) as caught:
        read_app_image(app.manifest, app.config)
    assert caught.value.reason == reason
    assert words in str(caught.value)


DEEP = b'{"x": ' + b"[" * 99_999 + b"]" * 99_999 + b"}"


@pytest.mark.parametrize("config", [b"\xff{", DEEP], ids=["no UTF-8", "nested too deep"])
def test_a_config_that_is_no_json_is_refused(config: bytes) -> None:
    with pytest.raises(Rejected, match=r"push it again") as caught:
        app_facts(config)
    assert caught.value.reason == "UnreadableImage"


# -- index


def entry(digit: str, platform: str, **fields: Any) -> dict[str, Any]:
    parts = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
    return {"mediaType": OCI_MANIFEST, "digest": "sha256:" + digit * 64, "size": 1, "platform": parts, **fields}


def index(*entries: dict[str, Any], docker: bool = False) -> bytes:
    return json.dumps({"mediaType": DOCKER_INDEX if docker else OCI_INDEX, "manifests": entries}).encode()


ATTESTATIONS = (
    entry("1", "linux/amd64", annotations={"vnd.docker.reference.type": "attestation-manifest"}),
    entry("2", "unknown/unknown"),
    entry("3", "linux/amd64", mediaType=DOCKER_CONFIG),
)


@pytest.mark.parametrize(
    ("wanted", "digit"),
    [("linux/amd64", "a"), ("linux/arm64", "b"), ("linux/arm64/v8", "b"), ("linux/arm/v7", "d"), ("linux/arm", "c")],
)
def test_one_platform_is_picked(wanted: str, digit: str) -> None:
    data = index(
        *ATTESTATIONS,
        entry("a", "linux/amd64"),
        entry("b", "linux/arm64/v8"),
        entry("c", "linux/arm/v6"),
        entry("d", "linux/arm/v7"),
    )
    assert pick_platform(data, wanted).digest == "sha256:" + digit * 64


def test_a_platform_that_is_not_there_is_named_with_those_that_are() -> None:
    data = index(*ATTESTATIONS, entry("a", "linux/arm64"), entry("b", "windows/amd64"))
    with pytest.raises(Rejected, match=r"no linux/amd64 .*there are: linux/arm64, windows/amd64\); push") as caught:
        pick_platform(data, "linux/amd64")
    assert caught.value.reason == "NoSuchPlatform"


def test_an_index_of_attestations_alone_has_no_platform() -> None:
    with pytest.raises(Rejected, match=r"there are: none"):
        pick_platform(index(*ATTESTATIONS), "linux/amd64")
