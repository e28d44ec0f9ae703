"""The model manifest: what is taken, and what each refusal says."""

import hashlib
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import manifest as app_manifest
from shipmate.core.manifest import MANIFEST_LIMIT, parse_manifest, single_file_manifest, unsafe_name
from shipmate.errors import Rejected
from tests.fakes.model_folders import HEX, document, encoded


def named(*paths: str) -> bytes:
    return encoded(files=[*document()["files"], *({"path": path, "size": 1, "sha256": HEX} for path in paths)])


def photos(count: int, size: int) -> bytes:
    """Return a manifest with golden photos of so many bytes each."""
    paths = [f"golden/{number}.jpg" for number in range(count)]
    files = [{"path": path, "size": size, "sha256": HEX} for path in paths]
    golden = [{"file": path, "expected": "x"} for path in paths]
    return encoded(files=[*document()["files"], *files], golden=golden)


def test_a_manifest_is_read_and_its_digest_is_that_of_its_bytes() -> None:
    data = encoded()
    manifest = parse_manifest(data)
    assert manifest.data == data
    assert manifest.digest == "sha256:" + hashlib.sha256(data).hexdigest()
    assert [file.path for file in manifest.files] == ["model.onnx", "labels.txt", "golden/flower.jpg"]
    assert manifest.input is not None
    assert manifest.input.mean == (127.0, 127.0, 127.0)
    assert manifest.golden[0].reference is not None
    assert manifest.golden[0].reference.confidence == 0.32


def test_what_newer_publishers_add_is_left_alone() -> None:
    manifest = parse_manifest(encoded(signature="…", data="x"))
    assert manifest.name == "efficientnet-lite"


