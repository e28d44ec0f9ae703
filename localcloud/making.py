"""Make something slow once: whole or not at all, one process at a time, with progress on standard error.

`localcloud.debian`, `localcloud.toolchains` and `localcloud.setup` make their parts with it. Results are kept below the
cache folder, keyed by version; each is built under a temporary name and put in place as one, so an interrupted run
leaves nothing half made, and two runs at once wait for each other.
"""

import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from localcloud.config import cache_root


class SetupError(Exception):
    """Something could not be installed or built; the message says what to do."""


@dataclass
class _Clock:
    """Says how long a step takes, now and then."""

    what: str
    started: float = field(default_factory=time.monotonic)

    def elapsed(self) -> str:
        seconds = int(time.monotonic() - self.started)
        return f"{seconds // 60} min {seconds % 60:02} s" if seconds >= 60 else f"{seconds} s"

    def say(self, glyph: str, text: str) -> None:
        print(f"{glyph} {self.what}: {text}", file=sys.stderr, flush=True)


def run(
    command: Sequence[str],
    *,
    what: str,
    estimate: str,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    progress: re.Pattern[str] | None = None,
    say_every_seconds: float = 20,
) -> None:
    """Run a slow command, say how it gets on, and raise SetupError with the end of its output if it fails.

    Lines that match `progress` name the packages that are done. Interrupting it stops the command first.
    """
    clock = _Clock(what)
    clock.say("►", estimate)
    logs = cache_root() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{re.sub(r'[^a-z0-9.]+', '-', what.lower())[:80]}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        try:
            while True:
                try:
                    process.wait(timeout=say_every_seconds)
                    break
                except subprocess.TimeoutExpired:
                    done = len(progress.findall(log.read_text(errors="replace"))) if progress else 0
                    clock.say("►", f"{done} packages, {clock.elapsed()}" if progress else clock.elapsed())
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
    if process.returncode != 0:
        said = log.read_text(errors="replace").splitlines()
        end = "\n".join([line for line in said if not (progress and progress.match(line))][-15:])
        raise SetupError(f"{what} failed; run it again when this is mended, it goes on where it was ({log}):\n{end}")
    clock.say("✔", clock.elapsed())


@contextmanager
def only_one(name: str) -> Iterator[None]:
    """Let one process at a time make the thing called `name`; the kernel frees the lock with the process."""
    locks = cache_root() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(locks / name, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def made_whole(folder: Path, stamp: str) -> Iterator[Path]:
    """Give a fresh folder to fill; put it in place of `folder` when that went well, else throw it away."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for killed in folder.parent.glob(f".{folder.name}.*"):  # what a run that was killed left; the lock is ours
        shutil.rmtree(killed)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        fresh = Path(temporary) / "new"
        fresh.mkdir()
        yield fresh
        (fresh / ".stamp").write_text(stamp)
        if folder.exists():
            folder.replace(Path(temporary) / "old")
        fresh.replace(folder)


def is_made(folder: Path, stamp: str) -> bool:
    """Return whether a folder is there, made from what the stamp stands for."""
    try:
        return (folder / ".stamp").read_text() == stamp
    except FileNotFoundError:
        return False


def stamp_of(sources: Path) -> str:
    """Return a hash over a folder's files: what is made of it is made again when one of them changes."""
    digest = hashlib.sha256()
    for file in sorted(path for path in sources.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(sources)}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
