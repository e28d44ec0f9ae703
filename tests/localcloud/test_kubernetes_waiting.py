"""Waiting for what the API server says: it may be late, refuse at first, or never say it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localcloud.kubernetes import cluster
from localcloud.processes import Program, StartError

BUSY = StartError("the API server answers GET /api/v1/nodes with 503: busy")


@pytest.fixture
def part(tmp_path: Path) -> Iterator[Program]:
    part = Program("kubelet", ["sleep", "60"], tmp_path)
    part.start(lambda: True)
    yield part
    part.stop()


def saying(*answers: bool | Exception) -> Callable[[], bool]:
    """Return who says one thing after the other, and the last of them for ever."""
    left = list(answers)

    def ask() -> bool:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return ask


def test_an_api_server_that_is_late_is_waited_for(part: Program) -> None:
    cluster._wait_for(saying(TimeoutError("timed out"), BUSY, False, True), "the node", part)


def test_what_never_comes_is_told_with_the_last_trouble_and_the_log(part: Program) -> None:
    with pytest.raises(StartError) as told:
        cluster._wait_for(saying(BUSY), "the node", part, within_seconds=0.3)
    assert str(told.value) == f"the node is not ready after 0 s ({BUSY}); read {part.log}"
    with pytest.raises(StartError, match=r"the node is not ready after 0 s; read "):
        cluster._wait_for(saying(False), "the node", part, within_seconds=0.3)


def test_a_part_that_ends_is_started_again(part: Program) -> None:
    part.stop()  # as a kubelet ends that comes before containerd is ready for it
    cluster._wait_for(saying(False, False, True), "the node", part)
    assert part.pid() is not None


def test_a_part_that_always_ends_is_not_waited_for(tmp_path: Path) -> None:
    part = Program("kubelet", ["false"], tmp_path)
    with pytest.raises(StartError, match="kubelet stopped while it was starting; read "):
        cluster._wait_for(saying(False), "the node", part)
