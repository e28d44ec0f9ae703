"""The model in memory: loaded, verified, tested with its own golden questions, and asked.

`lifecycle` loads it in the worker; `web` and `inference_protocol` ask it. It must not be made before a fork: ONNX
Runtime's threads do not survive one.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from app import images, manifest
from app.images import Preparation, Tensor
from app.manifest import BrokenModel, Manifest
from app.problems import ProblemError

type Prediction = tuple[str, float]
"""A label and its confidence from 0 to 1."""


@dataclass(frozen=True)
class Model:
    """A model that answers."""

    manifest: Manifest
    preparation: Preparation
    labels: tuple[str, ...]
    session: onnxruntime.InferenceSession
    input_name: str
    output_name: str

    def run(self, batch: Tensor) -> Tensor:
        """Return what the model puts out for a batch, as it comes (one row an image)."""
        (output,) = self.session.run([self.output_name], {self.input_name: batch})
        return np.asarray(output, np.float32)

    def predict(self, batch: Tensor, count: int = 3) -> list[list[Prediction]]:
        """Return for each image of a prepared batch its `count` likeliest labels, best first."""
        return [self._best(row, count) for row in probabilities(self.run(batch))]

    def _best(self, row: Tensor, count: int) -> list[Prediction]:
        best = np.argsort(-row, kind="stable")[:count]
        return [(self.labels[i], float(row[i])) for i in best]

    def prepare(self, data: bytes) -> Tensor:
        """Return the picture in these bytes as this model takes it; raises ProblemError."""
        return images.read(data, self.preparation)[0]


def probabilities(output: Tensor) -> Tensor:
    """Return rows that sum to 1: softmax, unless the model has done that itself."""
    rows = output.reshape(len(output), -1)
    if rows.min() >= 0 and np.allclose(rows.sum(axis=1), 1, atol=1e-3):
        return rows
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def load(folder: Path, description: Manifest, cpus: int) -> Model:
    """Return the model in this folder, verified, warm, and as good as its publisher measured.

    Raises BrokenModel with the reason.
    """
    manifest.verify(folder, description)
    session = _session(folder / description.model, cpus)
    if len(session.get_inputs()) != 1:
        raise BrokenModel(f"{description.model} has {len(session.get_inputs())} inputs: a model of images has one")
    preparation = _fit(session.get_inputs()[0].shape, description.preparation)
    model = Model(
        manifest=description,
        preparation=preparation,
        labels=(),
        session=session,
        input_name=session.get_inputs()[0].name,
        output_name=session.get_outputs()[0].name,
    )
    classes = _warm_up(model)
    model = dataclasses.replace(model, labels=_labels(folder, description, classes))
    _self_test(folder, model)
    return model


def _session(path: Path, cpus: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpus
    options.inter_op_num_threads = 1
    # threads that wait for the next request by spinning would eat the very quota that they were sized by
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common base of their own
        raise BrokenModel(f"{path.name} does not load: {_first_line(error)}") from error


def _fit(shape: list[int | str | None], wanted: Preparation | None) -> Preparation:
    """Return how to prepare pictures for a model input of this shape; raises BrokenModel where the two disagree."""
    if len(shape) != 4:
        raise BrokenModel(
            f"the model's input has shape {shape}: images are four dimensions, N x 3 x H x W or N x H x W x 3"
        )
    if wanted is None:
        layout = "NHWC" if shape[3] == 3 and shape[1] != 3 else "NCHW"
        size = shape[1] if layout == "NHWC" else shape[2]
        return Preparation(layout=layout, size=size if isinstance(size, int) else Preparation().size)
    made = (3, wanted.size, wanted.size) if wanted.layout == "NCHW" else (wanted.size, wanted.size, 3)
    if any(isinstance(takes, int) and takes != gives for takes, gives in zip(shape[1:], made, strict=True)):
        raise BrokenModel(f"the model's input takes {shape[1:]}, manifest.json prepares {list(made)} for each image")
    return wanted


def _warm_up(model: Model) -> int:
    """Run the model once (the first run is the slow one) and return how many classes it tells apart."""
    how = model.preparation
    shape = (1, 3, how.size, how.size) if how.layout == "NCHW" else (1, how.size, how.size, 3)
    try:
        output = model.run(np.zeros(shape, np.float32))
    except Exception as error:  # ONNX Runtime's errors have no common base of their own
        raise BrokenModel(f"{model.manifest.model} loads but does not run: {_first_line(error)}") from error
    if not np.isfinite(output).all():
        raise BrokenModel(
            f"{model.manifest.model} answers a black picture with numbers that are none (NaN or infinite)"
        )
    return int(output.reshape(1, -1).shape[1])


def _labels(folder: Path, description: Manifest, classes: int) -> tuple[str, ...]:
    if description.labels is None:
        return tuple(f"class {number}" for number in range(classes))
    try:
        labels = tuple((folder / description.labels).read_text("utf-8").splitlines())
    except UnicodeDecodeError as error:
        raise BrokenModel(f"{description.labels} is not UTF-8 text: {error}") from error
    if len(labels) != classes:
        raise BrokenModel(f"{description.labels} has {len(labels)} labels, the model tells {classes} classes apart")
    return labels


def _self_test(folder: Path, model: Model) -> None:
    """Ask the golden questions; raises BrokenModel at the first answer that the publisher did not measure."""
    for question in model.manifest.golden:
        try:
            batch = model.prepare((folder / question.file).read_bytes())[np.newaxis]
        except ProblemError as error:
            raise BrokenModel(f"self-test: {question.file}: {error}") from error
        label, confidence = model.predict(batch, 1)[0][0]
        if question.label is None:
            continue
        if label != question.label or abs(confidence - question.confidence) > question.tolerance:
            raise BrokenModel(
                f"self-test: {question.file} is {label} {confidence:.3f} here, the publisher measured "
                f"{question.label} {question.confidence:.3f}, give or take {question.tolerance:.3f}"
            )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
