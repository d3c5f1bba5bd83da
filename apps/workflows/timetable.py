"""When scheduled runs come: cron in the workflow's time zone, over half-open data intervals.

Consecutive times of a schedule bound an interval [start, end). Its run has the start as logical time and is
created at the end, when its data is complete.

Daylight saving follows Debian's cron. A schedule that names its hour (`30 2 * * *`, `@daily`) comes once each
day: a time that the clock skips comes right after the gap, one that the clock shows twice comes the first
time. A schedule with `*` as minute or hour follows elapsed time: nothing in the gap, both of the repeated hour.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from rmctl.spec import cron_expression

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


class Timetable:
    """The times of one schedule in one zone. Every time taken and given is aware; those given are UTC."""

    def __init__(self, schedule: str, zone: str) -> None:
        """Raises rmctl.spec.BadValue when the schedule is not cron, or never comes."""
        self.expression = cron_expression(schedule)
        self.zone = ZoneInfo(zone)

    def after(self, moment: datetime) -> datetime:
        """The first time later than `moment`."""
        for found in CronSim(self.expression, moment.astimezone(self.zone)):
            # In a repeated hour the iterator thinks in clock time and may give what has passed already.
            if found.astimezone(UTC) > moment:
                return found.astimezone(UTC)
        raise ValueError(f"{self.expression} does not come within 50 years of {moment:%Y-%m-%d}")

    def latest(self, moment: datetime) -> datetime:
        """The last time at or before `moment`."""
        guess = next(CronSim(self.expression, (moment + _TICK).astimezone(self.zone), reverse=True), moment)
        for margin in _MARGINS:
            found, following = None, self.after(guess.astimezone(UTC) - margin)
            while following <= moment:
                found, following = following, self.after(following)
            if found is not None:
                return found
        raise ValueError(f"{self.expression} did not come before {moment:%Y-%m-%d}")

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
