"""Settings from the environment, and the command that refuses wrong ones."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import Settings, SettingsError, from_environment

TREE = Path(__file__).resolve().parents[2]


def test_defaults() -> None:
    assert from_environment({}) == Settings()
    assert Settings().model_dir == Path("/model")
    assert (Settings().drain_seconds, Settings().drain_at_most_seconds) == (4, 12)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"PORT": "http"}, "PORT is 'http': it should be a number from 1 to 65535"),
        ({"PORT": "70000"}, "PORT is 70000: it should be from 1 to 65535"),
        ({"DRAIN_SECONDS": "-1"}, "DRAIN_SECONDS is -1: it should be from 0 to 60"),
        ({"DRAIN_AT_MOST_SECONDS": "80"}, "DRAIN_AT_MOST_SECONDS is 80: it should be from 0 to 75"),
    ],
)
def test_mistakes(variables: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError) as raised:
        from_environment(variables)
    assert str(raised.value) == message


def test_the_command_says_the_mistake_and_nothing_else() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "app"], cwd=TREE, env={"PORT": "x"}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr == "PORT is 'x': it should be a number from 1 to 65535\n"
