"""Amounts and times as people say them: pure functions, registered as template filters beside."""

import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
ACRONYMS = {name.lower(): name for name in ("CPU", "GPU", "OS", "PIDs")}


def bytes_(amount: float | None) -> str:
    """`1610612736` → `1.5 GiB`."""
    if amount is None:
        return "–"
    size, unit = float(amount), 0
    while abs(size) >= 1024 and unit < len(UNITS) - 1:
        size, unit = size / 1024, unit + 1
    whole = size == int(size) or abs(size) >= 100 or unit == 0
    return f"{size:.0f} {UNITS[unit]}" if whole else f"{size:.1f} {UNITS[unit]}"


def cores(millicores: int | None) -> str:
    """Millicores as cores: `500` → `0.5`, `2000` → `2`."""
    return "–" if millicores is None else f"{millicores / 1000:,.2f}".rstrip("0").rstrip(".")


def cards(milli: int | None) -> str:
    """Thousandths of a card as cards: `1500` → `1.5`."""
    return cores(milli)


def amount(value: int | None, resource: str) -> str:
    """An amount of cpu, memory, storage or gpu in the unit that people use."""
    if value is None:
        return "–"
    if resource in ("memory", "storage"):
        return bytes_(value)
    return cores(value)


def price(value: Decimal) -> str:
    """A price without the noughts that say nothing: `0.250000` → `0.25`."""
    return f"{value.normalize():f}"


def query_tags(query: Mapping[str, Any]) -> list[str]:
    """A pool's query or a flavor's match in short pieces: `zone=a|b`, `Trust ≥ 2`, `Regions: eu, us`."""
    pieces = []
    for key, value in query.items():
        if key == "labels":
            pieces += [f"{label}={'|'.join(values)}" for label, values in value.items()]
        elif key == "trust":
            pieces.append(f"Trust ≥ {value}")
        else:
            pieces.append(f"{sentence(key)}: {', '.join(value)}")
    return pieces


def unit(resource: str) -> str:
    """What an amount of the resource counts; bytes carry their unit themselves."""
    return {"cpu": "cores", "gpu": "cards"}.get(resource, "")


def hours(amount: float) -> str:
    """Hours as a duration: `0.5` → `30 min 00 s`."""
    return duration(amount * 3600)


def duration(seconds: float | None) -> str:
    """Seconds as people say them, in step with `static/js/format.js`."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{int(seconds * 10) / 10:.1f} s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def relative(moment: datetime, now: datetime) -> str:
    """`3 min ago` or `in 2 h`."""
    seconds = (now - moment).total_seconds()
    away = abs(seconds)
    if away < 5:
        return "now"
    for limit, size, name in (
        (60, 1, "s"),
        (3600, 60, "min"),
        (86400, 3600, "h"),
        (float("inf"), 86400, "d"),
    ):
        if away < limit:
            text = f"{int(away // size)} {name}"
            break
    return f"{text} ago" if seconds >= 0 else f"in {text}"


def words(value: object) -> str:
    """`upstream_failed` → `upstream failed`."""
    return str(value).replace("_", " ")


def sentence(value: object) -> str:
    """`waiting_for_quota` → `Waiting for quota`."""
    text = words(value)
    first, blank, rest = text.partition(" ")
    return f"{ACRONYMS.get(first, first[:1].upper() + first[1:])}{blank}{rest}"


def fraction(value: float | None, most: float | None) -> float:
    """value / most between 0 and 1; 0 where nothing can be used."""
    if not value or not most or most < 0:
        return 0.0
    return max(0.0, min(1.0, value / most))


def hundredths(value: float) -> str:
    """0.973 → `97.3`, for a value whose per cent sign stands beside it; whole numbers stay whole."""
    return f"{value * 100:.1f}".removesuffix(".0")


def quantity(value: float) -> str:
    """Hours, jobs or cost: `12.5`, `1,250`, `0.0042`; what is there never reads as nothing."""
    if 0 < value < 0.0001:
        return "< 0.0001"
    text = f"{value:,.2f}" if value >= 1 else f"{value:.4f}"
    return text.rstrip("0").rstrip(".")


# What a budget counts, as it stands before its period.
COUNTED = {
    "pending": "Jobs that wait",
    "running": "Jobs at once",
    "submissions": "Submissions a minute",
    "cpu_hours": "CPU core-hours",
    "gpu_hours": "GPU-hours",
    "cost": "Cost",
}


def per(measure: str, period: str) -> str:
    """What a budget counts: `GPU-hours a month`, or `Cost in the last 24h`."""
    if not period:
        return COUNTED[measure]
    return f"{COUNTED[measure]} {'in the last' if period[0].isdigit() else 'a'} {period}"


def initials(name: str) -> str:
    """One or two letters that stand for a name."""
    parts = [part for part in name.replace(".", " ").replace("-", " ").replace("_", " ").split() if part]
    return "".join(part[0] for part in parts[:2]) or "?"


def compact(value: Any) -> str:
    """JSON on one line."""
    return json.dumps(value, ensure_ascii=False, default=str)


def listed(value: Any) -> str:
    """A list as words with commas; anything else as it is."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def pretty(value: Any) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False)
