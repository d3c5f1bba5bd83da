"""Amounts as people read them. Stored amounts are integers: millicores, bytes, thousandths of a card."""

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def _decimal(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")


def bytes_text(amount: int) -> str:
    """Bytes in the largest binary unit that keeps the number at one or more: `1.5 GiB`."""
    size, unit = float(amount), 0
    while abs(size) >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.1f}".removesuffix(".0") + f" {_UNITS[unit]}"


def amount_text(resource: str, amount: int) -> str:
    """One amount with its unit: `2.5 cpu`, `64 GiB memory`, `4 GPUs`; other resources as they are."""
    if resource == "cpu":
        return f"{_decimal(amount / 1000)} cpu"
    if resource == "gpu":
        return f"{_decimal(amount / 1000)} GPU{'' if 0 < amount <= 1000 else 's'}"
    if resource in ("memory", "storage"):
        return f"{bytes_text(amount)} {resource}"
    return f"{amount} {resource}"


def duration_text(seconds: float) -> str:
    """Seconds in the two largest units that they fill: `1 h 55 min`; below a minute as they are."""
    if seconds < 60:
        return f"{_decimal(seconds)} s"
    parts, rest = [], round(seconds)
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{count} {'day' if unit == 'days' and count == 1 else unit}")
    return " ".join(parts[:2])
