"""Where the cluster lives: its networks, ports and folders. One cluster a machine; every local cloud shares it."""

from dataclasses import dataclass
from pathlib import Path

from localcloud.config import state_root

NODE = "local"
"""The one node's name."""

CONTEXT = "shipmate-local"
"""The kubeconfig context of the cluster."""

BRIDGE = "shipmate0"
"""The network interface all pods hang on; the cluster makes and removes it."""

NETWORK = "10.213.0.0/16"
"""Everything below it belongs to the cluster; what no interface claims is unreachable."""

POD_NETWORK = "10.213.0.0/24"
NODE_ADDRESS = "10.213.0.1"
MAX_PODS = 240
"""So many of the pod network's 253 addresses are given to pods; those of pods that just ended come free a bit later."""
SERVICE_NETWORK = "10.213.128.0/20"
KUBERNETES_SERVICE = "10.213.128.1"
"""The first address of the Service network, which the API server gives to itself."""

API_PORT = 16443
ETCD_PORT = 16379
ETCD_PEER_PORT = 16380
PROXY_HEALTH_PORT = 16256
PROXY_METRICS_PORT = 16249

RUNTIME = Path("/run/shipmate")
"""Sockets, pod sandboxes and network namespaces: gone after a reboot, as containerd expects."""

OWNER = RUNTIME / "state-folder"
"""A file that says in which folder the running cluster has its state."""

CONTAINERD_SOCKET = RUNTIME / "containerd.sock"

KUBELET = RUNTIME / "kubelet"
"""The kubelet's folder is mounted here from the state folder: the paths of its sockets must be short (unix(7))."""

HAPROXY_SOCKET = RUNTIME / "haproxy.sock"

CONTROL_GROUP = "shipmate"
"""All pods are below this control group."""

PAUSE_IMAGE = "localhost/shipmate/pause:1"
"""Every pod's first container; imported, never pulled."""


@dataclass(frozen=True)
class Layout:
    """The folders and files of the cluster below its state folder."""

    state: Path

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.state / "kubeconfig"

    @property
    def certificates(self) -> Path:
        """The certificate authority and what it signed."""
        return self.state / "certificates"

    @property
    def settings(self) -> Path:
        """The configuration files of the programs."""
        return self.state / "settings"

    @property
    def registries(self) -> Path:
        """How containerd reaches each registry: a folder for each host and port."""
        return self.state / "registries"

    @property
    def etcd(self) -> Path:
        """What the cluster remembers: kept by `down`, removed by `reset`."""
        return self.state / "etcd"

    @property
    def containerd(self) -> Path:
        """Images and their unpacked layers: kept by `down`, removed by `reset`."""
        return self.state / "containerd"

    @property
    def kubelet(self) -> Path:
        """Volumes of the running pods: removed by `down`."""
        return self.state / "kubelet"

    @property
    def pod_logs(self) -> Path:
        """Logs of the containers."""
        return self.state / "pod-logs"

    @property
    def addresses(self) -> Path:
        """Which pod has which address: removed by `down`."""
        return self.state / "addresses"

    @property
    def lock(self) -> Path:
        """Held while the cluster is brought up or down."""
        return self.state / "lock"


def default_layout() -> Layout:
    """Return the layout of this machine's cluster."""
    return Layout(state_root() / "cluster")
