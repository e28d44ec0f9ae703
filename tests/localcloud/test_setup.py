"""What is installed and built: it works, is not made again, and is pinned by hash."""

import json
import subprocess
from pathlib import Path

import pytest

from localcloud import debian, setup
from localcloud.making import SetupError


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
    setup.ensure_all()
    assert capfd.readouterr().err == ""
    kubectl = json.loads(run(str(setup.ensure_kubernetes() / "kubectl"), "version", "--client", "--output=json"))
    assert kubectl["clientVersion"]["gitVersion"] == f"v{setup.KUBERNETES_VERSION}"
    for program in setup.KUBERNETES_PROGRAMS[:-1]:
        assert f"v{setup.KUBERNETES_VERSION}" in run(str(setup.ensure_kubernetes() / program), "--version")
    assert f"v{setup.REGISTRY_VERSION}" in run(str(setup.ensure_registry()), "--version")
    assert run(str(setup.ensure_crane()), "version").strip() == f"v{setup.CRANE_VERSION}"
    assert run(*setup.ensure_azurite(), "--version").strip() == setup.AZURITE_VERSION
    assert debian.missing_packages() == []


def test_a_disk_that_is_too_small_is_told_before_compiling(cache: Path) -> None:
    with pytest.raises(SetupError, match="GB left: make room, or set XDG_CACHE_HOME and GOCACHE to a larger disk"):
        setup._require_space(10**18)


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
