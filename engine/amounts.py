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
    """Seconds in the largest unit that keeps the number at one or more: `1.5 h`."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length * (1 + (unit == "days")):
            return f"{_decimal(seconds / length)} {unit}"
    return f"{_decimal(seconds)} s"
