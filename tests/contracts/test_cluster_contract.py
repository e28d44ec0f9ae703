"""What Shipmate relies on in a cluster, asked of the fake and of the real API server with the controller's own rights.

The real world is a namespace of its own with k8s/base in it, on the local Kubernetes, where the echo program stands in
for the application.
"""

import json
import os
import re
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

from localcloud.access import AccessError, controller_kubeconfig
from localcloud.kubernetes import cluster as local_kubernetes
from localcloud.kubernetes.layout import default_layout
from shipmate.core.fence import Operation, adopt_patch, fence_patch, raise_fence_patch
from shipmate.core.gate_pod import gate_pod
from shipmate.core.progress import Complete, Failed, gate_progress, progress
from shipmate.core.refs import Digest, Pair, PairKey
from shipmate.core.views import DeploymentView, Object, PodView
from shipmate.edge.cluster import Cluster as RealCluster
from shipmate.errors import Conflict, Misconfigured, NotAllowed, NotFound, Retryable, Silent
from shipmate.ports import Cluster
from shipmate.stages.gate import END_WITHIN_SECONDS
from tests.contracts.echo_image import echo_image
from tests.fakes.cluster import FakeCluster

ROOT = Path(__file__).parents[2]
PAIR = Pair(Digest("sha256:" + "a" * 64), Digest("sha256:" + "b" * 64)).key
OTHER_PAIR = Pair(Digest("sha256:" + "c" * 64), Digest("sha256:" + "b" * 64)).key
LAST_WORDS = "the model does not load: bad protobuf"


class World(Protocol):
    """A cluster with one namespace, and what a person can do there. Images are references by digest."""

    cluster: Cluster
    namespace: str
    good: str
    better: str
    missing: str
    crashing: str

    def deploy(self, replicas: int = 0) -> DeploymentView:
        """Make the Deployment `vision` anew, with the good image and without a fence."""
        ...

    def x_release(self, pod: PodView) -> str:
        """Return which release a pod says that it is of."""
        ...


# -- two worlds ----------------------------------------------------------------------------------------------------


class FakeWorld:
    """The cluster in memory."""

    namespace = "vision"
    good, better, missing, crashing = (f"registry.test/vision@sha256:{digit * 64}" for digit in "1234")

    def __init__(self) -> None:
        self.fake = FakeCluster()
        self.fake.missing_images.add(self.missing)
        self.fake.crashing_images[self.crashing] = f"loading the model\n{LAST_WORDS}"
        self.cluster: Cluster = self.fake

    def deploy(self, replicas: int = 0) -> DeploymentView:
        """Make the Deployment anew."""
        manifest = yaml.safe_load((ROOT / "k8s" / "base" / "deployment.yaml").read_text())
        manifest["metadata"]["namespace"] = self.namespace
        manifest["spec"]["replicas"] = replicas
        manifest["spec"]["template"]["spec"]["containers"][0]["image"] = self.good
        self.fake.add_deployment(manifest)
        return self.cluster.deployment(self.namespace, "vision")

    def x_release(self, pod: PodView) -> str:
        """Return what the pod's environment says."""
        return pod.release or ""


def kubectl(*arguments: str, stdin: str | None = None, check: bool = True) -> str:
    """Run kubectl as the administrator and return what it says; on failure too, unless `check`."""
    command = local_kubernetes.kubectl(*arguments)
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout + done.stderr


