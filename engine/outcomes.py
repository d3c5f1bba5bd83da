"""What came of a simulation in figures: waits, slowdown, what was used, what was lost, and how fairly."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.order import jain, slowdown
from engine.simulate import Job, Record


@dataclass(frozen=True, slots=True)
class Ran:
    """One job as it went, simulated or recorded; times are epoch seconds, None for what did not happen.

    A span is (start, end, how it ended) as in engine.simulate.Record; `amounts` by resource.
    """

    queue: int
    submitted: float
    amounts: Mapping[str, int]
    spans: Sequence[tuple[float, float, str]]

    @property
    def wait(self) -> float | None:
        """Seconds from its submission to its end in which it did not do the work that counted in the end."""
        if not self.spans:
            return None
        start, end, _ = self.spans[-1]
        return max(0.0, end - self.submitted - (end - start))


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Waits in seconds; bounded slowdown as in engine.order; `used` is the part of each resource's capacity.

    `lost` is the seconds that runs had been going for when they were evicted or lost. `fairness` is Jain's index of
    what each queue was served, as its dominant part of the capacity, divided by its weight.
    """

    jobs: int
    started: int
    finished: int
    wait_mean: float
    wait_p50: float
    wait_p95: float
    slowdown_mean: float
    slowdown_p95: float
    used: Mapping[str, float]
    evictions: int
    lost: float
    fairness: float


def ran(job: Job, record: Record) -> Ran:
    """A simulated job as it went; one that still runs has the span that it will have."""
    spans = [*record.spans]
    if record.started is not None and record.ends is not None:
        spans.append((record.started, record.ends, "running"))
    return Ran(job.candidate.queue, record.submitted, job.candidate.amounts, spans)


def outcomes(
    runs: Iterable[Ran],
    *,
    start: float,
    end: float,
    capacity: Mapping[str, float],
    weights: Mapping[int, float],
) -> Outcomes:
    """The figures of a period. `capacity` is what there was of each resource over it, in amounts times seconds."""
    waits, slow, lost = [], [], 0.0
    jobs = finished = evictions = 0
    busy: dict[str, float] = dict.fromkeys(capacity, 0.0)
    served: dict[int, dict[str, float]] = {}
    for item in runs:
        jobs += 1
        mine = served.setdefault(item.queue, dict.fromkeys(capacity, 0.0))
        for began, ended, how in item.spans:
            inside = max(0.0, min(ended, end) - max(began, start))
            for resource in capacity:
                amount = item.amounts.get(resource, 0) * inside
                busy[resource] += amount
                mine[resource] += amount
            if how in ("preempted", "lost"):
                evictions, lost = evictions + (how == "preempted"), lost + ended - began
        wait = item.wait
        if wait is not None and item.spans[-1][2] in ("done", "limit", "running"):
            waits.append(wait)
            slow.append(slowdown(wait, item.spans[-1][1] - item.spans[-1][0]))
            finished += item.spans[-1][2] != "running"
    shares = [
        max((amount / capacity[resource] for resource, amount in amounts.items() if capacity[resource]), default=0.0)
        / weights.get(queue, 1.0)
        for queue, amounts in served.items()
        if weights.get(queue, 1.0) > 0
    ]
    return Outcomes(
        jobs=jobs,
        started=len(waits),
        finished=finished,
        wait_mean=float(np.mean(waits)) if waits else 0.0,
        wait_p50=float(np.quantile(waits, 0.5)) if waits else 0.0,
        wait_p95=float(np.quantile(waits, 0.95)) if waits else 0.0,
        slowdown_mean=float(np.mean(slow)) if slow else 1.0,
        slowdown_p95=float(np.quantile(slow, 0.95)) if slow else 1.0,
        used={resource: busy[resource] / amount if amount else 0.0 for resource, amount in capacity.items()},
        evictions=evictions,
        lost=lost,
        fairness=jain(shares),
    )
