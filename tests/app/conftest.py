"""Fixtures of the app's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.lifecycle import Lifecycle
from app.settings import Settings
from examples import models
from tests.app.apps import RunningApp, running, tiny_folder


@pytest.fixture
def lifecycle(tmp_path: Path) -> Lifecycle:
    """Of an app with the tiny model."""
    loaded = Lifecycle(Settings(model_dir=tiny_folder(tmp_path)))
    loaded.load()
    return loaded


@pytest.fixture(scope="session")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EfficientNet-Lite0 as published."""
    folder = tmp_path_factory.mktemp("lite0")
    models.write("lite0", folder, version="1.0")
    return folder


@pytest.fixture(scope="session")
def app(lite0: Path) -> Iterator[RunningApp]:
    """The app with EfficientNet-Lite0; for tests that leave it as it was."""
    with running(lite0) as started:
        started.wait()
        yield started
