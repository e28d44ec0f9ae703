"""Build and push the app image as CI would: `python -m localcloud.images build --version 2.3.0 --push REFERENCE`.

buildah builds the root `Dockerfile` without a daemon. No other registry is asked: the base is Debian with Python, made
by mmdebstrap from the Debian mirror that this machine's apt uses, and the packages are wheels that pip downloaded
before. Both are kept in the cache, so a second build takes seconds and needs no network.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from localcloud.config import cache_root
from localcloud.talk import say

TREE = Path(__file__).resolve().parent.parent
BASE_VERSION = "4"
SUITE = "trixie"
BASE_PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
EPOCH = 1_700_000_000
"""The time that every file of an image has, in seconds since 1970: the same input gives the same bytes."""
PIP = "pip==25.3"
"""Runs in the build only, from its wheel: the base has none."""


RUN_ROOT = Path("/run/shipmate/buildah")
"""Buildah's notes of what is mounted: it must not outlive a restart of the machine."""
_BUILD = (
    "--isolation",
    "chroot",
    "--pull-never",
    "--timestamp",
    str(EPOCH),
    "--format",
    "oci",
    "--identity-label=false",
    "--quiet",
)


class ImageError(Exception):
    """An image could not be made or pushed; the message has the program's own last words."""


def ensure_inputs() -> None:
    """Make what every build of the app image starts from, if it is not there: the base image and the app's wheels.

    Raises ImageError.
    """
    ensure_base()
    ensure_wheels()


def ensure_base() -> str:
    """Return the name of the base image in buildah's store, making it if it is not there (about 30 s, needs root).

    Raises ImageError.
    """
    name = f"localhost/shipmate-base:{BASE_VERSION}"
    with _alone("base"):
        if _buildah("images", "--quiet", name, check=False):
            return name
        rootfs = cache_root() / f"base-{BASE_VERSION}" / "rootfs.tar"
        if not rootfs.exists():
            say("doing", "making the base image, Debian with Python: about 30 s the first time")
            rootfs.parent.mkdir(parents=True, exist_ok=True)
            _bootstrap(rootfs)
        with tempfile.TemporaryDirectory() as context:
            (Path(context) / "Dockerfile").write_text("FROM scratch\nADD rootfs.tar /\nENV LANG=C.UTF-8\n")
            shutil.copy(rootfs, context)
            _buildah("build", *_BUILD, "--tag", name, context)
    return name


def build_app(version: str, revision: str, *, changes: Mapping[str, str] | None = None) -> str:
    """Build the code half from this tree as `version` of commit `revision`; return its id in buildah's store.

    `changes` maps paths of the tree to other contents, for a publish that changes what users see without changing the
    tree. Raises ImageError.
    """
    base, wheels = ensure_base(), ensure_wheels()
    with _alone("build"), tempfile.TemporaryDirectory() as folder:
        _forget_interrupted_builds()
        context = Path(folder)
        _copy_context(context, changes or {})
        arguments = {"BASE": base, "VERSION": version, "REVISION": revision}
        return _buildah(
            "build",
            *_BUILD,
            "--layers",
            "--volume",
            f"{wheels}:/wheels:ro",
            *(f"--build-arg={key}={value}" for key, value in arguments.items()),
            "--tag",
            f"localhost/vision-app:{version}",
            "--file",
            str(context / "Dockerfile"),
            folder,
        )


def build_empty() -> str:
    """Build an image with nothing to run in it, to see who can pull it; return its id in buildah's store."""
    with _alone("build"), tempfile.TemporaryDirectory() as context:
        (Path(context) / "Dockerfile").write_text("FROM scratch\nADD README /\n")
        (Path(context) / "README").write_text("Shows that a node can pull from this registry.\n")
        return _buildah("build", *_BUILD, context)


def push(image: str, reference: str) -> str:
    """Push what `build_app` returned and return its digest in the registry.

    `reference` is such as 127.0.0.1:17010/vision-app:main; plain HTTP is for registries on this machine only. For
    others buildah takes what `docker login` or `az acr login` left. Raises ImageError.
    """
    on_this_machine = reference.partition("/")[0].rpartition(":")[0] in ("127.0.0.1", "localhost")
    with tempfile.NamedTemporaryFile(suffix=".digest") as digest:
        _buildah(
            "push",
            "--quiet",
            f"--tls-verify={str(not on_this_machine).lower()}",
            "--digestfile",
            digest.name,
            image,
            f"docker://{reference}",
        )
        return Path(digest.name).read_text().strip()


def _forget_interrupted_builds() -> None:
    """Remove what builds that were killed left mounted; whoever calls this is the only one that builds."""
    names = _buildah("containers", "--noheading", "--format", "{{.ContainerName}}").split()
    if left := [name for name in names if "-working-container" in name]:
        _buildah("rm", *left)


