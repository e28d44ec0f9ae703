"""The cluster's whole life, case after case; test_kubernetes_lifecycle.py runs them on a machine of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from localcloud.config import state_root
from localcloud.kubernetes import cluster, network
from localcloud.kubernetes.layout import Layout, default_layout
from localcloud.processes import StartError
from tests.localcloud import answering
from tests.localcloud.functions_host_process import until

DOOR = "http://127.77.0.1:8080/"
TRACES = [
    "/run",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/usr/libexec/kubernetes",
    "/sys/fs/cgroup",
]
OTHERS = {"xtables.lock", "netns"}  # left in /run by iptables and ip on any machine


def machine() -> dict[str, set[str]]:
    """Return everything of the machine that a cluster could leave its traces in."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    sysctls = (*network.SYSCTLS_OF_KUBELET, *network.SYSCTLS_OF_PROXY)
    return {
        "routes": set(network.run("ip", "route", "show", "table", "all").splitlines()),
        "links": {link["ifname"] for link in json.loads(network.run("ip", "-json", "link"))},
        "rules": {
            line
            for program in ("iptables-save", "ip6tables-save")
            for line in network.run(program).splitlines()
            if "KUBE" in line or "SHIPMATE" in line
        },
        "mounts": {f"{times} at {point}" for point, times in Counter(mounts).items()},
        "sysctls": {f"{name} = {network._sysctl(name).read_text()}" for name in sysctls},
        "files": {str(path) for folder in TRACES for path in Path(folder).glob("**/") if path.name not in OTHERS},
        "processes": set(processes()),
    }


def traces(before: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return what is on the machine and was not there before."""
    now = machine()
    return {what: now[what] - before[what] for what in now if now[what] - before[what]}


def processes() -> Iterator[str]:
    """Yield the names of the processes that live."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
        if fields[2].split()[0] != "Z":
            yield fields[0].partition("(")[2]


def kubectl(*arguments: str, stdin: object = None) -> str:
    return network.run(*cluster.kubectl(*arguments), stdin=json.dumps(stdin) if stdin else None)


def deploy(answer: str) -> None:
    cluster.import_image(answering.archive())
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "vision", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }
    kubectl("apply", "-f", "-", stdin=namespace)
    service = answering.service()
    service["metadata"]["name"] = "vision"
    kubectl("apply", "--namespace=vision", "-f", "-", stdin=service)
    kubectl("apply", "--namespace=vision", "-f", "-", stdin=answering.deployment(answer))


def answer(within_seconds: float = 120) -> str:
    """Ask at the door until it is answered."""
    deadline = time.monotonic() + within_seconds
    while True:
        try:
            return httpx.get(DOOR, timeout=10, trust_env=False).raise_for_status().text.split()[0]
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def kill_all_programs() -> None:
    """SIGKILL every program of the cluster at once; the pods live on, as orphans."""
    for file in state_root().rglob("run/*.pid"):
        os.kill(int(file.read_text().split()[0]), signal.SIGKILL)
    while any(cluster.status().values()):
        time.sleep(0.05)


@pytest.fixture(scope="module", autouse=True)
def before() -> dict[str, set[str]]:
    """Return the machine as it was before there was a cluster."""
    network.succeeds("iptables", "-w", "-t", "nat", "-S")  # makes the kernel's empty tables
    return machine()


def test_a_route_into_the_clusters_network_is_an_error() -> None:
    network.run("ip", "link", "add", "office", "type", "bridge")
    network.run("ip", "address", "add", "10.213.7.1/24", "dev", "office")
    network.run("ip", "link", "set", "office", "up")
    try:
        with pytest.raises(
            StartError, match=r"already has a route to 10\.213\.7\..*by office: disconnect that network"
        ):
            cluster.up()
    finally:
        network.run("ip", "link", "delete", "office")


def test_another_kubernetes_on_the_machine_is_an_error() -> None:
    network.run("iptables", "-w", "-t", "nat", "-N", "KUBE-SERVICES")
    try:
        with pytest.raises(StartError, match="another Kubernetes runs on this machine"):
            cluster.up()
    finally:
        network.run("iptables", "-w", "-t", "nat", "-X", "KUBE-SERVICES")


def is_one_process(name: str) -> bool:
    return list(processes()).count(name) == 1


def test_up_makes_a_ready_node_even_when_two_ask_for_it() -> None:
    first = subprocess.Popen([sys.executable, "-m", "localcloud.kubernetes", "up"])
    second = subprocess.Popen([sys.executable, "-m", "localcloud.kubernetes", "up"])
    assert (first.wait(300), second.wait(300)) == (0, 0)
    assert cluster.is_up()
    for program in ("etcd", "containerd", "kube-apiserver", "kube-scheduler", "kubelet", "kube-proxy"):
        until(partial(is_one_process, program))  # a child has its parent's name for a moment
    assert "Ready" in kubectl("get", "nodes")


def test_a_cluster_with_its_state_elsewhere_is_left_alone(tmp_path: Path) -> None:
    elsewhere = Layout(tmp_path / "shipmate" / "cluster")
    elsewhere.state.mkdir(parents=True)
    for command in (cluster.up, cluster.down):
        with pytest.raises(StartError, match=f"set XDG_STATE_HOME to {state_root().parent} to use it or to stop it"):
            command(elsewhere)
    assert cluster.is_up()


def test_users_reach_pods_at_the_door() -> None:
    deploy("before")
    assert answer() == "before"


def test_after_everything_was_killed_up_goes_on() -> None:
    kill_all_programs()
    cluster.up()
    assert answer() == "before"


def test_down_leaves_nothing_behind(before: dict[str, set[str]]) -> None:
    cluster.down()
    assert traces(before) == {}
    cluster.down()  # once more does no harm


def test_up_brings_back_what_the_cluster_knew() -> None:
    cluster.up()
    assert answer() == "before"


def test_down_cleans_up_after_a_crash(before: dict[str, set[str]]) -> None:
    kill_all_programs()
    cluster.down()
    assert traces(before) == {}


def test_a_store_that_was_damaged_names_the_way_out() -> None:
    for file in default_layout().etcd.rglob("*.wal"):
        file.write_bytes(b"no log" * 1000)
    with pytest.raises(StartError, match=r"etcd stopped while it was starting(.|\n)*localcloud.kubernetes reset"):
        cluster.up()


def test_reset_forgets_everything(before: dict[str, set[str]]) -> None:
    cluster.reset()
    assert not default_layout().state.exists()
    assert traces(before) == {}
