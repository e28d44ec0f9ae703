"""What is held in memory while a request is answered, asked of the parts themselves."""

import base64
import json
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app import images, places, scoring, web
from app.images import Preparation, Tensor
from app.lifecycle import Lifecycle
from app.model import Model
from app.places import Places
from app.problems import ProblemError
from app.settings import Settings
from tests.app.apps import tiny_folder, tiny_onnx
from tests.app.pictures import png

MIB = 1 << 20


def test_blanks_in_base64_cost_no_more_than_the_text() -> None:
    text = "AB C\tD\r\n" * (2 * MIB // 8)
    tracemalloc.start()
    try:
        data = scoring._from_base64(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert data == base64.b64decode("ABCD" * (2 * MIB // 8))
    assert peak < 3 * len(text)


@pytest.mark.parametrize("text", ["AB\u00a0CD", "\U0001f600", "\ud83d"])
def test_text_beyond_ascii_is_no_base64(text: str) -> None:
    refused = scoring._from_base64(text)
    assert isinstance(refused, ProblemError)
    assert refused.problem.kind == "image-not-base64"


def test_each_picture_is_gone_before_the_next_is_decoded(lifecycle: Lifecycle, monkeypatch: pytest.MonkeyPatch) -> None:
    read = images.read
    alive: list[weakref.ref[Image.Image]] = []

    def watched(data: bytes, how: Preparation) -> tuple[Tensor, Image.Image]:
        assert [picture for picture in alive if picture() is not None] == []
        tensor, picture = read(data, how)
        alive.append(weakref.ref(picture))
        return tensor, picture

    monkeypatch.setattr(images, "read", watched)
    photos: list[bytes | ProblemError] = [png(8, 8), png(9, 9), png(10, 10)]
    assert scoring.score(lifecycle.model, photos).thumbnail is None
    shown = scoring.score(lifecycle.model, photos, with_thumbnail=True)
    assert shown.thumbnail is not None
    assert shown.thumbnail.startswith(b"\xff\xd8")
    assert len(alive) == 6


def test_a_tensor_is_scored_row_by_row_without_the_numbers_it_was_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 64
    large = tiny_folder(
        tmp_path, files={"model.onnx": tiny_onnx(size=size)}, input={"name": "picture", "size": size, "layout": "NCHW"}
    )
    lifecycle = Lifecycle(Settings(model_dir=large))
    lifecycle.load()
    rows = np.linspace(0, 1, 16 * 3 * size * size, dtype=np.float32).reshape(16, 3, size, size)
    tensor = {"name": "picture", "datatype": "FP32", "shape": list(rows.shape), "data": rows.ravel().tolist()}
    body = json.dumps({"id": "7", "inputs": [tensor]})
    expected = lifecycle.model.run(rows)
    run, held = Model.run, []

    def watched(model: Model, batch: Tensor) -> Tensor:
        assert batch.shape == (1, 3, size, size)
        with pytest.raises(ProblemError, match="No processor"):
            lifecycle.places.serving(1, bytes).__enter__()
        with pytest.raises(ProblemError, match="No place for a large request"):
            lifecycle.places.serving(None, bytes).__enter__()
        held.append(tracemalloc.get_traced_memory()[0])
        return run(model, batch)

    monkeypatch.setattr(places, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(places, "LARGE_REQUESTS", 1)
    monkeypatch.setattr(lifecycle, "places", Places(processors=1))
    monkeypatch.setattr(Model, "run", watched)
    tracemalloc.start()
    try:
        reply = web.create(lifecycle).test_client().post("/v2/models/tiny/infer", data=body).json
    finally:
        tracemalloc.stop()
    assert reply is not None
    assert reply["id"] == "7"
    (output,) = reply["outputs"]
    assert output["shape"] == [16, 4]
    np.testing.assert_allclose(np.reshape(output["data"], (16, 4)), expected, rtol=1e-5)
    assert len(held) == 16
    assert max(held) < 2 * len(body) + rows.nbytes + 2 * MIB  # the client has the body too; the numbers would take 6
