"""The app contract over HTTP, asked of a real server with EfficientNet-Lite0."""

import base64
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest

from app import images
from app.images import Preparation
from tests.app.apps import RunningApp, running, tiny_folder
from tests.app.pictures import bomb, png

JSON = {"Content-Type": "application/json"}

pytestmark = pytest.mark.app


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def input_of(*texts: str) -> bytes:
    """The request as the first generation's clients write it: JSON in JSON."""
    return json.dumps({"input": json.dumps(texts)}).encode()


def post(app: RunningApp, body: bytes, **headers: str) -> httpx.Response:
    return app.client.post("/score", content=body, headers={**JSON, **headers})


@pytest.fixture(scope="module")
def flower(lite0: Path) -> bytes:
    return (lite0 / "golden/flower.jpg").read_bytes()


@pytest.fixture(scope="module")
def coffee(lite0: Path) -> bytes:
    return (lite0 / "golden/coffee.png").read_bytes()


def assert_problem(reply: httpx.Response, status: int, kind: str, detail: str) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = reply.json()
    assert document["status"] == status
    assert document["type"] == (f"urn:shipmate:app:{kind}" if kind else "about:blank")
    assert detail in document["detail"]
    assert document["title"]
    return document


# -- /score as its clients know it ---------------------------------------------------------------------------------


def test_the_answer_byte_for_byte(app: RunningApp, flower: bytes) -> None:
    reply = post(app, input_of(base64_of(flower)))
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    pair = r'\["[^"]+", \d+(\.\d+)?\]'
    assert re.fullmatch(
        rf'\{{"result": \[\[\[\["daisy", 32\.\d+\], {pair}, {pair}\]\], "Computed in \d+\.\d\d ms"\]\}}', reply.text
    ), reply.text


def test_a_list_for_each_image_in_their_order(app: RunningApp, flower: bytes, coffee: bytes) -> None:
    answers, took = post(app, input_of(base64_of(coffee), base64_of(flower))).json()["result"]
    assert [answer[0][0] for answer in answers] == ["espresso", "daisy"]
    assert [len(answer) for answer in answers] == [3, 3]
    assert took.startswith("Computed in ")


@pytest.mark.parametrize("form", ["b'{}'", 'b"{}"', "{}", " {}\n"])
def test_every_way_to_write_an_image(app: RunningApp, flower: bytes, form: str) -> None:
    for body in (
        input_of(form.format(base64_of(flower))),
        json.dumps({"input": [form.format(base64_of(flower))]}).encode(),
    ):
        assert post(app, body).json()["result"][0][0][0][0] == "daisy"


def test_content_type_with_a_charset(app: RunningApp, flower: bytes) -> None:
    body = input_of(base64_of(flower))
    assert post(app, body, **{"Content-Type": "application/json; charset=utf-8"}).status_code == 200


def test_uploads(app: RunningApp, flower: bytes, coffee: bytes) -> None:
    files = [("images", ("a.jpg", flower, "image/jpeg")), ("images", ("b.png", coffee, "image/png"))]
    reply = app.client.post("/score", files=files)
    assert [answer[0][0] for answer in reply.json()["result"][0]] == ["daisy", "espresso"]


def test_a_body_sent_in_chunks(app: RunningApp, flower: bytes) -> None:
    def chunks() -> Iterator[bytes]:
        body = input_of(base64_of(flower))
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    reply = app.client.post("/score", content=chunks(), headers=JSON)
    assert reply.json()["result"][0][0][0][0] == "daisy"


def test_golden_photos_get_what_their_publisher_measured(app: RunningApp, lite0: Path) -> None:
    for question in json.loads((lite0 / "manifest.json").read_text())["golden"]:
        data = (lite0 / question["file"]).read_bytes()
        label, percent = post(app, input_of(base64_of(data))).json()["result"][0][0][0]
        assert label == question["expected"]
        assert percent == pytest.approx(100 * question["reference"]["confidence"], abs=0.2)


