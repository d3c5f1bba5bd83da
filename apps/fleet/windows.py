"""The windows of a contribution: on which days of the week, from when to when, in a time zone of its own."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from math import inf
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from apps.core.errors import Invalid
from engine.lending import Span
from rmctl.spec.errors import BadValue
from rmctl.spec.schedule import check_timezone

from .validators import checked_names

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
MAX_WINDOWS = 50
DAY, WEEK = 24 * 60, 7 * 24 * 60
# Openings are known so far ahead; further than anything is simulated.
AHEAD_DAYS = 40


class Window(NamedTuple):
    """From `start` (minutes of the week, from Monday 00:00) for so many minutes."""

    start: int
    minutes: int


def checked_windows(windows: Any) -> list[dict[str, Any]]:
    """Windows as they are stored, days in the order of the week. Raises Invalid naming the field."""
    if not isinstance(windows, Sequence) or isinstance(windows, str) or len(windows) > MAX_WINDOWS:
        raise Invalid.field("windows", f"a list of at most {MAX_WINDOWS} windows.")
    return [_checked(f"windows[{place}]", window) for place, window in enumerate(windows)]


def _checked(field: str, window: Any) -> dict[str, Any]:
    if not isinstance(window, Mapping):
        raise Invalid.field(field, "an object with days, from and to.")
    checked_names(field, window, ("days", "from", "to"))
    days = window.get("days")
    if not isinstance(days, Sequence) or isinstance(days, str) or not days:
        raise Invalid.field(f"{field}.days", f"a list of days, of {', '.join(DAYS)}.")
    for day in days:
        if day not in DAYS:
            raise Invalid.field(f"{field}.days", f"{day!r} is not a day: {', '.join(DAYS)}.", "unknown_day")
    begins, ends = _minutes(f"{field}.from", window.get("from")), _minutes(f"{field}.to", window.get("to"), last=True)
    if begins == ends:
        message = "is the same as `from`; a whole day is from 00:00 to 24:00, and an earlier time is on the next day."
        raise Invalid.field(f"{field}.to", message, "empty_window")
    return {"days": [day for day in DAYS if day in days], "from": window["from"], "to": window["to"]}


def _minutes(field: str, clock: Any, *, last: bool = False) -> int:
    if last and clock == "24:00":
        return DAY
    found = CLOCK.fullmatch(clock) if isinstance(clock, str) else None
    if found is None:
        end = " or 24:00" if last else ""
        raise Invalid.field(field, f"{clock!r} is not a time such as 18:00, from 00:00 to 23:59{end}.", "bad_time")
    return int(found[1]) * 60 + int(found[2])


def checked_zone(name: Any) -> str:
    """A name of the time zone database. Raises Invalid naming `timezone`."""
    try:
        if not isinstance(name, str) or len(name) > 63:
            raise BadValue("unknown_timezone", f"{str(name)[:60]!r} is not a time zone.")
        return check_timezone(name)
    except BadValue as error:
        raise Invalid.field("timezone", error.message, error.code) from None


def weekly(windows: Sequence[Mapping[str, Any]]) -> tuple[Window, ...]:
    """Stored windows by day, as they follow each other in a week."""
    found = []
    for window in windows:
        begins, ends = _minutes("", window["from"]), _minutes("", window["to"], last=True)
        minutes = ends - begins if ends > begins else ends + DAY - begins
        found += [Window(DAYS.index(day) * DAY + begins, minutes) for day in window["days"]]
    return tuple(sorted(found))


def longest(windows: Sequence[Window]) -> float:
    """Seconds for which the windows are open at a time, at most, by the clock on the wall; without an end, inf."""
    begins, ends, most = 0, -1, 0
    # Two weeks in a row show every run that does not fill a whole one.
    for start, minutes in (*windows, *((start + WEEK, minutes) for start, minutes in windows)):
        if start > ends:
            begins = start
        ends = max(ends, start + minutes)
        most = max(most, ends - begins)
    return inf if most >= WEEK else most * 60.0


@lru_cache(maxsize=1024)
def spans(windows: tuple[Window, ...], zone: str, today: date) -> tuple[Span, ...]:
    """When the windows are open, from a week before a day (in UTC) to AHEAD_DAYS after it; what touches is one span.

    A time of the clock that comes twice when it is put back counts as the first, and one that is skipped when it is
    put forward as the time so much later (PEP 495).
    """
    if longest(windows) == inf:
        return (Span(-inf, inf),)
    region = ZoneInfo(zone)
    monday = today - timedelta(days=today.weekday() + 14)
    moments = sorted(
        (_moment(first, start, region), _moment(first, start + minutes, region))
        for first in (monday + timedelta(weeks=week) for week in range(AHEAD_DAYS // 7 + 4))
        for start, minutes in windows
    )
    found: list[Span] = []
    for begins, ends in moments:
        if found and begins.timestamp() <= found[-1].end:
            found[-1] = found[-1]._replace(end=max(found[-1].end, ends.timestamp()))
        elif begins < ends:  # Or all of it is skipped when the clock is put forward.
            opens = f"{begins.astimezone(region):%H:%M on %a %d %b} ({zone})"
            found.append(Span(begins.timestamp(), ends.timestamp(), opens))
    return tuple(found)


def _moment(monday: date, minute: int, zone: ZoneInfo) -> datetime:
    """That minute of the week by the clock on the wall, in UTC; it may lie after the week."""
    days, rest = divmod(minute, DAY)
    return datetime.combine(monday + timedelta(days=days), time(rest // 60, rest % 60), zone).astimezone(UTC)
