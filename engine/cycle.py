"""One cycle of the scheduler: which pending jobs get capacity, in which flavor and where, and why others not.

Within a cycle capacity and quota only shrink, so what failed once fails again: every refusal is remembered by
what was asked, and thousands of equal jobs cost one look.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

import numpy as np

from engine.fleet import Fleet, Mask
from engine.placement import (
    Funnel,
    Groups,
    Member,
    Placed,
    Unplaced,
    candidates,
    feasibility,
    place_gang,
    take_members,
)
from engine.quota import FlavorResource, QuotaTree, Shortage
from engine.reasons import Reason, mildest


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pending job. `amounts` are its totals by resource; `submitted` and `not_before` are epoch seconds.

    Candidates of one queue and pool with the same `equivalence` ask for the same.
    """

    job: int
    queue: int
    priority: int
    submitted: float
    groups: Groups
    amounts: Mapping[str, int]
    pool: str
    not_before: float = 0.0
    attempts: int = 0
    equivalence: Hashable = None


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool: its nodes, and its flavors in the order to try, each with its nodes."""

    nodes: Mask
    flavors: Sequence[tuple[str, Mask]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was observed. `decide` changes nothing of it."""

    fleet: Fleet
    pools: Mapping[str, PoolView]
    tree: QuotaTree
    candidates: Sequence[Candidate]
    suspended: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided about one job.

    `position` counts the jobs of its queue that stay pending, this one included; 0 for a grant. `tried` has
    an entry per flavor in the order tried, `funnel` is that of the flavor whose reason is reported.
    """

    job: int
    outcome: str
    reason: Reason | None
    detail: str
    flavor: str | None = None
    members: tuple[Member, ...] = ()
    funnel: Funnel | None = None
    tried: Sequence[dict[str, object]] = ()
    position: int = 0
    scores: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why jobs of one kind stay pending."""

    reason: Reason
    detail: str
    funnel: Funnel | None = None
    tried: Sequence[dict[str, object]] = ()


def queue_order(candidates: Sequence[Candidate]) -> dict[int, list[Candidate]]:
    """Candidates by queue: higher priority first, then submitted earlier, then the smaller job id."""
    count = len(candidates)
    keys = (
        np.fromiter((item.job for item in candidates), dtype=np.int64, count=count),
        np.fromiter((item.submitted for item in candidates), dtype=np.float64, count=count),
        np.fromiter((-item.priority for item in candidates), dtype=np.int64, count=count),
    )
    queues: dict[int, list[Candidate]] = {}
    for index in np.lexsort(keys).tolist():
        item = candidates[index]
        queues.setdefault(item.queue, []).append(item)
    return queues


def queue_key(tree: QuotaTree, queue: int) -> tuple[bool, float, float]:
    """Smaller goes first: queues that do not borrow, by dominant share; the others by fair share."""
    dominant, borrows = 0.0, False
    for fr, limit in tree.nodes[queue].limits.items():
        used = tree.usage(queue, fr)
        if used:
            borrows = borrows or tree.borrowing(queue, fr) > 0
            dominant = max(dominant, used / limit.nominal if limit.nominal > 0 else float("inf"))
    if borrows:
        return (True, *tree.share(queue).key())
    return (False, dominant, 0.0)


def decide(snapshot: Snapshot, *, now: float, limit: int = 1000) -> list[Verdict]:
    """A verdict for every candidate, grants in the order in which they are to be applied.

    At most `limit` jobs are granted. The queue with the smallest present share goes next; inside it a job
    that cannot start does not block those behind it. Deterministic.
    """
    return _Cycle(snapshot, now, limit).run()


