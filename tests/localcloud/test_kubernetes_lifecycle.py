"""Start, crash, stop and reset the cluster for real, without disturbing the one that others use.

The cases (lifecycle_cases.py) run in namespaces of their own, which is also the proof that nothing of the cluster
needs, or has, a way off the machine.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from localcloud import debian, setup
from localcloud.config import cache_root
from tests.localcloud import answering

HERE = Path(__file__).parent


@pytest.mark.cluster
@pytest.mark.timeout(1800)
def test_the_clusters_life_on_a_machine_of_its_own(tmp_path: Path) -> None:
    debian.ensure_packages()
    setup.ensure_kubernetes()
    answering.archive()  # compiled here, where Go's cache can be reached
    output = tmp_path / "output"
    with output.open("wb") as file:
        finished = subprocess.run(
            [
                "sh",
                str(HERE / "own_machine.sh"),
                *(sys.executable, "-m", "pytest", "-v", "-x", "-p", "no:cacheprovider", "--timeout=400"),
                str(HERE / "lifecycle_cases.py"),
            ],
            cwd=HERE.parents[1],
            env={**os.environ, "XDG_STATE_HOME": str(tmp_path), "XDG_CACHE_HOME": str(cache_root().parent)},
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    assert finished.returncode == 0, output.read_text()
