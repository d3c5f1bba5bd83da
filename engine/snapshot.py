"""What one cycle of the scheduler sees, and what it says of each job."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import attrgetter
from types import MappingProxyType
from typing import NamedTuple

from engine.backfill import Plan
from engine.choices import Choice
from engine.evictions import Places
from engine.fleet import Fleet, Mask, Request
from engine.kept import Kept
from engine.placement import Funnel, Groups, Member, Split
from engine.preemption import Cause
from engine.queues import FairStrategy, Holder, QueueRules
from engine.quota import FlavorResource, QuotaTree
from engine.reasons import Reason
from engine.refusals import Granted, Told


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
    def single(self) -> Request | None:
        """What its only member asks for; None for a job with more."""
        return self.groups[0][0] if len(self.groups) == 1 and self.groups[0][1] == 1 else None

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
    def choices(self) -> list[Choice]:
        """The flavors with those of their nodes that are in the pool."""
        return [Choice(flavor, nodes & self.nodes) for flavor, nodes in self.flavors]

    @cached_property
    def split(self) -> Split:
        """The same nodes, to be asked about together."""
        return Split([nodes & self.nodes for _, nodes in self.flavors])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was observed. `decide` changes nothing of it.

    Holders are those who could be evicted, by job id, with their `places`; the usage of the tree and of the
    fleet counts them. In `claims` are jobs for which somebody was told to stop already: their turn comes first,
    so that nobody else takes the room. `yields` is as in `engine.queues.World`. With a `plan`, later jobs only fill
    the holes before reserved starts (engine.backfill), and its points order the jobs of a queue. `across` are the
    pools in which priority reaches across tenants (engine.order).
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
    across: frozenset[str] = frozenset()


NO_SCORES: Mapping[str, object] = MappingProxyType({})
NO_POINTS: Mapping[int, float] = MappingProxyType({})


class Verdict(NamedTuple):
    """What was decided about one job: the outcome is `grant`, `pend`, or `preempt` (its victims have to stop first).

    `why` is the record of it. `position` counts the jobs of its queue that stay pending, this one included; 0 for
    a grant. `victims` are jobs with the cause, those included that are stopping already. `reserved` is the start
    that is kept for a job that waits (epoch seconds), if there is one. `flavors` are those of its groups where these
    have different ones; `flavor` names them together then. `kept` is where a job of several groups is to be then; it is
    given back with the next snapshot's plan, so that the start holds.
    """

    job: int
    outcome: str
    reason: Reason | None
    why: Told | Granted
    position: int = 0
    flavor: str | None = None
    members: tuple[Member, ...] = ()
    victims: tuple[tuple[int, Cause], ...] = ()
    scores: Mapping[str, object] = NO_SCORES
    reserved: float | None = None
    flavors: tuple[str, ...] = ()
    kept: Kept | None = None

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
        """An entry per flavor, or choice of several, in the order tried."""
        return self.why.tried


def charge_of(item: Candidate, flavor: str, flavors: Sequence[str] = ()) -> dict[FlavorResource, int]:
    """What a grant in this flavor is charged, or in these `flavors` by group."""
    if not flavors:
        return {(flavor, resource): amount for resource, amount in item.amounts.items()}
    charge: dict[FlavorResource, int] = {}
    for part, amounts in zip(flavors, shares(item), strict=True):
        for resource, amount in amounts.items():
            charge[part, resource] = charge.get((part, resource), 0) + amount
    return charge


def shares(item: Candidate) -> list[dict[str, int]]:
    """What each group of a job is charged of its amounts, by resource."""
    return [
        {resource: amount for resource, amount in totals([group]).items() if amount and resource in item.amounts}
        for group in item.groups
    ]


def urgency(item: Candidate, across: frozenset[str]) -> int:
    """What goes before everything else in the order of all jobs, larger first: the priority of a job in a pool where
    this reaches across tenants, 0 for all others."""
    return item.priority if item.pool in across else 0


def queue_order(
    candidates: Sequence[Candidate], points: Mapping[int, float] = NO_POINTS, across: frozenset[str] = frozenset()
) -> dict[int, list[Candidate]]:
    """Candidates by queue: the more urgent first, then more points (by default the priority), then submitted earlier,
    then the smaller id."""
    ordered = sorted(candidates, key=attrgetter("job"))  # Mostly they come in this order, which costs nothing then.
    ordered.sort(key=attrgetter("submitted"))
    if points:
        ordered.sort(key=lambda item: points.get(item.job, item.priority), reverse=True)
    else:
        ordered.sort(key=attrgetter("priority"), reverse=True)
    if across:
        ordered.sort(key=lambda item: urgency(item, across), reverse=True)
    queues: dict[int, list[Candidate]] = {}
    for item in ordered:
        queue = queues.get(item.queue)
        if queue is None:
            queue = queues[item.queue] = []
        queue.append(item)
    return queues
