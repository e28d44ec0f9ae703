"""The graft of a large model, Blob to registry, against bare curl and against `crane append`.

Each run of ours is a process of its own, so that its peak memory can be read; `python -m bench.graft CLOUD FOLDER
REPOSITORY` is that process. A repository of its own for each keeps the registry from finding the layer there.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from azure.storage.blob import BlobSasPermissions, BlobServiceClient, ContainerClient, generate_blob_sas

from bench.figures import Comparison, Figure
from localcloud import setup
from localcloud.config import AZURITE_ACCOUNT, AZURITE_KEY, Cloud
from shipmate import wiring
from shipmate.core.manifest import parse_manifest
from shipmate.core.refs import Pair
from shipmate.edge.blobs import BlobModels
from shipmate.edge.registry import Registry
from shipmate.stages.graft import ModelFolder, graft, resolve_app

GIB = 1 << 30
CONTAINER = "models"
CHUNK = 8 << 20
CRANE_ROUNDS = PEAK_ROUNDS = 2
PEAK_GOAL_MIB = 150.0
CURL = "curl to curl"
CRANE = "crane append"


def measure(cloud: Cloud, app_image: str, rounds: int = 6) -> tuple[list[Comparison], dict[str, float]]:
    """Return the comparisons for 1 GiB, and the highest peak memory in MiB by model size; `app_image` is pushed."""
    container = BlobServiceClient.from_connection_string(cloud.connection_string).get_container_client(CONTAINER)
    folder = _publish(container, GIB, "1GiB")
    ours, curl = [], []
    for number in range(rounds):
        if number % 2:  # whoever comes second finds a disk that is busy with what the first one wrote
            curl.append(_curl(cloud, folder))
        ours.append(_graft(cloud, folder, f"bench-{number}")["seconds"])
        if not number % 2:
            curl.append(_curl(cloud, folder))
    crane = _crane(cloud, app_image)
    peaks = {}
    for name, size in (("256 MiB", GIB // 4), ("4 GiB", 4 * GIB)):
        folder = _publish(container, size, name.replace(" ", ""))
        peaks[name] = [_graft(cloud, folder, f"peak-{number}")["peak_mib"] for number in range(PEAK_ROUNDS)]
    figure = Figure("graft, Blob to registry", tuple(ours))
    small, large = (Figure(name, tuple(values), "MiB") for name, values in peaks.items())
    return [
        Comparison("graft of 1 GiB against curl to curl", figure, Figure(CURL, tuple(curl)), 1.3),
        Comparison("graft of 1 GiB against crane append", figure, Figure(CRANE, crane), 3.0, at_most=False),
        Comparison("peak memory at 4 GiB against 256 MiB", large, small, 1.15),
    ], {name: max(values) for name, values in peaks.items()}


def _publish(container: ContainerClient, size: int, version: str) -> str:
    """Upload a model of random weights and return its folder."""
    folder = f"bench/{version}-{time.time_ns()}"
    sha256 = hashlib.sha256()

    def chunks() -> Iterator[bytes]:
        for chunk in _weights(size):
            sha256.update(chunk)
            yield chunk

    container.upload_blob(f"{folder}/model.onnx", chunks(), length=size, max_concurrency=2)
    manifest = {
        "schema": 1,
        "name": "bench",
        "version": version,
        "contract": "1",
        "files": [{"path": "model.onnx", "size": size, "sha256": sha256.hexdigest()}],
        "model": "model.onnx",
    }
    container.upload_blob(f"{folder}/manifest.json", json.dumps(manifest))
    return folder


def _weights(size: int) -> Iterator[bytes]:
    """Yield so many bytes that compress as a model does: float32 numbers of a normal distribution, by a few percent."""
    import numpy as np  # noqa: PLC0415 - the process whose memory is measured has no use for it

    random = np.random.default_rng(time.time_ns())
    for start in range(0, size, CHUNK):
        yield random.standard_normal(min(CHUNK, size - start) // 4, dtype=np.float32).tobytes()


def _graft(cloud: Cloud, folder: str, repository: str) -> dict[str, float]:
    """Graft in a process of its own and return its seconds and peak memory."""
    os.sync()  # here and below: nobody waits for the disk to take what somebody else wrote
    command = [sys.executable, "-m", "bench.graft", cloud.name, folder, repository]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def _curl(cloud: Cloud, folder: str) -> float:
    """Return the seconds of curl from Blob piped into one curl PATCH of the same bytes; no PUT makes them a blob."""
    path = f"{folder}/model.onnx"
    sas = generate_blob_sas(
        AZURITE_ACCOUNT,
        CONTAINER,
        path,
        account_key=AZURITE_KEY,
        permission=BlobSasPermissions(read=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    url = f"http://{cloud.registry}"
    os.sync()
    began = httpx.post(f"{url}/v2/bench-curl/blobs/uploads/", timeout=60, trust_env=False)
    started = time.perf_counter()
    script = 'curl -sf "$0" | curl -sf -X PATCH -H "Content-Type: application/octet-stream" -T - "$1" -o /dev/null'
    subprocess.run(
        [
            "bash",
            "-o",
            "pipefail",
            "-c",
            script,
            f"{cloud.blob_url}/{CONTAINER}/{path}?{sas}",
            began.headers["Location"],
        ],
        check=True,
    )
    return time.perf_counter() - started


def _crane(cloud: Cloud, app_image: str) -> tuple[float, ...]:
    """Return the seconds of each `crane append` of a local file of 1 GiB to the app image."""
    local = cloud.state / "bench-layer.tar"
    model = cloud.state / "model.onnx"
    with model.open("wb") as out:
        out.writelines(_weights(GIB))
    subprocess.run(["tar", "-cf", local, "-C", model.parent, model.name], check=True)
    model.unlink()
    command = [str(setup.ensure_crane()), "append", "--insecure", "-b", app_image, "-f", str(local), "-t"]
    seconds = tuple(_timed([*command, f"{cloud.registry}/bench-crane-{number}:1"]) for number in range(CRANE_ROUNDS))
    local.unlink()
    return seconds


def _timed(command: list[str]) -> float:
    os.sync()
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main(cloud_name: str, folder: str, repository: str) -> None:
    """Graft one folder and print seconds and peak memory."""
    cloud = Cloud(cloud_name)
    models = BlobModels(wiring.blob_service(cloud.connection_string))
    registry = Registry(f"http://{cloud.registry}")
    manifest = parse_manifest(models.read_manifest(CONTAINER, f"{folder}/manifest.json"))
    app, _ = resolve_app(registry, "vision-app", "main", "linux/amd64")
    started = time.perf_counter()
    graft(
        registry,
        models,
        pair=Pair(app, manifest.digest),
        app_repository="vision-app",
        release_repository=repository,
        model=manifest,
        folder=ModelFolder(CONTAINER, folder),
    )
    seconds = time.perf_counter() - started
    sys.stdout.write(json.dumps({"seconds": seconds, "peak_mib": _peak_mib()}))


def _peak_mib() -> float:
    """Return this process's highest resident memory since it began; getrusage would count its parent's as well."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
