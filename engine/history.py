"""Past use: a decayed average with a half-life, for shares between queues and for order inside one.

`new = old * (1 - a) + current * a` with `a = 1 - 0.5 ** (interval / half_life)`: what was used one half-life ago
counts half of what is used now (as Kueue's admission fair sharing and Slurm's multifactor plugin count it).
"""

from collections.abc import Mapping
from math import inf
from typing import TypeVar

Key = TypeVar("Key")

# Amounts of one whole unit, where stored amounts are thousandths of it.
THOUSANDTHS = {"cpu": 1000, "gpu": 1000}


def decay(interval: float, half_life: float) -> float:
    """The part `a` of the average that an interval replaces; both in seconds.

    Raises ValueError for a negative interval or a half-life that is not positive.
    """
    if interval < 0 or not half_life > 0:
        raise ValueError(f"an interval of {interval} s, a half-life of {half_life} s: from 0, and more than 0")
    return 1.0 - float(0.5 ** (interval / half_life))


def averaged(
    old: Mapping[Key, float], current: Mapping[Key, float], interval: float, half_life: float
) -> dict[Key, float]:
    """The average after an interval during which `current` was in use."""
    part = decay(interval, half_life)
    return {key: old.get(key, 0.0) * (1 - part) + current.get(key, 0.0) * part for key in old.keys() | current.keys()}


def penalty(request: Mapping[Key, float], interval: float, half_life: float) -> dict[Key, float]:
    """What an admission adds at once, so that a burst does not slip through between two samples."""
    part = decay(interval, half_life)
    return {key: amount * part for key, amount in request.items()}


def consumption(
    consumed: Mapping[str, float],
    weight: float,
    resource_weights: Mapping[str, float],
    units: Mapping[str, int] = THOUSANDTHS,
) -> float:
    """A user's past use as one number: weighted resources in whole units, divided by the user's weight.

    Resources without a weight count once. Weight 0 is infinite: such a user goes last.
    """
    if weight == 0:
        return inf
    return (
        sum(
            resource_weights.get(resource, 1.0) * amount / units.get(resource, 1)
            for resource, amount in consumed.items()
        )
        / weight
    )