# -- what it refuses, in which words -------------------------------------------------------------------------------

IMAGE = base64_of(png(8, 8))
NOT_JSON = "The body, or the text in its input, is not JSON: "
HOW = 'Send {"input": "[\\"<base64>\\", …]"}.'


@pytest.mark.parametrize(
    ("body", "status", "kind", "detail"),
    [
        pytest.param(b"", 400, "bad-request", NOT_JSON, id="empty"),
        pytest.param(b"{", 400, "bad-request", NOT_JSON, id="cut-off"),
        pytest.param(b"[" * 1000, 400, "bad-request", NOT_JSON, id="deep"),
        pytest.param(
            b"[" * 100_000,
            413,
            "too-large",
            "The JSON has 100,000 of the characters `[{,`, at most 1,000 are taken. Send fewer, larger parts.",
            id="deeper",
        ),
        pytest.param(input_of(*[""] * 1001), 413, "too-large", "The JSON has 1,002 of the characters", id="parts"),
        pytest.param(b'{"input": "["}', 400, "bad-request", NOT_JSON, id="inner-cut-off"),
        pytest.param(b"{}", 400, "bad-request", f"The body is JSON without an input. {HOW}", id="no-input"),
        pytest.param(b"[]", 400, "bad-request", f"The body is JSON without an input. {HOW}", id="a-list"),
        pytest.param(b'{"input": 7}', 400, "bad-request", f"The input is not a list of texts. {HOW}", id="a-number"),
        pytest.param(b'{"input": [7]}', 400, "bad-request", f"The input is not a list of texts. {HOW}", id="numbers"),
        pytest.param(
            b'{"input": "{}"}', 400, "bad-request", f"The input is not a list of texts. {HOW}", id="an-object"
        ),
        pytest.param(input_of(), 400, "bad-request", "There is no image in the request. Send at least one.", id="none"),
        pytest.param(
            input_of(*[IMAGE] * 17),
            413,
            "too-many-images",
            "The request has 17 images; at most 16 are taken at once.",
            id="17",
        ),
        pytest.param(input_of("!!"), 422, "image-not-base64", "The text is not base64: ", id="no-base64"),
        pytest.param(input_of("ä"), 422, "image-not-base64", "Send the file's bytes in base64.", id="no-ascii"),
        pytest.param(
            input_of(base64_of(b"GIF89a")),
            422,
            "image-unreadable",
            "This is no picture in a format that is taken.",
            id="gif",
        ),
        pytest.param(
            input_of(base64_of(bomb())),
            413,
            "image-too-large",
            "The image is 9000 x 9000 pixels; at most 25,000,000 pixels are taken. Send a smaller picture.",
            id="bomb",
        ),
        pytest.param(
            input_of(*[base64_of(bomb(4999))] * 5),
            413,
            "too-large",
            "The images have more than 100,000,000 pixels together. Send them in several requests.",
            id="many-pixels",
        ),
    ],
)
def test_refusals(app: RunningApp, body: bytes, status: int, kind: str, detail: str) -> None:
    assert_problem(post(app, body), status, kind, detail)


def test_several_images_get_a_problem_each(app: RunningApp, flower: bytes) -> None:
    reply = post(app, input_of("!!", base64_of(flower), base64_of(bomb())))
    document = assert_problem(reply, 422, "images-refused", "2 of 3 images cannot be scored, so none was; see errors.")
    assert [(error["index"], error["status"], error["type"]) for error in document["errors"]] == [
        (0, 422, "urn:shipmate:app:image-not-base64"),
        (2, 413, "urn:shipmate:app:image-too-large"),
    ]


@pytest.mark.parametrize("given", ["text/plain", "application/octet-stream", ""])
def test_other_content_types(app: RunningApp, given: str) -> None:
    reply = app.client.post("/score", content=b"x", headers={"Content-Type": given})
    assert_problem(reply, 415, "unsupported-media-type", f"The content type is {given or 'not given'}. Send ")


