"""In which order the jobs of one queue are looked at: the sum of terms that can each be shown.

    points = class + priority + ageing - fair share

class        what its priority class is worth
priority     the job's own number
ageing       AGEING points for each doubling of (waited + expected) / expected, the slowdown that its wait has cost
             it so far; the shorter a job, the sooner it goes up (highest response ratio next, Brinch Hansen 1971).
             There is no cap, so every job comes to the front some time.
fair share   FAIR_SHARE points for each time that the queue uses its own quota (dominant share, past use included)

In a pool in which priority reaches across tenants, the job's own number goes before the points, and between queues
before borrowing and shares (engine.fairness): points then order those of equal priority.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import log2

import numpy as np
import numpy.typing as npt

from engine.quota import QuotaTree
from engine.snapshot import Candidate, urgency

# Jobs expected to be shorter than this are not told apart by the wait (seconds).
SHORTEST = 10.0

Float64 = npt.NDArray[np.float64]


class Reach(StrEnum):
    """How far priority reaches in a pool: among the jobs of one tenant, or among those of all."""

    WITHIN = "within_tenants"
    ACROSS = "across_tenants"


@dataclass(frozen=True, slots=True)
class OrderPolicy:
    """What the terms weigh. Points are on the scale of the priority number of a job, -1000 to 1000."""

    classes: Mapping[str, float] = field(default_factory=lambda: {"low": -100.0, "": 0.0, "high": 100.0})
    ageing: float = 10.0
    fair_share: float = 10.0


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of one job; `total` is their sum, and the larger one goes first."""

    priority_class: float
    priority: float
    ageing: float
    fair_share: float

    @property
    def total(self) -> float:
        """What the jobs are ordered by."""
        return self.priority_class + self.priority + self.ageing + self.fair_share

    def as_dict(self) -> dict[str, float]:
        """JSON-ready; the terms, rounded to hundredths, and the sum of what is shown."""
        shown = {
            "class": round(self.priority_class, 2),
            "priority": round(self.priority, 2),
            "ageing": round(self.ageing, 2),
            "fair_share": round(self.fair_share, 2),
        }
        return {**shown, "total": round(sum(shown.values()), 2)}


def order_terms(
    policy: OrderPolicy,
    *,
    priority: int,
    waited: float,
    expected: float,
    share: float = 0.0,
    priority_class: str = "",
) -> Terms:
    """The terms of a job that has waited for so many seconds and is expected to run for so many.

    `share` is the dominant part of its queue's own quota that is in use, 1.0 for all of it. Raises ValueError
    for an unknown class.
    """
    if priority_class not in policy.classes:
        known = ", ".join(sorted(name for name in policy.classes if name))
        raise ValueError(f"there is no priority class {priority_class!r}; known are: {known}")
    length = max(expected, SHORTEST)
    return Terms(
        priority_class=policy.classes[priority_class],
        priority=float(priority),
        ageing=policy.ageing * log2(1.0 + max(0.0, waited) / length),
        fair_share=-policy.fair_share * share,
    )


def slowdown(waited: float, ran: float) -> float:
    """Bounded slowdown (Feitelson and Rudolph 1998): (wait + run) / run, with runs of at least SHORTEST."""
    return max(1.0, (waited + ran) / max(ran, SHORTEST))


def jain(values: Iterable[float]) -> float:
    """Jain's index of fairness (1984): (sum x)^2 / (n * sum x^2), 1 when all are equal; 1 of nothing."""
    listed = list(values)
    squares = sum(value * value for value in listed)
    return 1.0 if squares == 0 else sum(listed) ** 2 / (len(listed) * squares)


def queue_share(tree: QuotaTree, queue: int) -> float:
    """How much of its own quota a queue uses, past use included: its standing (engine.fairness), 1.0 for all of it."""
    return tree.standing(queue).unweighted / 1000 if queue in tree else 0.0


def points(
    policy: OrderPolicy,
    candidates: Sequence[Candidate],
    tree: QuotaTree,
    *,
    now: float,
    expected: Mapping[int, float],
) -> dict[int, float]:
    """The totals of `order_terms` of jobs without a class; `expected` has the seconds that each is expected to run."""
    total = _total(policy, candidates, tree, now, expected)
    return dict(zip((item.job for item in candidates), total.tolist(), strict=True))


def _total(
    policy: OrderPolicy, candidates: Sequence[Candidate], tree: QuotaTree, now: float, expected: Mapping[int, float]
) -> Float64:
    shares = {queue: queue_share(tree, queue) for queue in {item.queue for item in candidates}}
    length = np.maximum(np.array([expected[item.job] for item in candidates], dtype=np.float64), SHORTEST)
    waited = np.maximum(now - np.array([item.submitted for item in candidates], dtype=np.float64), 0.0)
    priority = np.array([item.priority for item in candidates], dtype=np.float64)
    share = np.array([shares[item.queue] for item in candidates], dtype=np.float64)
    total: Float64 = priority + policy.ageing * np.log2(1.0 + waited / length) - policy.fair_share * share
    return total


def next_change(
    policy: OrderPolicy,
    candidates: Sequence[Candidate],
    tree: QuotaTree,
    *,
    now: float,
    expected: Mapping[int, float],
    across: frozenset[str] = frozenset(),
) -> float | None:
    """When the order in any queue changes next if only time passes; None if it never does.

    Nobody ages past one who is more urgent, by priority in one of the pools `across`. The first change is between
    neighbours. Of two jobs with priorities p, q, lengths l, m and submissions s, u the
    points are equal at the t with k (l - s + t) / l = (m - u + t) / m, where k = 2^((p - q) / AGEING).
    """
    if policy.ageing <= 0 or len(candidates) < 2:
        return None
    total = _total(policy, candidates, tree, now, expected)
    queue = np.array([item.queue for item in candidates])
    urgent = np.array([urgency(item, across) for item in candidates])
    order = np.lexsort((-total, -urgent, queue))
    length = np.maximum(np.array([expected[candidates[index].job] for index in order]), SHORTEST)
    submitted = np.array([candidates[index].submitted for index in order])
    priority = np.array([candidates[index].priority for index in order], dtype=np.float64)
    factor = np.exp2((priority[:-1] - priority[1:]) / policy.ageing) / length[:-1]
    slope = factor - 1.0 / length[1:]
    rise = (length[1:] - submitted[1:]) / length[1:] - factor * (length[:-1] - submitted[:-1])
    # Only who goes up faster than the one before it gets past it.
    passing = (slope < 0) & (queue[order][:-1] == queue[order][1:]) & (urgent[order][:-1] == urgent[order][1:])
    times = rise[passing] / slope[passing]
    times = times[times > now]
    return float(times.min()) if len(times) else None
