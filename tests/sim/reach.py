"""stub for now."""

from typing import Any


def at_crash(hub: Any, actor: Any, operation: Any) -> None: ...