class RealWorld:
    """A namespace of the local Kubernetes."""

    def __init__(self, images: dict[str, str], folder: Path) -> None:
        self.good, self.better = images["good"], images["better"]
        self.missing, self.crashing = images["missing"], images["crashing"]
        self.folder = folder
        self.namespace = f"contract-{uuid.uuid4().hex[:8]}"
        namespace = yaml.safe_load((ROOT / "k8s" / "overlays" / "local" / "namespace.yaml").read_text())
        namespace["metadata"]["name"] = self.namespace
        kubectl("create", "-f", "-", stdin=json.dumps(namespace))
        self.apply()
        self.untouched = True
        setting = controller_kubeconfig(default_layout().kubeconfig, self.namespace, folder / "controller")
        self.real = RealCluster.connect(setting, registry="127.0.0.1:1")
        self.cluster: Cluster = self.real
        eventually(lambda: _may_read(self.cluster, self.namespace))

    def close(self) -> None:
        self.real.close()
        kubectl("delete", "namespace", self.namespace, "--wait=false")

    def kustomize(self, replicas: int = 0, *, released: bool = False) -> Path:
        """Write an overlay of k8s/base for this namespace and return its folder."""
        folder = self.folder / f"overlay-{released}-{replicas}"
        folder.mkdir(exist_ok=True)
        name, _, digest = self.good.partition("@")
        patch = [
            {"op": "replace", "path": "/spec/replicas", "value": replicas},
            {"op": "replace", "path": "/spec/template/spec/terminationGracePeriodSeconds", "value": 3},
        ]
        overlay: dict[str, Any] = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": self.namespace,
            "resources": [os.path.relpath(ROOT / "k8s" / "base", folder)],
            "images": [{"name": "vision-app", "newName": name, "digest": digest}],
            "patches": [{"target": {"kind": "Deployment"}, "patch": json.dumps(patch)}],
        }
        if released:
            overlay["components"] = [os.path.relpath(ROOT / "k8s" / "components" / "released", folder)]
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
        return folder

    def apply(self, replicas: int = 0, *, released: bool = False, check: bool = True) -> str:
        """Apply k8s/base to this namespace, the way its kustomization.yaml says."""
        folder = self.kustomize(replicas, released=released)
        return kubectl("apply", "--server-side", "-k", str(folder), check=check)

    def deploy(self, replicas: int = 0) -> DeploymentView:
        """Make the Deployment anew, unless it is so already."""
        if not (self.untouched and replicas == 0):
            kubectl("delete", "deployment", "vision", "-n", self.namespace, "--ignore-not-found")
            self.apply(replicas)
        self.untouched = False
        return self.cluster.deployment(self.namespace, "vision")

    def x_release(self, pod: PodView) -> str:
        """Return what the pod says to the administrator: the controller may ask the pods of its gates alone."""
        administrator = RealCluster.connect(f"kubeconfig:{default_layout().kubeconfig}", registry="127.0.0.1:1")
        with closing(administrator):
            return administrator.ask_pod(self.namespace, pod.name, 8000, "GET", "/")[1]["x-release"]

    def wait_for_fence_policy(self) -> None:
        """Return when the policy of the fence, which is seconds old in a new cluster, refuses what it should."""
        self._until_denied("annotate", "deployment", "vision", "shipmate.dev/fence-")

    def wait_for_pod_policy(self, pod: str) -> None:
        """Return when the policy of the gate's pods lets the controller delete no other pod, such as this."""
        self._until_denied("delete", "pod", pod, f"--as=system:serviceaccount:{self.namespace}:shipmate")

    def wait_for_question_policy(self) -> None:
        """Return when the policy of the gate's questions lets the controller ask no pod by another name."""
        self._until("denied", "get", "--raw", f"/api/v1/namespaces/{self.namespace}/pods/vision-1:8000/proxy/")

    def wait_until_refused(self, pod: Object, words: str) -> None:
        """Return when a policy refuses to the controller to make this pod."""
        self._until(words, "create", "-f", "-", "--dry-run=server", stdin=json.dumps(pod))

    def _until(self, words: str, *arguments: str, stdin: str | None = None) -> None:
        """Return when the controller's account is told these words."""
        tried = (*arguments, f"--as=system:serviceaccount:{self.namespace}:shipmate")
        eventually(lambda: words in kubectl(*tried, stdin=stdin, check=False))

    def _until_denied(self, *arguments: str) -> None:
        tried = (*arguments, "-n", self.namespace, "--dry-run=server")
        eventually(lambda: "denied" in kubectl(*tried, check=False))


