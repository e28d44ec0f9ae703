"""JSON that would take more memory than a pod has is not parsed."""

import json
import tracemalloc

import pytest

from app import bodies, inference_protocol, scoring
from app.images import MAX_IMAGES, MAX_REQUEST_BYTES
from app.problems import ProblemError

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


def test_the_largest_nested_tensor_of_a_request_is_taken() -> None:
    side = 404  # sixteen images of one digit a number fill a request
    tensor = [[[[0] * side] * side] * 3] * MAX_IMAGES
    body = json.dumps({"inputs": [{"name": "x", "data": tensor}]}, separators=(",", ":")).encode()
    assert 0.9 * MAX_REQUEST_BYTES < len(body) < MAX_REQUEST_BYTES
    assert inference_protocol._request(body)["inputs"][0]["name"] == "x"
