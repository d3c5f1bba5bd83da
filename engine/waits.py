"""When a sensor is poked next, and what becomes of a wait: pure arithmetic on epoch seconds."""

from math import log


def next_poke(*, interval: float, factor: float, cap: float, pokes: int, now: float, deadline: float) -> float | None:
    """When to poke again after `pokes` pokes that found nothing: `interval * factor ** (pokes - 1)` seconds from now,
    at most `cap` (but never less than the interval), and a last time at the deadline. None: the time is over.

    Raises ValueError for numbers that describe no such series.
    """
    if interval <= 0 or factor < 1 or pokes < 1:
        raise ValueError("a sensor has an interval > 0, a factor >= 1 and at least one poke behind it")
    if now >= deadline:
        return None
    most = max(cap, interval)
    # Compared as logarithms, because a large number of pokes would overflow the power.
    capped = log(interval) + (pokes - 1) * log(factor) >= log(most)
    return min(now + (most if capped else interval * factor ** (pokes - 1)), deadline)
