"""Amounts as people write them, and as integers.

cpu `2`, `0.5`, `"500m"` → millicores; sizes `1024`, `"512Mi"`, `"2G"` → bytes; durations `90`, `"90s"`,
`"2h"`, `"7d"`, `"1h30m"` → seconds. Each parser raises `BadValue` with what would be right. The formatters
give the shortest exact spelling, so that parsing it again returns the same number.
"""

import re
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from .errors import BadValue, describe

MAX_MILLICORES = 10_000 * 1000
MAX_BYTES = 2**53  # the largest whole number every JSON reader keeps exactly
MAX_SECONDS = 366 * 86400

_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
_DECIMAL = {"k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_SIZE = re.compile(r"(\d{1,17}(?:\.\d{1,9})?) ?(Ki|Mi|Gi|Ti|Pi|k|K|M|G|T|P)?B?", re.ASCII)
_CPU = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(m)?", re.ASCII)
_SECONDS = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
_DURATION_PART = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)(ms|s|m|h|d)", re.ASCII)
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+", re.ASCII)
_NUMBER = re.compile(r"\d{1,12}(?:\.\d{1,6})?", re.ASCII)

CPU_HELP = 'cores such as 2 or 0.5, or millicores such as "500m"'
SIZE_HELP = 'bytes as a whole number, or a size such as "512Mi", "2Gi" or "2G"'
DURATION_HELP = 'seconds as a number, or a duration such as "90s", "5m", "2h" or "7d"'


def _number(value: object, what: str) -> Decimal | None:
    """A JSON number as an exact decimal; None for a string; BadValue for anything else, NaN and negatives."""
    if isinstance(value, str):
        if value.strip().startswith("-"):
            raise BadValue("negative", f"{_shown(value)} is negative; give {what}.")
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise BadValue("bad_quantity", f"Must be {what}, not {describe(value)}.")
    try:
        number = Decimal(str(value)) if isinstance(value, float) else Decimal(value)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise BadValue("bad_quantity", f"Must be {what}, not {value}.")
    if number < 0:
        raise BadValue("negative", f"{_shown(value)} is negative; give {what}.")
    return number


def _shown(value: object) -> str:
    return describe(value).removeprefix("the number ")


def _whole(number: Decimal) -> int:
    """Rounded up: nobody gets less than was asked for."""
    return int(number.to_integral_value(rounding=ROUND_CEILING))


def parse_cpu(value: object) -> int:
    """Millicores, rounded up to a whole one. Raises BadValue above 10,000 cores and for nothing at all."""
    number = _number(value, CPU_HELP)
    if number is None:
        assert isinstance(value, str)
        match = _CPU.fullmatch(value.strip())
        if not match:
            raise BadValue("bad_quantity", f"{_shown(value)} is not an amount of cpu; give {CPU_HELP}.")
        number = Decimal(match[1]) / (1000 if match[2] else 1)
    if number > MAX_MILLICORES // 1000:
        raise BadValue(
            "absurd_quantity",
            f"{_shown(value)} is more than 10,000 cores; give {CPU_HELP} (cores, not millicores).",
        )
    millicores = _whole(number * 1000)
    if millicores == 0:
        raise BadValue("absurd_quantity", f"Must be at least 1m; give {CPU_HELP}.")
    return millicores


def parse_size(value: object) -> int:
    """Bytes, rounded up to a whole one. Raises BadValue above 2**53."""
    number = _number(value, SIZE_HELP)
    if number is None:
        assert isinstance(value, str)
        text = value.strip()
        match = _SIZE.fullmatch(text)
        if not match:
            hint = ""
            if re.fullmatch(r"[\d.]+ ?m[bB]?", text):
                digits = text.rstrip("mbB ")
                hint = f' "m" means thousandths: did you mean "{digits}Mi" or "{digits}M"?'
            raise BadValue("bad_quantity", f"{_shown(value)} is not a size; give {SIZE_HELP}.{hint}")
        number = Decimal(match[1]) * (_BINARY | _DECIMAL).get(match[2] or "", 1)
    if number > MAX_BYTES:
        raise BadValue("absurd_quantity", f"{_shown(value)} is more than 8 Pi; give {SIZE_HELP}.")
    return _whole(number)


def parse_duration(value: object) -> float:
    """Seconds, to the millisecond. Raises BadValue above 366 days."""
    number = _number(value, DURATION_HELP)
    if number is None:
        assert isinstance(value, str)
        text = value.strip()
        if _NUMBER.fullmatch(text):
            number = Decimal(text)
        elif _DURATION.fullmatch(text):
            number = sum(
                (Decimal(n) * _SECONDS[unit] for n, unit in _DURATION_PART.findall(text)), Decimal(0)
            )
        else:
            raise BadValue("bad_quantity", f"{_shown(value)} is not a duration; give {DURATION_HELP}.")
    if number > MAX_SECONDS:
        raise BadValue("absurd_quantity", f"{_shown(value)} is more than 366 days; give {DURATION_HELP}.")
    seconds = float(number.quantize(Decimal("0.001"), rounding=ROUND_CEILING))
    return int(seconds) if seconds.is_integer() else seconds


def parse_seconds(value: object) -> int:
    """A duration in whole seconds, rounded up, at least one."""
    seconds = _whole(Decimal(str(parse_duration(value))))
    if seconds < 1:
        raise BadValue("absurd_quantity", f"Must be at least 1s; give {DURATION_HELP}.")
    return seconds


def format_cpu(millicores: int) -> str:
    """`"2"` or `"500m"`."""
    return str(millicores // 1000) if millicores % 1000 == 0 else f"{millicores}m"


def format_size(size: int) -> str:
    """The largest binary unit that is exact: `"512Mi"`, else bytes."""
    for unit, factor in reversed(_BINARY.items()):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def format_duration(seconds: float) -> str:
    """The largest unit that is exact: `"90s"`, `"2h"`, `"250ms"`."""
    milliseconds = round(seconds * 1000)
    if milliseconds % 1000:
        return f"{milliseconds}ms"
    whole = milliseconds // 1000
    for unit, factor in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole and whole % factor == 0:
            return f"{whole // factor}{unit}"
    return f"{whole}s"


def _schema(pattern: str, number: str, examples: list[str]) -> WithJsonSchema:
    return WithJsonSchema(
        {
            "anyOf": [{"type": number, "minimum": 0}, {"type": "string", "pattern": pattern}],
            "examples": examples,
        }
    )


Cpu = Annotated[
    int,
    BeforeValidator(parse_cpu),
    PlainSerializer(format_cpu, return_type=str),
    _schema(r"^\d+(\.\d+)?m?$", "number", ["500m", "2"]),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, return_type=str),
    _schema(r"^\d+(\.\d+)? ?([KMGTP]i|[kKMGTP])?B?$", "integer", ["512Mi", "2G"]),
]
Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    _schema(r"^(\d+(\.\d+)?|(\d+(\.\d+)?(ms|s|m|h|d))+)$", "number", ["90s", "5m", "2h"]),
]
Seconds = Annotated[
    int,
    BeforeValidator(parse_seconds),
    PlainSerializer(format_duration, return_type=str),
    _schema(r"^(\d+(\.\d+)?|(\d+(\.\d+)?(ms|s|m|h|d))+)$", "number", ["90s", "5m", "2h"]),
]
