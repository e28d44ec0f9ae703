"""Every single fault at every call of a few fixed histories: crash windows are found here without luck.

Random search finds what needs several coincidences; this finds each window that one fault opens, each time.
"""

from collections.abc import Iterator

from tests.sim.faults import Fault, HeardFaults, ListedFaults
from tests.sim.history import History
from tests.sim.plans import Happening, Plan, Setting
from tests.sim.simulation import Simulation

_SETTING = Setting(sweep_off=True, chaos_seconds=160.0)
_FIRST = (
    Happening(at=1.0, what="app", version="app-0.0"),
    Happening(at=1.2, what="model", version="model-0"),
)


def _plan(*happenings: Happening, segment_entries: int = 0) -> Plan:
    setting = Setting(sweep_off=True, chaos_seconds=_SETTING.chaos_seconds, segment_entries=segment_entries)
    return Plan(setting=setting, happenings=(*_FIRST, *happenings))


SCRIPTS = {
    "a model is published": _plan(Happening(at=25, what="model", version="model-1")),
    "code is published": _plan(Happening(at=25, what="app", version="app-0.1")),
    "both halves change": _plan(
        Happening(at=25, what="app", version="app-0.1"), Happening(at=25.3, what="model", version="model-1")
    ),
    "a bad model is published": _plan(Happening(at=25, what="model", version="model-1", quality="wrong")),
    "code that nobody reaches is published": _plan(Happening(at=25, what="app", version="app-0.1", quality="broken")),
    "a rollback": _plan(
        Happening(at=25, what="model", version="model-1"), Happening(at=50, what="rollback", key="key-1")
    ),
    "a hold, a publish and a resume": _plan(
        Happening(at=25, what="hold", key="key-1"),
        Happening(at=27, what="model", version="model-1"),
        Happening(at=50, what="resume", key="key-2"),
    ),
    "a model is published, segments being short": _plan(
        Happening(at=25, what="model", version="model-1"), segment_entries=3
    ),
}
"""Name → a history that goes well without faults."""
PAUSE_SECONDS = 45.0


def single_faults(plan: Plan) -> Iterator[tuple[str, str, int, Fault]]:
    """Yield every single fault that a plan's history has a place for: the call, and what happens to it."""
    heard = HeardFaults()
    Simulation(1, plan, heard).run()
    for actor, operation, occurrence in heard.calls:
        kinds = [Fault.CRASH_BEFORE, Fault.AWAY]
        if operation.writes:
            kinds += [Fault.LOST_REPLY, Fault.CRASH_AFTER, Fault.REPEATED, Fault.PAUSE]
        for kind in kinds:
            yield actor, operation.name, occurrence, kind


def with_fault(plan: Plan, actor: str, operation: str, occurrence: int, fault: Fault) -> History:
    """Run a plan with one fault in it; a worker that sleeps loses its message to another."""
    seconds = PAUSE_SECONDS if fault is Fault.PAUSE else 0.05
    faults = ListedFaults({(actor, operation, occurrence): (fault, seconds)}, {f"{actor} lease": 1.0})
    return Simulation(1, plan, faults).run()
