"""The app as users meet it: a granian process of its own on a loopback port, with a model folder beside it."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.localcloud.functions_host_process import free_port

TREE = Path(__file__).resolve().parents[2]


@dataclass
class RunningApp:
    process: subprocess.Popen[bytes]
    url: str
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.url, timeout=20, trust_env=False)

    def wait(self, status: int = 200, path: str = "/readyz") -> httpx.Response:
        deadline = time.monotonic() + 90
        while True:
            with contextlib.suppress(httpx.TransportError):
                reply = self.client.get(path)
                loading = "being loaded" in reply.text
                if reply.status_code == status and not loading:
                    return reply
            assert time.monotonic() < deadline, f"{path} did not become {status}"
            assert self.process.poll() is None, "the app stopped"
            time.sleep(0.05)

    def stop(self) -> int:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextlib.contextmanager
def running(model: Path, **environment: str) -> Iterator[RunningApp]:
    port = free_port()
    settings = {"MODEL_DIR": str(model), "HOST": "127.0.0.1", "PORT": str(port), "DRAIN_SECONDS": "0.5"}
    settings |= {"APP_VERSION": "2.3.0", "APP_REVISION": "abc", "SHIPMATE_RELEASE": "r-1", "SHIPMATE_PAIR": "p-1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "app"], cwd=TREE, env={**os.environ, **settings, **environment}, stderr=subprocess.STDOUT
    )
    app = RunningApp(process, f"http://127.0.0.1:{port}")
    try:
        app.wait(200, "/livez")
        yield app
    finally:
        app.stop()


def tiny_onnx(*, classes: int = 4, size: int | str = 8, nhwc: bool = False, value: float = 1.0) -> bytes:
    """A model in a few hundred bytes: the mean of R, G and B times fixed numbers."""
    shape = ["N", size, size, 3] if nhwc else ["N", 3, size, size]
    weights = np.arange(3 * classes, dtype=np.float32).reshape(3, classes) * value
    nodes = [
        helper.make_node("ReduceMean", ["picture"], ["mean"], axes=[1, 2] if nhwc else [2, 3], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(weights, "w")],
    )
    made: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    ).SerializeToString()
    onnx.checker.check_model(onnx.load_from_string(made))
    return made


def tiny_folder(folder: Path, *, files: dict[str, bytes] | None = None, **changes: Any) -> Path:
    """A model folder with the tiny model; `changes` replace members of the manifest, None takes one away."""
    content = {"model.onnx": tiny_onnx(), "labels.txt": b"ash\nbirch\ncedar\nfir\n", **(files or {})}
    manifest: dict[str, Any] = {
        "schema": 1,
        "name": "tiny",
        "version": "7",
        "contract": "1",
        "files": [
            {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for path, data in content.items()
        ],
        "model": "model.onnx",
        "labels": "labels.txt",
        "input": {"name": "picture", "size": 8, "layout": "NCHW", "crop": 0.875},
        **changes,
    }
    manifest = {key: value for key, value in manifest.items() if value is not None}
    for path, data in content.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
