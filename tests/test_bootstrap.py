"""tools/bootstrap.sh makes the environment once, makes it again when it must, and says what to install."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.environment

ROOT = Path(__file__).parents[1]
NO_MACHINE = {"PATH": "/usr/bin:/bin", "HOME": "/nowhere", "PYENV_ROOT": "/nowhere"}


def without_packages(folder: Path) -> Path:
    """Return a tree that needs no packages."""
    (folder / "tools").mkdir(parents=True)
    (folder / "app").mkdir()
    shutil.copy(ROOT / "tools" / "bootstrap.sh", folder / "tools")
    for name in ("constraints.txt", "requirements.txt", "requirements-dev.txt", "app/requirements.txt"):
        (folder / name).write_text("")
    return folder


def bootstrap(tree: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tree / "tools" / "bootstrap.sh"],
        cwd="/",
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tree whose environment was made on a machine where most Pythons are shims that fail."""
    folder = tmp_path_factory.mktemp("machine")
    shims, pyenv = folder / "shims", folder / "pyenv" / "versions" / "3.13.9" / "bin"
    shims.mkdir()
    for name in ("python3.13", "python3", "uv"):
        (shims / name).write_text("#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
        (shims / name).chmod(0o755)
    pyenv.mkdir(parents=True)
    (pyenv / "python3.13").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (pyenv / "python3.13").chmod(0o755)
    tree = without_packages(folder / "tree")
    made = bootstrap(tree, **NO_MACHINE | {"PATH": f"{shims}:/usr/bin:/bin", "PYENV_ROOT": str(folder / "pyenv")})
    assert made.returncode == 0, made.stderr
    assert ".venv is made with Python 3.13" in made.stderr
    assert "✔ .venv is ready" in made.stderr
    return tree


def test_nothing_is_done_when_nothing_changed(tree: Path) -> None:
    assert bootstrap(tree).returncode == 0
    again = bootstrap(tree, PYTHON="/nowhere/python")
    assert (again.returncode, again.stderr) == (0, "")


def test_changed_pins_are_installed_into_the_same_environment(tree: Path) -> None:
    (tree / "constraints.txt").write_text("# newer\n")
    changed = bootstrap(tree)
    assert changed.returncode == 0, changed.stderr
    assert "packages of requirements-dev.txt are installed" in changed.stderr
    assert "is made with" not in changed.stderr


def test_what_pip_says_is_shown_and_the_next_run_tries_again(tree: Path) -> None:
    (tree / "requirements-dev.txt").write_text("--no-index\nno-such-package-anywhere\n")
    failed = bootstrap(tree)
    assert failed.returncode != 0
    assert "No matching distribution found for no-such-package-anywhere" in failed.stderr
    assert "No matching distribution" in bootstrap(tree).stderr
    (tree / "requirements-dev.txt").write_text("")
    assert bootstrap(tree).returncode == 0


def only_tools(folder: Path) -> dict[str, str]:
    """Return the environment of a machine without any Python."""
    folder.mkdir()
    for name in ("bash", "cat", "cksum", "dirname", "env", "flock", "grep"):
        (folder / name).symlink_to(shutil.which(name) or "")
    return NO_MACHINE | {"PATH": str(folder)}


def test_without_python_it_says_what_to_install(tmp_path: Path) -> None:
    tree = without_packages(tmp_path / "tree")
    missing = bootstrap(tree, **only_tools(tmp_path / "tools-only"))
    assert missing.returncode == 1
    assert "✗ Python 3.13 was not found" in missing.stderr
    assert "apt-get install python3.13 python3.13-venv" in missing.stderr
    assert "make <target> PYTHON=/path/to/python3.13" in missing.stderr
    assert not (tree / ".venv").exists()


def test_a_copied_tree_does_not_use_the_other_trees_environment(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "copy", symlinks=True)
    refused = bootstrap(tmp_path / "copy", **only_tools(tmp_path / "tools-only"))
    assert "✗ Python 3.13 was not found" in refused.stderr


def test_an_environment_that_is_a_link_to_another_trees_stays_whole(tree: Path, tmp_path: Path) -> None:
    linked = without_packages(tmp_path / "linked")
    (linked / ".venv").symlink_to(tree / ".venv")
    made = bootstrap(linked, PYTHON=sys.executable)
    assert made.returncode == 0, made.stderr
    assert not (linked / ".venv").is_symlink()
    assert (tree / ".venv" / "bin" / "python").exists()
