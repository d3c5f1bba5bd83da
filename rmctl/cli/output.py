"""Tables, sizes, times and JSON on the terminal. Text from the portal is shown, never interpreted."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

STYLES = {
    "succeeded": "green", "ready": "green", "running": "cyan", "granted": "cyan", "queued": "yellow",
    "pending": "yellow", "waiting": "dim", "deferred": "blue", "failed": "red", "upstream_failed": "red", "lost": "red",
    "cancelling": "magenta", "cancelled": "magenta", "skipped": "dim", "cordoned": "yellow",
    "draining": "yellow", "removed": "dim",
}  # fmt: skip


@cache
def stdout() -> Console:
    """Standard output; a pipe gets lines as long as they need."""
    return Console(width=None if sys.stdout.isatty() else 400, highlight=False, markup=False, emoji=False)


@cache
def stderr() -> Console:
    """Standard error; a pipe gets lines as long as they need."""
    width = None if sys.stderr.isatty() else 400
    return Console(stderr=True, width=width, highlight=False, markup=False, emoji=False)


def clean(text: object, *, lines: bool = False) -> str:
    """Text without control characters, which could move the cursor or change colours."""
    return "".join(c for c in str(text) if c.isprintable() or (lines and c == "\n"))


def print_json(data: Any) -> None:
    """Data as JSON for scripts."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> Table:
    """A plain table; columns named in `right` hold numbers."""
    made = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", no_wrap=column != "detail")
    for row in rows:
        made.add_row(
            *[cell if isinstance(cell, Text) else Text(clean("" if cell is None else cell)) for cell in row]
        )
    return made


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    right: Sequence[str] = (),
    empty: str = "nothing",
) -> None:
    """Print a table, or a line that says that there is nothing."""
    if rows:
        stdout().print(table(columns, rows, right=right))
    else:
        stderr().print(empty)


def state(name: object) -> Text:
    """A state in its colour."""
    return Text(clean(name), style=STYLES.get(str(name), ""))


def size(count: int | float | None) -> str:
    """Bytes with three digits: `1.5 GiB`."""
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} PiB"


def cores(millicores: int | float | None) -> str:
    """Millicores as cores: `0.5`."""
    return "" if millicores is None else f"{millicores / 1000:g}"


def amount(resource: str, value: int | None) -> str:
    """An amount of a resource in its unit."""
    if value is None:
        return "∞"
    if resource in ("memory", "storage"):
        return size(value)
    return f"{value / 1000:g}"


def moment(text: object) -> datetime | None:
    """A time of the API."""
    if not text:
        return None
    parsed = datetime.fromisoformat(str(text))
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def ago(text: object) -> str:
    """How long ago: `3 min ago`; in the future `in 3 min`."""
    at = moment(text)
    if at is None:
        return ""
    seconds = (datetime.now(UTC) - at).total_seconds()
    return f"in {span(-seconds)}" if seconds < -1 else f"{span(max(0.0, seconds))} ago"


def span(seconds: float) -> str:
    """A duration with one unit: `850 ms`, `12 s`, `3 min`, `5 h`, `2 d`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for unit, length, limit in (("s", 1, 100), ("min", 60, 90), ("h", 3600, 48)):
        if seconds < limit * length:
            value = seconds / length
            return f"{value:.1f} {unit}" if unit == "s" and value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def took(row: dict[str, Any]) -> str:
    """From start to end, or to now."""
    start = moment(row.get("started_at"))
    if start is None:
        return ""
    return span(max(0.0, ((moment(row.get("ended_at")) or datetime.now(UTC)) - start).total_seconds()))


def named(row: dict[str, Any]) -> str:
    """A task, or an instance with what it is called: `load`, `train[3] berlin`."""
    name = row["name"] if row["index"] < 0 else f"{row['name']}[{row['index']}]"
    return f"{name} {row['label']}" if row.get("label") else name


def bar(part: float, whole: float, width: int = 10) -> Text:
    """`██████░░░░ 60%`, green to red."""
    share = min(1.0, max(0.0, part / whole)) if whole else 0.0
    full = round(share * width)
    style = "green" if share < 0.7 else "yellow" if share < 0.9 else "red"
    made = Text("█" * full, style=style)
    made.append("░" * (width - full), style="dim")
    return made.append(f" {share * 100:3.0f}%")


def interactive() -> bool:
    """Whether a person watches standard output."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
