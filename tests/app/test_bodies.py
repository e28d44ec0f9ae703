"""JSON that would take more memory than a pod has is not parsed."""

import json
import tracemalloc
from pathlib import Path

import pytest

from app import bodies, inference_protocol, manifest, model, scoring
from app.images import MAX_IMAGES, MAX_REQUEST_BYTES
from app.problems import ProblemError
from tests.app.apps import tiny_onnx

MIB = 1 << 20


@pytest.mark.parametrize("part", ["[]", "{}", '""', "[[],{}]"])
@pytest.mark.parametrize("is_text", [False, True])
def test_many_small_parts_cost_nothing(part: str, is_text: bool) -> None:
    text: bytes | str = "[" + ",".join([part] * (MAX_REQUEST_BYTES // (len(part) + 1))) + "]"
    text = text if is_text else str(text).encode()
    tracemalloc.start()
    try:
        with pytest.raises(ProblemError) as refused:
            scoring._listed(text) if isinstance(text, bytes) else bodies.parse(text, most=scoring.MOST_PARTS, of="[{,")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refused.value.problem.status == 413
    assert peak < MIB


@pytest.mark.parametrize("nhwc", [False, True])
def test_nested_tensors_are_taken_whatever_their_layout(tmp_path: Path, nhwc: bool) -> None:
    side = 224
    (tmp_path / "model.onnx").write_bytes(tiny_onnx(size=side, nhwc=nhwc))
    loaded = model.load(tmp_path, manifest.read(tmp_path), 1)
    image = [[[0] * 3] * side] * side if nhwc else [[[0] * side] * side] * 3
    body = json.dumps({"inputs": [{"name": "x", "data": [image] * MAX_IMAGES}]}, separators=(",", ":")).encode()
    assert len(inference_protocol._request(body, loaded)["inputs"][0]["data"]) == MAX_IMAGES
    with pytest.raises(ProblemError) as refused:
        inference_protocol._request(b"[" + b"[]," * 3_000_000, loaded)
    assert refused.value.problem.status == 413
