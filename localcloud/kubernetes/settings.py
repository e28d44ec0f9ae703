"""The configuration files and command lines of the cluster's programs.

What looks odd here has its reason beside it; docs/local-cloud.md tells how this differs from a cluster in Azure.
"""

import json
from pathlib import Path

import yaml

from localcloud.kubernetes.layout import (
    API_PORT,
    BRIDGE,
    CONTAINERD_SOCKET,
    CONTROL_GROUP,
    ETCD_PEER_PORT,
    ETCD_PORT,
    KUBELET,
    MAX_PODS,
    NODE,
    NODE_ADDRESS,
    PAUSE_IMAGE,
    POD_NETWORK,
    PROXY_HEALTH_PORT,
    PROXY_METRICS_PORT,
    RUNTIME,
    SERVICE_NETWORK,
    Layout,
)

NO_PROXY_SERVER = dict.fromkeys(
    ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"), ""
)
"""Nothing of the cluster may talk to the outside, so none of its programs may see the machine's proxy server."""

NOWHERE = "http://127.0.0.1:9"
"""Where containerd is sent for every registry that is not one of ours: the discard port, which nobody serves."""


def write_settings(layout: Layout) -> None:
    """Write the configuration file of each program."""
    layout.settings.mkdir(parents=True, exist_ok=True)
    (layout.settings / "cni").mkdir(exist_ok=True)
    (layout.settings / "resolv.conf").write_text("")  # the cluster has no DNS, and pods shall not ask the machine's
    (layout.settings / "containerd.toml").write_text(containerd(layout))
    (layout.settings / "kubelet.yaml").write_text(yaml.safe_dump(kubelet(layout), sort_keys=False))
    (layout.settings / "kube-proxy.yaml").write_text(yaml.safe_dump(kube_proxy(layout), sort_keys=False))
    (layout.settings / "cni" / "10-shipmate.conflist").write_text(json.dumps(pod_network(layout), indent=2))
    write_registry(layout, "_default", NOWHERE)


def write_registry(layout: Layout, name: str, url: str) -> None:
    """Tell containerd at which URL the registry `name` answers; it reads this at every pull."""
    folder = layout.registries / name
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / ".hosts.toml.new"
    fresh.write_text(f'server = "{url}"\n\n[host."{url}"]\n  capabilities = ["pull", "resolve"]\n')
    fresh.replace(folder / "hosts.toml")


def containerd(layout: Layout) -> str:
    """Return containerd's configuration (version 2, for containerd 1.6 and 1.7)."""
    return f"""version = 2
root = "{layout.containerd}"
state = "{RUNTIME}/containerd"

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{layout.state}/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Inside a container or a small virtual machine a process may not lower its OOM score below its own; runc then dies
  # with "can't get final child's PID from pipe".
  restrict_oom_score_adj = true
  # Namespaces are mounted below `state` and not in /var/run/netns, so that they can be told from other people's.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "{RUNTIME}/runc"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{layout.settings}/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{layout.registries}"
"""


def pod_network(layout: Layout) -> dict[str, object]:
    """Return the network plugin's configuration.

    No `isGateway` (the bridge has its address already, and the plugin would turn on the machine's ip_forward), no
    `ipMasq`, and one route in the pod: to the Services. A pod has no default route.
    """
    return {
        "cniVersion": "0.4.0",
        "name": "shipmate",
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": False,
                "ipMasq": False,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": POD_NETWORK, "gateway": NODE_ADDRESS}]],
                    "routes": [{"dst": SERVICE_NETWORK, "gw": NODE_ADDRESS}],
                    "dataDir": str(layout.addresses),
                },
            }
        ],
    }


def kubelet(layout: Layout) -> dict[str, object]:
    """Return the kubelet's configuration."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": str(layout.certificates / "ca.crt")},
        },
        "authorization": {"mode": "AlwaysAllow"},  # whoever has a certificate of our authority; pods have none
        "tlsCertFile": str(layout.certificates / "kubelet.crt"),
        "tlsPrivateKeyFile": str(layout.certificates / "kubelet.key"),
        "address": NODE_ADDRESS,
        "port": 10250,
        "healthzPort": 0,
        "readOnlyPort": 0,
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "imageServiceEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CONTROL_GROUP}",
        "cgroupsPerQOS": True,
        "enforceNodeAllocatable": [],
        "makeIPTablesUtilChains": False,
        "oomScoreAdj": 0,
        # A developer's disk may be fuller than a server's: never evict, never throw images away.
        "evictionHard": {},
        "imageGCHighThresholdPercent": 100,
        "serializeImagePulls": False,
        "maxParallelImagePulls": 4,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        "nodeStatusUpdateFrequency": "5s",
        "maxPods": MAX_PODS,
        "resolvConf": str(layout.settings / "resolv.conf"),
        "volumePluginDir": str(layout.state / "volume-plugins"),
        "podLogsDir": str(layout.pod_logs),
    }


def kube_proxy(layout: Layout) -> dict[str, object]:
    """Return kube-proxy's configuration."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "hostnameOverride": NODE,
        "clientConnection": {
            "kubeconfig": str(layout.certificates / "kube-proxy.kubeconfig"),
            "qps": 100,
            "burst": 200,
        },
        "clusterCIDR": POD_NETWORK,
        "detectLocalMode": "ClusterCIDR",
        "nodePortAddresses": [POD_NETWORK],  # never on the machine's own addresses
        "healthzBindAddress": f"127.0.0.1:{PROXY_HEALTH_PORT}",
        "metricsBindAddress": f"127.0.0.1:{PROXY_METRICS_PORT}",
        "oomScoreAdj": 0,
        "conntrack": {  # the machine's connection tracking stays as it is
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
        "iptables": {
            "localhostNodePorts": False,  # it would let loopback addresses be routed
            "minSyncPeriod": "100ms",
            "syncPeriod": "30s",
        },
    }


