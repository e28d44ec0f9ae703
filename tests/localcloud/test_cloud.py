"""What a local cloud subscribes to."""

from msgspec.structs import replace

from localcloud.cloud import EXAMPLE_TARGETS, completing_blobs
from shipmate.settings import parse_targets


def test_only_what_completes_a_model_is_subscribed_to_unless_targets_disagree() -> None:
    (vision,) = parse_targets(EXAMPLE_TARGETS.read_bytes(), "the example").values()
    single = replace(vision, name="single", model=replace(vision.model, file="model.onnx"))
    elsewhere = replace(single, model=replace(single.model, container="others"))
    assert completing_blobs([vision, elsewhere]) == {"models": "/manifest.json", "others": "/model.onnx"}
    assert completing_blobs([vision, single]) == {"models": ""}
