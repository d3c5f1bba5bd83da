"""Schedules: five-field cron with Debian's semantics, or an alias; and time zones."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from .errors import BadValue

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


def cron_expression(schedule: str) -> str:
    """The five fields of a schedule. Raises BadValue when it is neither an alias nor cron, or never comes."""
    text = schedule.strip()
    if text.startswith("@"):
        if text not in ALIASES:
            raise BadValue("bad_cron", f'"{text[:40]}" is not a schedule; aliases are {", ".join(ALIASES)}.')
        return ALIASES[text]
    fields = text.split()
    if len(fields) != 5:
        raise BadValue(
            "bad_cron",
            f'"{text[:40]}" has {len(fields)} fields; give five (minute hour day month weekday), for example '
            f'"30 6 * * 1-5", or one of {", ".join(ALIASES)}.',
        )
    expression = " ".join(fields)
    try:
        next(CronSim(expression, datetime(2024, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise BadValue("bad_cron", f'"{text[:40]}": {error}; for example "30 6 * * 1-5".') from None
    except StopIteration:
        raise BadValue("bad_cron", f'"{text[:40]}" never comes; check day and month.') from None
    return expression


def check_schedule(schedule: str | None) -> str | None:
    """Refuse what `cron_expression` refuses and more than 100 characters."""
    if schedule is not None:
        if len(schedule) > 100:
            raise BadValue("bad_cron", "A schedule has at most 100 characters.")
        cron_expression(schedule)
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


def check_start(text: str | None) -> str | None:
    """Refuse a start that is not an ISO date or date and time."""
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