def etcd_command(layout: Layout) -> list[str]:
    """Return etcd's command line.

    Writes are not flushed to the disk one by one: a killed etcd loses nothing, a machine that loses its power may.
    """
    pki = layout.certificates
    client, peer = f"https://127.0.0.1:{ETCD_PORT}", f"https://127.0.0.1:{ETCD_PEER_PORT}"
    return [
        "etcd",
        f"--data-dir={layout.etcd}",
        "--name=local",
        "--unsafe-no-fsync",
        "--log-level=warn",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=local={peer}",
        "--client-cert-auth",
        f"--trusted-ca-file={pki}/ca.crt",
        f"--cert-file={pki}/etcd.crt",
        f"--key-file={pki}/etcd.key",
        "--peer-client-cert-auth",
        f"--peer-trusted-ca-file={pki}/ca.crt",
        f"--peer-cert-file={pki}/etcd.crt",
        f"--peer-key-file={pki}/etcd.key",
    ]


def containerd_command(layout: Layout) -> list[str]:
    """Return containerd's command line."""
    return ["containerd", "--config", str(layout.settings / "containerd.toml"), "--log-level", "warn"]


def apiserver_command(programs: Path, layout: Layout) -> list[str]:
    """Return the API server's command line."""
    pki = layout.certificates
    return [
        str(programs / "kube-apiserver"),
        "--v=1",
        f"--etcd-servers=https://127.0.0.1:{ETCD_PORT}",
        f"--etcd-cafile={pki}/ca.crt",
        f"--etcd-certfile={pki}/apiserver-etcd-client.crt",
        f"--etcd-keyfile={pki}/apiserver-etcd-client.key",
        "--bind-address=127.0.0.1",
        f"--secure-port={API_PORT}",
        f"--advertise-address={NODE_ADDRESS}",
        # Pods cannot reach 127.0.0.1, so the Service `kubernetes` honestly has no endpoint.
        "--endpoint-reconciler-type=none",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki}/service-accounts.key",
        f"--service-account-signing-key-file={pki}/service-accounts.key",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        "--kubelet-preferred-address-types=InternalIP",  # logs and exec would look the node's name up in the DNS
        "--profiling=false",
        "--feature-gates=SizeBasedListCostEstimate=false",  # it asks etcd what Debian's cannot answer yet
    ]


def controller_manager_command(programs: Path, layout: Layout) -> list[str]:
    """Return the controller manager's command line: no serving port, no cloud, pod addresses by the network plugin."""
    pki = layout.certificates
    return [
        str(programs / "kube-controller-manager"),
        "--v=1",
        f"--kubeconfig={pki}/kube-controller-manager.kubeconfig",
        f"--service-account-private-key-file={pki}/service-accounts.key",
        "--use-service-account-credentials",
        f"--root-ca-file={pki}/ca.crt",
        "--leader-elect=false",
        "--secure-port=0",
        "--kube-api-qps=100",
        "--kube-api-burst=200",
        f"--flex-volume-plugin-dir={layout.state}/volume-plugins",
        "--controllers=*,-node-ipam-controller,-cloud-node-lifecycle-controller,-node-route-controller,-service-lb-controller",
    ]


def scheduler_command(programs: Path, layout: Layout) -> list[str]:
    """Return the scheduler's command line."""
    return [
        str(programs / "kube-scheduler"),
        "--v=1",
        f"--kubeconfig={layout.certificates}/kube-scheduler.kubeconfig",
        "--leader-elect=false",
        "--secure-port=0",
        "--kube-api-qps=100",
        "--kube-api-burst=200",
    ]


def kubelet_command(programs: Path, layout: Layout) -> list[str]:
    """Return the kubelet's command line."""
    return [
        str(programs / "kubelet"),
        "--v=1",
        f"--config={layout.settings}/kubelet.yaml",
        f"--kubeconfig={layout.certificates}/kubelet.kubeconfig",
        f"--hostname-override={NODE}",
        f"--root-dir={KUBELET}",
        f"--node-ip={NODE_ADDRESS}",  # a loopback address would leave the node without one
    ]


def kube_proxy_command(programs: Path, layout: Layout) -> list[str]:
    """Return kube-proxy's command line."""
    return [str(programs / "kube-proxy"), "--v=1", f"--config={layout.settings}/kube-proxy.yaml"]