class _Cycle:
    """The state of one `decide`: scratch copies of fleet and tree, and every refusal so far."""

    def __init__(self, snapshot: Snapshot, now: float, limit: int) -> None:
        self.suspended = snapshot.suspended
        self.flavors = {
            name: [(flavor, nodes & pool.nodes) for flavor, nodes in pool.flavors]
            for name, pool in snapshot.pools.items()
        }
        self.fleet, self.tree = snapshot.fleet.fork(), snapshot.tree.copy()
        self.now, self.limit = now, limit
        self.queues = queue_order(snapshot.candidates)
        self.granted = 0
        self.verdicts: list[Verdict] = []
        self.refusals: dict[Hashable, _Refusal] = {}
        self.unplaced: dict[Hashable, Unplaced] = {}
        self.infeasible: dict[Hashable, Unplaced | None] = {}

    def run(self) -> list[Verdict]:
        heap: list[tuple[tuple[bool, float, float], int]] = []
        for queue, items in self.queues.items():
            if queue not in self.tree:
                self._refuse_queue(
                    items, _Refusal(Reason.NO_FLAVOR, "the tenant has no quota in any flavor.")
                )
            elif queue in self.suspended:
                self._refuse_queue(items, _Refusal(Reason.TENANT_SUSPENDED, "the tenant is suspended."))
            else:
                heappush(heap, (queue_key(self.tree, queue), queue))
        places = dict.fromkeys(self.queues, (0, 0))
        while heap:
            _, queue = heappop(heap)
            start, waiting = places[queue]
            following, waiting = self._serve(self.queues[queue], start, waiting)
            if following < len(self.queues[queue]):
                places[queue] = (following, waiting)
                heappush(heap, (queue_key(self.tree, queue), queue))
        return self.verdicts

    def _refuse_queue(self, items: Sequence[Candidate], refusal: _Refusal) -> None:
        for position, item in enumerate(items, 1):
            self._refuse(item, refusal, position)

    def _refuse(self, item: Candidate, refusal: _Refusal, position: int) -> None:
        self.verdicts.append(
            Verdict(
                item.job,
                "pend",
                refusal.reason,
                refusal.detail,
                None,
                (),
                refusal.funnel,
                refusal.tried,
                position,
            )
        )

    def _serve(self, items: Sequence[Candidate], start: int, waiting: int) -> tuple[int, int]:
        """Go through a queue up to its next grant; returns where to go on and how many stay pending."""
        for index in range(start, len(items)):
            item = items[index]
            if item.not_before > self.now:
                waiting += 1
                self._refuse(item, self._backoff(item), waiting)
                continue
            key = (item.queue, item.pool, item.equivalence)
            refusal = self.refusals.get(key) if item.equivalence is not None else None
            if refusal is None:
                outcome = self._consider(item)
                if outcome is None:
                    return index + 1, waiting
                self.refusals[key] = refusal = outcome
            waiting += 1
            self._refuse(item, refusal, waiting)
        return len(items), waiting

    def _backoff(self, item: Candidate) -> _Refusal:
        wait = item.not_before - self.now
        return _Refusal(Reason.BACKOFF, f"tried {item.attempts} times; the next try is in {wait:.1f} s.")

    def _consider(self, item: Candidate) -> _Refusal | None:
        """Grant the job (None) or say why not: the mildest reason over its flavors, as one is enough."""
        flavors = self.flavors.get(item.pool)
        if flavors is None:
            return _Refusal(Reason.NO_POOL, "the pool that the job names does not exist.")
        tried: list[dict[str, object]] = []
        refusals: list[_Refusal] = []
        shape = tuple((request.shape, count) for request, count in item.groups)
        for flavor, nodes in flavors:
            outcome = self._try(item, flavor, nodes, shape)
            if isinstance(outcome, Placed):
                if self.granted < self.limit:
                    self._grant(item, flavor, nodes, outcome, tried)
                    return None
                detail = f"it fits, but {self.granted} jobs were granted before it in this cycle."
                tried.append({"flavor": flavor, "outcome": "fits", "detail": detail})
                return _Refusal(Reason.BEHIND_IN_QUEUE, detail, None, tried)
            refusals.append(outcome)
            tried.extend(outcome.tried)
        if not refusals:
            return _Refusal(Reason.NO_FLAVOR, "the pool that the job names has no flavor.")
        reason = mildest(refusal.reason for refusal in refusals)
        chosen = next(refusal for refusal in refusals if refusal.reason == reason)
        return _Refusal(reason, chosen.detail, chosen.funnel, tried)

    def _try(self, item: Candidate, flavor: str, nodes: Mask, shape: Hashable) -> Placed | _Refusal:
        """A place in one flavor under quota, or why not; what does not pass by waiting is looked at first."""
        amounts = charge_of(item, flavor)
        shortage = self.tree.ever_fits(item.queue, amounts)
        if shortage is not None:
            never_covered = shortage.limit == "not covered"
            return _no_quota(
                flavor, shortage, Reason.NO_FLAVOR if never_covered else Reason.EXCEEDS_MAX_QUOTA
            )
        key = (item.pool, flavor, shape)
        if key not in self.infeasible:
            self.infeasible[key] = feasibility(self.fleet, item.groups, allowed=nodes)
        never = self.infeasible[key]
        if never is not None:
            return _no_place(flavor, never)
        shortage = self.tree.fits(item.queue, amounts)
        if shortage is not None:
            return _no_quota(flavor, shortage, Reason.WAITING_FOR_QUOTA)
        blocked = self.unplaced.get(key)
        if blocked is None:
            placed = place_gang(self.fleet, item.groups, allowed=nodes, feasible=True)
            if isinstance(placed, Placed):
                return placed
            self.unplaced[key] = blocked = placed
        return _no_place(flavor, blocked)

    def _grant(
        self, item: Candidate, flavor: str, nodes: Mask, placed: Placed, tried: list[dict[str, object]]
    ) -> None:
        funnel, _ = candidates(self.fleet, item.groups[0][0], nodes)
        take_members(self.fleet, item.groups, placed.members)
        self.tree.add(item.queue, charge_of(item, flavor))
        self.granted += 1
        tried.append({"flavor": flavor, "outcome": "granted", "detail": "", "funnel": funnel.as_list()})
        self.verdicts.append(
            Verdict(item.job, "grant", None, "", flavor, placed.members, funnel, tried, 0, placed.scores)
        )


def charge_of(item: Candidate, flavor: str) -> dict[FlavorResource, int]:
    """What a grant in this flavor is charged."""
    return {(flavor, resource): amount for resource, amount in item.amounts.items()}


def _no_quota(flavor: str, shortage: Shortage, reason: Reason) -> _Refusal:
    detail = shortage.text()
    quota = {
        "resource": shortage.fr[1],
        "requested": shortage.requested,
        "available": shortage.available,
        "potential": shortage.potential,
        "limiting": shortage.limiting,
        "limit": shortage.limit,
    }
    return _Refusal(
        reason, detail, None, [{"flavor": flavor, "outcome": reason.value, "detail": detail, "quota": quota}]
    )


def _no_place(flavor: str, unplaced: Unplaced) -> _Refusal:
    detail = f"flavor {flavor}: {unplaced.detail}"
    entry: dict[str, object] = {
        "flavor": flavor,
        "outcome": unplaced.reason.value,
        "detail": detail,
        "funnel": unplaced.funnel.as_list(),
    }
    return _Refusal(unplaced.reason, detail, unplaced.funnel, [entry])
