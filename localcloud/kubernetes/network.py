"""The cluster's own piece of network: a bridge, routes and packet filter rules that keep every packet on this machine.

- Fallback routes are laid first and taken away last: what no interface of ours claims is unreachable, and never
  follows the machine's default route.
- Between the bridge and any other interface nothing is forwarded, whatever the machine's `ip_forward` says; pods reach
  each other and Services, have no default route, and may answer the machine but not call it.
- What was set on the machine is remembered and set back.
"""

import ipaddress
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcloud.kubernetes.layout import BRIDGE, NETWORK, NODE_ADDRESS, POD_NETWORK, SERVICE_NETWORK
from localcloud.processes import StartError, not_there

FALLBACK_METRIC = "4278198272"
"""Worse than any route a person or a DHCP client writes (they stay below 2^32 - 16 million)."""


@dataclass(frozen=True)
class Chain:
    """A packet filter chain of ours, and the built-in chain that calls it first."""

    table: str
    parent: str
    name: str
    rules: tuple[str, ...]


FENCE = Chain(
    "mangle",  # before anything kube-proxy may accept in the filter table
    "FORWARD",
    "SHIPMATE-FENCE",
    (f"-i {BRIDGE} ! -o {BRIDGE} -j DROP", f"! -i {BRIDGE} -o {BRIDGE} -j DROP"),
)
INSIDE = Chain(
    "filter",  # Docker and firewalls like to drop by default what is forwarded
    "FORWARD",
    "SHIPMATE-INSIDE",
    (f"-i {BRIDGE} -o {BRIDGE} -j ACCEPT",),
)
TO_THE_MACHINE = Chain(
    "filter",
    "INPUT",
    "SHIPMATE-INPUT",
    (
        f"-i {BRIDGE} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
        f"-i {BRIDGE} -j REJECT",
    ),
)
CHAINS = (FENCE, INSIDE, TO_THE_MACHINE)

SYSCTLS_OF_KUBELET = (
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
)
"""Kernel settings that the kubelet changes when it starts."""

SYSCTLS_OF_PROXY = ("net.ipv4.conf.all.route_localnet", "net.ipv4.ip_forward")
"""Kernel settings that kube-proxy and network plugins are known to change; ours are told not to, and it is checked."""


def run(*command: str, stdin: str | None = None) -> str:
    """Run a command of the machine and return its output; raise StartError with what it said if it fails."""
    try:
        finished = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise StartError(not_there(command[0])) from error
    if finished.returncode != 0:
        raise StartError(f"`{' '.join(command)}` failed: {(finished.stderr or finished.stdout).strip()}")
    return finished.stdout


def succeeds(*command: str) -> bool:
    """Return whether a command of the machine succeeds."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError as error:
        raise StartError(not_there(command[0])) from error


def check_free(network: str = NETWORK) -> None:
    """Raise StartError if some route of the machine leads into the cluster's network."""
    ours = ipaddress.ip_network(network)
    for route in json.loads(run("ip", "-json", "-4", "route", "show", "table", "all")):
        if route.get("dev") == BRIDGE or route.get("type") == "unreachable" or route["dst"] == "default":
            continue
        if ipaddress.ip_network(route["dst"]).overlaps(ours):
            raise StartError(
                f"the local Kubernetes needs the addresses {network}, but this machine already has a route to "
                f"{route['dst']} by {route.get('dev', route.get('type'))}: disconnect that network (a VPN, another "
                "cluster), or use a cluster of your own with `make demo CONTEXT=<kubeconfig context>`"
            )


def check_alone() -> None:
    """Raise StartError if another Kubernetes keeps its packet filter rules in this network namespace."""
    if "KUBE-SERVICES" in run("iptables", "-w", "-t", "nat", "-S"):
        raise StartError(
            "another Kubernetes runs on this machine (there are KUBE-SERVICES rules in iptables): use it with "
            "`make demo CONTEXT=<its kubeconfig context>`, or stop it"
        )


