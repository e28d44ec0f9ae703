"""The main job, shown once on real input: `make demo`. It meets Shipmate only where people and events do."""

import json
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from azure.core.exceptions import AzureError

from examples.packages import DownloadError
from examples.publish import AlreadyPublished
from localcloud import debian, images, loadbalancer, preflight, registry, setup
from localcloud.access import AccessError
from localcloud.cloud import EXAMPLE_TARGETS, LocalCloud
from localcloud.config import Cloud
from localcloud.demo.api import READ_ON, Api, ApiError
from localcloud.demo.show import Screen
from localcloud.demo.story import DemoError, Story
from localcloud.functions_host.errors import AppError
from localcloud.kubernetes.layout import default_layout
from localcloud.making import SetupError
from localcloud.processes import StartError
from shipmate.errors import ShipmateError

TARGET = NAMESPACE = "vision"
REPORT = Path(".demo/report.json")
EXAMPLE_URL = "http://127.77.0.1:8080"
PREFLIGHT = "shipmate-preflight"
"""The repository of an image that only shows who can pull."""
_EXPECTED = (
    AccessError,
    AlreadyPublished,
    ApiError,
    AppError,
    AzureError,
    DemoError,
    DownloadError,
    SetupError,
    ShipmateError,
    StartError,
    images.ImageError,
)


def run(context: str | None, registry_url: str | None = None) -> int:
    """Set up, start, run the main job, leave it running; return 0, or 1 after saying what went wrong.

    `context` names a cluster of the user's own, `registry_url` a registry of theirs.
    """
    screen = Screen()
    try:
        _run(screen, LocalCloud(Cloud("demo"), context, registry_url))
    except _EXPECTED as error:
        screen.fault(str(error))
        return 1
    except httpx.TransportError as error:
        screen.fault(f"{error.request.url} does not answer ({error}): {READ_ON}")
        return 1
    return 0


def _run(screen: Screen, local: LocalCloud) -> None:
    debian.require_root()
    foreign = local.context is not None
    if foreign:
        screen.step(f"looking at the cluster of context {local.context}: nothing is changed yet")
        preflight.look(local.target_cluster(), NAMESPACE)
        screen.done("it answers, is new enough, and may be used")
    else:
        door = urlsplit(EXAMPLE_URL)
        loadbalancer.require_door(default_layout().state / "loadbalancer", str(door.hostname), int(door.port or 80))
    screen.step("setting up: what is missing is installed and built once, and kept outside the tree")
    debian.ensure_packages(debian.FOR_IMAGES if foreign else debian.DEBIAN_PACKAGES)
    setup.ensure_registry()
    setup.ensure_azurite()
    if not foreign:
        setup.ensure_kubernetes()
    images.ensure_inputs()
    node = _try_out(screen, local) if foreign else None
    screen.step("starting the local cloud")
    local.stop()  # what an earlier run left goes on from its ledger, with the code as it is now
    url = _door(local, node) if foreign else EXAMPLE_URL
    local.start(targets_yaml=EXAMPLE_TARGETS.read_text().replace(EXAMPLE_URL, url))
    for part in local.status():
        screen.done(f"{part.name:<10} {part.address}")
    screen.done(f"{'app':<10} {url}")
    api = Api(local.cloud.functions_url, local.api_key, TARGET)
    with tempfile.TemporaryDirectory() as folder:
        story = Story(
            api=api,
            local=local,
            public_url=url,
            folder=Path(folder),
            screen=screen,
        )
        report = {**story.tell(), "seconds": round(screen.seconds, 1)}
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
    if report["users"]["failed"]:
        raise DemoError(f"requests of users failed: {report['users']['faults']}")


def _try_out(screen: Screen, local: LocalCloud) -> str | None:
    """See whether the cluster can pull and lets users in; return the node they come in by where nothing else does."""
    screen.step("trying the cluster out, in a namespace that goes away again")
    registry.start(local.cloud)
    digest = images.push(images.build_empty(), f"{local.registry}/{PREFLIGHT}:latest")
    node = preflight.try_out(local.target_cluster(), f"{local.registry}/{PREFLIGHT}@{digest}")
    screen.done(f"its nodes pull from {local.registry}")
    if node is None:
        screen.done("its load balancer gives Services an address")
    else:
        screen.note(f"no load balancer gave the Service an address: users come in by its node port at {node}")
    return node


def _door(local: LocalCloud, node: str | None) -> str:
    """Set up what the target runs on in a cluster of the user's own, and return where users ask. Raises DemoError."""
    cluster = local.target_cluster()
    cluster.apply_target(local.cloud, NAMESPACE, registry=local.registry)
    if node is not None:
        return f"http://{node}:{cluster.node_port(NAMESPACE)}"
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
