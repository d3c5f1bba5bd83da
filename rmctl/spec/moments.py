"""Points in time as tasks name them: an ISO date and time, or a time of day."""

import re
from datetime import datetime, time, tzinfo
from typing import Any

from .errors import BadValue, describe

HELP = 'a time such as "2026-03-01T06:00:00+01:00" (without an offset: in the zone of the workflow) or "06:30"'
_TIME_OF_DAY = re.compile(r"\d{1,2}:\d{2}(:\d{2})?")


def parse_moment(value: Any) -> datetime | time:
    """A date and time, with or without a zone, or a time of day. Raises BadValue."""
    if isinstance(value, str):
        try:
            if _TIME_OF_DAY.fullmatch(value.strip()):
                return time.fromisoformat(value.strip().zfill(5 if value.count(":") == 1 else 8))
            return datetime.fromisoformat(value.strip())
        except ValueError:
            pass
    raise BadValue("bad_time", f"{describe(value)} is not a time; give {HELP}.")


def moment_in(value: Any, zone: tzinfo, now: datetime) -> datetime:
    """The moment that is meant; a time of day is that of today in the zone. Raises BadValue."""
    parsed = parse_moment(value)
    if isinstance(parsed, time):
        return datetime.combine(now.astimezone(zone).date(), parsed, zone)
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=zone)