def test_a_request_that_is_too_large(app: RunningApp) -> None:
    reply = post(app, b" " * (images.MAX_REQUEST_BYTES + 1))
    assert_problem(reply, 413, "too-large", "The request has more than 16 MiB. Send fewer or smaller images at once.")


def test_paths_and_methods_that_are_not_there(app: RunningApp) -> None:
    assert_problem(app.client.get("/nothing"), 404, "", "not found")
    reply = app.client.get("/score")
    assert_problem(reply, 405, "", "method is not allowed")
    assert "POST" in reply.headers["allow"]


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/score", "/livez", "/readyz", "/version", "/metrics", "/try", "/v2"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT"])
def test_every_reply_says_which_pair_made_it(app: RunningApp, method: str, path: str) -> None:
    headers = app.client.request(method, path).headers
    assert re.fullmatch("sha256:[0-9a-f]{64}", headers["x-model-digest"])
    assert headers["x-model-version"] == "1.0"
    assert headers["x-app-version"] == "2.3.0"
    assert headers["x-release"] == "r-1"
    assert headers["x-content-type-options"] == "nosniff"


# -- the rest of the contract --------------------------------------------------------------------------------------


def test_health_and_version(app: RunningApp) -> None:
    assert app.client.get("/").text == "Healthy"
    assert app.client.get("/livez").text == "ok\n"
    assert app.client.get("/version").text == onnxruntime.__version__
    assert app.client.get("/version", headers={"Accept": "*/*"}).headers["content-type"].startswith("text/plain")
    digest = app.client.get("/").headers["x-model-digest"]
    identity = {
        "model": {"name": "efficientnet-lite", "version": "1.0", "digest": digest},
        "app": {"version": "2.3.0", "revision": "abc"},
        "release": "r-1",
        "pair": "p-1",
    }
    told = app.client.get("/version", headers={"Accept": "application/json"}).json()
    assert told == {"runtime": onnxruntime.__version__, **identity}
    assert app.client.get("/readyz").json() == {"status": "ready", **identity}


def test_metrics(app: RunningApp, flower: bytes) -> None:
    post(app, input_of(base64_of(flower)))
    app.client.request("BREW", "/nothing/at/all")
    text = app.client.get("/metrics").text
    assert 'app_requests_total{method="POST",route="/score",status="200"}' in text
    assert 'app_requests_total{method="other",route="none",status="404"}' in text
    assert 'app_info{app_version="2.3.0",model="efficientnet-lite",model_version="1.0"} 1.0' in text
    assert "app_ready 1.0" in text
    assert "app_draining 0.0" in text
    assert "nothing/at" not in text


