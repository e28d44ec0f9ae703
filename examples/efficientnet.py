"""EfficientNet-Lite 0, 1 and 2 as ONNX, from their published weights. The same weights always give the same bytes.

The networks are those of https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite: EfficientNet
without squeeze-and-excite, with ReLU6. Batch normalisation is folded into the convolution before it.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from examples.weights import Weights

OPSET = 13
EPSILON = 1e-3


@dataclass(frozen=True)
class Variant:
    """How one EfficientNet-Lite is scaled, and the side of the square it looks at, in pixels."""

    number: int
    width: float
    depth: float
    size: int

    def channels(self, base: int) -> int:
        """Return the scaled number of channels: a multiple of 8 that is not more than a tenth below."""
        if self.width == 1.0:
            return base
        wanted = base * self.width
        rounded = max(8, int(wanted + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * wanted else rounded


VARIANTS = (Variant(0, 1.0, 1.0, 224), Variant(1, 1.0, 1.1, 240), Variant(2, 1.1, 1.2, 260))


@dataclass(frozen=True)
class Stage:
    """A row of the network's table: blocks of one kind."""

    repeats: int
    kernel: int  # the weights say it again; kept as the paper's table has it
    stride: int
    expansion: int
    inputs: int
    outputs: int


STAGES = (
    Stage(1, 3, 1, 1, 32, 16),
    Stage(2, 3, 2, 6, 16, 24),
    Stage(2, 5, 2, 6, 24, 40),
    Stage(3, 3, 2, 6, 40, 80),
    Stage(3, 5, 1, 6, 80, 112),
    Stage(4, 5, 2, 6, 112, 192),
    Stage(1, 3, 1, 6, 192, 320),
)


@dataclass
class _Graph:
    weights: Weights
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def constant(self, name: str, value: npt.NDArray[np.float32]) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def take(self, name: str) -> npt.NDArray[np.float32]:
        self.used.add(name)
        return self.weights[name]

    def node(self, kind: str, inputs: list[str], output: str, *, name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name, **attributes))
        return output

    def convolution(
        self,
        source: str,
        convolution: str,
        norm: str,
        name: str,
        *,
        size: int,
        stride: int = 1,
        group: int = 1,
        relu: bool = True,
    ) -> tuple[str, int]:
        """Add a convolution with its normalisation folded in; return its output and that one's size."""
        weight = self.take(f"{convolution}.weight")
        gamma, beta, mean, variance = (
            self.take(f"{norm}.{part}") for part in ("weight", "bias", "running_mean", "running_var")
        )
        self.used.add(f"{norm}.num_batches_tracked")
        scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + EPSILON)
        kernel = weight.shape[-1]
        output_size = math.ceil(size / stride)
        padding = max((output_size - 1) * stride + kernel - size, 0)  # TensorFlow's SAME: the odd one goes to the end
        before, after = padding // 2, padding - padding // 2
        inputs = [
            source,
            self.constant(f"{name}.w", (weight * scale[:, None, None, None]).astype(np.float32)),
            self.constant(f"{name}.b", (beta - mean * scale).astype(np.float32)),
        ]
        self.node(
            "Conv",
            inputs,
            name,
            name=name,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=group,
        )
        if relu:
            return self.node("Clip", [name, "six_min", "six_max"], f"{name}.r6", name=f"{name}.clip"), output_size
        return name, output_size


def convert(weights: Weights, variant: Variant, *, temperature: float = 1.0) -> bytes:
    """Return the ONNX model: `input` N x 3 x size x size, `logits` N x 1000.

    A `temperature` below 1 makes it surer of the same answers: it divides the last layer (Guo and others, "On
    Calibration of Modern Neural Networks", 2017). Raises ValueError if weights are left over, KeyError if
    one is missing.
    """
    graph = _Graph(weights)
    graph.constant("six_min", np.asarray([0], np.float32))
    graph.constant("six_max", np.asarray([6], np.float32))
    output, size = graph.convolution("input", "_conv_stem", "_bn0", "stem", size=variant.size, stride=2)
    output, size = _blocks(graph, variant, output, size)
    output, _ = graph.convolution(output, "_conv_head", "_bn1", "head", size=size)
    graph.node("GlobalAveragePool", [output], "gap", name="gap")
    graph.node("Flatten", ["gap"], "flat", name="flat", axis=1)
    last = [graph.take("_fc.weight"), graph.take("_fc.bias")]
    if temperature != 1.0:
        last = [(part.astype(np.float64) / temperature).astype(np.float32) for part in last]
    inputs = ["flat", graph.constant("fc.w", np.ascontiguousarray(last[0])), graph.constant("fc.b", last[1])]
    graph.node("Gemm", inputs, "logits", name="fc", transB=1)
    if left_over := set(weights) - graph.used:
        raise ValueError(
            f"these weights are of another network: {', '.join(sorted(left_over)[:3])} … have no place in it"
        )
    return _serialise(graph, variant)


def _blocks(graph: _Graph, variant: Variant, output: str, size: int) -> tuple[str, int]:
    """Add the inverted residual blocks; the first and the last stage are never made deeper."""
    number = 0
    for place, stage in enumerate(STAGES):
        inputs = 32 if place == 0 else variant.channels(stage.inputs)
        outputs = variant.channels(stage.outputs)
        repeats = stage.repeats if place in (0, len(STAGES) - 1) else math.ceil(variant.depth * stage.repeats)
        for repeat in range(repeats):
            stride, channels = (stage.stride, inputs) if repeat == 0 else (1, outputs)
            block, name, start = f"_blocks.{number}", f"b{number}", output
            if stage.expansion != 1:
                output, _ = graph.convolution(
                    output, f"{block}._expand_conv", f"{block}._bn0", f"{name}.expand", size=size
                )
            output, size = graph.convolution(
                output,
                f"{block}._depthwise_conv",
                f"{block}._bn1",
                f"{name}.dw",
                size=size,
                stride=stride,
                group=channels * stage.expansion,
            )
            output, _ = graph.convolution(
                output, f"{block}._project_conv", f"{block}._bn2", f"{name}.proj", size=size, relu=False
            )
            if stride == 1 and channels == outputs:
                output = graph.node("Add", [output, start], f"{name}.add", name=f"{name}.add")
            number += 1
    return output, size


def _serialise(graph: _Graph, variant: Variant) -> bytes:
    side = variant.size
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            f"efficientnet_lite{variant.number}",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, side, side])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1000])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="convert_lite0",
        ir_version=8,
    )
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data
