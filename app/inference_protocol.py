"""The Open Inference Protocol, version 2, over HTTP: the part that a client with a prepared FP32 tensor needs.

https://github.com/kserve/open-inference-protocol - server and model metadata, health, and `infer` with the tensor's
numbers in JSON. Errors are problem documents that also have the protocol's `error` member.
"""

import time
from typing import Any

import flask
import numpy as np

from app import bodies
from app.images import MAX_IMAGES, Tensor
from app.lifecycle import Lifecycle
from app.model import Model
from app.problems import Problem, ProblemError

MOST_OTHERS = 100
"""Lists, objects and quotation marks in the JSON of a request, besides the lists that a nested tensor has."""


def blueprint(lifecycle: Lifecycle) -> flask.Blueprint:
    """Return the routes below /v2."""
    routes = flask.Blueprint("inference_protocol", __name__, url_prefix="/v2")
    routes.before_request(lifecycle.asked)

    @routes.get("")
    def server() -> dict[str, Any]:
        return {"name": "shipmate-app", "version": lifecycle.settings.app_version, "extensions": []}

    @routes.get("/health/live")
    def live() -> dict[str, Any]:
        return {"live": True}

    @routes.get("/health/ready")
    def ready() -> tuple[dict[str, Any], int]:
        problem = lifecycle.problem
        return {"ready": problem is None}, 200 if problem is None else 503

    @routes.get("/models/<name>")
    @routes.get("/models/<name>/versions/<version>")
    def metadata(name: str, version: str | None = None) -> dict[str, Any]:
        model = _named(lifecycle, name, version)
        given, made = model.session.get_inputs()[0], model.session.get_outputs()[0]
        return {
            "name": model.manifest.name,
            "versions": [model.manifest.version],
            "platform": "onnx_onnxv1",
            "inputs": [_tensor_metadata(given.name, given.shape)],
            "outputs": [_tensor_metadata(made.name, made.shape)],
        }

    @routes.get("/models/<name>/ready")
    @routes.get("/models/<name>/versions/<version>/ready")
    def model_ready(name: str, version: str | None = None) -> tuple[dict[str, Any], int]:
        model = _named(lifecycle, name, version)
        problem = lifecycle.problem
        return {"name": model.manifest.name, "ready": problem is None}, 200 if problem is None else 503

    @routes.post("/models/<name>/infer")
    @routes.post("/models/<name>/versions/<version>/infer")
    def infer(name: str, version: str | None = None) -> flask.Response:
        model = _named(lifecycle, name, version)
        request = flask.request
        with lifecycle.places.serving(request.content_length, lambda: request.get_data(cache=False)) as body:
            tensor, answered = _question(body, model)
            started = time.perf_counter()
            output = np.concatenate([model.run(row[np.newaxis]) for row in tensor])  # one by one, as in `scoring`
            milliseconds = 1000 * (time.perf_counter() - started)
            return flask.jsonify(
                {
                    "model_name": model.manifest.name,
                    "model_version": model.manifest.version,
                    **answered,
                    "parameters": {"computed_in_ms": round(milliseconds, 2)},
                    "outputs": [
                        {
                            "name": model.output_name,
                            "datatype": "FP32",
                            "shape": list(output.shape),
                            "data": output.ravel().tolist(),
                        }
                    ],
                }
            )

    @routes.errorhandler(ProblemError)
    def problem(error: ProblemError) -> flask.Response:
        found = error.problem
        members = {**found.members, "error": found.detail}
        return Problem(found.status, found.kind, found.detail, members, found.headers).response()

    return routes


def _named(lifecycle: Lifecycle, name: str, version: str | None) -> Model:
    model = lifecycle.model
    known = model.manifest
    if name != known.name or version not in (None, known.version):
        asked = name if version is None else f"{name} version {version}"
        raise ProblemError(
            Problem(
                404, "no-such-model", f"There is no model {asked} here; this is {known.name} version {known.version}."
            )
        )
    return model


def _tensor_metadata(name: str, shape: list[int | str | None]) -> dict[str, Any]:
    return {"name": name, "datatype": "FP32", "shape": [size if isinstance(size, int) else -1 for size in shape]}


def _question(body: bytes, model: Model) -> tuple[Tensor, dict[str, Any]]:
    """Return the tensor, and the members of the request that its answer repeats.

    The numbers as JSON gave them take ten times as much memory as the tensor, and are gone when this returns.
    """
    request = _request(body, model)
    return _tensor(model, request), {"id": request["id"]} if "id" in request else {}


def _request(body: bytes, model: Model) -> dict[str, Any]:
    outer, inner, _ = _shape(model)
    most = MAX_IMAGES * (1 + outer + outer * inner) + MOST_OTHERS
    try:
        document = bodies.parse(body, most=most, of='[{"')
    except (ValueError, RecursionError) as error:
        raise _bad(f"The body is not JSON: {error}.") from error
    if not isinstance(document, dict) or not isinstance(document.get("inputs"), list) or len(document["inputs"]) != 1:
        raise _bad('Send an object with "inputs": a list of one tensor.')
    return document


def _tensor(model: Model, request: dict[str, Any]) -> Tensor:
    given = request["inputs"][0]
    if not isinstance(given, dict) or given.get("name") != model.input_name:
        raise _bad(f"The input should be an object with the name {model.input_name}.")
    if given.get("datatype") != "FP32":
        raise _bad(f"The datatype is {given.get('datatype')}; this model takes FP32.")
    one = _shape(model)
    shape = given.get("shape")
    if (
        not isinstance(shape, list)
        or shape[1:] != one
        or not isinstance(shape[0], int)
        or not 1 <= shape[0] <= MAX_IMAGES
    ):
        raise _bad(
            f"The shape is {shape}; this model takes [N, {', '.join(map(str, one))}] with N from 1 to {MAX_IMAGES}."
        )
    try:
        tensor = np.asarray(given.get("data"), np.float32).reshape(shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise _bad(f"The data does not fill the shape {shape}: {error}.") from error
    if not np.isfinite(tensor).all():
        raise _bad("The data has numbers that are none (NaN or infinite).")
    return tensor


def _shape(model: Model) -> list[int]:
    """Return the shape of one image's tensor."""
    how = model.preparation
    return [3, how.size, how.size] if how.layout == "NCHW" else [how.size, how.size, 3]


def _bad(detail: str) -> ProblemError:
    return ProblemError(Problem(400, "bad-tensor", detail))
