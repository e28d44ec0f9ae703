"""The local Kubernetes with pods in it: doors, rollouts under load, logs, exec, the API server's pod proxy, isolation.

The cluster is shared with whoever uses it now: each module works in a namespace of its own and nothing is stopped.
"""

import http.client
import json
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from localcloud import setup
from localcloud.kubernetes import cluster, network, static_image
from localcloud.kubernetes.layout import default_layout
from localcloud.processes import Program, answers
from tests.localcloud import answering

pytestmark = pytest.mark.cluster


@dataclass
class Playground:
    """A namespace of this test run, and how to work in it."""

    namespace: str
    api: client.ApiClient

    @property
    def core(self) -> client.CoreV1Api:
        return client.CoreV1Api(self.api)

    @property
    def apps(self) -> client.AppsV1Api:
        return client.AppsV1Api(self.api)

    def kubectl(self, *arguments: str, stdin: object = None) -> str:
        text = None if stdin is None else json.dumps(stdin)
        return network.run(*cluster.kubectl("--namespace", self.namespace, *arguments), stdin=text)

    def pods(self) -> list[str]:
        """Return the names of the pods that run."""
        listed = self.core.list_namespaced_pod(self.namespace, field_selector="status.phase=Running")
        return [str(pod.metadata.name) for pod in listed.items if pod.metadata.deletion_timestamp is None]

    def door(self, service: str = "answer", *, within_seconds: float = 90) -> str:
        """Wait for the address of a Service's door."""
        deadline = time.monotonic() + within_seconds
        while True:
            places = self.core.read_namespaced_service(service, self.namespace).status.load_balancer.ingress
            if places:
                assert [place.ip_mode for place in places] == ["Proxy"]
                return str(places[0].ip)
            assert time.monotonic() < deadline, "the Service got no address"
            time.sleep(0.1)

    def until_drained(self) -> None:
        """Wait until no pod that is about to stop still answers."""
        deadline = time.monotonic() + 90
        while any(
            pod.metadata.deletion_timestamp is not None for pod in self.core.list_namespaced_pod(self.namespace).items
        ):
            assert time.monotonic() < deadline, "an old pod does not end"
            time.sleep(0.2)

    def ask(self, path: str) -> str:
        """Ask at the door of the Service `answer`."""
        connection = http.client.HTTPConnection(self.door(), 8080, timeout=30)
        connection.request("GET", path)
        text = connection.getresponse().read().decode().strip()
        connection.close()
        return text


@pytest.fixture(scope="module")
def playground() -> Iterator[Playground]:
    kubeconfig = cluster.up()
    api = config.new_client_from_config(str(kubeconfig))
    core = client.CoreV1Api(api)
    name = f"cluster-test-{secrets.token_hex(4)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    core.create_namespace({"metadata": {"name": name, "labels": labels}})
    cluster.import_image(answering.archive())
    here = Playground(name, api)
    here.kubectl("apply", "-f", "-", stdin=answering.deployment("one"))
    here.kubectl("apply", "-f", "-", stdin=answering.service())
    here.kubectl("rollout", "status", "deployment/answer", "--timeout=180s")
    yield here
    core.delete_namespace(name)
    api.close()


def test_restricted_pods_answer_at_the_door(playground: Playground) -> None:
    assert playground.ask("/").startswith("one in answer-")


def test_a_pod_that_is_not_restricted_is_refused(playground: Playground) -> None:
    with pytest.raises(client.ApiException) as refused:
        playground.core.create_namespaced_pod(
            playground.namespace,
            {"metadata": {"name": "root"}, "spec": {"containers": [{"name": "app", "image": answering.IMAGE}]}},
        )
    assert refused.value.status == 403
    assert "violates PodSecurity" in refused.value.body


def test_the_pod_proxy_of_the_api_server_reaches_a_pod(playground: Playground) -> None:
    pod = playground.pods()[0]
    text = playground.core.connect_get_namespaced_pod_proxy_with_path(f"{pod}:8000", playground.namespace, "whatever")
    assert text.strip() == f"one in {pod}"


def test_logs_and_exec(playground: Playground) -> None:
    pod = playground.pods()[0]
    assert playground.core.read_namespaced_pod_log(pod, playground.namespace) == "listening\n"
    command = cluster.kubectl("--namespace", playground.namespace, "exec", pod, "--", "/answering")
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert "address already in use" in said.stderr


@pytest.mark.parametrize(
    "address",
    ["192.0.2.2:80", "198.51.100.1:443", "10.213.0.1:10250", "10.213.99.1:80", "10.213.128.1:443"],
    ids=["the machine", "the internet", "the kubelet", "an address of nobody", "the API server"],
)
def test_pods_have_no_way_out(playground: Playground, address: str) -> None:
    said = playground.ask(f"/dial?address={address}")
    assert any(word in said for word in ("unreachable", "refused", "timeout")), said


def test_pods_reach_each_other_and_services(playground: Playground) -> None:
    service = playground.core.read_namespaced_service("answer", playground.namespace)
    addresses = [f"{service.spec.cluster_ip}:8080"]
    pods = playground.core.list_namespaced_pod(playground.namespace).items
    addresses += [f"{pod.status.pod_ip}:8000" for pod in pods]
    assert [playground.ask(f"/dial?address={address}") for address in addresses] == ["connected"] * len(addresses)


