"""Fires timers, on one instance at a time: the one that holds the lock file, which the kernel frees when it dies."""

import asyncio
import fcntl
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from localcloud.functions_host.bindings import Function, TimerTrigger
from localcloud.functions_host.invocations import Invocations
from localcloud.functions_host.logs import log
from localcloud.functions_host.worker import Value

_ASK_FOR_LOCK_SECONDS = 0.5
_NEVER = datetime.min.replace(tzinfo=UTC)


class Timers:
    """Runs the timers of an app; every instance has one, and one of them is at work.

    `folder` keeps the lock and, for each timer that is monitored, when it fired and when it is due: a firing missed
    while no instance ran is made up for once, as past due.
    """

    def __init__(self, functions: Sequence[Function], invocations: Invocations, folder: Path) -> None:
        self._functions = functions
        self._invocations = invocations
        self._folder = folder

    async def run(self) -> None:
        """Wait for the lock, then fire until cancelled."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as lock:
            while not _lock(lock):  # noqa: ASYNC110 - held by another process
                await asyncio.sleep(_ASK_FOR_LOCK_SECONDS)
            log.info("this instance runs the timers: %s", ", ".join(function.name for function in self._functions))
            async with asyncio.TaskGroup() as group:
                for function in self._functions:
                    if isinstance(function.trigger, TimerTrigger):
                        group.create_task(self._run(function, function.trigger))

    async def _run(self, function: Function, trigger: TimerTrigger) -> None:
        schedule = trigger.schedule
        monitored = trigger.use_monitor and schedule.is_monitored(datetime.now(UTC))
        path = self._folder / f"{function.name}.json"
        last, due = _read(path, schedule.text) if monitored else (_NEVER, None)
        now = datetime.now(UTC)
        is_past_due = due is not None and due < now
        if is_past_due or trigger.run_on_startup:
            last = await self._fire(function, due or now, last, is_past_due=is_past_due)
        while True:
            due = schedule.next_after(datetime.now(UTC))
            if monitored:
                _write(path, schedule.text, last, due)
            await _sleep_until(due)
            last = await self._fire(function, due, last, is_past_due=False)

    async def _fire(self, function: Function, due: datetime, last: datetime, *, is_past_due: bool) -> datetime:
        now = datetime.now(UTC)
        timer = {
            "IsPastDue": is_past_due,
            "Schedule": {"AdjustForDST": True},
            "ScheduleStatus": {"Last": last.isoformat(), "LastUpdated": last.isoformat(), "Next": due.isoformat()},
        }
        await self._invocations.run(function, Value("json", json.dumps(timer)))
        return now


async def _sleep_until(due: datetime) -> None:
    while (seconds := (due - datetime.now(UTC)).total_seconds()) > 0:  # noqa: ASYNC110 - the clock may be set
        await asyncio.sleep(seconds)


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(path: Path, schedule: str) -> tuple[datetime, datetime | None]:
    """Return when the timer fired last and when it is due; a changed schedule starts anew."""
    try:
        status = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):  # a machine that loses its power may leave an empty one
        return _NEVER, None
    if status["schedule"] != schedule:
        return _NEVER, None
    return datetime.fromisoformat(status["last"]), datetime.fromisoformat(status["next"])


def _write(path: Path, schedule: str, last: datetime, due: datetime) -> None:
    whole = path.with_suffix(f".{os.getpid()}")
    whole.write_text(json.dumps({"schedule": schedule, "last": last.isoformat(), "next": due.isoformat()}))
    whole.replace(path)