def test_the_inference_protocol(app: RunningApp, flower: bytes) -> None:
    assert app.client.get("/v2").json() == {"name": "shipmate-app", "version": "2.3.0", "extensions": []}
    assert app.client.get("/v2/health/live").json() == {"live": True}
    assert app.client.get("/v2/health/ready").json() == {"ready": True}
    metadata = app.client.get("/v2/models/efficientnet-lite").json()
    assert metadata["versions"] == ["1.0"]
    assert metadata["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 3, 224, 224]}]
    assert metadata["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 1000]}]
    assert app.client.get("/v2/models/efficientnet-lite/versions/1.0/ready").json()["ready"]

    tensor = images.prepare(images.decode(flower), Preparation())
    asked = {"name": "input", "datatype": "FP32", "shape": [1, 3, 224, 224], "data": tensor.ravel().tolist()}
    reply = app.client.post("/v2/models/efficientnet-lite/infer", json={"id": "7", "inputs": [asked]}).json()
    assert (reply["id"], reply["model_name"], reply["model_version"]) == ("7", "efficientnet-lite", "1.0")
    (output,) = reply["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("logits", "FP32", [1, 1000])
    assert int(np.argmax(output["data"])) == 985


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        pytest.param("{", "The body is not JSON: ", id="no-json"),
        pytest.param("{}", 'Send an object with "inputs": a list of one tensor.', id="no-inputs"),
        pytest.param('{"inputs": [{}]}', "The input should be an object with the name input.", id="no-name"),
        pytest.param('{"inputs": [{"name": "input"}]}', "The datatype is None; this model takes FP32.", id="no-type"),
        pytest.param(
            '{"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3]}]}',
            "The shape is [1, 3]; this model takes [N, 3, 224, 224] with N from 1 to 16.",
            id="shape",
        ),
        pytest.param(
            '{"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3, 224, 224], "data": [1]}]}',
            "The data does not fill the shape [1, 3, 224, 224]: ",
            id="data",
        ),
        pytest.param(
            '{"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3, 224, 224], "data": [1%s]}]}'
            % ("0" * 400),
            "The data does not fill the shape [1, 3, 224, 224]: int too large to convert to float.",
            id="beyond-all-numbers",
        ),
    ],
)
def test_tensors_that_do_not_fit(app: RunningApp, body: str, detail: str) -> None:
    document = assert_problem(
        app.client.post("/v2/models/efficientnet-lite/infer", content=body), 400, "bad-tensor", detail
    )
    assert document["error"] == document["detail"]


def test_another_model(app: RunningApp) -> None:
    reply = app.client.get("/v2/models/bert")
    known = "There is no model bert here; this is efficientnet-lite version 1.0."
    assert_problem(reply, 404, "no-such-model", known)
    reply = app.client.get("/v2/models/efficientnet-lite/versions/9")
    assert_problem(reply, 404, "no-such-model", "There is no model efficientnet-lite version 9 here")


def test_many_at_once(app: RunningApp, flower: bytes) -> None:
    body = input_of(base64_of(flower))
    with ThreadPoolExecutor(16) as crowd:
        replies = list(
            crowd.map(lambda _: httpx.post(f"{app.url}/score", content=body, headers=JSON, timeout=30), range(48))
        )
    assert {reply.status_code for reply in replies} == {200}
    assert {reply.json()["result"][0][0][0][0] for reply in replies} == {"daisy"}


# -- without a model, or with one that cannot be used --------------------------------------------------------------


def test_the_code_half_by_itself(tmp_path: Path) -> None:
    with running(tmp_path) as app:
        reply = app.wait(503)
        document = assert_problem(
            reply, 503, "no-model", "this image is the code half by itself. A release image has one"
        )
        assert document["model"] is None
        assert document["app"] == {"version": "2.3.0", "revision": "abc"}
        assert reply.headers["x-model-digest"] == "none"
        assert app.client.get("/livez").status_code == 200
        assert app.client.get("/").text == "Healthy"
        assert_problem(post(app, input_of(IMAGE)), 503, "no-model", "code half")
        assert app.client.get("/v2/health/ready").json() == {"ready": False}
        page = app.client.get("/try")
        assert page.status_code == 200
        assert "This is the code half and has no model" in page.text


def test_a_broken_model_leaves_the_process_up_with_the_reason(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path)
    (folder / "labels.txt").write_text("oak\n")
    with running(folder) as app:
        reply = app.wait(503)
        assert_problem(reply, 503, "broken-model", "labels.txt has 4 bytes, manifest.json says 20.")
        assert reply.headers["x-model-version"] == "7"
        assert app.client.get("/livez").status_code == 200
        assert "app_ready 0.0" in app.client.get("/metrics").text


def test_a_single_file(tmp_path: Path, lite0: Path) -> None:
    (tmp_path / "model.onnx").symlink_to(lite0 / "model.onnx")
    with running(tmp_path) as app:
        digest = app.wait().json()["model"]["digest"]
        assert digest == "sha256:d1ee903c87d25f57beed9a8d4ec7020d36fe8e0529a0f17142c51021830829e6"
        flower = (lite0 / "golden/flower.jpg").read_bytes()
        assert post(app, input_of(base64_of(flower))).json()["result"][0][0][0][0] == "class 985"
