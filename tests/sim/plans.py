"""What happens in a history: publishes, commands, outages, clean-ups. Drawn from a seed, or written down in a scenario.

A plan is data, so that a failing seed can be made smaller one happening at a time and be kept as a file.
"""

from typing import Literal

import msgspec

from tests.sim.dice import Dice
from tests.sim.faults import SYSTEMS, Faults

CHAOS_SECONDS = 600.0
TURN_SECONDS = 240.0
HOSTS = 3
REAL_STORE = range(11, 2**63, 12)
"""The seeds that use the real ledger store, with segments of a few entries; it takes more time than the fast one."""

type What = Literal[
    "app",
    "model",
    "hold",
    "resume",
    "rollback",
    "release",
    "outage",
    "clean-up",
    "loss",
    "restore",
    "policy",
    "sweep",
    "touch",
]
type Quality = Literal["good", "wrong", "failing", "gone", "broken", "unpullable", "refused"]
"""What a half is worth; those of the last two are as good as others, and in trouble all the same: `TROUBLE`."""

TROUBLE = {
    "unpullable": "cannot pull its image",  # no node can pull a release image with this half
    "refused": "the registry takes no",  # the registry refuses each release image with this half
}
"""Quality of a half that is in trouble for good, for what lies outside of it → what names the trouble on record."""


