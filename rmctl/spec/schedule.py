"""Schedules: five-field cron with Debian's semantics, an alias, a fixed interval, several at once; time zones."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from .errors import BadValue
from .quantities import parse_seconds

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
# Not a time at all: the next run begins when the last has ended.
CONTINUOUS = "@continuous"

# Between the parts of a schedule that comes whenever any of them does.
SEPARATOR = ";"
MAX_PARTS = 10
MAX_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Cron:
    """Times by the clock on the wall: the five fields."""

    expression: str


@dataclass(frozen=True, slots=True)
class Every:
    """Times by elapsed time: every so many seconds."""

    seconds: int


def parts(schedule: str) -> list[Cron | Every]:
    """The parts of a schedule; none of `@continuous`, which has no times.

    Raises BadValue for a part that is neither an alias, cron nor `every 90m`, or that never comes.
    """
    texts = [text.strip() for text in schedule.split(SEPARATOR)]
    if texts == [CONTINUOUS]:
        return []
    if CONTINUOUS in texts:
        raise BadValue("bad_cron", f"{CONTINUOUS} stands alone: it cannot be combined with times.")
    if len(texts) > MAX_PARTS:
        raise BadValue("bad_cron", f"A schedule has at most {MAX_PARTS} parts, not {len(texts)}.")
    return [_part(text) for text in texts]


def _part(text: str) -> Cron | Every:
    if not text.startswith("every "):
        return Cron(cron_expression(text))
    try:
        seconds = parse_seconds(text.removeprefix("every ").strip())
    except BadValue as error:
        raise BadValue("bad_interval", f'"{text[:40]}": {error.message}') from None
    return Every(seconds)


def cron_expression(schedule: str) -> str:
    """The five fields of a schedule. Raises BadValue when it is neither an alias nor cron, or never comes."""
    text = schedule.strip()
    known = f"{', '.join(ALIASES)} and {CONTINUOUS}"
    if text.startswith("@"):
        if text not in ALIASES:
            raise BadValue("bad_cron", f'"{text[:40]}" is not a schedule; aliases are {known}.')
        return ALIASES[text]
    fields = text.split()
    if len(fields) != 5:
        raise BadValue(
            "bad_cron",
            f'"{text[:40]}" has {len(fields)} fields; give five (minute hour day month weekday), for example '
            f'"30 6 * * 1-5", an interval such as "every 90m", or one of {known}.',
        )
    expression = " ".join(fields)
    try:
        next(CronSim(expression, datetime(2024, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise BadValue("bad_cron", f'"{text[:40]}": {error}; for example "30 6 * * 1-5".') from None
    except StopIteration:
        raise BadValue("bad_cron", f'"{text[:40]}" never comes; check day and month.') from None
    return expression


def join_schedule(schedule: object) -> object:
    """A list of schedules as one text, which is how a definition has several; anything else stays as it is."""
    if isinstance(schedule, list) and all(isinstance(part, str) for part in schedule):
        return f"{SEPARATOR} ".join(part.strip() for part in schedule) or None
    return schedule


def check_schedule(schedule: str | None) -> str | None:
    """Refuse what `parts` refuses and more than MAX_CHARACTERS."""
    if schedule is not None:
        if len(schedule) > MAX_CHARACTERS:
            raise BadValue("bad_cron", f"A schedule has at most {MAX_CHARACTERS} characters.")
        parts(schedule)
    return schedule


def check_timezone(name: str) -> str:
    """Refuse a name that the time zone database does not have."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise BadValue(
            "unknown_timezone",
            f'"{name[:60]}" is not a time zone; give a name such as "Europe/Berlin" or "UTC".',
        ) from None
    return name


def check_date(text: str | None) -> str | None:
    """Refuse what is not an ISO date or date and time."""
    if text is None:
        return None
    try:
        date.fromisoformat(text)
    except ValueError:
        try:
            datetime.fromisoformat(text)
        except ValueError:
            raise BadValue(
                "bad_date", f'"{text[:40]}" is not a date; give "2026-01-31" or "2026-01-31T06:00:00".'
            ) from None
    return text


# How far ahead changes of the clock are looked for.
CLOCK_DAYS = 366


@dataclass(frozen=True, slots=True)
class ClockChange:
    """A change of a zone's clock: at `at` (UTC) it goes from `before` to `after` (both local, without zone)."""

    at: datetime
    before: datetime
    after: datetime


def clock_changes(zone: ZoneInfo, now: datetime) -> list[ClockChange]:
    """The changes of the clock in the CLOCK_DAYS from `now`, found by bisection between days."""
    found = []
    day = timedelta(days=1)
    start = now.astimezone(UTC).replace(microsecond=0)
    for index in range(CLOCK_DAYS):
        low, high = start + index * day, start + (index + 1) * day
        before, after = (moment.astimezone(zone).utcoffset() for moment in (low, high))
        if before is None or after is None or before == after:
            continue
        while high - low > timedelta(seconds=1):
            middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
            low, high = (middle, high) if middle.astimezone(zone).utcoffset() == before else (low, middle)
        found.append(ClockChange(high, (high + before).replace(tzinfo=None), (high + after).replace(tzinfo=None)))
    return found


def clock_warnings(schedule: str | None, timezone: str, now: datetime) -> list[str]:
    """What the next changes of the clock do to a schedule, in sentences for its author.

    Only what a person would not expect is named: a cron time that does not exist or comes twice on a day, and an
    interval of whole days, which keeps to 24 hours.
    """
    zone = ZoneInfo(timezone)
    changes = clock_changes(zone, now) if schedule else []
    if not changes or schedule is None:
        return []
    warnings = []
    for part in parts(schedule):
        if isinstance(part, Every):
            if part.seconds % 86400 == 0:
                warnings.append(
                    f"every {part.seconds // 86400}d is elapsed time: in {timezone} it comes at another time of day "
                    f"from {changes[0].at.astimezone(zone):%Y-%m-%d} on; use cron for the same time of day."
                )
        elif _names_hours(part.expression):
            warnings += filter(None, (_change_warning(part.expression, timezone, change) for change in changes))
    return warnings


def _names_hours(expression: str) -> bool:
    """Whether Debian's cron gives it fixed times of day: neither minute nor hour begins with `*`."""
    minute, hour = expression.split()[:2]
    return not minute.startswith("*") and not hour.startswith("*")


def _change_warning(expression: str, timezone: str, change: ClockChange) -> str:
    """What a change of the clock does to fixed times of day; empty when none of them is touched."""
    low, high = sorted((change.before, change.after))
    # In local time without a zone, as if the clock did not change.
    named = next(CronSim(expression, low - timedelta(seconds=1)), None)
    if named is None or named >= high:
        return ""
    if change.after > change.before:
        then = "it does not exist there, and the run comes right after the gap"
    else:
        then = "it comes twice there, and the run comes the first time"
    return f'"{expression}" at {named:%H:%M} on {named:%Y-%m-%d} in {timezone}: {then}.'
