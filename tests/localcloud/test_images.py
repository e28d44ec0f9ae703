"""The app image: what is in it, what is not, that it runs as nobody, and that a second publish moves little."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from click.testing import CliRunner

from localcloud import images
from localcloud.config import Cloud, cache_root
from localcloud.images import ImageError
from tests.localcloud.functions_host_process import PATIENTLY, free_port

pytestmark = pytest.mark.buildah

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(scope="module")
def built() -> str:
    return images.build_app("7.0.0", "abcdef")


@pytest.fixture(scope="module")
def tree(built: str) -> Iterator[Path]:
    """The image's files, mounted."""
    container = images._buildah("from", "--pull-never", "--name", f"tree-{uuid4().hex[:8]}", built)
    try:
        yield Path(images._buildah("mount", container))
    finally:
        images._buildah("rm", container)


def test_the_label_says_contract_version_and_revision(built: str) -> None:
    configuration = json.loads(images._buildah("inspect", "--type", "image", built))["OCIv1"]["config"]
    labels = configuration["Labels"]
    assert labels["dev.shipmate.contract"] == "1"
    assert labels["org.opencontainers.image.version"] == "7.0.0"
    assert labels["org.opencontainers.image.revision"] == "abcdef"
    assert configuration["User"] == "10001:10001"
    assert {"APP_VERSION=7.0.0", "APP_REVISION=abcdef", "MODEL_DIR=/model", "PORT=8000"} <= set(configuration["Env"])
    assert list(configuration["ExposedPorts"]) in (["8000"], ["8000/tcp"])


def test_it_is_the_code_half(tree: Path) -> None:
    assert list((tree / "model").iterdir()) == []
    assert (tree / "opt/app/BUILD").read_text() == "7.0.0\nabcdef\n"


def test_a_start_compiles_nothing(tree: Path) -> None:
    sources = [file for name in ("asyncio", "json", "http") for file in tree.glob(f"usr/lib/python3.*/{name}/*.py")]
    sources += [*(tree / "opt/app/app").glob("*.py"), *(tree / "opt/app/flask").glob("*.py")]
    assert len(sources) > 50
    without = [file for file in sources if not list((file.parent / "__pycache__").glob(f"{file.stem}.cpython-*.pyc"))]
    assert without == []


@pytest.mark.parametrize("name", ["pip*", "uv", "gcc*", "cc", "make", "apt", "apt-get", "git", "curl", "wget"])
def test_nothing_that_builds_or_fetches_is_left(tree: Path, name: str) -> None:
    found = [path for folder in ("usr/bin", "usr/local/bin", "opt/app/bin") for path in (tree / folder).glob(name)]
    assert found == []
    assert not list(tree.rglob("ensurepip"))
    assert not list(tree.rglob("pip-*.dist-info"))


def test_nothing_of_this_machine_is_in_it(tree: Path, built: str) -> None:
    mirror = images.debian_mirror(images._run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN)"]))
    host = mirror.split("/")[2]
    words = [host, str(images.TREE), str(cache_root()), str(Path.home() / ".cache")]
    for word in words:
        found = subprocess.run(["grep", "-rlF", word, "."], cwd=tree, capture_output=True, text=True, check=False)
        # debian.org's own mirrors are named in Debian's own files; this machine's paths and other mirrors are not
        is_debians = word == host and host.endswith("debian.org")
        assert found.stdout == "" or is_debians, f"{word} is in {found.stdout.split()[:3]}"
    # of the final stage's history; the stage that installs is not part of the image
    history = json.dumps(json.loads(images._buildah("inspect", "--type", "image", built))["OCIv1"])
    assert not any(word in history for word in words)
    assert not list((tree / "etc/apt").glob("sources.list*"))


