"""How long a job will run: quantiles of what jobs like it took, never above its time limit.

The history is looked at on three levels: jobs of the same tenant and name, all jobs of the tenant, all jobs. Each
level is a distribution by Kaplan and Meier (1958), so that jobs still running count as "at least so long".
With n ends, a level has the weight n / (n + PRIOR), and what it leaves goes to the next wider one; what the widest
leaves is the time limit. So one odd end moves little, and without any history the limit is all there is.
"""

from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# As many ends of one level weigh as much as everything wider.
PRIOR = 5.0
# Ends kept per key: what jobs took long ago says little.
WINDOW = 200
# The estimate of a run that has outlived everything known, in times of what it took so far: that of Tsafrir,
# Etsion and Feitelson (2007), who also make predictions longer once they have proved too short.
OVERRUN = {0.5: 1.5, 0.9: 2.0}

Steps = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds from the start: half of such jobs took at most `p50`, nine of ten at most `p90`.

    `source` is the narrowest level that had any end (`job`, `tenant`, `all`, or `limit` for none) and `samples`
    how many it had.
    """

    p50: float
    p90: float
    source: str
    samples: int


def kaplan_meier(ends: Sequence[float], censored: Sequence[float] = ()) -> Steps:
    """Times of ends, ascending, and the probability of ending at each; what is missing to 1 lies beyond them.

    At each end time t the survival falls by the factor 1 - d/n, with d ends at t and n that ran at least so long
    (those that still run count up to what they have run so far).
    """
    times, deaths = np.unique(np.asarray(ends, dtype=np.float64), return_counts=True)
    everyone = np.sort(np.asarray([*ends, *censored], dtype=np.float64))
    at_risk = len(everyone) - np.searchsorted(everyone, times, side="left")
    survival = np.cumprod(1.0 - deaths / np.maximum(at_risk, 1))
    return times, -np.diff(survival, prepend=1.0)


class History:
    """What jobs took, by key; the caller chooses keys from narrow to wide."""

    def __init__(self, *, window: int = WINDOW, prior: float = PRIOR) -> None:
        self._window, self._prior = window, prior
        self._ends: dict[Hashable, deque[float]] = {}
        self._steps: dict[Hashable, Steps] = {}

    def add(self, keys: Sequence[Hashable], seconds: float) -> None:
        """A job with these keys ended after so many seconds."""
        for key in keys:
            self._ends.setdefault(key, deque(maxlen=self._window)).append(max(0.0, seconds))
            self._steps.pop(key, None)

    def estimate(
        self,
        keys: Sequence[Hashable],
        limit: float,
        *,
        elapsed: float = 0.0,
        running: Mapping[Hashable, Sequence[float]] | None = None,
    ) -> Estimate:
        """What a job with these keys will take in all, given that it has run for `elapsed` seconds.

        `running` has, per key, how long each job has run that has not ended. The quantiles are those of the
        weighted levels, given that the run is longer than `elapsed`.
        """
        times, mass, left = [np.array([limit])], [np.array([0.0])], 1.0
        source, samples = "limit", 0
        for name, key in zip(("job", "tenant", "all"), keys, strict=True):
            count = len(self._ends.get(key, ()))
            if not count:
                continue
            if source == "limit":
                source, samples = name, count
            part = left * count / (count + self._prior)
            at, step = self._level(key, (running or {}).get(key, ()))
            times.append(at)
            mass.append(part * step)
            left -= part * float(step.sum())
        mass[0] = np.array([max(0.0, left)])
        at, step = np.minimum(np.concatenate(times), limit), np.concatenate(mass)
        order = np.argsort(at, kind="stable")
        p50, p90 = (_quantile(at[order], step[order], q, elapsed, limit) for q in (0.5, 0.9))
        return Estimate(p50, max(p50, p90), source, samples)

    def _level(self, key: Hashable, running: Sequence[float]) -> Steps:
        if running:
            return kaplan_meier(list(self._ends[key]), running)
        steps = self._steps.get(key)
        if steps is None:
            steps = self._steps[key] = kaplan_meier(list(self._ends[key]))
        return steps


def _quantile(
    times: npt.NDArray[np.float64], mass: npt.NDArray[np.float64], q: float, elapsed: float, limit: float
) -> float:
    """The first time at which at least the part `q` of what lies beyond `elapsed` has ended."""
    beyond = times > elapsed
    total = float(mass[beyond].sum())
    known = float(mass[beyond & (times < limit)].sum())
    if elapsed > 0 and known <= 0:
        # Only the limit is left, which is there to stop a run and says little about its length.
        return float(min(max(limit, elapsed), elapsed * OVERRUN[q]))
    if total <= 0:
        return max(limit, elapsed)
    reached = np.cumsum(mass[beyond]) >= q * total - 1e-12
    return float(times[beyond][int(np.argmax(reached))])
