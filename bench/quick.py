"""`make bench-quick`: the main job against its baselines, in about 12 minutes. Writes `.bench/report.json`.

`python -m bench.quick rollouts` or `… graft` measures one half of it; `python -m bench.document` writes it down.
"""

import json
import sys
import time
from pathlib import Path

from bench import graft
from bench.figures import lines
from bench.rollouts import OURS, Rollouts
from localcloud import images
from localcloud.cloud import EXAMPLE_TARGETS, LocalCloud
from localcloud.config import Cloud
from localcloud.demo.api import Api
from localcloud.kubernetes import cluster
from localcloud.processes import StartError, talk_directly
from localcloud.talk import say

REPORT = Path(".bench/report.json")
ROUNDS = 3
RELEASES = 20
DOOR_WITHIN_SECONDS = 120.0


def main() -> int:
    """Measure, print, write the report; return 1 if a goal is missed."""
    talk_directly()
    parts = sys.argv[1:] or ["rollouts", "graft"]
    local = LocalCloud(Cloud("bench"))
    local.wipe()
    url = _door(local)
    text = EXAMPLE_TARGETS.read_text().replace("namespace: vision", f"namespace: {OURS}")
    local.start(targets_yaml=text.replace("http://127.77.0.1:8080", url))
    ok = True
    report: dict[str, object] = json.loads(REPORT.read_text()) if REPORT.exists() else {}  # the other half stays
    try:
        if "rollouts" in parts:
            say("doing", f"{RELEASES} releases under users who keep asking, and as many rollouts by hand: 6 minutes")
            ok &= _rollouts(local, url, report)
        if "graft" in parts:
            say("doing", "grafts of 1 GiB and 4 GiB: 6 minutes")
            ok &= _graft(local, report)
    finally:
        local.target_cluster().run("delete", "namespace", OURS, "--wait=false", may_fail=True)
        local.wipe()
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if ok else 1


def _rollouts(local: LocalCloud, url: str, report: dict[str, object]) -> bool:
    """Measure publish to live and users' requests; print them, note them, and return whether the goals are met."""
    api = Api(local.cloud.functions_url, local.api_key, "vision")
    comparisons, seen, releases = Rollouts(local, api, url).measure(ROUNDS, RELEASES)
    _print(lines(comparisons))
    glyph = "✔" if seen.failed == 0 else "✗"
    _print(f"{glyph} {seen.requests} requests of users over {releases} releases: {seen.failed} failed, goal 0")
    report["rollouts"] = [each.as_json() for each in comparisons]
    report["users"] = {
        "requests": seen.requests,
        "failed": seen.failed,
        "faults": dict(seen.faults),
        "slowest_seconds": round(seen.slowest_seconds, 3),
        "releases": releases,
    }
    return seen.failed == 0 and all(each.met for each in comparisons)


def _graft(local: LocalCloud, report: dict[str, object]) -> bool:
    """Measure the graft; print it, note it, and return whether the goals are met."""
    images.push(images.build_app("1.0.0", revision="bench"), f"{local.cloud.registry}/vision-app:main")
    comparisons, peaks = graft.measure(local.cloud, f"{local.cloud.registry}/vision-app:main")
    memory = max(peaks.values())
    _print(lines(comparisons))
    glyph = "✔" if memory <= graft.PEAK_GOAL_MIB else "✗"
    _print(f"{glyph} peak memory {memory:.0f} MiB, goal at most {graft.PEAK_GOAL_MIB:.0f} MiB")
    report["graft"] = [each.as_json() for each in comparisons]
    report["peak_memory_mib"] = peaks
    return memory <= graft.PEAK_GOAL_MIB and all(each.met for each in comparisons)


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _door(local: LocalCloud) -> str:
    """Return the public address of the target's Service, which is made first, for the targets file names it.

    Raises StartError if it gets none.
    """
    cluster.up()
    cluster.add_registry_mirror(local.cloud.registry)
    found = local.target_cluster()
    found.apply_target(local.cloud, OURS)
    deadline = time.monotonic() + DOOR_WITHIN_SECONDS
    while (url := found.public_url(OURS)) is None:
        if time.monotonic() > deadline:
            raise StartError(f"the Service of {OURS} got no address; `make status` names the cluster's logs to read")
        time.sleep(0.2)
    return url


if __name__ == "__main__":
    sys.exit(main())