def set_up() -> None:
    """Lay the fallback routes, the packet filter rules, the bridge and the Service route; may be repeated."""
    run("ip", "route", "replace", "unreachable", NETWORK, "metric", FALLBACK_METRIC)
    for chain in CHAINS:
        _replace(chain)
    if not bridge_exists():
        run("ip", "link", "add", BRIDGE, "type", "bridge")
    Path(f"/proc/sys/net/ipv6/conf/{BRIDGE}/disable_ipv6").write_text("1")
    # From pod to pod by way of a Service; the machine's own ip_forward stays as it is, and the fence stands.
    Path(f"/proc/sys/net/ipv4/conf/{BRIDGE}/forwarding").write_text("1")
    run("ip", "address", "replace", f"{NODE_ADDRESS}/{POD_NETWORK.rpartition('/')[2]}", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    run("ip", "route", "replace", SERVICE_NETWORK, "dev", BRIDGE)


def bridge_exists() -> bool:
    """Return whether the cluster's bridge is there."""
    return succeeds("ip", "link", "show", BRIDGE)


def load_modules() -> None:
    """Load what the kernel needs for pods, where it is not built in: overlay file systems, and filtered bridges."""
    missing = [] if "overlay" in Path("/proc/filesystems").read_text() else ["overlay"]
    missing += [] if Path("/proc/sys/net/bridge").exists() else ["br_netfilter"]
    if missing:
        run("modprobe", "--all", *missing)


def remove_service_rules(kube_proxy: Path) -> None:
    """Remove kube-proxy's packet filter rules with its own clean-up, if it was our kube-proxy that wrote them.

    It leaves one chain, which on other clusters the kubelet may own.
    """
    if succeeds("iptables", "-w", "-t", FENCE.table, "-S", FENCE.name) and "KUBE-" in run("iptables-save"):
        run(str(kube_proxy), "--cleanup")
        for program in ("iptables", "ip6tables"):
            for parent in ("INPUT", "OUTPUT"):
                _remove_chain(program, Chain("filter", parent, "KUBE-FIREWALL", ()))


def take_down() -> None:
    """Remove what `set_up` and the pods' network plugin made; the fallback route goes last. May be repeated."""
    if bridge_exists():
        for port in json.loads(run("ip", "-json", "link", "show", "master", BRIDGE)):
            succeeds("ip", "link", "delete", port["ifname"])  # it may just go with its pod
        run("ip", "link", "delete", BRIDGE)
    for chain in CHAINS:
        _remove_chain("iptables", chain)
    while succeeds("ip", "route", "delete", "unreachable", NETWORK, "metric", FALLBACK_METRIC):
        pass


def remember_sysctls(file: Path) -> None:
    """Write down the kernel settings that the cluster's programs change, once a boot."""
    boot = boot_id()
    if _remembered(file).get("boot") == boot:
        return
    values = {name: _sysctl(name).read_text().strip() for name in (*SYSCTLS_OF_KUBELET, *SYSCTLS_OF_PROXY)}
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps({"boot": boot, "values": values}, indent=2))
    fresh.replace(file)


def restore_sysctls(file: Path) -> None:
    """Set the kernel settings back to what was written down in this boot, if anything was."""
    if not file.exists():
        return
    remembered = _remembered(file)
    if remembered.get("boot") == boot_id():
        for name, value in remembered["values"].items():
            if _sysctl(name).read_text().strip() != value:
                _sysctl(name).write_text(value)
    file.unlink()


def _remembered(file: Path) -> dict[str, Any]:
    """Return what was written down, empty if nothing was, or not as a whole: then the machine has started since."""
    try:
        return dict(json.loads(file.read_text()))
    except (FileNotFoundError, ValueError):
        return {}


def boot_id() -> str:
    """Return the kernel's name for this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _sysctl(name: str) -> Path:
    return Path("/proc/sys", *name.split("."))


def _replace(chain: Chain) -> None:
    """Make a chain hold exactly its rules, in one step, and have it called before everything else."""
    lines = [
        f"*{chain.table}",
        f":{chain.name} - [0:0]",
        *(f"-A {chain.name} {rule}" for rule in chain.rules),
        "COMMIT",
    ]
    run("iptables-restore", "-w", "--noflush", stdin="\n".join([*lines, ""]))
    iptables = ("iptables", "-w", "-t", chain.table)
    if not succeeds(*iptables, "-C", chain.parent, "-j", chain.name):
        run(*iptables, "-I", chain.parent, "1", "-j", chain.name)


def _remove_chain(program: str, chain: Chain) -> None:
    """Have a chain called no more, and remove it when nothing else calls it either."""
    iptables = (program, "-w", "-t", chain.table)
    while succeeds(*iptables, "-D", chain.parent, "-j", chain.name):
        pass
    if succeeds(*iptables, "-F", chain.name):
        succeeds(*iptables, "-X", chain.name)