def test_only_the_needed_keys_are_needed() -> None:
    needed = {key: document()[key] for key in ("schema", "name", "version", "contract", "files", "model")}
    manifest = parse_manifest(json.dumps(needed).encode())
    assert (manifest.labels, manifest.input, manifest.golden) == (None, None, ())


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        pytest.param(b"{", "ManifestUnreadable", "truncated", id="cut off"),
        pytest.param(b'{"schema": "\xff"}', "ManifestUnreadable", "correct it", id="not UTF-8"),
        pytest.param(b"[]", "ManifestUnreadable", "Expected `object`", id="no object"),
        pytest.param(
            encoded()[:-1] + b', "x": ' + b"[" * 99_999 + b"]" * 99_999 + b"}",
            "ManifestUnreadable",
            "recursion depth",
            id="nested too deep",
        ),
        pytest.param(b" " * (MANIFEST_LIMIT + 1), "ManifestUnreadable", "larger than 1 MiB", id="too large"),
        pytest.param(encoded(model=7), "ManifestUnreadable", "$.model", id="wrong type names the key"),
        pytest.param(encoded(contract=""), "ManifestUnreadable", "$.contract", id="empty contract"),
        pytest.param(
            encoded(files=[{"path": "a", "size": -1, "sha256": HEX}]), "ManifestUnreadable", "size", id="negative size"
        ),
        pytest.param(
            encoded(files=[{"path": "a", "size": 1, "sha256": "A" * 64}]), "ManifestUnreadable", "sha256", id="not hex"
        ),
        pytest.param(
            encoded(digest="sha256:" + "b" * 64), "ManifestNamesDigest", 'has a key "digest"', id="says who it is"
        ),
        pytest.param(encoded(digest=None), "ManifestNamesDigest", "remove it", id="says that it is nobody"),
        pytest.param(encoded(name=""), "UnsafeModelName", "\"name\": ''", id="no name"),
        pytest.param(encoded(name="a/b"), "UnsafeModelName", "1 to 100 letters, digits, dots", id="a path"),
        pytest.param(encoded(version="1\nX-Evil: 1"), "UnsafeModelName", '"version": \'1\\n', id="a line break"),
        pytest.param(encoded(version="1.0\n"), "UnsafeModelName", '"version"', id="a line break at the end"),
        pytest.param(encoded(version="é"), "UnsafeModelName", '"version"', id="no ASCII"),
        pytest.param(encoded(version="x" * 101), "UnsafeModelName", '"version"', id="a long version"),
        pytest.param(encoded(version=".."), "UnsafeModelName", "begin with a letter or digit", id="dots"),
        pytest.param(
            encoded(golden=[{"file": "golden/flower.jpg", "expected": "x"}] * 101),
            "GoldenTooMany",
            "101 golden questions, at most 100",
            id="many questions",
        ),
        pytest.param(photos(2, (32 << 20) + 1), "GoldenPhotosTooLarge", "at most 67108864", id="large photos"),
        pytest.param(encoded(schema=2), "ManifestUnknownSchema", "reads schema 1", id="a later schema"),
        pytest.param(
            named(*(f"f{number}" for number in range(1000))), "FileTooMany", "lists 1003 files, at most 1000", id="many"
        ),
        pytest.param(
            encoded(files=[{"path": "a", "size": 1 << 40, "sha256": HEX}]), "FileTooLarge", "fit a layer", id="1 TiB"
        ),
        pytest.param(named("../etc/passwd"), "UnsafeFileName", "leaves its folder", id="parent"),
        pytest.param(named("a/../b"), "UnsafeFileName", "leaves its folder", id="parent inside"),
        pytest.param(named("/etc/passwd"), "UnsafeFileName", "is absolute", id="absolute"),
        pytest.param(named("a\\b"), "UnsafeFileName", "forward slashes", id="backslash"),
        pytest.param(named("a\nb"), "UnsafeFileName", "control character", id="newline"),
        pytest.param(named("a\0"), "UnsafeFileName", "control character", id="NUL"),
        pytest.param(named(""), "UnsafeFileName", "is empty", id="empty"),
        pytest.param(named("a//b"), "UnsafeFileName", "empty or dot component", id="two slashes"),
        pytest.param(named("a/"), "UnsafeFileName", "empty or dot component", id="a folder"),
        pytest.param(named("./a"), "UnsafeFileName", "empty or dot component", id="dot"),
        pytest.param(named(".wh.model.onnx"), "UnsafeFileName", ".wh.", id="whiteout"),
        pytest.param(named(".wh.golden/a"), "UnsafeFileName", ".wh.", id="whiteout folder"),
        pytest.param(named("manifest.json"), "UnsafeFileName", "the manifest itself", id="the manifest"),
        pytest.param(named("model.onnx"), "UnsafeFileName", "is listed twice", id="twice"),
        pytest.param(named("golden"), "UnsafeFileName", "a file and a folder at once", id="file and folder"),
        pytest.param(named("ä" * 128), "UnsafeFileName", "longer than", id="long component"),
        pytest.param(named("/".join(["a" * 200] * 6)), "UnsafeFileName", "longer than", id="long path"),
        pytest.param(encoded(model="m.onnx"), "MissingModelFile", "\"model\": 'm.onnx'", id="model not listed"),
        pytest.param(encoded(labels="l.txt"), "MissingModelFile", "list it or correct it", id="labels not listed"),
        pytest.param(
            encoded(golden=[{"file": "g.jpg", "expected": "x"}]), "MissingModelFile", '"golden"', id="golden not listed"
        ),
        pytest.param(encoded(model="labels.txt"), "ModelNotOnnx", "convert it first", id="not ONNX"),
    ],
)
def test_a_refusal_has_a_reason_and_says_what_to_do(data: bytes, reason: str, words: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_manifest(data)
    assert caught.value.reason == reason
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["1", "2026.11.23-rc_1+cpu", "x" * 100])
def test_plain_names_and_versions(text: str) -> None:
    manifest = parse_manifest(encoded(name=text, version=text))
    assert (manifest.name, manifest.version) == (text, text)