@pytest.fixture(scope="session")
def images() -> Iterator[dict[str, str]]:
    """Start the local Kubernetes, give it the echo program's images, and name one that a registry does not have."""
    local_kubernetes.up()
    found = {}
    for name, mode, label in [("good", "serve", "1"), ("better", "serve", "2"), ("crashing", "crash", "")]:
        found[name], archive = echo_image(mode, label)
        local_kubernetes.import_image(archive)
    server = ThreadingHTTPServer(("127.0.0.1", 0), EmptyRegistry)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    registry = f"127.0.0.1:{server.server_port}"
    local_kubernetes.add_registry_mirror(registry)
    try:
        yield {**found, "missing": f"{registry}/vision@sha256:{'9' * 64}"}
    finally:
        server.shutdown()
        server.server_close()
        shutil.rmtree(default_layout().registries / registry)


class EmptyRegistry(BaseHTTPRequestHandler):
    """A registry that has nothing."""

    def do_GET(self) -> None:
        body = json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}).encode()
        self.send_response(200 if self.path == "/v2/" else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - http.server finds methods by these names

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def real(images: dict[str, str], tmp_path: Path) -> Iterator[RealWorld]:
    world = RealWorld(images, tmp_path)
    try:
        yield world
    finally:
        world.close()


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.cluster)])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "fake":
        return FakeWorld()
    real: RealWorld = request.getfixturevalue("real")
    return real


def eventually[T](ask: Callable[[], T | None], *, within_seconds: float = 180) -> T:
    """Return the first answer that is not None or False."""
    deadline = time.monotonic() + within_seconds
    while True:
        answer = ask()
        if answer is not None and answer is not False:
            return answer
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


# -- the fence -----------------------------------------------------------------------------------------------------


def release(world: World, view: DeploymentView, fence: int, *, expected: int | None = None) -> list[Operation]:
    return fence_patch(
        view,
        expected_fence=(view.fence or 0) if expected is None else expected,
        new_fence=fence,
        container="app",
        image=world.better,
        pair=PAIR,
        release=f"r-{fence}",
    )


def patch(world: World, operations: list[Operation]) -> DeploymentView:
    return world.cluster.patch_deployment(world.namespace, "vision", operations)


def adopt(world: World, replicas: int = 0) -> DeploymentView:
    return patch(world, adopt_patch(world.deploy(replicas)))


def test_a_deployment_is_adopted_once(world: World) -> None:
    before = world.deploy()
    assert before.fence is None
    after = patch(world, adopt_patch(before))
    assert after.fence == 0
    assert after.template == before.template
    with pytest.raises(Conflict):
        patch(world, adopt_patch(before))


def test_a_release_reaches_the_template_and_raises_the_fence(world: World) -> None:
    after = patch(world, release(world, adopt(world), 3))
    assert after.fence == 3
    assert (after.pair, after.release) == (PAIR, "r-3")
    assert [each.image for each in after.containers] == [world.better]
    assert after.annotations is not None
    assert after.annotations["kubernetes.io/change-cause"] == f"shipmate r-3: pair {PAIR[:12]}, fence 3"
    again = world.cluster.deployment(world.namespace, "vision")
    assert (again.uid, again.fence, again.containers) == (after.uid, 3, after.containers)


def test_a_worker_that_slept_between_decision_and_patch_changes_nothing(world: World) -> None:
    seen_before_sleeping = adopt(world)
    asleep = release(world, seen_before_sleeping, 1)
    winner = patch(world, release(world, seen_before_sleeping, 2))
    with pytest.raises(Conflict):
        patch(world, asleep)
    now = world.cluster.deployment(world.namespace, "vision")
    assert (now.fence, now.release, now.generation) == (2, "r-2", winner.generation)


@pytest.mark.cluster
def test_the_api_server_answers_422_to_the_patch_of_a_worker_that_slept(real: RealWorld) -> None:
    before = adopt(real)
    asleep = json.dumps(release(real, before, 1)).encode()
    patch(real, release(real, before, 2))
    path = f"/apis/apps/v1/namespaces/{real.namespace}/deployments/vision"
    headers = {"content-type": "application/json-patch+json"}
    status, _, answer = real.real._server.exchange("PATCH", path, asleep, headers, 10)
    assert status == 422
    assert json.loads(answer)["message"] == "the server rejected our request due to an error in our request"
    assert real.cluster.deployment(real.namespace, "vision").release == "r-2"


