"""What the environment says to the app. Read once, in the worker, by `server`; nothing else reads the environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class SettingsError(Exception):
    """A variable has a value that cannot be; the message names it and says what it should be."""


@dataclass(frozen=True)
class Settings:
    """How this process runs; the defaults are those of the image."""

    model_dir: Path = Path("/model")
    port: int = 8000
    host: str = "0.0.0.0"  # noqa: S104 - inside a pod every address is the pod's own
    drain_seconds: float = 4.0
    drain_at_most_seconds: float = 12.0  # while questions still come
    app_version: str = "0.0.0"
    app_revision: str = "unknown"
    release: str | None = None
    pair: str | None = None


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Return the settings that the variables give.

    Raises SettingsError for a number that is none or is out of range.
    """
    default = Settings()
    return Settings(
        model_dir=Path(environment.get("MODEL_DIR") or default.model_dir),
        port=int(_number(environment, "PORT", default.port, 1, 65535)),
        host=environment.get("HOST") or default.host,
        drain_seconds=_number(environment, "DRAIN_SECONDS", default.drain_seconds, 0, 60),
        drain_at_most_seconds=_number(environment, "DRAIN_AT_MOST_SECONDS", default.drain_at_most_seconds, 0, 75),
        app_version=environment.get("APP_VERSION") or default.app_version,
        app_revision=environment.get("APP_REVISION") or default.app_revision,
        release=environment.get("SHIPMATE_RELEASE") or None,
        pair=environment.get("SHIPMATE_PAIR") or None,
    )


def _number(environment: Mapping[str, str], name: str, default: float, low: float, high: float) -> float:
    text = environment.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        raise SettingsError(f"{name} is {text!r}: it should be a number from {low:g} to {high:g}") from None
    if not low <= value <= high:
        raise SettingsError(f"{name} is {text}: it should be from {low:g} to {high:g}")
    return value
