"""Every single fault at every call of a few fixed histories: crash windows are found here without luck.

Random search finds what needs several coincidences; this finds each window that one fault opens, each time.
"""

import dataclasses
from collections.abc import Iterable, Iterator

from tests.sim.faults import Fault, HeardFaults, ListedFaults
from tests.sim.history import History
from tests.sim.plans import Happening, Plan, Setting
from tests.sim.simulation import Simulation

_FIRST = (
    Happening(at=1.0, what="app", version="app-0.0"),
    Happening(at=1.2, what="model", version="model-0"),
)
_MODEL = Happening(at=25, what="model", version="model-1")
_APP = Happening(at=25, what="app", version="app-0.1")
ROLLS_OUT_AT = 31.0
"""In seconds, when what is published first after the first release is patched in and its pods are not ready yet."""


@dataclasses.dataclass(frozen=True)
class Script:
    """A history that goes well without faults. `live`: what is live at its end; `reaches`: of `tests.sim.reach`."""

    plan: Plan
    live: str
    reaches: frozenset[str]


def _script(*happenings: Happening, live: str, reaches: Iterable[str] = (), segment_entries: int = 0) -> Script:
    setting = Setting(sweep_off=True, chaos_seconds=160.0, segment_entries=segment_entries)
    return Script(Plan(setting=setting, happenings=(*_FIRST, *happenings)), live, frozenset(reaches))


SCRIPTS = {
    "a model is published": _script(_MODEL, live="app-0.0 with model-1"),
    "code is published": _script(_APP, live="app-0.1 with model-0"),
    "both halves change": _script(
        _APP,
        Happening(at=25.3, what="model", version="model-1"),
        live="app-0.1 with model-1",
        reaches=["a model and an app make one release"],
    ),
    "a bad model is published": _script(
        Happening(at=25, what="model", version="model-1", quality="wrong"),
        live="app-0.0 with model-0",
        reaches=["a gate rejects"],
    ),
    "code that nobody reaches is published": _script(
        Happening(at=25, what="app", version="app-0.1", quality="broken"),
        live="app-0.0 with model-0",
        reaches=["a bad release is rolled back by itself"],
    ),
    "code and a bad model make one release": _script(
        _APP,
        Happening(at=25.3, what="model", version="model-1", quality="wrong"),
        live="app-0.1 with model-0",
        reaches=["the halves of a rejected pair are asked apart"],
    ),
    "a partner is waited for": _script(
        Happening(at=25, what="model", version="model-1", contract="2"),
        Happening(at=45, what="app", version="app-0.1", contract="2"),
        live="app-0.1 with model-1",
        reaches=["a partner comes"],
    ),
    "a live model is deleted": _script(
        _MODEL,
        Happening(at=50, what="loss", scope="model"),
        Happening(at=55, what="app", version="app-0.1"),
        live="app-0.0 with model-1",
        reaches=["what is live is deleted where it was published"],
    ),
    "a rollback": _script(
        _MODEL,
        Happening(at=50, what="rollback", key="key-1"),
        live="app-0.0 with model-0",
        reaches=["a person rolls back"],
    ),
    "a rollback of what rolls out": _script(
        _MODEL,
        Happening(at=ROLLS_OUT_AT, what="rollback", key="key-1"),
        live="app-0.0 with model-0",
        reaches=["a person rolls back", "a person's wish ends a release on its way"],
    ),
    "a release by hand": _script(
        _MODEL, Happening(at=50, what="release", key="key-1", to="r-1"), live="app-0.0 with model-0"
    ),
    "a quarantine is overridden": _script(
        _MODEL,
        Happening(at=50, what="rollback", key="key-1"),
        Happening(at=60, what="resume", key="key-2"),
        Happening(at=75, what="release", key="key-3", to="r-2", override=True),
        live="app-0.0 with model-1",
        reaches=["a quarantined pair is released by override"],
    ),
    "a hold, a publish and a resume": _script(
        Happening(at=25, what="hold", key="key-1"),
        Happening(at=27, what="model", version="model-1"),
        Happening(at=50, what="resume", key="key-2"),
        live="app-0.0 with model-1",
        reaches=["a release waits under a hold", "a held release ships"],
    ),
    "a hold on models, code and a resume": _script(
        Happening(at=25, what="hold", key="key-1", scope="model"),
        Happening(at=27, what="model", version="model-1"),
        Happening(at=29, what="app", version="app-0.1"),
        Happening(at=60, what="resume", key="key-2"),
        live="app-0.1 with model-1",
        reaches=["a hold on one half lets the other ship", "a held release ships"],
    ),
    "a hold while something rolls out, and a resume": _script(
        _MODEL,
        Happening(at=ROLLS_OUT_AT, what="hold", key="key-1"),
        Happening(at=70, what="resume", key="key-2"),
        live="app-0.0 with model-1",
    ),
    "a model is published, segments being short": _script(
        _MODEL, live="app-0.0 with model-1", reaches=["a segment is rolled"], segment_entries=3
    ),
}
"""Name → a script."""
PAUSE_SECONDS = 45.0


def single_faults(plan: Plan) -> Iterator[tuple[str, str, int, Fault]]:
    """Yield every single fault that a plan's history has a place for: the call, and what happens to it."""
    heard = HeardFaults()
    Simulation(1, plan, heard).run()
    for actor, operation, occurrence in heard.calls:
        kinds = [Fault.CRASH_BEFORE, Fault.AWAY, Fault.PAUSE]
        if operation.writes:
            kinds += [Fault.LOST_REPLY, Fault.CRASH_AFTER, Fault.REPEATED]
        for kind in kinds:
            yield actor, operation.name, occurrence, kind


def with_fault(plan: Plan, actor: str, operation: str, occurrence: int, fault: Fault) -> History:
    """Run a plan with one fault in it; a worker that sleeps loses its message to another."""
    seconds = PAUSE_SECONDS if fault is Fault.PAUSE else 0.05
    faults = ListedFaults({(actor, operation, occurrence): (fault, seconds)}, {f"{actor} lease": 1.0})
    return Simulation(1, plan, faults).run()
