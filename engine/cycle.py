"""One cycle of the scheduler: which pending jobs get capacity, in which flavor and where, and why others not.

Within a cycle capacity and quota only shrink, so what failed once fails again: every refusal is remembered by
what was asked, and thousands of equal jobs cost one look.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from types import MappingProxyType
from typing import NamedTuple

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

    Candidates of one pool with the same `equivalence` have equal groups, and inside one queue equal amounts.
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


class Verdict(NamedTuple):
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
    scores: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why jobs of one kind stay pending."""

    reason: Reason
    detail: str
    funnel: Funnel | None = None
    tried: Sequence[dict[str, object]] = ()


@dataclass(slots=True)
class _Kind:
    """Jobs of one pool that ask for the same, whatever their queue: what placement has said about them.

    `blocked` is by flavor and final for the cycle; in `infeasible` are the flavors that could not hold the
    job even if they were empty. `refusals` is by the flavors that a queue has quota in, for queues with room
    in all of them.
    """

    looked_at: set[str] = field(default_factory=set)
    infeasible: set[str] = field(default_factory=set)
    blocked: dict[str, _Refusal] = field(default_factory=dict)
    refusals: dict[frozenset[str], _Refusal] = field(default_factory=dict)


@dataclass(slots=True)
class _Room:
    """Quota of one queue in one pool: the flavors it has any in, and what is free in every one of these.

    `free` is right as long as `grants` is the number of grants so far.
    """

    covered: frozenset[str]
    free: dict[str, int]
    grants: int


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
        self.kinds: dict[Hashable, _Kind] = {}
        self.rooms: dict[tuple[int, str], _Room] = {}

    def run(self) -> list[Verdict]:
        heap: list[tuple[tuple[bool, float, float], int]] = []
        for queue, items in self.queues.items():
            if queue not in self.tree:
                self._refuse_queue(items, _Refusal(Reason.NO_FLAVOR, "the tenant has no quota in any flavor."))
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

    def _refuse(self, item: Candidate, why: _Refusal, position: int) -> None:
        self.verdicts.append(
            Verdict(item.job, "pend", why.reason, why.detail, None, (), why.funnel, why.tried, position)
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
        if not flavors:
            return _Refusal(Reason.NO_FLAVOR, "the pool that the job names has no flavor.")
        kind, room = self._kind(item), self._room(item)
        roomy = all(amount <= room.free.get(resource, -1) for resource, amount in item.amounts.items() if amount)
        if roomy and room.covered in kind.refusals:
            return kind.refusals[room.covered]
        refusals: list[_Refusal] = []
        for flavor, nodes in flavors:
            if flavor not in room.covered:
                refusals.append(_no_flavor(flavor))
                continue
            outcome = self._try(item, kind, flavor, nodes, roomy)
            if isinstance(outcome, _Refusal):
                refusals.append(outcome)
                continue
            tried = [entry for refusal in refusals for entry in refusal.tried]
            if self.granted < self.limit:
                self._grant(item, flavor, nodes, outcome, tried)
                return None
            detail = f"it fits, but {self.granted} jobs were granted before it in this cycle."
            tried.append({"flavor": flavor, "outcome": "fits", "detail": detail})
            return _Refusal(Reason.BEHIND_IN_QUEUE, detail, None, tried)
        combined = _combined(refusals)
        if roomy:
            kind.refusals[room.covered] = combined
        return combined

    def _kind(self, item: Candidate) -> _Kind:
        name: Hashable = item.equivalence
        if name is None:
            name = tuple((request.shape, count) for request, count in item.groups)
        kind = self.kinds.get((item.pool, name))
        if kind is None:
            kind = self.kinds[item.pool, name] = _Kind()
        return kind

    def _room(self, item: Candidate) -> _Room:
        key = (item.queue, item.pool)
        room = self.rooms.get(key)
        if room is None:
            with_quota = {flavor for flavor, _ in self.tree.nodes[item.queue].limits}
            names = (flavor for flavor, _ in self.flavors[item.pool])
            room = self.rooms[key] = _Room(frozenset(names) & with_quota, {}, -1)
        if room.grants != self.granted:
            room.grants = self.granted
            limits = self.tree.nodes[item.queue].limits
            room.free = {
                resource: min(
                    self.tree.available(item.queue, (flavor, resource)) if (flavor, resource) in limits else -1
                    for flavor in room.covered
                )
                for resource in {resource for flavor, resource in limits if flavor in room.covered}
            }
        return room

    def _try(self, item: Candidate, kind: _Kind, flavor: str, nodes: Mask, roomy: bool) -> Placed | _Refusal:
        """A place in one flavor under quota, or why not; what does not pass by waiting is looked at first."""
        if not roomy:
            amounts = charge_of(item, flavor)
            shortage = self.tree.ever_fits(item.queue, amounts)
            if shortage is not None:
                uncovered = shortage.limit == "not covered"
                return _no_quota(flavor, shortage, Reason.NO_FLAVOR if uncovered else Reason.EXCEEDS_MAX_QUOTA)
        if flavor not in kind.looked_at:
            kind.looked_at.add(flavor)
            never = feasibility(self.fleet, item.groups, allowed=nodes)
            if never is not None:
                kind.infeasible.add(flavor)
                kind.blocked[flavor] = _no_place(flavor, never)
        if not roomy and flavor not in kind.infeasible:
            shortage = self.tree.fits(item.queue, amounts)
            if shortage is not None:
                return _no_quota(flavor, shortage, Reason.WAITING_FOR_QUOTA)
        if flavor not in kind.blocked:
            placed = place_gang(self.fleet, item.groups, allowed=nodes, feasible=True)
            if isinstance(placed, Placed):
                return placed
            kind.blocked[flavor] = _no_place(flavor, placed)
        return kind.blocked[flavor]

    def _grant(self, item: Candidate, flavor: str, nodes: Mask, placed: Placed, tried: list[dict[str, object]]) -> None:
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


def _combined(refusals: Sequence[_Refusal]) -> _Refusal:
    reason = mildest(refusal.reason for refusal in refusals)
    chosen = next(refusal for refusal in refusals if refusal.reason == reason)
    tried = [entry for refusal in refusals for entry in refusal.tried]
    return _Refusal(reason, chosen.detail, chosen.funnel, tried)


def _no_flavor(flavor: str) -> _Refusal:
    reason, detail = Reason.NO_FLAVOR, f"the tenant has no quota in flavor {flavor}."
    return _Refusal(reason, detail, None, [{"flavor": flavor, "outcome": reason.value, "detail": detail}])


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
