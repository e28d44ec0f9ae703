"""Reading a model folder: what is accepted, and in which words the rest is refused."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app import manifest, model
from app.lifecycle import Lifecycle
from app.manifest import BrokenModel, NoModel
from app.settings import Settings
from tests.app.apps import tiny_folder, tiny_onnx
from tests.app.pictures import png


def load(folder: Path) -> model.Model:
    return model.load(folder, manifest.read(folder), 1)


def test_a_model_folder(tmp_path: Path) -> None:
    loaded = load(tiny_folder(tmp_path))
    assert loaded.manifest.digest == "sha256:" + hashlib.sha256((tmp_path / "manifest.json").read_bytes()).hexdigest()
    (answer,) = loaded.predict(loaded.prepare(png(30, 20))[np.newaxis])
    assert len(answer) == 3
    assert {label for label, _ in answer} < {"ash", "birch", "cedar", "fir"}
    assert answer[0][1] >= answer[1][1] >= answer[2][1] >= 0


@pytest.mark.parametrize("cpus", [1, 3])
def test_a_model_runs_in_as_many_threads_as_there_are_processors_for_it(tmp_path: Path, cpus: int) -> None:
    tiny_folder(tmp_path)
    options = model.load(tmp_path, manifest.read(tmp_path), cpus).session.get_session_options()
    assert options.intra_op_num_threads == cpus
    assert options.inter_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_a_single_file_has_sensible_defaults(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(tiny_onnx(size=16, nhwc=True))
    loaded = load(tmp_path)
    digest = hashlib.sha256((tmp_path / "model.onnx").read_bytes()).hexdigest()
    assert loaded.manifest.digest == f"sha256:{digest}"
    assert (loaded.preparation.layout, loaded.preparation.size) == ("NHWC", 16)
    assert loaded.labels == ("class 0", "class 1", "class 2", "class 3")


def test_a_single_file_of_any_size_is_asked_at_224(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(tiny_onnx(size="side"))
    loaded = load(tmp_path)
    assert (loaded.preparation.layout, loaded.preparation.size) == ("NCHW", 224)


def test_a_manifest_without_labels_golden_and_input(tmp_path: Path) -> None:
    loaded = load(tiny_folder(tmp_path, labels=None, input=None))
    assert loaded.labels[3] == "class 3"


def test_what_a_manifest_says_of_its_own_digest_counts_for_nothing(tmp_path: Path) -> None:
    loaded = load(tiny_folder(tmp_path, digest="sha256:" + "a" * 64))
    assert loaded.manifest.digest == "sha256:" + hashlib.sha256((tmp_path / "manifest.json").read_bytes()).hexdigest()


def test_probabilities_are_left_alone_and_scores_are_not() -> None:
    ready = np.asarray([[0.25, 0.75]], np.float32)
    np.testing.assert_array_equal(model.probabilities(ready), ready)
    np.testing.assert_allclose(model.probabilities(np.asarray([[1000.0, 1000.0]], np.float32)), [[0.5, 0.5]])


def test_no_model_is_not_a_broken_one(tmp_path: Path) -> None:
    with pytest.raises(NoModel, match="has no model: this image is the code half by itself"):
        manifest.read(tmp_path)
    with pytest.raises(NoModel):
        manifest.read(tmp_path / "missing")


BAD_MANIFESTS: list[Any] = [
    pytest.param({"schema": 2}, '"schema" should be 1', id="schema"),
    pytest.param({"contract": "9"}, "the model needs app contract 9, this app speaks 1", id="contract"),
    pytest.param({"name": None}, "'name' is missing", id="no-name"),
    pytest.param({"version": "7\r\nX-Release: r-9"}, '"version" is \'7\\r\\nX-', id="a-header-in-the-version"),
    pytest.param({"name": "tiny\n"}, "should have 1 to 100 of A-Z a-z 0-9 . _ + -", id="a-line-break-in-the-name"),
    pytest.param({"model": "other.onnx"}, 'other.onnx is used but not listed in "files"', id="unlisted-model"),
    pytest.param({"labels": "other.txt"}, 'other.txt is used but not listed in "files"', id="unlisted-labels"),
    pytest.param({"model": "labels.txt"}, "the model is labels.txt: only ONNX files are loaded", id="no-onnx"),
    pytest.param({"input": {"size": 0}}, '"input.size" is 0: it should be from 1 to 4096', id="size"),
    pytest.param({"input": {"crop": 2}}, '"input.crop" is 2.0: it should be above 0 and at most 1', id="crop"),
    pytest.param({"input": {"layout": "HW"}}, '"input.layout" is HW: it should be NCHW or NHWC', id="layout"),
    pytest.param(
        {"input": {"resample": "best"}}, '"input.resample" is best: it should be one of nearest', id="resample"
    ),
    pytest.param({"input": {"mean": [1]}}, '"input.mean" should have three numbers, for R, G and B', id="mean"),
    pytest.param({"input": {"std": [1, 0, 1]}}, '"input.std" has a 0', id="std"),
    pytest.param(
        {"input": {"size": 9}}, "the model's input takes [3, 8, 8], manifest.json prepares [3, 9, 9]", id="fit"
    ),
]


@pytest.mark.parametrize(("changes", "message"), BAD_MANIFESTS)
def test_bad_manifests(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BrokenModel) as raised:
        load(tiny_folder(tmp_path, **changes))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param({"model.onnx": b"not a model"}, "model.onnx does not load: ", id="no-model"),
        pytest.param({"labels.txt": b"ash\n"}, "labels.txt has 1 labels, the model tells 4 classes apart", id="labels"),
        pytest.param({"labels.txt": b"\xff\n"}, "labels.txt is not UTF-8 text", id="encoding"),
        pytest.param({"model.onnx": tiny_onnx(value=float("nan"))}, "numbers that are none", id="nan"),
    ],
)
def test_bad_files(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    with pytest.raises(BrokenModel) as raised:
        load(tiny_folder(tmp_path, files=files))
    assert message in str(raised.value)


def test_every_file_is_compared_with_the_manifest(tmp_path: Path) -> None:
    good = tiny_folder(tmp_path / "good")
    for path, change, message in [
        ("labels.txt", None, "labels.txt is listed in manifest.json and is not there"),
        ("labels.txt", b"ash", "labels.txt has 3 bytes, manifest.json says 20"),
        ("labels.txt", b"ASH\nbirch\ncedar\nfir\n", "labels.txt has sha256 "),
    ]:
        bad = shutil.copytree(good, tmp_path / "bad")
        (bad / path).write_bytes(change) if change else (bad / path).unlink()
        with pytest.raises(BrokenModel) as raised:
            load(bad)
        assert message in str(raised.value)
        shutil.rmtree(bad)


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "a\\x", ""])
def test_paths_stay_inside(tmp_path: Path, path: str) -> None:
    folder = tiny_folder(tmp_path)
    document = json.loads((folder / "manifest.json").read_text())
    document["files"][0]["path"] = path
    (folder / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(BrokenModel) as raised:
        load(folder)
    assert f"{path!r} is not a path inside the model's folder" in str(raised.value)


def test_two_models_and_no_manifest(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).write_bytes(tiny_onnx())
    with pytest.raises(BrokenModel, match=r"has 2 .onnx files and no manifest.json that says which one is the model"):
        load(tmp_path)


def test_a_manifest_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(BrokenModel, match=r"manifest\.json is not JSON: "):
        manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("label", "confidence", "message"),
    [
        pytest.param("birch", 0.9, "self-test: golden/red.png is ", id="label"),
        pytest.param("fir", 0.1, "the publisher measured fir 0.100, give or take 0.050", id="confidence"),
    ],
)
def test_the_self_test_finds_a_model_that_answers_otherwise(
    tmp_path: Path, label: str, confidence: float, message: str
) -> None:
    golden = [{"file": "golden/red.png", "expected": "ash", "reference": {"label": label, "confidence": confidence}}]
    folder = tiny_folder(tmp_path, files={"golden/red.png": png(8, 8)}, golden=golden)
    with pytest.raises(BrokenModel) as raised:
        load(folder)
    assert message in str(raised.value)


def test_the_self_test_compares_with_the_reference_and_not_with_the_truth(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path, files={"golden/red.png": png(8, 8)})
    loaded = load(folder)
    label, confidence = loaded.predict(loaded.prepare(png(8, 8))[np.newaxis])[0][0]
    golden = {"file": "golden/red.png", "expected": "no such tree"}
    golden |= {"reference": {"label": label, "confidence": confidence}}  # type: ignore[dict-item]
    load(tiny_folder(tmp_path, files={"golden/red.png": png(8, 8)}, golden=[golden]))


def test_a_golden_photo_that_cannot_be_read(tmp_path: Path) -> None:
    golden = [{"file": "golden/red.png", "expected": "ash"}]
    with pytest.raises(BrokenModel, match=r"self-test: golden/red.png: This is no picture"):
        load(tiny_folder(tmp_path, files={"golden/red.png": b"red"}, golden=golden))


def test_a_drain_that_nothing_follows_ends_by_itself(tmp_path: Path) -> None:
    now = [100.0]
    lifecycle = Lifecycle(Settings(model_dir=tiny_folder(tmp_path)), clock=lambda: now[0])
    lifecycle.load()
    assert lifecycle.problem is None
    lifecycle.drain()
    assert lifecycle.problem is not None
    assert lifecycle.headers()["Connection"] == "close"
    now[0] += 91
    assert lifecycle.problem is None
    assert "Connection" not in lifecycle.headers()


@pytest.mark.parametrize(
    ("last_question", "held"),
    [(None, 4.0), (1.0, 4.0), (3.0, 5.0), (9.5, 11.5), (30.0, 12.0)],
    ids=["nobody came", "they stopped soon", "they came a little longer", "and longer", "they never stopped"],
)
def test_a_drain_lasts_while_questions_still_come(tmp_path: Path, last_question: float | None, held: float) -> None:
    now = [100.0]
    lifecycle = Lifecycle(Settings(model_dir=tiny_folder(tmp_path)), clock=lambda: now[0])

    def sleep(seconds: float) -> None:
        for _ in range(round(seconds / 0.1)):
            now[0] += 0.1
            if last_question is not None and now[0] - 100 <= last_question + 0.01:
                lifecycle.asked()

    lifecycle.drain()
    lifecycle.hold(sleep)
    assert now[0] - 100 == pytest.approx(held, abs=0.15)


def test_identity_before_a_model_is_known(tmp_path: Path) -> None:
    lifecycle = Lifecycle(Settings(model_dir=tmp_path))
    assert lifecycle.identity()["model"] is None
    assert lifecycle.headers()["X-Model-Digest"] == "none"
    assert json.dumps(lifecycle.identity())