def test_it_runs_as_nobody_and_writes_nothing(tree: Path) -> None:
    port = free_port()
    before = sorted(path.relative_to(tree) for path in tree.rglob("*"))
    environment = {"PYTHONPATH": "/opt/app", "PORT": str(port), "HOST": "127.0.0.1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"PATH": os.defpath, "APP_VERSION": "7.0.0", "MODEL_DIR": "/model"}
    command = [
        "/usr/sbin/chroot",
        "--userspec=10001:10001",
        str(tree),
        "/bin/sh",
        "-c",
        "cd /opt/app && exec python3 -m app",
    ]
    process = subprocess.Popen(command, env=environment)
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                reply = httpx.get(f"http://127.0.0.1:{port}/readyz", **PATIENTLY)
                if "being loaded" not in reply.text:
                    break
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)
        assert reply.status_code == 503
        assert reply.json()["type"] == "urn:shipmate:app:no-model"
        assert reply.headers["x-app-version"] == "7.0.0"
    finally:
        process.terminate()
        assert process.wait(20) == 0
    assert sorted(path.relative_to(tree) for path in tree.rglob("*")) == before


def test_the_same_tree_is_the_same_image(built: str) -> None:
    assert images.build_app("7.0.0", "abcdef") == built


@pytest.mark.registry
def test_a_code_publish_moves_only_the_small_layers(built: str, registry: Cloud) -> None:
    repository = f"vision-app-{uuid4().hex[:8]}"
    first = images.push(built, f"{registry.registry}/{repository}:main")
    style = (images.TREE / "app/static/try.css").read_text() + "/* changed */\n"
    changed = images.build_app("7.0.1", "abcdef", changes={"app/static/try.css": style})
    second = images.push(changed, f"{registry.registry}/{repository}:main")
    assert first != second
    layers = []
    for digest in (first, second):
        url = f"http://{registry.registry}/v2/{repository}/manifests/{digest}"
        manifest = httpx.get(url, headers={"Accept": MANIFEST}, **PATIENTLY).raise_for_status().json()
        layers.append({layer["digest"]: layer["size"] for layer in manifest["layers"]})
    new = {digest: size for digest, size in layers[1].items() if digest not in layers[0]}
    assert sum(new.values()) < 200_000
    assert sum(layers[1].values()) > 50_000_000


@pytest.mark.registry
def test_the_command_builds_and_pushes(registry: Cloud) -> None:
    reference = f"{registry.registry}/vision-app-{uuid4().hex[:8]}:main"
    arguments = ["build", "--version", "7.0.0", "--revision", "abcdef", "--push", reference]
    result = CliRunner().invoke(images.main, arguments)
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    assert told["pushed"] == reference
    assert told["digest"].startswith("sha256:")


def test_what_a_killed_build_left_is_removed_by_the_next(built: str) -> None:
    with images._alone("build"):  # else another test process that builds would remove it now
        left = images._buildah("from", "--pull-never", built)
        images._buildah("mount", left)
    assert "-working-container" in left
    images.build_app("7.0.0", "abcdef")
    assert left not in images._buildah("containers", "--noheading", "--format", "{{.ContainerName}}").split()


def test_a_push_to_nowhere_says_so(built: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ImageError, match=r"(?s)buildah .* failed with exit code \d+:.*connection refused"):
        images.push(built, f"127.0.0.1:{port}/x:main")


def test_a_change_of_a_file_that_is_not_there() -> None:
    with pytest.raises(ImageError, match=r"app/none\.py is not part of the image: a change needs one of its files"):
        images.build_app("7.0.2", "abcdef", changes={"app/none.py": ""})


def test_the_mirror_is_the_one_that_apt_uses() -> None:
    targets = "http://one.example/security/ Debian\nhttp://two.example/debian/ Debian\nhttp://three.example/ Node\n"
    assert images.debian_mirror(targets) == "http://two.example/debian/"
    with pytest.raises(ImageError, match="apt has no Debian mirror: run `apt-get update`"):
        images.debian_mirror("http://three.example/ Node\n")


def test_a_missing_program_is_named() -> None:
    with pytest.raises(ImageError, match="no-such-program is not there: `python -m localcloud setup` installs it"):
        images._run(["no-such-program"])