def test_a_template_that_got_annotations_meanwhile_keeps_them(world: World) -> None:
    seen_before = adopt(world)
    annotations = "/spec/template/metadata/annotations"
    patch(world, [{"op": "add", "path": annotations, "value": {"team": "vision"}}])
    with pytest.raises(Conflict):
        patch(world, release(world, seen_before, 1))
    after = patch(world, release(world, world.cluster.deployment(world.namespace, "vision"), 1))
    assert after.template_annotations is not None
    assert after.template_annotations["team"] == "vision"


def test_a_hold_shuts_out_every_release_before_it_and_restarts_nothing(world: World) -> None:
    view = adopt(world)
    before_the_hold = release(world, view, 1)
    held = patch(world, raise_fence_patch(view, expected_fence=0, new_fence=2))
    assert (held.fence, held.template) == (2, view.template)
    assert held.generation == view.generation + 1, "the API server counts changed annotations of a Deployment too"
    with pytest.raises(Conflict):
        patch(world, before_the_hold)
    assert world.cluster.deployment(world.namespace, "vision").containers[0].image == world.good


def test_a_deployment_that_was_made_anew_is_not_the_one_that_was_decided_upon(world: World) -> None:
    old = release(world, adopt(world), 1)
    adopt(world)
    with pytest.raises(Conflict):
        patch(world, old)


def test_a_container_that_moved_is_not_patched(world: World) -> None:
    operations = release(world, adopt(world), 1)
    for operation in operations:
        if operation["path"].endswith("/name"):
            operation["value"] = "sidecar"
    with pytest.raises(Conflict):
        patch(world, operations)


