"""The main job, shown once on real input: `make demo`. It meets Shipmate only where people and events do."""

import json
import tempfile
import time
from pathlib import Path

from azure.core.exceptions import AzureError

from examples.packages import DownloadError
from examples.publish import AlreadyPublished
from localcloud import debian, images, setup
from localcloud.access import AccessError
from localcloud.cloud import EXAMPLE_TARGETS, LocalCloud
from localcloud.config import Cloud
from localcloud.demo.api import Api, ApiError
from localcloud.demo.show import Screen
from localcloud.demo.story import DemoError, Story
from localcloud.making import SetupError
from localcloud.processes import StartError
from localcloud.targets import TargetCluster
from shipmate.errors import ShipmateError

TARGET = NAMESPACE = "vision"
REPORT = Path(".demo/report.json")
EXAMPLE_URL = "http://127.77.0.1:8080"
_EXPECTED = (
    AccessError,
    AlreadyPublished,
    ApiError,
    AzureError,
    DemoError,
    DownloadError,
    SetupError,
    ShipmateError,
    StartError,
    images.ImageError,
)


def run(context: str | None) -> int:
    """Set up, start, run the main job, leave it running; return 0, or 1 after saying what went wrong."""
    screen = Screen()
    try:
        _run(screen, context)
    except _EXPECTED as error:
        screen.fault(str(error))
        return 1
    return 0


def _run(screen: Screen, context: str | None) -> None:
    screen.step("setting up: what is missing is installed and built once, and kept outside the tree")
    debian.ensure_packages()
    setup.ensure_registry()
    setup.ensure_azurite()
    if context is None:
        setup.ensure_kubernetes()
    images.ensure_base()
    images.ensure_wheels()
    screen.step("starting the local cloud")
    local = LocalCloud(Cloud("demo"), context)
    local.stop()  # what an earlier run left goes on from its ledger, with the code as it is now
    local.start(targets_yaml=EXAMPLE_TARGETS.read_text())
    for part in local.status():
        screen.done(f"{part.name:<10} {part.address}")
    url = EXAMPLE_URL if context is None else _wait_for_door(local.target_cluster())
    screen.done(f"{'app':<10} {url}")
    if context is not None:
        local.start(targets_yaml=EXAMPLE_TARGETS.read_text().replace(EXAMPLE_URL, url))
    api = Api(local.cloud.functions_url, local.api_key, TARGET)
    with tempfile.TemporaryDirectory() as folder:
        story = Story(
            api=api,
            connection_string=local.cloud.connection_string,
            registry=local.cloud.registry,
            public_url=url,
            folder=Path(folder),
            screen=screen,
        )
        report = story.tell()
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    screen.step("everything goes on running; look at it")
    screen.note(f"try it     {url}/try")
    screen.note(
        f"API        {local.cloud.functions_url}/api/targets/{TARGET}   header x-functions-key: {local.api_key}"
    )
    screen.note(
        f"ledger     container shipmate-ledger of {local.cloud.blob_url}; releases: …/api/targets/{TARGET}/releases"
    )
    screen.note(f"report     {REPORT}")
    screen.note("status     make status    stop everything: make down")
    if report["users"]["failed"] or report["users"]["slower_than_1_s"]:
        raise DemoError("users noticed: see the closing table")


def _wait_for_door(cluster: TargetCluster) -> str:
    """Return the public address that a cluster of the user's own gives the Service. Raises DemoError."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = cluster.public_url(NAMESPACE)
        if found is not None:
            return found
        time.sleep(1)
    raise DemoError(
        f"the cluster gave the Service {NAMESPACE}/{TARGET} no address within 120 s: a Service of type LoadBalancer "
        "needs a load balancer (minikube: `minikube tunnel`; kind: cloud-provider-kind)"
    )
