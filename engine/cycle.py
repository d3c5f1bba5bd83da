"""One cycle of the scheduler: which pending jobs get capacity, in which flavor and where, and why others not.

Made of the same parts as a cycle of quota alone (engine.admission), with nodes and with as many heads of each
queue as there are: the tournament of engine.fairness says whose head goes next, engine.flavors which flavor it
gets, engine.preemption who has to go for it. Within a cycle capacity and quota only shrink, so what failed once
fails again: every refusal is remembered by what was asked, and thousands of equal jobs cost one look.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from engine.backfill import Backfill, Option, Plan, Wait
from engine.evictions import Eviction, Evictions, Places
from engine.fairness import Entry, Tournament
from engine.flavors import Level, Mode, choose, level_of, reduced
from engine.fleet import Fleet, Mask
from engine.placement import (
    Funnel,
    Groups,
    Member,
    Placed,
    Split,
    candidates,
    obstacles,
    place_gang,
    place_one,
    shortages,
    take_members,
)
from engine.preemption import Cause, Demand
from engine.queues import (
    DEFAULT_RULES,
    FairStrategy,
    Fungibility,
    Holder,
    Policy,
    Preference,
    QueueRules,
    Strategy,
    World,
)
from engine.quota import FlavorResource, QuotaTree
from engine.reasons import GRAVITY, RANK, Reason
from engine.refusals import Deferred, Granted, Refusal, Told, behind, combined, no_flavor, no_place, no_quota


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pending job. `amounts` are its totals by resource; `submitted` and `not_before` are epoch seconds.

    Candidates of one pool with the same `equivalence` have equal groups, and inside one queue equal amounts.
    Each of `budgets` must still allow a start (`Snapshot.allowances`); where none is told, it does.
    `minimums` says by group with how few members the job starts too where not all fit; empty: all or none.
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
    minimums: tuple[int | None, ...] = ()
    budgets: tuple[int, ...] = ()

    def sized(self, counts: Sequence[int]) -> "Candidate":
        """The job with so many members by group, all of which it needs, and what it is charged then."""
        groups = [(request, count) for (request, _), count in zip(self.groups, counts, strict=True)]
        before, after = totals(self.groups), totals(groups)
        amounts = {
            resource: amount - before.get(resource, 0) + after.get(resource, 0)
            for resource, amount in self.amounts.items()
        }
        equivalence = None if self.equivalence is None else (self.equivalence, tuple(counts))
        return replace(self, groups=groups, amounts=amounts, equivalence=equivalence, minimums=())

    @property
    def least(self) -> "Candidate":
        """The job with the fewest members that it starts with."""
        if not self.minimums:
            return self
        return self.sized([least or count for least, (_, count) in zip(self.minimums, self.groups, strict=True)])

    def granted(self, members: Sequence[Member]) -> "Candidate":
        """The job with the members that it was granted."""
        if not self.minimums:
            return self
        counts = [0] * len(self.groups)
        for group, *_ in members:
            counts[group] += 1
        return self.sized(counts)


def totals(groups: Groups) -> dict[str, int]:
    """What all members ask for together, by resource."""
    sums = {"cpu": 0, "memory": 0, "storage": 0, "gpu": 0}
    for request, count in groups:
        sums["cpu"] += request.cpu * count
        sums["memory"] += request.memory * count
        sums["storage"] += request.storage * count
        sums["gpu"] += request.gpu_count * request.gpu_milli * count
    return sums


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many more jobs a budget lets start, and what is said to those that it does not."""

    starts: int
    detail: str


