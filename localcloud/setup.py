"""Install and build what the local cloud needs, once, pinned by hash: Kubernetes, the registry, crane, Azurite.

Called by every part before it starts something, so each function is quick when its work is done.
"""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from localcloud.config import cache_root
from localcloud.debian import ensure_packages
from localcloud.making import SetupError, is_made, made_whole, only_one, run, stamp_of
from localcloud.toolchains import ensure_go, ensure_node

HERE = Path(__file__).parent

KUBERNETES_VERSION = "1.34.4"
"""1.34 is the last that runs on control groups version 1 and with Debian's containerd 1.6."""

REGISTRY_VERSION = "3.1.2"
CRANE_VERSION = "0.20.6"
AZURITE_VERSION = "3.37.0"

KUBERNETES_PROGRAMS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
)

SPACE_FOR_KUBERNETES = 6_000_000_000
"""Bytes on disk that Go's modules and its build cache take."""


def ensure_all() -> None:
    """Make everything ready, the slow first."""
    ensure_packages()
    ensure_kubernetes()
    ensure_registry()
    ensure_crane()
    ensure_azurite()


def kubernetes_folder() -> Path:
    """Return where the programs of Kubernetes are, or will be."""
    return cache_root() / f"kubernetes-{KUBERNETES_VERSION}"


def ensure_kubernetes() -> Path:
    """Return the folder with Kubernetes' programs, kubectl among them, and `pause`; compile them if need be."""
    sources = HERE / "kubernetes" / "go"
    folder = kubernetes_folder()
    stamp = stamp_of(sources)
    with only_one(folder.name):
        if is_made(folder, stamp):
            return folder
        _require_space(SPACE_FOR_KUBERNETES)
        go = ensure_go(sources / "go.mod")
        version = "k8s.io/component-base/version"
        major, minor, _ = KUBERNETES_VERSION.split(".")
        with made_whole(folder, stamp) as fresh:
            flags = [
                f"-X {version}.gitVersion=v{KUBERNETES_VERSION}",
                f"-X {version}.gitMajor={major}",
                f"-X {version}.gitMinor={minor}",
            ]
            _compile(
                go,
                sources,
                package=".",
                program=fresh / "kube",
                flags=flags,
                what=f"Kubernetes {KUBERNETES_VERSION} from its Go modules",
                estimate="about 10 minutes the first time, then never again",
            )
            _compile(
                go,
                sources,
                package="./pause",
                program=fresh / "pause",
                what="the pause program",
                estimate="a few seconds",
            )
            for name in KUBERNETES_PROGRAMS:
                (fresh / name).symlink_to("kube")
    return folder


def ensure_registry() -> Path:
    """Return the container registry's program (CNCF distribution); compile it if need be."""
    package = "github.com/distribution/distribution/v3"
    return _ensure_go_program(
        "registry",
        REGISTRY_VERSION,
        HERE / "registry_go",
        package=f"{package}/cmd/registry",
        flags=[f"-X {package}/version.version=v{REGISTRY_VERSION}"],
        estimate="about 2 minutes the first time",
    )


def ensure_crane() -> Path:
    """Return `crane`, which the tests judge images with; compile it if need be."""
    package = "github.com/google/go-containerregistry/cmd/crane"
    return _ensure_go_program(
        "crane",
        CRANE_VERSION,
        HERE / "crane_go",
        package=package,
        flags=[f"-X {package}/cmd.Version=v{CRANE_VERSION}"],
        estimate="about 1 minute the first time",
    )


def ensure_azurite() -> list[str]:
    """Return the start of Azurite's command line (Node and its main file); install it if need be."""
    sources = HERE / "azurite"
    node, npm = ensure_node()
    folder = cache_root() / f"azurite-{AZURITE_VERSION}"
    stamp = stamp_of(sources)
    with only_one(folder.name):
        if not is_made(folder, stamp):
            with made_whole(folder, stamp) as fresh:
                for name in ("package.json", "package-lock.json"):
                    shutil.copy(sources / name, fresh / name)
                run(
                    [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
                    what=f"installing Azurite {AZURITE_VERSION}",
                    estimate="about 1 minute the first time",
                    folder=fresh,
                    environment={"PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"},
                )
    return [str(node), str(folder / "node_modules" / "azurite" / "dist" / "src" / "azurite.js")]


def _ensure_go_program(
    name: str, version: str, sources: Path, *, package: str, flags: Sequence[str], estimate: str
) -> Path:
    folder = cache_root() / f"{name}-{version}"
    stamp = stamp_of(sources)
    with only_one(folder.name):
        if not is_made(folder, stamp):
            go = ensure_go(sources / "go.mod")
            with made_whole(folder, stamp) as fresh:
                _compile(
                    go,
                    sources,
                    package=package,
                    program=fresh / name,
                    flags=flags,
                    what=f"{name} {version} from its Go module",
                    estimate=estimate,
                )
    return folder / name


def _compile(
    go: Path,
    sources: Path,
    *,
    package: str,
    program: Path,
    what: str,
    estimate: str,
    flags: Sequence[str] = (),
) -> None:
    """Compile one Go program exactly as its go.mod and go.sum pin it; no C compiler takes part."""
    environment = {"GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0"}
    run(
        [str(go), "list", "-deps", package],
        what=f"downloading the modules of {what}",
        estimate="a minute or two the first time",
        folder=sources,
        environment=environment,
    )
    command = [str(go), "build", "-v", "-buildvcs=false", "-trimpath", "-ldflags", " ".join(["-s", "-w", *flags])]
    run(
        [*command, "-o", str(program), package],
        what=f"compiling {what}",
        estimate=estimate,
        folder=sources,
        environment=environment,
        progress=re.compile(r"^[\w./~-]+$", re.MULTILINE),
    )


def _require_space(needed: int) -> None:
    folder = cache_root()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SetupError(
            f"compiling Kubernetes takes {needed / 1e9:.0f} GB of disk and {folder} has {free / 1e9:.1f} GB left: "
            "make room, or set XDG_CACHE_HOME and GOCACHE to a larger disk"
        )