def test_a_door_that_is_taken_is_told_on_the_service(playground: Playground) -> None:
    with socket.socket() as squatter:
        squatter.bind(("0.0.0.0", 0))
        squatter.listen()
        port = squatter.getsockname()[1]
        body = answering.service(port=port)
        body["metadata"]["name"] = "taken"
        playground.core.create_namespaced_service(playground.namespace, body)
        selector = "reason=DoorRefused"
        deadline = time.monotonic() + 90
        while not (
            events := playground.core.list_namespaced_event(playground.namespace, field_selector=selector).items
        ):
            assert time.monotonic() < deadline, "no event tells of it"
            time.sleep(0.1)
    assert f":{port} cannot be opened: Address already in use" in events[0].message
    playground.core.delete_namespaced_service("taken", playground.namespace)
    assert playground.ask("/").startswith("one in "), "other doors stay open"


def test_the_door_stays_open_while_the_load_balancer_is_away(playground: Playground) -> None:
    door = playground.door()
    parts = cluster.status()
    cluster._parts(Path(), default_layout())["loadbalancer"].stop()
    assert playground.ask("/").startswith("one in ")
    cluster.up()
    after = cluster.status()
    assert after["loadbalancer"] not in {None, parts.pop("loadbalancer")}
    assert {name: after[name] for name in parts} == parts, "what runs is not started again"
    assert playground.door() == door


def test_no_request_is_lost_while_pods_are_replaced(playground: Playground) -> None:
    users = Users(playground.door())
    with users:
        for answer in ("two", "three"):
            playground.kubectl("set", "env", "deployment/answer", f"ANSWER={answer}")
            playground.kubectl("rollout", "status", "deployment/answer", "--timeout=180s")
        playground.until_drained()
    assert users.errors == []
    assert set(users.answers) == {"one", "two", "three"}


class Users:
    """Eight users who keep asking, half of them on kept connections."""

    def __init__(self, address: str) -> None:
        self.answers: Counter[str] = Counter()
        self.errors: list[str] = []
        self._address = address
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number % 2 == 0,)) for number in range(8)]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, keep: bool) -> None:
        connection = http.client.HTTPConnection(self._address, 8080, timeout=30)
        while not self._done.wait(0.02):
            try:
                connection.request("GET", "/")
                reply = connection.getresponse()
                self.answers[reply.read().decode().split()[0]] += 1
            except (OSError, http.client.HTTPException) as error:
                self.errors.append(repr(error))
                connection.close()
            if not keep:
                connection.close()
        connection.close()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Start a registry of this test's own and return its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = tmp_path / "registry.yaml"
    settings.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/blobs}}}}\nhttp: {{addr: '{address}'}}\n"
    )
    command = [str(setup.ensure_registry()), "serve", str(settings)]
    program = Program("registry", command, tmp_path, {"OTEL_TRACES_EXPORTER": "none"})
    program.start(answers(f"http://{address}/v2/"))
    yield address
    program.stop()
    shutil.rmtree(default_layout().registries / address, ignore_errors=True)


def test_pods_use_images_of_a_local_registry_by_digest(playground: Playground, registry: str, tmp_path: Path) -> None:
    program = tmp_path / "pulled"
    program.write_bytes((setup.ensure_kubernetes() / "pause").read_bytes())
    (tmp_path / "image.tar").write_bytes(static_image.image_archive(program, name="pulled"))
    source, target = f"oci-archive:{tmp_path}/image.tar", f"docker://{registry}/pulled:1"
    subprocess.run(["skopeo", "copy", "--dest-tls-verify=false", source, target], check=True, capture_output=True)
    inspect = ["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", target]
    digest = subprocess.run(inspect, check=True, capture_output=True, text=True).stdout.strip()
    cluster.add_registry_mirror(registry)
    body = answering.deployment("", replicas=1, image=f"{registry}/pulled@{digest}")
    body["metadata"]["name"] = "pulled"
    body["spec"]["selector"]["matchLabels"] = body["spec"]["template"]["metadata"]["labels"] = {"app": "pulled"}
    for key in ("readinessProbe", "lifecycle"):
        del body["spec"]["template"]["spec"]["containers"][0][key]
    playground.apps.create_namespaced_deployment(playground.namespace, body)
    playground.kubectl("rollout", "status", "deployment/pulled", "--timeout=180s")


def test_no_image_is_looked_for_outside(playground: Playground) -> None:
    pod: dict[str, Any] = answering.deployment("")["spec"]["template"]
    # An address in the cluster's own unreachable range: were it asked for, the packet would still not leave.
    pod["spec"]["containers"][0]["image"] = "10.213.200.1:5000/somewhere/else:1"
    pod["metadata"] = {"name": "elsewhere"}
    playground.core.create_namespaced_pod(playground.namespace, pod)
    selector = "involvedObject.name=elsewhere,reason=Failed"
    deadline = time.monotonic() + 90
    while not (events := playground.core.list_namespaced_event(playground.namespace, field_selector=selector).items):
        assert time.monotonic() < deadline, "the pull does not fail"
        time.sleep(0.1)
    assert any("dial tcp 127.0.0.1:9: connect: connection refused" in event.message for event in events)


@pytest.mark.parametrize("address", ["docker.io:443", "10.1.2.3:5000", "127.0.0.1", "127.0.0.1:http"])
def test_a_registry_elsewhere_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"is no registry of this machine: write 127\.0\.0\.1:<port>"):
        cluster.add_registry_mirror(address)