@dataclass(frozen=True)
class PoolView:
    """A pool: its nodes, and its flavors in the order to try, each with its nodes."""

    nodes: Mask
    flavors: Sequence[tuple[str, Mask]]

    @cached_property
    def inside(self) -> list[tuple[str, Mask]]:
        """The flavors with those of their nodes that are in the pool."""
        return [(flavor, nodes & self.nodes) for flavor, nodes in self.flavors]

    @cached_property
    def split(self) -> Split:
        """The same nodes, to be asked about together."""
        return Split([nodes for _, nodes in self.inside])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was observed. `decide` changes nothing of it.

    Holders are those who could be evicted, by job id, with their `places`; the usage of the tree and of the
    fleet counts them. In `claims` are jobs for which somebody was told to stop already: their turn comes first,
    so that nobody else takes the room. `yields` is as in `engine.queues.World`. With a `plan`, later jobs only fill
    the holes before reserved starts (engine.backfill), and its points order the jobs of a queue.
    """

    fleet: Fleet
    pools: Mapping[str, PoolView]
    tree: QuotaTree
    candidates: Sequence[Candidate]
    suspended: frozenset[int] = frozenset()
    rules: Mapping[int, QueueRules] = field(default_factory=dict)
    holders: Sequence[Holder] = ()
    places: Mapping[Hashable, Places] = field(default_factory=dict)
    claims: frozenset[int] = frozenset()
    yields: Mapping[Hashable, frozenset[Hashable]] = field(default_factory=dict)
    strategies: Sequence[FairStrategy] = (FairStrategy.FINAL_SHARE, FairStrategy.INITIAL_SHARE)
    plan: Plan | None = None
    allowances: Mapping[int, Allowance] = field(default_factory=dict)


_NO_SCORES: Mapping[str, object] = MappingProxyType({})
_NO_POINTS: Mapping[int, float] = MappingProxyType({})
# Reasons of one job that others which ask for the same need not have.
_ITS_OWN = (Reason.WAITING_FOR_PREEMPTION, Reason.BUDGET_EXHAUSTED)
# What a job with this reason gets a reserved start for.
_WAITS = {
    Reason.WAITING_FOR_CAPACITY: Wait.ROOM,
    Reason.WAITING_FOR_QUOTA: Wait.QUOTA,
    Reason.BEHIND_IN_QUEUE: Wait.TURN,
}


class Verdict(NamedTuple):
    """What was decided about one job: the outcome is `grant`, `pend`, or `preempt` (its victims have to stop first).

    `why` is the record of it. `position` counts the jobs of its queue that stay pending, this one included; 0 for
    a grant. `victims` are jobs with the cause, those included that are stopping already. `reserved` is the start
    that is kept for a job that waits (epoch seconds), if there is one.
    """

    job: int
    outcome: str
    reason: Reason | None
    why: Told | Granted
    position: int = 0
    flavor: str | None = None
    members: tuple[Member, ...] = ()
    victims: tuple[tuple[int, Cause], ...] = ()
    scores: Mapping[str, object] = _NO_SCORES
    reserved: float | None = None

    @property
    def detail(self) -> str:
        """The reason with its figures, for people; empty for a grant."""
        return self.why.detail

    @property
    def funnel(self) -> Funnel | None:
        """How nodes were ruled out in the flavor that is reported."""
        return self.why.funnel

    @property
    def tried(self) -> Sequence[dict[str, object]]:
        """An entry per flavor, in the order tried."""
        return self.why.tried


@dataclass(slots=True)
class _Kind:
    """Jobs of one pool that ask for the same, whatever their queue: what placement has said about them.

    `blocked` is by flavor and final for the cycle; in `infeasible` are the flavors that could not hold the
    job even if they were empty. `refusals` is by the flavors that a queue has quota in, for queues with room
    in all of them.
    """

    looked_at: bool = False
    infeasible: set[str] = field(default_factory=set)
    blocked: dict[str, Told] = field(default_factory=dict)
    refusals: dict[frozenset[str], Told] = field(default_factory=dict)
    shortages: dict[str, Refusal] = field(default_factory=dict)


@dataclass(slots=True)
class _Room:
    """Quota of one queue in one pool: the flavors it has any in, what it could ever have in each, what is free there,
    and what in every one of them.

    It was measured after so many charges; `taken` is what had been granted to anybody by then, by resource: by no
    more than what was granted since can `free` have shrunk. `ample` says that there is room for the largest job of
    the pool, as it was after so many charges.
    """

    covered: frozenset[str]
    potential: dict[str, dict[str, int]]
    flavors: dict[str, dict[str, int]] = field(default_factory=dict)
    free: dict[str, int] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)
    measured: int = -1
    ample: bool = False
    charges: int = -1


@dataclass(slots=True, eq=False)
class _Likeness:
    """Jobs of one queue that ask for the same fare alike in a cycle: why those before were refused.

    Whether a job may go ahead of reserved starts depends on how long it runs, so `held` is by that.
    """

    kind: _Kind
    refusal: Told | None = None
    held: dict[float | None, Told] | None = None
    room: _Room | None = None


def queue_order(
    candidates: Sequence[Candidate], points: Mapping[int, float] = _NO_POINTS
) -> dict[int, list[Candidate]]:
    """Candidates by queue: more points first (by default the priority), then submitted earlier, then the smaller id."""
    count = len(candidates)
    keys = (
        np.fromiter((item.job for item in candidates), dtype=np.int64, count=count),
        np.fromiter((item.submitted for item in candidates), dtype=np.float64, count=count),
        np.fromiter((-points.get(item.job, item.priority) for item in candidates), dtype=np.float64, count=count),
    )
    queues: dict[int, list[Candidate]] = {}
    for index in np.lexsort(keys).tolist():
        item = candidates[index]
        queues.setdefault(item.queue, []).append(item)
    return queues


def decide(snapshot: Snapshot, *, now: float, limit: int = 1000) -> list[Verdict]:
    """A verdict for every candidate, grants in the order in which they are to be applied.

    At most `limit` jobs are granted. Whose head goes next is decided by the tournament of engine.fairness;
    inside a queue a job that cannot start does not block those behind it, unless the queue is strict.
    Deterministic.
    """
    return _Cycle(snapshot, now, limit).run()


class _Cycle:
    """The state of one `decide`: scratch copies of fleet and tree, and every refusal so far."""

    def __init__(self, snapshot: Snapshot, now: float, limit: int) -> None:
        self.suspended, self.claims = snapshot.suspended, snapshot.claims
        self.pools = snapshot.pools
        self.flavors = {name: pool.inside for name, pool in snapshot.pools.items()}
        self.fleet, self.tree = snapshot.fleet.fork(), snapshot.tree.copy()
        self.now, self.limit = now, limit
        plan = snapshot.plan
        self.points = plan.points if plan is not None else _NO_POINTS
        self.durations = plan.durations if plan is not None else _NO_POINTS
        self.backfill = Backfill(plan, self.fleet, self.tree, now) if plan is not None else None
        self.queues = queue_order(snapshot.candidates, self.points)
        # Where to go on in each queue, and how many of it stay pending.
        self.places = dict.fromkeys(self.queues, (0, 0))
        self.allowances = snapshot.allowances
        self.starts = {budget: allowance.starts for budget, allowance in snapshot.allowances.items()}
        self.granted = 0
        self.taken: dict[str, int] = {}
        self.verdicts: list[Verdict] = []
        self.charges = 0
        self.kinds: dict[Hashable, _Kind] = {}
        self.rooms: dict[tuple[int, str], _Room] = {}
        self.most: dict[str, dict[str, int]] = {}
        self.likenesses = {queue: self._likenesses(queue, items) for queue, items in self.queues.items()}
        self.rules = snapshot.rules
        self.evictions: Evictions | None = None
        if snapshot.holders:
            world = World.of(
                self.tree, self.rules, snapshot.holders, strategies=snapshot.strategies, yields=snapshot.yields
            )
            self.evictions = Evictions(world, self.fleet, snapshot.places)
        self.tournament = Tournament(self.tree, standing=True)

    def run(self) -> list[Verdict]:
        heads: dict[int, int] = {}
        for queue, items in self.queues.items():
            if queue not in self.tree:
                self._refuse_queue(items, Refusal(Reason.NO_FLAVOR, "the tenant has no quota in any flavor."))
            elif queue in self.suspended:
                self._refuse_queue(items, Refusal(Reason.TENANT_SUSPENDED, "the tenant is suspended."))
            else:
                self._claim(queue, items)
        for queue in self.queues:
            if queue in self.tree and queue not in self.suspended:
                self._bring_in(queue, heads)
        while (winner := self.tournament.first()) is not None:
            queue = winner.queue
            item, likeness = self.queues[queue][heads[queue]], self.likenesses[queue][heads[queue]]
            outcome = self._consider(item, likeness)
            start, waiting = self.places[queue]
            self.places[queue] = (start + 1, waiting)
            if outcome is not None:
                self._remember(item, likeness, outcome)
                self._wait(item, outcome)
                if self.rules.get(queue, DEFAULT_RULES).strategy == Strategy.STRICT_FIFO:
                    self._block(queue, item)
                    if outcome.reason in (Reason.WAITING_FOR_QUOTA, Reason.WAITING_FOR_CAPACITY):
                        self._reserve(item)
            self._bring_in(queue, heads)
        return self.verdicts

    def _likenesses(self, queue: int, items: Sequence[Candidate]) -> list[_Likeness]:
        """For each of a queue's jobs what is shared by those that are alike."""
        found: dict[Hashable, _Likeness] = {}
        result = []
        for item in items:
            key = (item.pool, item.equivalence) if item.equivalence is not None else item.job
            likeness = found.get(key)
            if likeness is None:
                likeness = found[key] = _Likeness(self._kind(item))
                most = self.most.setdefault(item.pool, {})
                for resource, amount in item.amounts.items():
                    if amount > most.get(resource, 0):
                        most[resource] = amount
            result.append(likeness)
        return result

    def _claim(self, queue: int, items: Sequence[Candidate]) -> None:
        """Jobs for which others stop already come before everybody else, in the order of their queue."""
        for item, likeness in zip(items, self.likenesses[queue], strict=True) if self.claims else ():
            if item.job in self.claims and item.not_before <= self.now:
                outcome = self._consider(item, likeness)
                if outcome is not None:
                    self._wait(item, outcome)

    def _bring_in(self, queue: int, heads: dict[int, int]) -> None:
        """Let the queue's next job that may start compete; those before it that are known not to are refused."""
        items, likenesses, now, claims = self.queues[queue], self.likenesses[queue], self.now, self.claims
        strict = self.rules.get(queue, DEFAULT_RULES).strategy == Strategy.STRICT_FIFO
        start, waiting = self.places[queue]
        for index in range(start, len(items)):
            item, likeness = items[index], likenesses[index]
            refusal: Told | None
            if item.not_before > now:
                refusal = self._backoff(item)
            elif self.starts and (refusal := self._over_budget(item)) is not None:
                pass  # Nor does it block those behind it in a strict queue.
            elif claims and item.job in claims:
                continue
            elif strict:
                refusal = None  # Whoever is refused blocks those behind it, so it has to be its turn.
            else:
                refusal = likeness.refusal or self._known(item, likeness)
            if refusal is None:
                self.places[queue] = (index, waiting)
                heads[queue] = index
                rank = (-self.points.get(item.job, item.priority), item.submitted, item.job)
                self.tournament.set(Entry(queue, self._provisional(item), rank))
                return
            waiting += 1
            self._refuse(item, refusal, waiting)
        self.places[queue] = (len(items), waiting)
        if heads.pop(queue, None) is not None:
            self.tournament.drop(queue)

    def _wait(self, item: Candidate, refusal: Told) -> None:
        start, waiting = self.places[item.queue]
        self.places[item.queue] = (start, waiting + 1)
        self._refuse(item, refusal, waiting + 1)

    def _block(self, queue: int, head: Candidate) -> None:
        """A strict queue waits for its head; the others of the queue are behind it."""
        detail = f"job {head.job} is ahead of it and cannot start, and the queue is strict (first in, first out)."
        start, waiting = self.places[queue]
        refusal = Refusal(Reason.BEHIND_IN_QUEUE, detail)
        for item in self.queues[queue][start:]:
            if item.job not in self.claims:
                waiting += 1
                self._refuse(item, refusal, waiting)
        self.places[queue] = (len(self.queues[queue]), waiting)

    def _reserve(self, item: Candidate) -> None:
        """Keep free nominal quota for the waiting head of a strict queue, unless it could take it back at will."""
        if self.rules.get(item.queue, DEFAULT_RULES).reclaim == Policy.ANY:
            return
        kept: dict[FlavorResource, int] = {}
        for fr, amount in self._provisional(item).items():
            limit = self.tree.nodes[item.queue].limits.get(fr)
            if limit is not None:
                kept[fr] = max(0, min(amount, limit.nominal - self.tree.usage(item.queue, fr)))
        self.tree.add(item.queue, kept)
        if self.evictions is not None:
            self.evictions.world.tree.add(item.queue, kept)
        self._charge(item)

    def _known(self, item: Candidate, likeness: _Likeness) -> Told | None:
        """Why the job cannot start if that is known before its turn: from others, or as its queue lacks the quota."""
        if likeness.held is not None and (held := likeness.held.get(self.durations.get(item.job))) is not None:
            return held
        if not self.flavors.get(item.pool):
            return None
        refusal: Told | None = self._refused_with_room(item, likeness)
        # Fewer members may be affordable; how many is looked at when it is the job's turn.
        if refusal is None and not item.minimums and not self._may_search(item.queue):
            refusal = self._unaffordable(item, likeness)
        if refusal is not None:
            self._remember(item, likeness, refusal)
        return refusal

    def _unaffordable(self, item: Candidate, likeness: _Likeness) -> Deferred | None:
        """The refusal of a job that has no quota in any flavor in which it could still have a place.

        It agrees with `_try`, which also makes its words.
        """
        kind, room = likeness.kind, self._measured(item)
        if not kind.looked_at:
            self._look(item, kind)
        mildest, infeasible, blocked = len(GRAVITY), kind.infeasible, kind.blocked
        for flavor, _ in self.flavors[item.pool]:
            free = room.flavors.get(flavor)
            if free is None:
                reason = Reason.NO_FLAVOR
            elif _within(free, item.amounts):
                if flavor not in blocked:
                    return None
                reason = blocked[flavor].reason
            elif not _within(room.potential[flavor], item.amounts):
                reason = Reason.EXCEEDS_MAX_QUOTA if item.amounts.keys() <= free.keys() else Reason.NO_FLAVOR
            else:
                reason = blocked[flavor].reason if flavor in infeasible else Reason.WAITING_FOR_QUOTA
            mildest = min(mildest, RANK[reason])
        return Deferred(GRAVITY[mildest], partial(self._words, item))

    def _words(self, item: Candidate) -> Refusal:
        """Why the job is refused in each flavor, all together; nothing is decided any more."""
        refusals: dict[str, Told] = {}
        for _ in self._options(item, refusals, evict=False):
            pass
        return combined(list(refusals.values())).words

    def _remember(self, item: Candidate, likeness: _Likeness, refusal: Told) -> None:
        if refusal.held:
            likeness.held = likeness.held or {}
            likeness.held[self.durations.get(item.job)] = refusal
        elif item.equivalence is not None and refusal.reason not in _ITS_OWN:
            likeness.refusal = refusal

    def _provisional(self, item: Candidate) -> dict[FlavorResource, int]:
        """What the job counts with in the tournament: its charge in the first flavor that has room for it."""
        if item.pool not in self.flavors:
            return {}
        room = self._room(item)
        names = [name for name, _ in self.flavors[item.pool] if name in room.covered]
        if not names:
            return {}
        if self._roomy(item, room):
            return charge_of(item, names[0])
        free = self._measured(item).flavors
        return charge_of(item, next((name for name in names if _within(free[name], item.amounts)), names[0]))

    def _refuse_queue(self, items: Sequence[Candidate], refusal: Told) -> None:
        for position, item in enumerate(items, 1):
            self._refuse(item, refusal, position)

    def _refuse(self, item: Candidate, why: Told, position: int) -> None:
        outcome = "preempt" if why.reason is Reason.WAITING_FOR_PREEMPTION else "pend"
        reserved: float | None = None
        wait = _WAITS.get(why.reason) if self.backfill is not None else None
        if self.backfill is not None and wait is not None and (wait != Wait.TURN or why.held):
            least = item.least
            reserved = self.backfill.wait(
                item.job, item.queue, item.pool, least.groups, lambda: self._open(least), wait
            )
        self.verdicts.append(
            Verdict(
                item.job, outcome, why.reason, why, position, why.flavor, why.members, why.victims, _NO_SCORES, reserved
            )
        )

    def _over_budget(self, item: Candidate) -> Refusal | None:
        """The refusal of a job whose budget lets no more start."""
        for budget in item.budgets:
            if self.starts.get(budget, 1) <= 0:
                return Refusal(Reason.BUDGET_EXHAUSTED, self.allowances[budget].detail)
        return None

    def _count(self, item: Candidate) -> None:
        """One of the starts that the job's budgets allow is taken."""
        for budget in item.budgets:
            if budget in self.starts:
                self.starts[budget] -= 1

    def _backoff(self, item: Candidate) -> Refusal:
        wait = item.not_before - self.now
        return Refusal(Reason.BACKOFF, f"tried {item.attempts} times; the next try is in {wait:.1f} s.")

    def _consider(self, item: Candidate, likeness: _Likeness) -> Told | None:
        """Grant the job (None) or say why not: the mildest reason over its flavors, as one is enough."""
        over = self._over_budget(item) if self.starts else None
        if over is not None:
            return over
        flavors = self.flavors.get(item.pool)
        if flavors is None:
            return Refusal(Reason.NO_POOL, "the pool that the job names does not exist.")
        if not flavors:
            return Refusal(Reason.NO_FLAVOR, "the pool that the job names has no flavor.")
        known = self._refused_with_room(item, likeness)
        if known is not None:
            return known
        rules = self.rules.get(item.queue, DEFAULT_RULES)
        # Evictions count only if nothing fits, unless the queue would rather evict than try the next flavor.
        eager = (
            rules.when_can_preempt == Fungibility.MAY_STOP_SEARCH
            or rules.preference == Preference.PREEMPTION_OVER_BORROWING
        )
        refusals: dict[str, Told] = {}
        chosen, _, _ = choose(self._options(item, refusals, evict=eager), rules)
        if chosen is None and not eager and self._may_search(item.queue):
            chosen, _, _ = choose(self._options(item, dict(refusals), evict=True), rules)
        shrinks = bool(item.minimums)
        if chosen is None and shrinks:
            refusals = {}
            found = self._fewer(item, rules, refusals)
            if found is not None:
                item, chosen = found
        tried = [entry for told in refusals.values() for entry in told.tried] if chosen is not None else []
        if isinstance(chosen, Eviction):
            return self._evict(item, chosen, tried)
        if chosen is not None:
            flavor, nodes, placed = chosen
            if self.granted < self.limit:
                self._grant(item, flavor, nodes, placed, tried)
                return None
            detail = f"it fits, but {self.granted} jobs were granted before it in this cycle."
            tried.append({"flavor": flavor, "outcome": "fits", "detail": detail})
            refusal: Told = Refusal(Reason.BEHIND_IN_QUEUE, detail, None, tried)
        else:
            refusal = combined(list(refusals.values()))
        room = self._room(item)
        # Who may not go ahead of whom depends on how long it runs, which other queues' jobs need not share.
        held = chosen is None and refusal.held
        final = not held and not shrinks and (chosen is not None or not self._may_search(item.queue))
        if final and self._roomy(item, room):
            likeness.kind.refusals[room.covered] = refusal
        return refusal

    def _fewer(
        self, item: Candidate, rules: QueueRules, refusals: dict[str, Told]
    ) -> tuple[Candidate, tuple[str, Mask, Placed]] | None:
        """The job with as many members as fit without evictions; why not even the fewest do goes to `refusals`."""

        def fit(smaller: Candidate, why: dict[str, Told]) -> tuple[Candidate, tuple[str, Mask, Placed]] | None:
            option, _, _ = choose(self._options(smaller, why, evict=False), rules)
            return None if option is None or isinstance(option, Eviction) else (smaller, option)

        if fit(item.least, refusals) is None:
            return None
        full = [count for _, count in item.groups]
        return reduced(full, item.minimums, lambda counts: fit(item.sized(counts), {}))

    def _may_search(self, queue: int) -> bool:
        return self.evictions is not None and self.evictions.may_search(queue)

    def _refused_with_room(self, item: Candidate, likeness: _Likeness) -> Told | None:
        """Why no node takes the job, if its queue has room and another queue's job was refused for that."""
        kind, room = likeness.kind, likeness.room
        if room is None:
            room = likeness.room = self._room(item)
        refusal = kind.refusals.get(room.covered)
        if refusal is None or not self._roomy(item, room):
            return None
        # Nothing is granted any more once the limit is reached, so what fits then goes on fitting.
        if refusal.reason is Reason.BEHIND_IN_QUEUE or not self._may_search(item.queue):
            return refusal
        return None

    def _roomy(self, item: Candidate, room: _Room) -> bool:
        """Whether the queue has room for the job in each flavor that it has quota in."""
        if room.charges != self.charges:
            room.charges, room.ample = self.charges, self._leaves(room, self.most[item.pool])
        if room.ample or self._leaves(room, item.amounts):
            return True
        if room.measured == self.charges:
            return False
        self._measure(room, item.queue)
        return self._leaves(room, item.amounts)

    def _leaves(self, room: _Room, amounts: Mapping[str, int]) -> bool:
        """Whether there is room for the amounts even if all that was granted since was taken from this room."""
        free, then, taken = room.free, room.taken, self.taken
        for resource, amount in amounts.items():
            if amount and amount > free.get(resource, -1) - taken.get(resource, 0) + then.get(resource, 0):
                return False
        return True

    def _options(
        self, item: Candidate, refusals: dict[str, Told], *, evict: bool
    ) -> Iterator[tuple[tuple[str, Mask, Placed] | Eviction | None, Level]]:
        """Flavors in order with how the job fits each; why it does not goes to `refusals`."""
        kind, room = self._kind(item), self._room(item)
        roomy = self._roomy(item, room)
        for flavor, nodes in self.flavors[item.pool]:
            if flavor not in room.covered:
                refusals[flavor] = no_flavor(flavor)
                continue
            short = not roomy and not _within(self._measured(item).flavors[flavor], item.amounts)
            outcome = self._try(item, kind, flavor, nodes, short)
            if isinstance(outcome, Placed):
                yield (flavor, nodes, outcome), Level(Mode.FIT, self._borrowing(item, flavor))
                continue
            refusals[flavor] = outcome
            if evict and outcome.reason in (Reason.WAITING_FOR_QUOTA, Reason.WAITING_FOR_CAPACITY):
                eviction = self._search(item, flavor, nodes)
                if eviction is not None:
                    own = any(victim.holder.queue == item.queue for victim in eviction.victims)
                    yield eviction, Level(Mode.PREEMPT if own else Mode.RECLAIM, eviction.borrowing)

    def _borrowing(self, item: Candidate, flavor: str) -> int:
        charge = charge_of(item, flavor)
        return max((self.tree.borrowing_level(item.queue, fr, amount)[0] for fr, amount in charge.items()), default=0)

    def _search(self, item: Candidate, flavor: str, nodes: Mask) -> Eviction | None:
        """Who would have to go for the job in this flavor; contested is what quota lacks, or else all of it."""
        if self.evictions is None or not self._may_search(item.queue):
            return None
        world = self.evictions.world
        usage = {fr: amount for fr, amount in charge_of(item, flavor).items() if amount}
        short = {fr: amount for fr, amount in usage.items() if amount > world.tree.available(item.queue, fr)}
        for fr, amount in short.items():
            if level_of(world, item.queue, fr, amount, lambda *_: Level(Mode.RECLAIM, 0))[0].mode == Mode.NO_FIT:
                return None
        contested = frozenset(short or usage)
        demand = Demand(item.job, item.queue, item.priority, item.submitted, usage, contested)
        return self.evictions.fits_after(demand, item.groups, nodes) or self.evictions.search(
            demand, item.groups, nodes
        )

    def _evict(self, item: Candidate, eviction: Eviction, tried: list[dict[str, object]]) -> Refusal:
        """Keep the room that the victims leave for the job, which waits for them."""
        assert self.evictions is not None
        self.evictions.commit(eviction, item.groups)
        if self.backfill is not None:
            self.backfill.evict([victim.holder.uid for victim in eviction.victims], item.job)
        self._charge(item)
        self._count(item)  # Nobody is evicted for a start that the budget has only once.
        count = len(eviction.victims)
        waits = f"{count} job{'s' if count > 1 else ''} to stop" if count else "jobs that stop for others"
        detail = f"the room is kept for it; it waits for {waits}."
        victims = tuple((int(str(victim.holder.uid)), victim.cause) for victim in eviction.victims)
        named = [{"job": job, "cause": cause.value} for job, cause in victims]
        flavor = next(iter(eviction.demand.usage))[0]
        tried.append({"flavor": flavor, "outcome": "preempt", "detail": detail, "victims": named})
        return Refusal(Reason.WAITING_FOR_PREEMPTION, detail, None, tried, eviction.members, victims, flavor)

    def _kind(self, item: Candidate) -> _Kind:
        name: Hashable = item.equivalence
        if name is None:
            name = (tuple((request.shape, count) for request, count in item.groups), item.minimums)
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
            covered = frozenset(names) & with_quota
            potential: dict[str, dict[str, int]] = {flavor: {} for flavor in covered}
            for flavor, resource in self.tree.nodes[item.queue].limits:
                if flavor in covered:
                    potential[flavor][resource] = self.tree.potential(item.queue, (flavor, resource))
            room = self.rooms[key] = _Room(covered, potential)
            self._measure(room, item.queue)
        return room

    def _measured(self, item: Candidate) -> _Room:
        """The room of the job's queue as it is now."""
        room = self._room(item)
        if room.measured != self.charges:
            self._measure(room, item.queue)
        return room

    def _measure(self, room: _Room, queue: int) -> None:
        room.taken, room.measured = dict(self.taken), self.charges
        room.flavors = {flavor: {} for flavor in room.covered}
        for flavor, resource in self.tree.nodes[queue].limits:
            if flavor in room.covered:
                room.flavors[flavor][resource] = self._available(queue, (flavor, resource))
        resources = {resource for free in room.flavors.values() for resource in free}
        room.free = {
            resource: min(free.get(resource, -1) for free in room.flavors.values()) for resource in resources
        }

    def _charge(self, item: Candidate) -> None:
        """Quota was taken: rooms may have shrunk by as much."""
        self.charges += 1
        for resource, amount in item.amounts.items():
            self.taken[resource] = self.taken.get(resource, 0) + amount

    def _available(self, queue: int, fr: FlavorResource) -> int:
        """What is free now, and still is after all victims have gone for those who wait for them."""
        amount = self.tree.available(queue, fr)
        return amount if self.evictions is None else min(amount, self.evictions.world.tree.available(queue, fr))

    def _try(self, item: Candidate, kind: _Kind, flavor: str, nodes: Mask, short: bool) -> Placed | Told:
        """A place in one flavor under quota, or why not; what does not pass by waiting is looked at first."""
        if short:
            amounts = charge_of(item, flavor)
            shortage = self.tree.ever_fits(item.queue, amounts)
            if shortage is not None:
                uncovered = shortage.limit == "not covered"
                return no_quota(flavor, shortage, Reason.NO_FLAVOR if uncovered else Reason.EXCEEDS_MAX_QUOTA)
        if not kind.looked_at:
            self._look(item, kind)
        if short and flavor not in kind.infeasible:
            shortage = self.tree.fits(item.queue, amounts)
            if shortage is None and self.evictions is not None:
                shortage = self.evictions.world.tree.fits(item.queue, amounts)
            if shortage is not None:
                return no_quota(flavor, shortage, Reason.WAITING_FOR_QUOTA)
        if flavor not in kind.blocked:
            if len(item.groups) == 1 and item.groups[0][1] == 1:
                return self._try_one(item, kind, flavor, nodes)
            placed = place_gang(self.fleet, item.groups, allowed=nodes, feasible=True)
            if isinstance(placed, Placed):
                return self._ahead(item, flavor, nodes, placed)
            kind.blocked[flavor] = no_place(flavor, placed)
        return kind.blocked[flavor]

    def _look(self, item: Candidate, kind: _Kind) -> None:
        """Find the flavors that could not hold the job even if they were empty."""
        kind.looked_at = True
        never = obstacles(self.fleet, item.groups, self.pools[item.pool].split)
        for (flavor, _), obstacle in zip(self.flavors[item.pool], never, strict=True):
            if obstacle is not None:
                kind.infeasible.add(flavor)
                kind.blocked[flavor] = no_place(flavor, obstacle)

    def _try_one(self, item: Candidate, kind: _Kind, flavor: str, nodes: Mask) -> Placed | Told:
        """A place for a single member."""
        request = item.groups[0][0]
        placed = place_one(self.fleet, request, nodes)
        if placed is not None:
            return self._ahead(item, flavor, nodes, placed)
        kind.blocked[flavor] = Deferred(Reason.WAITING_FOR_CAPACITY, partial(self._shortage, item, kind, flavor))
        return kind.blocked[flavor]

    def _shortage(self, item: Candidate, kind: _Kind, flavor: str) -> Refusal:
        """What a single member is short of in a flavor, at the end of the cycle."""
        if not kind.shortages:
            names = (name for name, _ in self.flavors[item.pool])
            found = shortages(self.fleet, item.groups[0][0], self.pools[item.pool].split)
            kind.shortages = {name: no_place(name, short) for name, short in zip(names, found, strict=True)}
        return kind.shortages[flavor]

    def _ahead(self, item: Candidate, flavor: str, nodes: Mask, placed: Placed) -> Placed | Told:
        """Where the job may go ahead of those that wait, or that it may not."""
        if self.backfill is None:
            return placed
        option = Option(charge_of(item, flavor), nodes)
        outcome = self.backfill.admit(item.job, item.queue, item.groups, option, placed)
        return outcome if isinstance(outcome, Placed) else behind(flavor, outcome.job, outcome.start)

    def _open(self, item: Candidate) -> list[Option]:
        """The flavors in which a job that waits could start some time."""
        kind, covered = self._kind(item), self._room(item).covered
        return [
            Option(charge, nodes)
            for flavor, nodes in self.flavors[item.pool]
            if flavor in covered and flavor not in kind.infeasible
            if self.tree.ever_fits(item.queue, charge := charge_of(item, flavor)) is None
        ]

    def _grant(self, item: Candidate, flavor: str, nodes: Mask, placed: Placed, tried: list[dict[str, object]]) -> None:
        funnel, _ = candidates(self.fleet, item.groups[0][0], nodes)
        take_members(self.fleet, item.groups, placed.members)
        charge = charge_of(item, flavor)
        self.tree.add(item.queue, charge)
        if self.evictions is not None:
            self.evictions.grant(item.queue, charge, item.groups, placed.members)
        if self.backfill is not None:
            self.backfill.grant(item.job, item.queue, item.groups, charge, placed.members)
        self._charge(item)
        self._count(item)
        self.granted += 1
        tried.append({"flavor": flavor, "outcome": "granted", "detail": "", "funnel": funnel.as_list()})
        self.verdicts.append(
            Verdict(item.job, "grant", None, Granted(funnel, tried), 0, flavor, placed.members, (), placed.scores)
        )


def _within(free: Mapping[str, int], amounts: Mapping[str, int]) -> bool:
    """Whether all amounts are free; of a resource that is not named nothing is."""
    for resource, amount in amounts.items():  # noqa: SIM110 - `all` costs twice as much in this hot place
        if amount > free.get(resource, 0):
            return False
    return True


def charge_of(item: Candidate, flavor: str) -> dict[FlavorResource, int]:
    """What a grant in this flavor is charged."""
    return {(flavor, resource): amount for resource, amount in item.amounts.items()}
