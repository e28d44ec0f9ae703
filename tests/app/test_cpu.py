"""Processors by the control group's quota, on files as kernels write them."""

import os
from pathlib import Path

import pytest

from app.cpu import usable_cpus

ALL = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        pytest.param({}, ALL, id="no-control-groups"),
        pytest.param({"cpu.max": "max 100000\n"}, ALL, id="v2-no-quota"),
        pytest.param({"cpu.max": "50000 100000\n"}, 1, id="v2-half"),
        pytest.param({"cpu.max": "100000 100000\n"}, 1, id="v2-one"),
        pytest.param({"cpu.max": "6400000 100000\n"}, ALL, id="v2-more-than-there-are"),
        pytest.param({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, ALL, id="v1-no-quota"),
        pytest.param({"cpu/cpu.cfs_quota_us": "25000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1, id="v1-quarter"),
        pytest.param(
            {"cpu,cpuacct/cpu.cfs_quota_us": "150000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            min(2, ALL),
            id="v1-one-and-a-half-rounds-up",
        ),
    ],
)
def test_usable_cpus(tmp_path: Path, files: dict[str, str], cpus: int) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cpus(tmp_path) == cpus
