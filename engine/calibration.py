"""How far estimated starts can be believed: each is stretched by how wrong the earlier ones have been.

An estimate does not know who will come later and go first, so under load it is too early (engine.forecast). How
much too early is learnt from estimates that were made before: the ratio (waited + SCALE) / (estimated wait + SCALE)
has a distribution, by Kaplan and Meier (1958), as those that still wait have waited "at least so long". Its median
stretches p50, and the 90 % quantile of the same ratio to p90 stretches p90; so nine of ten start by a p90 that is
told if the next ones are like the last (conformal prediction: Vovk, Gammerman and Shafer 2005). Short waits are
moved by a sum rather than by a factor, which is what SCALE is for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.estimates import kaplan_meier
from engine.forecast import Start

# Seconds added to both waits before they are compared.
SCALE = 600.0
# Starts that have to be known before anything is stretched.
LEAST = 10
# Estimates that are looked back at: what was wrong long ago says little.
WINDOW = 200


@dataclass(frozen=True, slots=True)
class Earlier:
    """An estimate that was made at `made` and what came of it (epoch seconds).

    `seen` is when the job started, or until when it is known to have waited if it has not (`started` is False).
    """

    made: float
    p50: float
    p90: float
    seen: float
    started: bool


@dataclass(frozen=True, slots=True)
class Stretch:
    """Factors for the waits of new estimates, learnt from so many starts; 1.0 changes nothing."""

    p50: float = 1.0
    p90: float = 1.0
    samples: int = 0

    def apply(self, start: Start, now: float) -> Start:
        """The estimate as it is told: never before `now`, and p90 never before p50."""
        p50, p90 = (
            now + max(0.0, (max(0.0, at - now) + SCALE) * factor - SCALE)
            for at, factor in ((start.p50, self.p50), (start.p90, self.p90))
        )
        return Start(p50, max(p50, p90))


def stretch_of(earlier: Sequence[Earlier]) -> Stretch:
    """What the latest WINDOW of these estimates teach; nothing before LEAST of their jobs have started."""
    latest = sorted(earlier, key=lambda item: item.made)[-WINDOW:]
    samples = sum(item.started for item in latest)
    if samples < LEAST:
        return Stretch(samples=samples)
    return Stretch(_factor(latest, 0.5), _factor(latest, 0.9), samples)


def _factor(earlier: Sequence[Earlier], part: float) -> float:
    ratios = []
    for item in earlier:
        estimated = (item.p50 if part == 0.5 else item.p90) - item.made
        ratios.append((item.seen - item.made + SCALE) / (max(0.0, estimated) + SCALE))
    times, mass = kaplan_meier(
        [ratio for ratio, item in zip(ratios, earlier, strict=True) if item.started],
        [ratio for ratio, item in zip(ratios, earlier, strict=True) if not item.started],
    )
    place = int(np.searchsorted(np.cumsum(mass), part - 1e-9))
    # Where too many still wait for the quantile to be known, it is at least what has been seen.
    return float(times[place]) if place < len(times) else max(ratios)