def test_the_cluster_itself_refuses_a_lower_fence_and_an_image_under_the_same_one(world: World) -> None:
    patch(world, release(world, adopt(world), 5))
    if isinstance(world, RealWorld):
        world.wait_for_fence_policy()
    fence = {"path": "/metadata/annotations/shipmate.dev~1fence"}
    with pytest.raises(NotAllowed, match=r"never falls or goes: it is 5"):
        patch(world, [fence | {"op": "replace", "value": "4"}])
    with pytest.raises(NotAllowed, match=r"never falls or goes: it is 5"):
        patch(world, [fence | {"op": "remove"}])
    image = {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": world.good}
    with pytest.raises(NotAllowed, match=r"a release needs a fence above 5"):
        patch(world, [image])
    view = world.cluster.deployment(world.namespace, "vision")
    assert (view.fence, view.containers[0].image) == (5, world.better)


@pytest.mark.cluster
@pytest.mark.parametrize("text", ["x", "01"])
def test_an_annotation_that_is_no_fence_can_be_taken_away(real: RealWorld, text: str) -> None:
    adopt(real)
    real.wait_for_fence_policy()
    real.deploy()
    annotate = ("annotate", "deployment", "vision", "-n", real.namespace)
    kubectl(*annotate, f"shipmate.dev/fence={text}")
    with pytest.raises(Misconfigured, match=rf"says '{text}', which is no fence: somebody else wrote it\. Remove it"):
        _ = real.cluster.deployment(real.namespace, "vision").fence
    eventually(lambda: "denied" not in kubectl(*annotate, "team=vision", check=False))
    kubectl(*annotate, "shipmate.dev/fence-")
    assert patch(real, adopt_patch(real.cluster.deployment(real.namespace, "vision"))).fence == 0


def test_a_patch_that_makes_no_deployment_is_refused_and_not_a_lost_race(world: World) -> None:
    adopt(world)
    with pytest.raises(Misconfigured, match=r"image: Required value"):
        patch(world, [{"op": "remove", "path": "/spec/template/spec/containers/0/image"}])


def test_what_is_not_there_is_not_found(world: World) -> None:
    world.deploy()
    asks: list[Callable[[], object]] = [
        lambda: world.cluster.gate_pod(world.namespace, "gate-none"),
        lambda: world.cluster.pod_logs(world.namespace, "gate-none"),
        lambda: world.cluster.ask_pod(world.namespace, "gate-none", 8000, "GET", "/readyz"),
    ]
    for ask in asks:
        with pytest.raises(NotFound, match="gate-none"):
            ask()
    assert world.cluster.list_gate_pods(world.namespace) == ()


# -- the gate's pods -----------------------------------------------------------------------------------------------


def gate(world: World, image: str, pair: PairKey = PAIR, name: str = "gate-vision-1") -> Object:
    view = world.cluster.deployment(world.namespace, "vision")
    return gate_pod(view, name=name, container="app", image=image, pair=pair)


def until_told(world: World, pod: PodView) -> Complete | Failed:
    def ask() -> Complete | Failed | None:
        told = gate_progress(world.cluster.gate_pod(world.namespace, pod.name))
        return told if isinstance(told, Complete | Failed) else None

    return eventually(ask)  # type: ignore[return-value] # mypy joins the two


def test_a_gates_pod_is_made_once_for_a_pair_and_never_shared_by_two(world: World) -> None:
    world.deploy()
    first = world.cluster.create_gate_pod(world.namespace, gate(world, world.good))
    again = world.cluster.create_gate_pod(world.namespace, gate(world, world.good))
    assert again.uid == first.uid
    with pytest.raises(Conflict, match=f"is there for pair {PAIR}, not for {OTHER_PAIR}"):
        world.cluster.create_gate_pod(world.namespace, gate(world, world.better, OTHER_PAIR))
    assert [pod.name for pod in world.cluster.list_gate_pods(world.namespace)] == ["gate-vision-1"]
    assert world.cluster.pods(world.namespace, "app.kubernetes.io/name=vision") == ()


def test_a_gates_pod_is_deleted_only_as_the_very_one_that_was_seen(world: World) -> None:
    world.deploy()
    pod = world.cluster.create_gate_pod(world.namespace, gate(world, world.good))
    with pytest.raises(Conflict):
        world.cluster.delete_gate_pod(world.namespace, pod.name, "11111111-1111-1111-1111-111111111111")
    assert world.cluster.gate_pod(world.namespace, pod.name).uid == pod.uid
    world.cluster.delete_gate_pod(world.namespace, pod.name, pod.uid)
    eventually(lambda: not world.cluster.list_gate_pods(world.namespace))
    world.cluster.delete_gate_pod(world.namespace, pod.name, pod.uid)


def test_a_pod_is_asked_and_answers_byte_for_byte(world: World) -> None:
    world.deploy()
    pod = world.cluster.create_gate_pod(world.namespace, gate(world, world.good))
    assert until_told(world, pod) == Complete()
    for body in (b"", b'{"input": ["iVBOR", "\\u00e9"]}\n', bytes(range(256)) * 4000):
        for kind in ("application/json", "image/png"):
            status, headers, reply = world.cluster.ask_pod(
                world.namespace, pod.name, 8000, "POST", "/score", body, {"Content-Type": kind}
            )
            assert (status, reply) == (200, body)
            assert (headers["content-type"], headers["x-method"], headers["x-release"]) == (kind, "POST", "gate")
    long = bytes(range(256)) * 1200
    for _ in range(60):  # on connections that stay open, 6 of 100 such answers were cut
        assert world.cluster.ask_pod(world.namespace, pod.name, 8000, "POST", "/score", long)[2] == long
    for status in (400, 404, 503):
        problem = b'{"title": "no"}'
        headers_in = {"content-type": "application/problem+json"}
        reply_of_its_own = world.cluster.ask_pod(
            world.namespace, pod.name, 8000, "POST", f"/status/{status}", problem, headers_in
        )
        assert (reply_of_its_own[0], reply_of_its_own[2]) == (status, problem)
    assert world.cluster.ask_pod(world.namespace, pod.name, 8000, "GET", "/readyz")[0] == 200


@pytest.mark.parametrize("name", ["vision-7c9d5b4f6-x2x8k", "aggregate-1", "http:vision-7c9d5b4f6-x2x8k"])
def test_the_controller_asks_the_pods_of_its_gates_and_no_others(world: World, name: str) -> None:
    if isinstance(world, RealWorld):
        world.wait_for_question_policy()
    for method in ("GET", "POST"):
        with pytest.raises(NotAllowed, match="the controller asks the pods of its gates and no others"):
            world.cluster.ask_pod(world.namespace, name, 8000, method, "/score")


@pytest.mark.cluster
def test_a_candidate_that_is_slow_or_ends_is_told_from_one_that_cannot_be_asked(real: RealWorld) -> None:
    real.deploy()
    pod = real.cluster.create_gate_pod(real.namespace, gate(real, real.good))
    assert until_told(real, pod) == Complete()
    with pytest.raises(Silent, match=r"GET /drain of pod \S+ was not answered within 0\.3 s"):
        real.cluster.ask_pod(real.namespace, pod.name, 8000, "GET", "/drain", timeout=0.3)
    with pytest.raises(Retryable, match="POST /crash of pod") as ended:
        real.cluster.ask_pod(real.namespace, pod.name, 8000, "POST", "/crash", b"?")
    assert not isinstance(ended.value, Silent)

    def failure() -> Failed | None:
        told = gate_progress(real.cluster.gate_pod(real.namespace, pod.name))
        return told if isinstance(told, Failed) else None

    assert eventually(failure, within_seconds=END_WITHIN_SECONDS).reason == "CandidateEnded"
    log = real.cluster.pod_logs(real.namespace, pod.name, container="app", tail=1)
    assert "out of memory in layer 7" in log


def test_a_candidate_that_ends_is_told_with_its_last_words(world: World) -> None:
    world.deploy()
    pod = world.cluster.create_gate_pod(world.namespace, gate(world, world.crashing))
    told = until_told(world, pod)
    assert isinstance(told, Failed)
    assert told.reason == "CandidateEnded"
    assert LAST_WORDS in told.message
    assert world.cluster.pod_logs(world.namespace, pod.name).splitlines()[-2:] == ["loading the model", LAST_WORDS]
    assert world.cluster.pod_logs(world.namespace, pod.name, tail=1).splitlines() == [LAST_WORDS]


def test_a_candidate_that_cannot_be_pulled_is_told_at_once(world: World) -> None:
    world.deploy()
    pod = world.cluster.create_gate_pod(world.namespace, gate(world, world.missing))
    told = until_told(world, pod)
    assert isinstance(told, Failed)
    assert told.reason == "ImagePullFailed"
    assert "not found" in told.message
    assert world.cluster.pod_logs(world.namespace, pod.name) == ""


# -- rollouts ------------------------------------------------------------------------------------------------------


def watch(world: World) -> Complete | Failed:
    """Return how the rollout ends, having watched it as the pipeline does."""

    def look() -> Complete | Failed | None:
        view = world.cluster.deployment(world.namespace, "vision")
        seen = progress(view, world.cluster.pods(world.namespace, view.selector))
        return seen if isinstance(seen, Complete | Failed) else None

    return eventually(look)  # type: ignore[return-value] # mypy joins the two


def roll_out(world: World, image: str, fence: int) -> Complete | Failed:
    view = world.cluster.deployment(world.namespace, "vision")
    name = f"r-{fence}"
    patch(
        world,
        fence_patch(
            view,
            expected_fence=fence - 1,
            new_fence=fence,
            container="app",
            image=image,
            pair=PAIR,
            release=name,
        ),
    )
    return watch(world)


def test_a_rollout_is_watched_to_its_end(world: World) -> None:
    adopt(world, replicas=2)
    assert isinstance(watch(world), Complete)
    assert isinstance(roll_out(world, world.better, 1), Complete)
    view = world.cluster.deployment(world.namespace, "vision")
    pods = [pod for pod in world.cluster.pods(world.namespace, view.selector) if not pod.deleting and pod.ready]
    assert [(pod.release, pod.containers[0].image) for pod in pods if pod.release == "r-1"] == [
        ("r-1", world.better)
    ] * 2
    newest = next(pod for pod in pods if pod.release == "r-1")
    assert world.x_release(newest) == "r-1"


@pytest.mark.parametrize(
    ("which", "reason", "words"),
    [("missing", "ImagePullFailed", "not found"), ("crashing", "CrashLoop", LAST_WORDS)],
)
def test_a_rollout_that_cannot_succeed_fails_at_once_with_words_and_the_old_pods_stay(
    world: World, which: str, reason: str, words: str
) -> None:
    adopt(world, replicas=2)
    assert isinstance(watch(world), Complete)
    told = roll_out(world, getattr(world, which), 1)
    assert isinstance(told, Failed)
    assert told.reason == reason, "and not that its deadline is over"
    assert words in told.message
    assert told.pod is not None
    assert (LAST_WORDS in world.cluster.pod_logs(world.namespace, told.pod)) == (which == "crashing")
    view = world.cluster.deployment(world.namespace, "vision")
    ready = [pod for pod in world.cluster.pods(world.namespace, view.selector) if pod.ready]
    assert [pod.containers[0].image for pod in ready] == [world.good] * 2
    assert isinstance(roll_out(world, world.good, 2), Complete), "and it is left by rolling back"


# -- what only a real API server knows -----------------------------------------------------------------------------


@pytest.mark.cluster
def test_the_controllers_account_can_touch_nothing_else(real: RealWorld) -> None:
    real.deploy()
    other = json.loads(kubectl("get", "deployment", "vision", "-n", real.namespace, "-o", "json"))
    other["metadata"] = {"name": "other", "namespace": real.namespace}
    kubectl("create", "-f", "-", stdin=json.dumps(other))
    api = f"/api/v1/namespaces/{real.namespace}"
    label = [{"op": "add", "path": "/metadata/labels/x", "value": "y"}]
    attempts: dict[str, Callable[[], object]] = {
        "read another Deployment": lambda: real.real.deployment(real.namespace, "other"),
        "patch another Deployment": lambda: real.real.patch_deployment(real.namespace, "other", label),
        "read a Deployment elsewhere": lambda: real.real.deployment("kube-system", "vision"),
        "list pods elsewhere": lambda: real.real.pods("kube-system", "a=b"),
        "read secrets": lambda: real.real._server.send("GET", f"{api}/secrets"),
        "read configuration": lambda: real.real._server.send("GET", f"{api}/configmaps"),
        "run a command in a pod": lambda: real.real._server.send("POST", f"{api}/pods/x/exec?command=id"),
        "get a token": lambda: real.real._server.send("POST", f"{api}/serviceaccounts/shipmate/token", body=b"{}"),
        "delete the Deployment": lambda: real.real._server.send(
            "DELETE", f"/apis/apps/v1/namespaces/{real.namespace}/deployments/vision"
        ),
    }
    for what, attempt in attempts.items():
        with pytest.raises(NotAllowed, match="forbidden"):
            pytest.fail(f"the controller could {what}: {attempt()}")


@pytest.mark.cluster
def test_the_controller_makes_and_deletes_the_pods_of_its_gates_and_no_others(real: RealWorld) -> None:
    adopt(real, replicas=1)
    mine = eventually(lambda: real.cluster.pods(real.namespace, "app.kubernetes.io/name=vision") or None)[0]
    real.wait_for_pod_policy(mine.name)
    with pytest.raises(NotAllowed, match="makes and deletes the pods of its gates and no others"):
        real.cluster.delete_gate_pod(real.namespace, mine.name, mine.uid)
    stray = gate(real, real.good)
    stray["metadata"]["labels"]["app.kubernetes.io/component"] = "web"
    with pytest.raises(NotAllowed, match="makes and deletes the pods of its gates and no others"):
        real.cluster.create_gate_pod(real.namespace, stray)
    curious = gate(real, real.good)
    curious["spec"]["automountServiceAccountToken"] = True
    with pytest.raises(NotAllowed, match="gets no token of a service account"):
        real.cluster.create_gate_pod(real.namespace, curious)
    token: Object = {"serviceAccountToken": {"path": "token", "audience": "https://kubernetes.default.svc"}}
    own_name: Object = {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}
    harmless = gate(real, real.good)
    harmless["spec"]["volumes"].append({"name": "about", "projected": {"sources": [own_name]}})
    clever = gate(real, real.good)
    clever["spec"]["volumes"].append({"name": "about", "projected": {"sources": [own_name, token]}})
    words = "gets no token of a service account (no volume may have a projected serviceAccountToken)"
    real.wait_until_refused(clever, words)
    with pytest.raises(NotAllowed, match=re.escape(words)):
        real.cluster.create_gate_pod(real.namespace, clever)
    assert real.cluster.create_gate_pod(real.namespace, harmless).name == "gate-vision-1"
    powerful = gate(real, real.good)
    powerful["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(NotAllowed, match=r'violates PodSecurity "restricted'):
        real.cluster.create_gate_pod(real.namespace, powerful)


@pytest.mark.cluster
def test_applying_again_keeps_what_was_released_or_is_refused(real: RealWorld) -> None:
    released = patch(real, release(real, adopt(real), 1))
    refused = real.apply(check=False)
    assert "conflict" in refused
    assert 'shipmate" using apps/v1: .spec.template.spec.containers[name="app"].image' in refused
    assert real.cluster.deployment(real.namespace, "vision").generation == released.generation
    real.apply(replicas=1, released=True)
    after = real.cluster.deployment(real.namespace, "vision")
    assert after.replicas == 1
    assert (after.fence, after.pair, after.release, after.containers) == (
        1,
        released.pair,
        released.release,
        released.containers,
    )


@pytest.mark.cluster
def test_a_client_side_apply_would_put_the_first_image_back(real: RealWorld) -> None:
    """The trap that k8s/base/kustomization.yaml warns of: it is the reason for --server-side."""
    patch(real, release(real, adopt(real), 1))
    kubectl("apply", "-k", str(real.kustomize()))
    assert real.cluster.deployment(real.namespace, "vision").containers[0].image == real.good


@pytest.mark.cluster
@pytest.mark.parametrize("overlay", ["local", "local-released", "aks", "aks-released"])
def test_every_overlay_is_one_that_the_api_server_takes(images: dict[str, str], overlay: str) -> None:
    rendered = kubectl("kustomize", str(ROOT / "k8s" / "overlays" / overlay))
    objects = list(yaml.safe_load_all(rendered))
    deployment = next(each for each in objects if each["kind"] == "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert ("image" in container) == (not overlay.endswith("-released"))
    container.setdefault("image", images["good"])
    for each in objects:
        each["metadata"]["name"] += "-dry-run"
        if "namespace" in each["metadata"]:
            each["metadata"]["namespace"] = "default"
    said = kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump_all(objects))
    assert said.count("serverside-applied") == len(objects)
    assert "warning" not in said.lower()


@pytest.mark.cluster
def test_one_account_serves_the_targets_of_several_namespaces(
    real: RealWorld, images: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = RealWorld(images, tmp_path_factory.mktemp("elsewhere"))
    try:
        with pytest.raises(NotAllowed):
            real.cluster.deployment(elsewhere.namespace, "vision")
        for _ in range(2):
            controller_kubeconfig(
                default_layout().kubeconfig, real.namespace, real.folder / "controller", also=[elsewhere.namespace]
            )
        assert eventually(lambda: _may_read(real.cluster, elsewhere.namespace))
        with pytest.raises(AccessError, match=r"gets no rights in none \(404 .* apply k8s/overlays/local there first"):
            controller_kubeconfig(default_layout().kubeconfig, real.namespace, real.folder / "c", also=["none"])
    finally:
        elsewhere.close()


def _may_read(cluster: Cluster, namespace: str) -> bool:
    try:
        return cluster.deployment(namespace, "vision").namespace == namespace
    except NotAllowed:  # the API server's authorizer hears of a new binding a moment later
        return False


@pytest.mark.cluster
def test_a_namespace_without_the_account_gives_no_kubeconfig(real: RealWorld, tmp_path: Path) -> None:
    with pytest.raises(
        AccessError, match=r"account shipmate of namespace kube-system .* apply k8s/overlays/local first"
    ):
        controller_kubeconfig(default_layout().kubeconfig, "kube-system", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "controller").stat().st_mode & 0o777 == 0o600