class Happening(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One thing that somebody does, or that befalls a system."""

    at: float  # seconds from the start
    what: What
    target: str = "vision-0"
    version: str = ""
    contract: str = "1"
    quality: Quality = "good"
    folder: str | None = None  # a model is uploaded under another name
    deliveries: tuple[float, ...] = (0.1,)  # seconds until each delivery of the event; none: it is dropped
    key: str = ""  # of a command
    again: tuple[float, ...] = ()  # seconds until a command is sent again, after it was answered
    to: str | None = None  # a command's release
    override: bool = False
    scope: Literal["all", "app", "model"] = "all"  # of a hold; of a loss, the half
    if_live: str | None = None
    system: str = ""
    seconds: float = 0.0


class Setting(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What does not change during a history."""

    targets: int = 1
    sweep_off: bool = False
    segment_entries: int = 0  # 0: the fast store; else the real one, with segments of so many entries
    guarded: bool = False  # whether the admission policies are installed
    most_deliveries: int = 0  # of a message, before it is poisoned; 0: never
    skews: tuple[float, ...] = (0.0,) * HOSTS  # of the hosts' clocks, in seconds
    chaos_seconds: float = CHAOS_SECONDS
    turn_seconds: float = TURN_SECONDS  # after which an invocation hands over to the next


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A history to be."""

    setting: Setting
    happenings: tuple[Happening, ...]


def app_version(target: str, number: int) -> str:
    """Return a version of a target's app: no two targets have the same."""
    return f"app-{target.rpartition('-')[2]}.{number}"


def drawn(seed: int, faults: Faults) -> Plan:
    """Return the plan of a seed."""
    dice = faults.dice
    sweep_off = dice.draw("sweep off") < 0.5
    skew = 300.0 if faults.strength("skew") else 1.0
    setting = Setting(
        targets=2 if dice.draw("targets") < 0.2 else 1,
        sweep_off=sweep_off,
        segment_entries=3 + dice.bits("segments") % 4 if seed in REAL_STORE else 0,
        guarded=dice.draw("guarded") < 0.3,
        most_deliveries=5 if not sweep_off and dice.draw("poison") < 0.6 else 0,
        turn_seconds=TURN_SECONDS / 40 if dice.draw("turns") < 0.3 else TURN_SECONDS,
        skews=tuple(dice.between(-skew, skew, "skew", host) for host in range(HOSTS)),
    )
    drawer = _Drawer(faults, setting)
    return Plan(setting=setting, happenings=tuple(drawer.happenings()))


class _Drawer:
    """Draws the happenings of one seed."""

    def __init__(self, faults: Faults, setting: Setting) -> None:
        self.faults = faults
        self.dice: Dice = faults.dice
        self.setting = setting
        self.found: list[Happening] = []
        self.names = [f"vision-{number}" for number in range(setting.targets)]
        self.before: dict[tuple[str, str], str] = {}  # kind and target → the good version published last

    def happenings(self) -> list[Happening]:
        for number, name in enumerate(self.names):
            self._ordinary("app", 1.0 + number, name, app_version(name, 0), -1 - number)
        self._ordinary("model", 1.5, self.names[0], "model-0", -3)
        at = 10.0
        for number in range(1, 2 + self.dice.bits("publishes") % 5):
            near = self.dice.draw("near", number) < 0.4
            at = at + self.dice.between(0, 20, "step", number) if near else self.dice.between(10, 480, "at", number)
            self._another(number, at)
        self._people()
        self._trouble()
        return self.found

    def _another(self, number: int, at: float) -> None:
        dice = self.dice
        share, name = dice.draw("publish", number), dice.pick(self.names, "whose", number)
        bad = 1.0 if self.faults.strength("wrong halves") else 0.0
        app, model = app_version(name, number), f"model-{number}"
        if share < 0.10 * bad:
            self._publish("app", at, name, app, quality="broken")
        elif share < 0.20 * bad:
            self._publish("model", at, name, model, quality="wrong")
            if dice.draw("again", number) < 0.5:  # the same bytes under another name
                self._publish("model", at + dice.between(20, 200, "again at", number), name, model, folder=f"{model}-b")
        elif share < 0.26 * bad:
            self._publish("model", at, name, model, quality=dice.pick(("failing", "gone"), "how", number))
        elif share < 0.36:
            first, second = dice.pick((("app", "model"), ("model", "app")), "first", number)
            version = {"app": app, "model": model}
            self._publish(first, at, name, version[first], contract="2")
            if dice.draw("partner", number) < 0.6:
                later = at + dice.between(5, 150, "partner at", number)
                self._publish(second, later, name, version[second], contract="2")
        elif share < 0.44:
            self._publish("app", at, name, app_version(name, dice.bits("older", number) % number))
        elif share < 0.50:
            older = dice.bits("older", number) % number
            self._publish("model", at, name, f"model-{older}", folder=f"model-{older}-{number}")
        elif share < 0.55:  # the same blobs are written again, perhaps twice in a row
            self._publish("model", at, name, "model-0")
            if dice.draw("twice", number) < 0.5:
                self._publish("model", at + dice.between(1, 30, "twice at", number), name, "model-0")
        elif share < 0.76:
            self._ordinary("app", at, name, app, number)
        else:
            self._ordinary("model", at, name, model, number)

    def _ordinary(self, what: Literal["app", "model"], at: float, name: str, version: str, number: int) -> None:
        """Publish what is as good as the one before; sometimes that one, which is live perhaps, comes again at once."""
        dice, key = self.dice, (what, name if what == "app" else "")
        if dice.draw("trouble", number) < (0.04 if number > 0 else 0.01) * self.faults.strength("lasting trouble"):
            self._publish(what, at, name, version, quality=dice.pick(("unpullable", "refused"), "which", number))
            return
        self._publish(what, at, name, version)
        before, self.before[key] = self.before.get(key), version
        if before is not None and dice.draw("back", number) < 0.08:
            self._publish(what, at + dice.between(1.5, 15, "back at", number), name, before)
            self.before[key] = before

    def _publish(self, what: Literal["app", "model"], at: float, name: str, version: str, **more: object) -> None:
        happening = Happening(at=at, what=what, target=name, version=version, **more)  # type: ignore[arg-type]
        self.found.append(msgspec.structs.replace(happening, deliveries=deliveries(self, len(self.found))))

    def _people(self) -> None:
        dice = self.dice
        if not self.faults.strength("people"):
            return
        for number in range(dice.bits("people") % 4):
            at = dice.between(20, 520, "person at", number)
            what: What = dice.pick(
                ("hold", "hold", "resume", "rollback", "rollback", "release", "release"), "w", number
            )
            name = dice.pick(self.names, "person whose", number)
            to = f"r-{1 + dice.bits('to', number) % 4}" if dice.draw("to what", number) < 0.4 else None
            self.found.append(
                Happening(
                    at=at,
                    what=what,
                    target=name,
                    key=f"key-{number}",
                    to=to if what in ("release", "rollback") else None,
                    override=what == "release" and dice.draw("override", number) < 0.4,
                    scope=dice.pick(("all", "all", "app", "model"), "scope", number),
                    if_live=f"r-{1 + dice.bits('if', number) % 3}" if dice.draw("if live", number) < 0.2 else None,
                    again=(dice.between(1, 90, "again in", number),) if dice.draw("repeat", number) < 0.4 else (),
                )
            )
            if what in ("hold", "rollback") and dice.draw("lifts", number) < 0.7:
                later = at + dice.between(5, 120, "lifts at", number)
                self.found.append(Happening(at=later, what="resume", target=name, key=f"key-{number}-lift"))

    def _trouble(self) -> None:
        dice = self.dice
        if self.faults.strength("outages"):
            for number in range(dice.bits("outages") % 3):
                at, seconds = dice.between(5, 500, "outage at", number), dice.between(3, 60, "outage for", number)
                system = dice.pick(SYSTEMS, "what is away", number)
                self.found.append(Happening(at=at, what="outage", system=system, seconds=seconds))
        if self.faults.strength("lasting trouble") and dice.draw("policy") < 0.3:
            self._policy(dice.between(60, 400, "policy at"), dice.pick(self.names, "whose policy"))
        if self.faults.strength("clean-up"):
            for number in range(dice.bits("clean-ups") % 4):
                self.found.append(Happening(at=dice.between(30, 560, "clean-up at", number), what="clean-up"))
            if not self.setting.sweep_off and dice.draw("touch") < 0.25:
                which = dice.pick(("oldest", "oldest", "newest"), "touch of")
                self.found.append(Happening(at=dice.between(60, 560, "touch at"), what="touch", version=which))
            if dice.draw("loss") < 0.25:
                at, name = dice.between(60, 560, "loss at"), dice.pick(self.names, "whose loss")
                half: Literal["app", "model"] = dice.pick(("app", "model"), "loss of")
                self.found.append(Happening(at=at, what="loss", target=name, scope=half))
                if half == "model" and not self.setting.sweep_off and dice.draw("restored") < 0.5:
                    self.found.append(Happening(at=at + dice.between(5, 200, "restored after"), what="restore"))

    def _policy(self, at: float, name: str) -> None:
        """Let the API server refuse the images of what was live from now on; people go back, or have another wish."""
        dice = self.dice
        self.found.append(Happening(at=at, what="policy", target=name))
        if dice.draw("policy and a rollback") < 0.6:
            self.found.append(Happening(at=at + 5, what="rollback", target=name, key="policy-rollback"))
        for number in range(dice.bits("policy and wishes") % 3):
            later = at + dice.between(20, 200, "policy and a wish at", number)
            what: What = dice.pick(("release", "release", "rollback"), "policy and a wish", number)
            to = f"r-{1 + dice.bits('policy to', number) % 3}" if dice.draw("policy to what", number) < 0.5 else None
            self.found.append(Happening(at=later, what=what, target=name, key=f"policy-{number}", to=to))


def deliveries(drawer: _Drawer, number: int) -> tuple[float, ...]:
    """Return after how many seconds an event is delivered, each time."""
    dice, strength = drawer.dice, drawer.faults.strength
    if not drawer.setting.sweep_off and dice.draw("dropped", number) < 0.06 * strength("dropped events"):
        return ()
    late = dice.draw("late", number) < 0.25 * strength("late events")
    first = dice.between(5, 200, "late by", number) if late else dice.between(0.05, 2, "delay", number)
    if dice.draw("duplicate", number) < 0.3 * strength("duplicate events"):
        return (first, first + dice.between(0, 90, "again after", number))
    return (first,)
