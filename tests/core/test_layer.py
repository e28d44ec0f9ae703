"""The layer: tarfile reads it back, the bytes never change, and no wrong file passes."""

import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipmate.core.layer import LayerFiles, LayerReader, layer_plan, layer_size
from shipmate.core.manifest import ModelFile, parse_manifest, unsafe_name
from shipmate.errors import Rejected
from tests.fakes.model_folders import HEX, encoded

FILES = {"model.onnx": b"m" * 1000, "golden/a/b.jpg": b"", "golden.txt": b"x" * 512, "labels.txt": b"cat\n"}


def listed(files: dict[str, bytes]) -> LayerFiles:
    return LayerFiles(
        tuple(ModelFile(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in sorted(files.items()))
    )


def reader(files: dict[str, bytes], chunk: int = 7, layer: LayerFiles | None = None) -> LayerReader:
    def open_file(file: ModelFile, offset: int) -> Iterable[bytes]:
        data = files[file.path]
        return (data[start : start + chunk] for start in range(offset, len(data), chunk))

    return LayerReader(layer or listed(files), open_file)


def test_tarfile_reads_it_back() -> None:
    data = b"".join(reader(FILES).open_at(0))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == [
            "model",
            "model/golden",
            "model/golden/a",
            "model/golden/a/b.jpg",
            "model/golden.txt",
            "model/labels.txt",
            "model/model.onnx",
        ]
        for member in members:
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
            assert member.mode == (0o555 if member.isdir() else 0o444)
            if not member.isdir():
                content = tar.extractfile(member)
                assert content is not None
                assert content.read() == FILES[member.name.removeprefix("model/")]


def test_the_bytes_never_change() -> None:
    layer = reader(FILES)
    data = b"".join(layer.open_at(0))
    assert layer.digest == "sha256:" + hashlib.sha256(data).hexdigest()
    # raise LAYOUT_VERSION together with this digest: layers in registries are found again by it
    assert layer.digest == "sha256:bcc4b4c693658179c6af884958888509c9aa5049142c75ec2227f5abd7fe4bb0"


def test_the_size_is_known_beforehand() -> None:
    assert layer_size(listed(FILES)) == reader(FILES).size == len(b"".join(reader(FILES).open_at(0)))


def test_a_file_above_8_gib_has_a_pax_record() -> None:
    size = (8 << 30) + 5
    layer = LayerFiles((ModelFile("model.onnx", size, HEX),))

    def zeros(_file: ModelFile, _offset: int) -> Iterator[bytes]:
        yield b"one chunk is enough"

    chunks = LayerReader(layer, zeros).open_at(0)
    head = b"".join(next(chunks) for _ in range(2))
    with tarfile.open(fileobj=io.BytesIO(head)) as tar:
        tar.next()
        member = tar.next()
        assert member is not None
        assert member.pax_headers["size"] == str(size)
        assert member.size == size
    assert layer_size(layer) == len(head) + size + (-size % 512) + 1024


names = st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=150).filter(lambda n: not unsafe_name(n))
folders = st.lists(st.sampled_from(["a", "b", "ü" * 60, "c" * 90]), max_size=3)
paths = st.builds(lambda parents, name: "/".join([*parents, "f" + name]), folders, names)


breaks = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=4)


@given(st.dictionaries(paths, st.binary(max_size=1500), max_size=6), st.integers(1, 700), breaks)
def test_any_files_come_back_whole_however_often_the_upload_broke(
    files: dict[str, bytes], chunk: int, breaks: list[tuple[float, float]]
) -> None:
    if any(other.startswith(path + "/") for path in files for other in files):
        return
    layer = reader(files, chunk)
    stored = b""  # what the registry has
    for broken_at, kept in breaks:
        sent = stored
        for piece in layer.open_at(len(stored)):
            if len(sent) > broken_at * layer.size:
                break
            sent += piece
        stored = sent[: len(stored) + int((len(sent) - len(stored)) * kept)]
    stored += b"".join(layer.open_at(len(stored)))
    assert layer.digest == "sha256:" + hashlib.sha256(stored).hexdigest()
    with tarfile.open(fileobj=io.BytesIO(stored)) as tar:
        found = {m.name.removeprefix("model/"): tar.extractfile(m) for m in tar.getmembers() if m.isreg()}
        assert {name: content.read() for name, content in found.items() if content} == files


@pytest.mark.parametrize(
    ("path", "content", "reason", "words"),
    [
        pytest.param(
            "model.onnx", b"m" * 999, "SizeMismatch", "has 999 bytes, and the manifest lists 1000", id="short"
        ),
        pytest.param("model.onnx", b"m" * 1001, "SizeMismatch", "has more than 1000 bytes", id="long"),
        pytest.param("model.onnx", b"n" * 1000, "DigestMismatch", "publish a new version", id="other content"),
        pytest.param("golden/a/b.jpg", b"!", "SizeMismatch", "lists 0; publish a new", id="not empty"),
    ],
)
def test_a_wrong_file_is_refused_before_the_layer_ends(path: str, content: bytes, reason: str, words: str) -> None:
    layer = reader(FILES | {path: content}, layer=listed(FILES))
    with pytest.raises(Rejected, match=words) as caught:
        list(layer.open_at(0))
    assert caught.value.reason == reason
    with pytest.raises(ValueError, match=r"no digest yet"):
        _ = layer.digest


def test_an_empty_file_with_another_digest_is_refused() -> None:
    layer = LayerFiles((ModelFile("a", 0, HEX),))
    with pytest.raises(Rejected) as caught:
        list(reader({"a": b""}, layer=layer).open_at(0))
    assert caught.value.reason == "DigestMismatch"


def test_it_cannot_go_on_where_it_never_was() -> None:
    with pytest.raises(ValueError, match=r"cannot go on at 5"):
        next(reader(FILES).open_at(5))


def test_large_files_have_a_layer_each_and_small_ones_share_one_with_the_manifest() -> None:
    sizes = {"z.onnx": 1 << 20, "model.onnx": 20 << 20, "labels.txt": 30, "golden/a.jpg": (1 << 20) - 1}
    data = encoded(
        files=[{"path": path, "size": size, "sha256": HEX} for path, size in sizes.items()], golden=[], labels=None
    )
    plan = layer_plan(parse_manifest(data))
    assert [[file.path for file in layer.files] for layer in plan] == [
        ["model.onnx"],
        ["z.onnx"],
        ["golden/a.jpg", "labels.txt", "manifest.json"],
    ]
    own = plan[-1].files[-1]
    assert (own.size, own.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_a_layer_is_known_by_its_files_alone() -> None:
    model = [{"path": "model.onnx", "size": 2 << 20, "sha256": HEX}]
    first, second = (
        layer_plan(parse_manifest(encoded(version=version, files=model, golden=[], labels=None)))
        for version in ("1", "2")
    )
    assert first[0].key == second[0].key
    assert first[1].key != second[1].key
    renamed = LayerFiles((ModelFile("other.onnx", 2 << 20, HEX),))
    assert renamed.key != first[0].key
