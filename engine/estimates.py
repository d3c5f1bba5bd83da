"""How long a job will run: quantiles of what jobs like it took, never above its time limit.

The history is looked at on three levels: jobs of the same tenant and name, all jobs of the tenant, all jobs. Each
level is a distribution by Kaplan and Meier (1958), so that jobs still running count as "at least so long".
With n ends, a level has the weight n / (n + PRIOR), and the rest goes to the next wider one. What the widest leaves,
and what a level expects to last beyond all its ends, is put at the time limit. So one odd end moves little, and
without any history the limit is all there is.
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
# A run that has outlived everything known is expected to go on for up to so many times what it took so far: a
# prediction that has proved too short is made longer, as Tsafrir, Etsion and Feitelson (2007) do.
OVERRUN = 1.0
LEVELS = ("job", "tenant", "all")

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

    def forget(self, key: Hashable) -> None:
        """Drop what is known of a key."""
        self._ends.pop(key, None)
        self._steps.pop(key, None)

    def copy(self) -> "History":
        """An independent history with the same ends."""
        twin = History(window=self._window, prior=self._prior)
        twin._ends = {key: ends.copy() for key, ends in self._ends.items()}
        twin._steps = dict(self._steps)
        return twin

    def estimate(
        self,
        keys: Sequence[Hashable],
        limit: float,
        *,
        elapsed: float = 0.0,
        running: Mapping[Hashable, Sequence[float]] | None = None,
    ) -> Estimate:
        """What a job with these keys will take in all, given that it has run for `elapsed` seconds.

        `running` has, per key, how long each job has run that has not ended.
        """
        p50, p90 = self.quantiles(keys, limit, np.array([0.5, 0.9]), elapsed=elapsed, running=running).tolist()
        for name, key in zip(LEVELS, keys, strict=True):
            if samples := len(self._ends.get(key, ())):
                return Estimate(p50, p90, name, samples)
        return Estimate(p50, p90, "limit", 0)

    def quantiles(
        self,
        keys: Sequence[Hashable],
        limit: float,
        probabilities: npt.NDArray[np.float64],
        *,
        elapsed: float = 0.0,
        running: Mapping[Hashable, Sequence[float]] | None = None,
    ) -> npt.NDArray[np.float64]:
        """The seconds by which a job has ended with each probability, given that it runs for more than `elapsed`."""
        times, mass, left, unknown = [], [], 1.0, 1.0
        for key in keys:
            count = len(self._ends.get(key, ()))
            if count:
                part = left * count / (count + self._prior)
                at, step = self._level(key, (running or {}).get(key, ()))
                beyond = (at > elapsed) & (at < limit)
                times.append(at[beyond])
                mass.append(part * step[beyond])
                unknown -= part * float(step[at < limit].sum())
                left -= part
        known = float(sum(step.sum() for step in mass))
        if elapsed > 0 and known <= 0:
            # Only the limit is left, which is there to stop a run and says little about its length.
            longer = elapsed * (1.0 + OVERRUN * probabilities)
            return np.asarray(np.minimum(max(limit, elapsed), longer), dtype=np.float64)
        at = np.concatenate([*times, np.array([max(limit, elapsed)])])
        step = np.concatenate([*mass, np.array([max(0.0, unknown)])])
        order = np.argsort(at, kind="stable")
        reached = np.cumsum(step[order])
        wanted = np.searchsorted(reached, np.asarray(probabilities) * reached[-1] - 1e-12, side="left")
        return np.asarray(at[order][np.minimum(wanted, len(at) - 1)], dtype=np.float64)

    def _level(self, key: Hashable, running: Sequence[float]) -> Steps:
        if running:
            return kaplan_meier(list(self._ends[key]), running)
        steps = self._steps.get(key)
        if steps is None:
            steps = self._steps[key] = kaplan_meier(list(self._ends[key]))
        return steps