def test_as_many_golden_questions_as_fit() -> None:
    assert len(parse_manifest(photos(2, 32 << 20)).golden) == 2
    often = [{"file": "golden/flower.jpg", "expected": "x"}] * 100
    large = [{"path": "model.onnx", "size": 1, "sha256": HEX}, {"path": "golden/flower.jpg", "size": 64 << 20}]
    large[1]["sha256"] = HEX
    assert len(parse_manifest(encoded(files=large, golden=often, labels=None)).golden) == 100


def single(**changes: Any) -> bytes:
    """Return a manifest that says nothing but which file is the model, with some keys changed."""
    document = {"schema": 1, "name": "lite", "version": "7", "contract": "1", "model": "model.onnx"}
    return json.dumps(document | {"files": [{"path": "model.onnx", "size": 5, "sha256": HEX}]} | changes).encode()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(), id="a folder"),
        pytest.param(encoded(labels=None, golden=[], input=None), id="files alone"),
        pytest.param(single(), id="a single file"),
        pytest.param(single(labels=None, golden=[], input=None, licence="MIT"), id="a single file, with empty keys"),
        pytest.param(single(labels="model.onnx"), id="a single file that is its own labels"),
        pytest.param(
            single(golden=[{"file": "model.onnx", "expected": "x"}]), id="a single file that is its own photograph"
        ),
        pytest.param(single(input={"name": "input", "size": 224}), id="a single file that says how it is asked"),
        pytest.param(
            single_file_manifest("lite", "7", file="m.onnx", size=5, sha256=HEX, contract="1").data, id="made for one"
        ),
    ],
)
def test_the_app_computes_the_same_digest(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(data)
    assert app_manifest.read(tmp_path).digest == parse_manifest(data).digest


def test_the_manifest_that_is_shown_to_publishers_is_read_by_both(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "model.md").read_text()
    shown = [
        block for block in re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL) if '"schema"' in block
    ]
    assert len(shown) == 1
    (tmp_path / "manifest.json").write_text(shown[0])
    ours, the_apps = parse_manifest(shown[0].encode()), app_manifest.read(tmp_path)
    assert the_apps.digest == ours.digest
    assert [golden.file for golden in the_apps.golden] == [golden.file for golden in ours.golden]
    table = page.partition("\n| key | what |")[2].partition("\n\n")[0]
    keys = {key for row in re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)}
    assert keys == set(json.loads(shown[0]))


def test_a_single_file_is_known_by_its_own_digest(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"bytes")
    sha256 = hashlib.sha256(b"bytes").hexdigest()
    made = single_file_manifest("lite", "7", file="model.onnx", size=5, sha256=sha256, contract="1")
    assert made.digest == app_manifest.read(tmp_path).digest == f"sha256:{sha256}"
    assert parse_manifest(encoded()).digest == "sha256:" + hashlib.sha256(encoded()).hexdigest()


def test_the_manifest_of_a_single_file_is_the_same_every_time() -> None:
    def make() -> bytes:
        return single_file_manifest("lite", "7", file="model.onnx", size=5, sha256=HEX, contract="1").data

    assert make() == make()
    assert parse_manifest(make()).model == "model.onnx"
    assert json.loads(make()) == {
        "schema": 1,
        "name": "lite",
        "version": "7",
        "contract": "1",
        "files": [{"path": "model.onnx", "size": 5, "sha256": HEX}],
        "model": "model.onnx",
    }


def test_a_single_file_is_checked_too() -> None:
    with pytest.raises(Rejected, match=r"only ONNX"):
        single_file_manifest("lite", "7", file="model.pkl", size=5, sha256=HEX, contract="1")


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(Rejected):
        parse_manifest(data)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=40))
def test_a_safe_name_stays_below_its_folder(path: str) -> None:
    if unsafe_name(path) is None:
        assert path
        assert not path.startswith("/")
        assert all(part not in ("", ".", "..") and not part.startswith(".wh.") for part in path.split("/"))
