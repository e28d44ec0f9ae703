"""Making something slow: whole or not at all, one at a time, with progress and messages that help."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from localcloud import making


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "shipmate"


def test_a_thing_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "thing-1.0"

    def make(content: str, *, interrupted: bool = False) -> None:
        with making.made_whole(folder, stamp=content) as fresh:
            (fresh / "program").write_text(content)
            if interrupted:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make("first", interrupted=True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".thing-1.0.abc" / "new").mkdir(parents=True)  # what a killed run left
    make("first")
    with pytest.raises(KeyboardInterrupt):
        make("second", interrupted=True)
    assert (folder / "program").read_text() == "first"
    assert making.is_made(folder, "first")
    make("second")
    assert (folder / "program").read_text() == "second"
    assert making.is_made(folder, "second")
    assert not making.is_made(folder, "first")
    assert list(tmp_path.iterdir()) == [folder]


def test_one_at_a_time_makes_a_thing(cache: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def make() -> None:
        with making.only_one("thing"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


def test_progress_tells_the_estimate_and_the_time(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = "echo some/package; echo other/package; sleep 2"
    making.run(
        ["sh", "-c", script],
        what="compiling it",
        estimate="about 10 minutes",
        progress=re.compile(r"^[\w/]+$", re.MULTILINE),
        say_every_seconds=0.2,
    )
    first, *between, last = capfd.readouterr().err.splitlines()
    assert first == "► compiling it: about 10 minutes"
    assert re.fullmatch(r"► compiling it: 2 packages, \d+ s", between[-1])
    assert re.fullmatch(r"✔ compiling it: \d+ s", last)


def test_a_failure_shows_the_end_of_the_output_and_names_the_log(cache: Path) -> None:
    script = "echo main.go:7: undefined: x; echo some/package; exit 3"
    with pytest.raises(making.SetupError) as failed:
        making.run(
            ["sh", "-c", script], what="compiling it", estimate="", progress=re.compile(r"^[\w/]+$", re.MULTILINE)
        )
    log = cache / "logs" / "compiling-it.log"
    assert str(failed.value) == (
        f"compiling it failed; run it again when this is mended, it goes on where it was ({log}):\n"
        "main.go:7: undefined: x"
    )


def test_interrupting_it_stops_what_runs(cache: Path, tmp_path: Path) -> None:
    command = ["sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 60"]
    script = f"from localcloud import making; making.run({command}, what='it', estimate='', say_every_seconds=0.1)"
    # what is started in the background heeds no interrupt, and its children would not
    heeding = ["env", "--default-signal=INT"]
    process = subprocess.Popen([*heeding, sys.executable, "-c", script], stderr=subprocess.PIPE)
    assert process.stderr is not None
    begins, gets_on = process.stderr.readline(), process.stderr.readline()
    assert begins == "► it: \n".encode()
    assert re.fullmatch(r"► it: \d+ s\n", gets_on.decode())
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == -signal.SIGINT
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
