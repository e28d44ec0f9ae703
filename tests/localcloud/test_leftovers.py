"""What a cluster that ended leaves behind goes away, also if something holds it a moment longer."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from localcloud.kubernetes import leftovers
from localcloud.processes import StartError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "run"
    (made / "pods").mkdir(parents=True)
    return made


def busy(times: float) -> Callable[[Path], None]:
    """Return a removal that finds a folder busy so often."""
    left, remove = [times], shutil.rmtree

    def removal(path: Path) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(errno.EBUSY, "Device or resource busy", str(path / "pods"))
        remove(path)

    return removal


def test_a_folder_that_is_held_a_moment_longer_is_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "rmtree", busy(2))
    leftovers.remove_folder(folder)
    assert not folder.exists()


def test_a_folder_that_stays_is_told_with_what_holds_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "rmtree", busy(float("inf")))
    with pytest.raises(StartError) as raised:
        leftovers.remove_folder(folder, within_seconds=0.2)
    words = f"{folder} cannot be removed ({folder}/pods: Device or resource busy): try `down` once more"
    assert str(raised.value) == words


def test_a_folder_that_is_not_there_is_no_trouble(tmp_path: Path) -> None:
    leftovers.remove_folder(tmp_path / "never made")
