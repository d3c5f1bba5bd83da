"""When a job that waits will start: the decider on many possible futures.

In each future every run time, of those that run and of those that wait, is drawn from its distribution
(engine.estimates). The decider then reserves a start for every job in its order (conservative backfill), and the
quantiles of these starts over the futures are the estimate. Who will come later is not known and not counted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import numpy.typing as npt

from engine.backfill import Mode, Running
from engine.cycle import decide
from engine.snapshot import Snapshot

DRAWS = 20

# Seconds in all that a job takes at each of these probabilities.
Quantiles = Callable[[int, npt.NDArray[np.float64]], npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Start:
    """Epoch seconds: it starts by `p50` in half of the futures, by `p90` in nine of ten."""

    p50: float
    p90: float


def estimate_starts(
    snapshot: Snapshot,
    *,
    now: float,
    quantiles: Quantiles,
    since: Mapping[int, float],
    draws: int = DRAWS,
    depth: int = 100,
    seed: int = 0,
) -> dict[int, Start]:
    """Estimated starts of the first `depth` jobs that wait; those that can never start have none.

    The snapshot needs a plan. `quantiles(job, probabilities)` gives run times from the start, for a running job
    those beyond what it has run; `since` has the starts of those that run. Deterministic for a seed.
    """
    if snapshot.plan is None:
        raise ValueError("an estimate of starts needs a snapshot with a plan")
    plan, chance = snapshot.plan, Random(seed)
    live = plan.expected()
    running = {item.job: quantiles(int(str(item.job)), _spread(draws, chance)) for item in live}
    waiting = {item.job: quantiles(item.job, _spread(draws, chance)) for item in snapshot.candidates}
    starts: dict[int, list[float]] = {}
    for draw in range(draws):
        drawn = replace(
            plan,
            mode=Mode.CONSERVATIVE,
            modes={},
            depth=depth,
            running=[_ending(item, since, float(running[item.job][draw]), now) for item in live],
            durations={job: float(times[draw]) for job, times in waiting.items()},
            told=True,
        )
        for verdict in decide(replace(snapshot, plan=drawn), now=now):
            # Who waits for evicted jobs to stop starts as soon as they have.
            start = verdict.reserved if verdict.outcome == "pend" else now
            if start is not None:
                starts.setdefault(verdict.job, []).append(start)
    found: dict[int, Start] = {}
    for job, times in starts.items():
        # In futures in which it was too far behind to get a start it comes after all that are known.
        full = np.sort(np.array([*times, *[np.inf] * (draws - len(times))]))
        p50, p90 = (float(full[int(np.ceil(part * draws)) - 1]) for part in (0.5, 0.9))
        if np.isfinite(p50) and np.isfinite(p90):
            found[job] = Start(p50, p90)
    return found


def _spread(draws: int, chance: Random) -> npt.NDArray[np.float64]:
    """One probability from each of `draws` equal parts of 0 to 1, shuffled: so fewer futures go a longer way."""
    parts = [(number + chance.uniform(0.0, 1.0)) / draws for number in range(draws)]
    chance.shuffle(parts)
    return np.array(parts)


def _ending(item: Running, since: Mapping[int, float], seconds: float, now: float) -> Running:
    return replace(item, end=max(since.get(int(str(item.job)), now) + seconds, now + 1.0))
