"""When a timer fires: NCRONTAB with five or six fields (seconds first), or a time span between two firings. UTC."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from cronsim import CronSim, CronSimError

from localcloud.functions_host.configuration import seconds_of
from localcloud.functions_host.errors import AppError

_MONITORED_FROM = timedelta(minutes=1)


@dataclass(frozen=True)
class Schedule:
    """A parsed schedule; `text` is what the binding said."""

    text: str
    every: timedelta | None = None

    def next_after(self, moment: datetime) -> datetime:
        """Return the first firing after this moment (aware, UTC)."""
        if self.every is not None:
            return moment + self.every
        return next(_ncrontab(self.text, moment))

    def is_monitored(self, moment: datetime) -> bool:
        """Tell whether missed firings are remembered; Functions does so for intervals of a minute and more."""
        first = self.next_after(moment)
        return self.next_after(first) - first >= _MONITORED_FROM


def parse_schedule(text: str, where: str) -> Schedule:
    """Parse a schedule. Raises AppError, with `where` in it, for one that Azure would not take or that never fires."""
    seconds = seconds_of(text)
    if seconds:
        return Schedule(text, timedelta(seconds=seconds))
    try:
        _refuse_beyond_ncrontab(text.upper().split())
        next(_ncrontab(text, datetime.fromisoformat("2024-01-01T00:00:00+00:00")))
    except (CronSimError, StopIteration) as error:
        reason = str(error) or "it never fires"
        raise AppError(
            f"{where}: {text!r} is not a schedule ({reason}): write six fields, "
            'second minute hour day month weekday, such as "0 */5 * * * *"'
        ) from error
    return Schedule(text)


def _ncrontab(text: str, moment: datetime) -> CronSim:
    occurrences = CronSim(text, moment)
    occurrences.day_and = True  # NCRONTAB wants day and weekday both; cron wants either
    return occurrences


def _refuse_beyond_ncrontab(fields: list[str]) -> None:
    """Refuse what cronsim reads and NCRONTAB does not: last and nth days, and Sunday as 7."""
    if len(fields) in (5, 6):
        day, weekday = fields[-3], fields[-1]
        if "L" in day or re.search(r"L|#|(?<![/\d])7", weekday):
            raise CronSimError("NCRONTAB has no L, no # and counts weekdays from 0 to 6")