def ensure_wheels() -> Path:
    """Return the folder with the wheels of app/requirements.txt, downloading them if it is not there.

    Raises ImageError.
    """
    inputs = [TREE / "app" / "requirements.txt", TREE / "constraints.txt"]
    key = hashlib.sha256(b"\0".join([PIP.encode(), *(path.read_bytes() for path in inputs)])).hexdigest()[:16]
    folder = cache_root() / f"wheels-{key}"
    with _alone("wheels"):
        if not folder.exists():
            say("doing", "downloading the app's packages from PyPI: about 20 s the first time")
            part = folder.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", "--dest", str(part)]
            _run([*pip, "--requirement", str(inputs[0])])
            _run([*pip, "--no-deps", PIP])
            part.rename(folder)
    return folder


def _bootstrap(rootfs: Path) -> None:
    """Make a Debian with Python and nothing of this machine in it: no sources, no host name, no resolver."""
    mirror = debian_mirror(_run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN)"]))
    part = rootfs.with_suffix(".part")
    _run(
        [
            "mmdebstrap",
            "--quiet",
            "--mode=root",
            "--variant=essential",
            "--format=tar",
            f"--include={','.join(BASE_PACKAGES)}",
            f"--keyring={KEYRING}",
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-include=/usr/share/doc/*/copyright",
            "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            *(f"--aptopt={line}" for line in _proxies()),
            '--customize-hook=rm -rf "$1"/etc/apt/sources.list* "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/var/log/*',
            '--customize-hook=rm -f "$1"/etc/hostname "$1"/etc/resolv.conf "$1"/etc/machine-id',
            SUITE,
            str(part),
            f"deb {mirror} {SUITE} main",
        ],
        environment={"SOURCE_DATE_EPOCH": str(EPOCH)},
    )
    part.rename(rootfs)


def debian_mirror(targets: str) -> str:
    """Return the address of the Debian mirror among apt's index targets (`REPO_URI ORIGIN` a line).

    Raises ImageError if there is none.
    """
    for line in targets.splitlines():
        address, _, origin = line.partition(" ")
        if origin == "Debian" and "security" not in address:
            return address
    raise ImageError("apt has no Debian mirror: run `apt-get update`, or add one to /etc/apt/sources.list.d")


def _proxies() -> list[str]:
    """Return the machine's proxy settings for apt, as mmdebstrap's own apt wants them."""
    return re.findall(r'^(Acquire::https?::Proxy.* ".+";)$', _run(["apt-config", "dump"]), re.MULTILINE)


def _copy_context(context: Path, changes: Mapping[str, str]) -> None:
    for name in ("Dockerfile", ".dockerignore", "constraints.txt"):
        shutil.copy(TREE / name, context)
    shutil.copytree(TREE / "app", context / "app", ignore=shutil.ignore_patterns("__pycache__"))
    for path, content in changes.items():
        if not (context / path).is_file():
            raise ImageError(f"{path} is not part of the image: a change needs one of its files")
        (context / path).write_text(content, encoding="utf-8")


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Let one process of this machine at a time make what `name` says."""
    path = cache_root() / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _buildah(*arguments: str, check: bool = True) -> str:
    store = cache_root() / "buildah" / "storage"
    where = ["--root", str(store), "--runroot", str(RUN_ROOT)]
    return _run(["buildah", *where, *arguments], check=check)


def _run(command: Sequence[str], *, check: bool = True, environment: Mapping[str, str] | None = None) -> str:
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, **(environment or {})}
        )
    except FileNotFoundError as error:
        raise ImageError(f"{command[0]} is not there: `python -m localcloud setup` installs it") from error
    if check and result.returncode:
        last = "\n".join(result.stderr.strip().splitlines()[-15:])
        raise ImageError(f"{' '.join(command[:4])} … failed with exit code {result.returncode}:\n{last}")
    return result.stdout.strip()


@click.group()
def main() -> None:
    """Make the images of the local cloud."""


@main.command()
@click.option("--version", required=True, help="The app's version, such as 2.3.0.")
@click.option("--revision", help="The commit; the tree's own if not given.")
@click.option("--push", "reference", help="Where to push it, such as 127.0.0.1:17010/vision-app:main.")
def build(version: str, revision: str | None, reference: str | None) -> None:
    """Build the app image, and push it if told where."""
    try:
        image = build_app(version, revision or _run(["git", "-C", str(TREE), "rev-parse", "HEAD"]))
        digest = push(image, reference) if reference else None
    except ImageError as error:
        sys.exit(f"✗ {error}")
    print(json.dumps({"image": image, "pushed": reference, "digest": digest}))


if __name__ == "__main__":
    main()
