"""How many processors this process may use. ONNX Runtime would count the host's, not the container's share of them."""

import math
import os
from pathlib import Path


def usable_cpus(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the processors that the cgroup's quota allows, rounded up, at most those this process may be placed on.

    `root` is the control group file system as a container sees it: version 2 keeps `cpu.max` there, version 1
    `cpu/cpu.cfs_quota_us` and `cpu/cpu.cfs_period_us`. Without a quota every processor counts.
    """
    affinity = len(os.sched_getaffinity(0))
    quota = _quota(root)
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


def _quota(root: Path) -> float | None:
    """Return the quota in processors, None where there is none."""
    unified = root / "cpu.max"
    if unified.is_file():
        quota, period = unified.read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    for controller in ("cpu", "cpu,cpuacct"):
        allowance = root / controller / "cpu.cfs_quota_us"
        if allowance.is_file():
            quota_us = int(allowance.read_text())
            period_us = int((root / controller / "cpu.cfs_period_us").read_text())
            return None if quota_us < 0 else quota_us / period_us
    return None
