"""When scheduled runs come: cron and fixed intervals in the workflow's time zone, over half-open data intervals.

Consecutive times of a schedule bound an interval [start, end). Its run has the start as logical time and is
created at the end, when its data is complete. A schedule of several parts comes whenever one of them does.

Daylight saving follows Debian's cron. A schedule that names its hour (`30 2 * * *`, `@daily`) comes once each
day: a time that the clock skips comes right after the gap, one that the clock shows twice comes the first
time. A schedule with `*` as minute or hour follows elapsed time: nothing in the gap, both of the repeated hour.
A fixed interval (`every 90m`) is elapsed time too, counted from the start date, or else from the zone's midnight
of 1970-01-01; the clock on the wall does not matter to it.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from cronsim import CronSim

from rmctl.spec.schedule import CONTINUOUS, Every, parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .models import Workflow

# How far before its guess `latest` starts to count: more than any shift of a clock, then more than a week.
_MARGINS = (timedelta(hours=3), timedelta(days=8))
_TICK = timedelta(seconds=1)
# Logical times and start dates; any of them can be shown in any zone.
YEARS = range(1970, 2201)


@dataclass(frozen=True, slots=True)
class Interval:
    """One data interval: `start` is the logical time of its run, `end` is when the run is created (UTC)."""

    start: datetime
    end: datetime


class _CronTimes:
    """The times of five fields in a zone."""

    def __init__(self, expression: str, zone: ZoneInfo) -> None:
        self.expression, self.zone = expression, zone

    def after(self, moment: datetime) -> datetime:
        for found in CronSim(self.expression, moment.astimezone(self.zone)):
            # In a repeated hour the iterator thinks in clock time and may give what has passed already.
            if found.astimezone(UTC) > moment:
                return found.astimezone(UTC)
        raise ValueError(f"{self.expression} does not come within 50 years of {moment:%Y-%m-%d}")

    def latest(self, moment: datetime) -> datetime:
        guess = next(CronSim(self.expression, (moment + _TICK).astimezone(self.zone), reverse=True), moment)
        for margin in _MARGINS:
            found, following = None, self.after(guess.astimezone(UTC) - margin)
            while following <= moment:
                found, following = following, self.after(following)
            if found is not None:
                return found
        raise ValueError(f"{self.expression} did not come before {moment:%Y-%m-%d}")


class _EveryTimes:
    """Every so many seconds, counted from a moment."""

    def __init__(self, seconds: int, anchor: datetime) -> None:
        self.step, self.anchor = timedelta(seconds=seconds), anchor.astimezone(UTC)

    def after(self, moment: datetime) -> datetime:
        return self.latest(moment) + self.step

    def latest(self, moment: datetime) -> datetime:
        return self.anchor + (moment.astimezone(UTC) - self.anchor) // self.step * self.step


class Timetable:
    """The times of one schedule in one zone. Every time taken and given is aware; those given are UTC."""

    def __init__(self, schedule: str, zone: str, *, anchor: datetime | None = None) -> None:
        """`anchor` is what fixed intervals count from. Raises rmctl.spec.BadValue when the schedule is none of
        cron and intervals, or never comes, and ValueError for one without times (`@continuous`)."""
        self.zone = ZoneInfo(zone)
        since = anchor or datetime(1970, 1, 1, tzinfo=self.zone)
        self._times = [
            _EveryTimes(part.seconds, since) if isinstance(part, Every) else _CronTimes(part.expression, self.zone)
            for part in parts(schedule)
        ]
        if not self._times:
            raise ValueError(f"{schedule} has no times")

    def after(self, moment: datetime) -> datetime:
        """The first time later than `moment`."""
        return min(times.after(moment) for times in self._times)

    def latest(self, moment: datetime) -> datetime:
        """The last time at or before `moment`."""
        return max(times.latest(moment) for times in self._times)

    def following(self, interval: Interval) -> Interval:
        """The interval that begins where this one ends."""
        return Interval(interval.end, self.after(interval.end))

    def from_start(self, start: datetime) -> Interval:
        """The first interval that begins at or after `start`."""
        begin = self.after(start - _TICK if not start.microsecond else start)
        return Interval(begin, self.after(begin))

    def complete(self, now: datetime) -> Interval:
        """The latest interval that has ended."""
        end = self.latest(now)
        return Interval(self.latest(end - _TICK), end)

    def first(self, now: datetime, start: datetime | None, *, catchup: bool) -> Interval:
        """The interval that a newly scheduled workflow begins with.

        Without a start date it is the one that lasts now, so nothing runs at once. With one, it is the first
        from there; when that is past and nothing is to be caught up, the latest that is complete.
        """
        if start is None:
            return Interval(self.latest(now), self.after(now))
        interval = self.from_start(start)
        return interval if catchup or interval.end > now else self.complete(now)


def timetable_of(workflow: "Workflow") -> Timetable | None:
    """The timetable of a workflow's current version; None when it has no times."""
    if not workflow.schedule or workflow.schedule == CONTINUOUS or workflow.current is None:
        return None
    anchor = start_of(workflow.current.definition["start_date"], workflow.timezone)
    return Timetable(workflow.schedule, workflow.timezone, anchor=anchor)


def end_of(workflow: "Workflow") -> datetime | None:
    """The last moment at which an interval of the workflow may begin; None when it goes on."""
    definition = workflow.current.definition if workflow.current is not None else {}
    return start_of(definition.get("end_date"), workflow.timezone)


def due(workflow: "Workflow", now: datetime) -> "Iterator[Interval]":
    """The intervals that still get a run, from the stored next one: what was missed only with catchup."""
    table = timetable_of(workflow)
    if table is None or workflow.next_logical_time is None or workflow.next_run_at is None:
        return
    interval, last = Interval(workflow.next_logical_time, workflow.next_run_at), end_of(workflow)
    if not workflow.catchup and table.following(interval).end <= now:
        interval = table.complete(now)
    while last is None or interval.start <= last:
        yield interval
        interval = table.following(interval)


def start_of(text: str | None, zone: str) -> datetime | None:
    """A definition's `start_date` as a moment: a date is its midnight, and what names no zone is in `zone`.

    Raises ValueError outside of YEARS.
    """
    if text is None:
        return None
    try:
        moment = datetime.combine(date.fromisoformat(text), time())
    except ValueError:
        moment = datetime.fromisoformat(text)
    if moment.year not in YEARS:
        raise ValueError(f"{text} is not from {YEARS[0]} to {YEARS[-1]}")
    return (moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(zone))).astimezone(UTC)
