"""`make bench-quick`: the main job against its baselines, in a few minutes. Writes `.bench/report.json`."""

import json
import sys
import time
from pathlib import Path

from bench import graft
from bench.figures import lines
from bench.rollouts import OURS, Rollouts
from localcloud.cloud import EXAMPLE_TARGETS, LocalCloud
from localcloud.config import Cloud
from localcloud.demo.api import Api
from localcloud.kubernetes import cluster

REPORT = Path(".bench/report.json")
ROUNDS = 3
RELEASES = 20


def main() -> int:
    """Measure, print, write the report; return 1 if a goal is missed."""
    local = LocalCloud(Cloud("bench"))
    local.wipe()
    url = _door(local)
    text = EXAMPLE_TARGETS.read_text().replace("namespace: vision", f"namespace: {OURS}")
    local.start(targets_yaml=text.replace("http://127.77.0.1:8080", url))
    try:
        api = Api(local.cloud.functions_url, local.api_key, "vision")
        rollouts, seen, releases = Rollouts(local, api, url).measure(ROUNDS, RELEASES)
        grafts, peaks = graft.measure(local.cloud, f"{local.cloud.registry}/vision-app:main")
    finally:
        local.target_cluster().run("delete", "namespace", OURS, "--wait=false", may_fail=True)
        local.stop()
    comparisons = [*rollouts, *grafts]
    users = f"{seen.requests} requests of users over {releases} releases: {seen.failed} failed, goal 0"
    memory = max(peaks.values())
    ok = all(each.met for each in comparisons) and seen.failed == 0 and memory <= graft.PEAK_GOAL_MIB
    sys.stdout.write(lines(comparisons) + "\n")
    sys.stdout.write(f"{'✔' if seen.failed == 0 else '✗'} {users}\n")
    sys.stdout.write(
        f"{'✔' if memory <= graft.PEAK_GOAL_MIB else '✗'} peak memory {memory:.0f} MiB, goal at most 150 MiB\n"
    )
    REPORT.parent.mkdir(exist_ok=True)
    report = {
        "comparisons": [each.as_json() for each in comparisons],
        "users": {"requests": seen.requests, "failed": seen.failed, "faults": dict(seen.faults), "releases": releases},
        "peak_memory_mib": peaks,
    }
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if ok else 1


def _door(local: LocalCloud) -> str:
    """Return the public address of the target's Service, which is made first, for the targets file names it."""
    cluster.up()
    cluster.add_registry_mirror(local.cloud.registry)
    found = local.target_cluster()
    found.apply_target(local.cloud, OURS)
    while (url := found.public_url(OURS)) is None:
        time.sleep(0.2)
    return url


if __name__ == "__main__":
    sys.exit(main())
