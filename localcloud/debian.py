"""The Debian packages that the local cloud needs, installed without starting or enabling their services.

Called by `localcloud.setup` and by whoever starts Kubernetes or builds images.
"""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from localcloud.making import SetupError, only_one, run

DEBIAN_PACKAGES = (
    "buildah",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "etcd-server",
    "haproxy",
    "iproute2",
    "iptables",
    "mmdebstrap",
    "runc",
    "skopeo",
)

SERVICES = {"containerd": "containerd.service", "etcd-server": "etcd.service", "haproxy": "haproxy.service"}
"""What these packages would start with the machine; the local cloud starts its own instead."""

FOR_IMAGES = ("buildah", "mmdebstrap")
"""What is needed of them where Kubernetes is the user's own: to build the app image."""

OPTIONS = (
    "The options are:\n"
    "  - run this as root on Debian 12 or newer, with sudo, in a virtual machine or in a Codespace;\n"
    "  - there, with a Kubernetes of your own, nothing of Kubernetes is installed, built or started:\n"
    "    make demo CONTEXT=<kubeconfig context> (`kubectl config get-contexts` lists yours). Root is needed all the\n"
    "    same, to build the app image with buildah and mmdebstrap."
)

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""What the kernel calls the processor, and what Debian and images do."""

POLICY_FILE = Path("/usr/sbin/policy-rc.d")
POLICY = "#!/bin/sh\n# Written while the local cloud of Shipmate installs packages: start no services.\nexit 101\n"


def require_root() -> None:
    """Raise SetupError with the options there are unless this is root on a Linux with Debian's packages."""
    if platform.system() != "Linux":
        raise SetupError(f"the local cloud needs Linux, and this is {platform.system()}. {OPTIONS}")
    if shutil.which("apt-get") is None or shutil.which("dpkg-query") is None:
        raise SetupError(f"the local cloud is made of Debian's packages, and this system has no apt-get. {OPTIONS}")
    architecture()
    if os.geteuid() != 0:
        raise SetupError(f"the local cloud needs root: it builds images and starts containers. {OPTIONS}")


def architecture() -> str:
    """Return what images call this machine's processor. Raises SetupError for one that nothing here is made for."""
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        known = " and ".join(f"{kernel} ({image})" for kernel, image in ARCHITECTURES.items())
        raise SetupError(
            f"the local cloud runs on machines that `uname -m` calls {known}, and this one is {machine or 'unknown'}: "
            "run it on one of those, a virtual machine or a Codespace for example. With a Kubernetes of your own, its "
            "nodes must be of the same kind as that machine"
        )
    return ARCHITECTURES[machine]


def ensure_packages(names: Sequence[str] = DEBIAN_PACKAGES) -> None:
    """Install those of the packages that are missing, without starting or enabling their services. Needs root."""
    require_root()
    if not missing_packages(names):
        return
    with only_one("packages"):
        missing = missing_packages(names)
        if missing:
            _install_packages(missing)


def missing_packages(names: Sequence[str] = DEBIAN_PACKAGES) -> list[str]:
    """Return those of the named Debian packages that are not installed."""
    query = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *names],
        capture_output=True,
        text=True,
        check=False,  # it fails when it does not know one of them
    )
    installed = {line.split()[0] for line in query.stdout.splitlines() if line.endswith(" installed")}
    return [name for name in names if name not in installed]


def _install_packages(names: Sequence[str]) -> None:
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "--quiet", "--yes"]
    with _services_not_started():
        run([*apt, "update"], what="reading Debian's package lists", estimate="seconds", environment=environment)
        run(
            [*apt, "install", "--no-install-recommends", *names],
            what=f"installing {', '.join(names)}",
            estimate="about a minute",
            environment=environment,
        )
    if Path("/run/systemd/system").exists():
        units = [unit for package, unit in SERVICES.items() if package in names]
        if units:
            run(["systemctl", "disable", *units], what=f"leaving {', '.join(units)} off", estimate="seconds")


@contextmanager
def _services_not_started() -> Iterator[None]:
    """Tell Debian's packages to start nothing while they are installed, unless the machine has its own policy."""
    if POLICY_FILE.exists() and POLICY_FILE.read_text() != POLICY:
        yield
        return
    POLICY_FILE.write_text(POLICY)
    POLICY_FILE.chmod(0o755)
    try:
        yield
    finally:
        POLICY_FILE.unlink(missing_ok=True)
