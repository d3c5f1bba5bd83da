"""The data interval of a run by hand: the one of its workflow's schedule that was complete last."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim

from rmctl.spec.schedule import Every, parts


def interval_of(definition: dict[str, Any], logical: datetime) -> tuple[datetime, datetime] | None:
    """Its start and end, as docs/architecture.md has them; None without a timetable."""
    zone = ZoneInfo(definition["timezone"])
    times: set[datetime] = set()
    for part in parts(definition["schedule"]) if definition["schedule"] else ():
        if isinstance(part, Every):
            times |= _elapsed(part.seconds, definition["start_date"], zone, logical)
        else:
            # A second later, as what comes at this very moment is complete too.
            past = CronSim(part.expression, logical.astimezone(zone) + timedelta(seconds=1), reverse=True)
            times |= {moment.astimezone(UTC) for moment in islice(past, 2)}
    last = sorted(times)[-2:]
    return (last[0].astimezone(zone), last[1].astimezone(zone)) if len(last) == 2 else None


def _elapsed(seconds: int, start: str | None, zone: ZoneInfo, logical: datetime) -> set[datetime]:
    """The last two times of a fixed interval, which counts from `start` or from midnight of 1970-01-01."""
    first = datetime.fromisoformat(start or "1970-01-01")
    first = (first if first.tzinfo is not None else first.replace(tzinfo=zone)).astimezone(UTC)
    step = timedelta(seconds=seconds)
    end = first + (logical - first) // step * step
    return {end - step, end}
