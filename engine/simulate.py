"""What happens, over virtual time: arrivals, ends and changes of the world, with the product's own decider.

Every moment at which something changes, the jobs that wait are given to `engine.cycle.decide` with a snapshot of
this world, as the scheduling loop does with the real one, until it grants nothing more. So on a frozen fleet, and
with run times that come true, what is simulated is what then happens.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from itertools import count

import numpy as np

from engine.backfill import Mode, Plan, Running
from engine.budgets import Limit, Spending
from engine.chances import Chances
from engine.cycle import decide
from engine.estimates import Estimate, History
from engine.fleet import Fleet, Mask
from engine.kept import Kept
from engine.order import OrderPolicy, next_change, points
from engine.placement import Member, take_members
from engine.preemption import yielding
from engine.profile import Places, placed_at
from engine.queues import Holder, Policy, QueueRules, Strategy
from engine.quota import FlavorResource, Node, QuotaTree
from engine.reasons import Reason
from engine.snapshot import Candidate, PoolView, Snapshot, Verdict, charge_of

# Passes at one moment; each but the last grants or evicts somebody.
PASSES_MAX = 100


@dataclass(frozen=True, slots=True)
class Job:
    """A job that comes at `candidate.submitted` and runs for `seconds`, stopped at `limit`.

    `keys` are those of its history from narrow to wide (engine.estimates); a fixed `estimate` goes before these.
    """

    candidate: Candidate
    seconds: float
    limit: float
    keys: tuple[Hashable, Hashable, Hashable] = ("", "", "")
    estimate: Estimate | None = None

    @property
    def length(self) -> float:
        """Seconds from start to end if nobody interferes."""
        return min(self.seconds, self.limit)


@dataclass(frozen=True, slots=True)
class Started:
    """A job that runs when the simulation begins; fleet and tree count what it holds already.

    `saved` is when it last wrote a checkpoint, from which it goes on if it is stopped. Nobody writes another one in the
    simulation.
    """

    job: Job
    since: float
    flavor: str
    members: tuple[Member, ...]
    saved: float | None = None
    # What it is charged, unless that is all it asks for in its flavor.
    usage: Mapping[FlavorResource, int] | None = None


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """How the queue is served: pools have the `mode` unless `modes` says otherwise.

    Without an `order` it is by priority, then by age. In the pools `across` priority reaches across tenants.
    """

    mode: Mode = Mode.EASY
    modes: Mapping[str, Mode] = field(default_factory=dict)
    order: OrderPolicy | None = field(default_factory=OrderPolicy)
    rules: Mapping[int, QueueRules] = field(default_factory=dict)
    minimum_run: float = 60.0
    # Of queues that have another one.
    minimum_runs: Mapping[int, float] = field(default_factory=dict)
    depth: int = 100
    across: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Change:
    """Something that is different from a time on; None leaves it as it is.

    Nodes (by row of the fleet) become ready, take no new work (`closed`), or are lost; what runs on a lost one
    goes on from its last checkpoint, or starts over. Jobs can be cancelled while they wait or run.
    """

    at: float
    ready: frozenset[int] = frozenset()
    closed: frozenset[int] = frozenset()
    lost: frozenset[int] = frozenset()
    quotas: Sequence[Node] | None = None
    policy: QueuePolicy | None = None
    limits: Sequence[Limit] = ()
    cancelled: frozenset[int] = frozenset()


@dataclass(slots=True)
class Record:
    """What became of a job. A span is (start, end, how it ended): `done`, `limit`, `preempted`, `lost`, `cancelled`.

    While it runs, `started` and `ends` say since when and until when.
    """

    job: int
    submitted: float
    spans: list[tuple[float, float, str]] = field(default_factory=list)
    started: float | None = None
    ends: float | None = None
    evicted_for: list[int] = field(default_factory=list)
    flavor: str | None = None
    nodes: tuple[int, ...] = ()
    verdict: Verdict | None = None

    @property
    def finished(self) -> bool:
        """Whether it has run to its end."""
        return bool(self.spans) and self.spans[-1][2] in ("done", "limit")

    @property
    def first_start(self) -> float | None:
        """When it first started."""
        return self.spans[0][0] if self.spans else self.started


@dataclass(slots=True)
class _Live:
    """A running job: when it will end, when that is expected, and what it holds."""

    job: Job
    since: float
    ends: float
    flavor: str
    members: tuple[Member, ...]
    places: Places
    usage: Mapping[FlavorResource, int]
    plan: Running
    # Its work before this is safe.
    saved: float
    # What an hour of it costs.
    price: float = 0.0


class Simulation:
    """A world in virtual time. `records` grows while it runs; times are epoch seconds."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        pools: Mapping[str, PoolView],
        tree: QuotaTree,
        jobs: Iterable[Job],
        policy: QueuePolicy,
        start: float,
        started: Iterable[Started] = (),
        kept: Mapping[int, Kept] | None = None,
        changes: Iterable[Change] = (),
        history: History | None = None,
        suspended: frozenset[int] = frozenset(),
        limits: Iterable[Limit] = (),
        reorder: float | None = None,
        watch: "Callable[[Simulation, Sequence[Verdict]], None] | None" = None,
        told: bool = False,
    ) -> None:
        """`kept` are places that are reserved when it begins (engine.kept). `watch` is called with the verdicts of
        every pass, which have the reserved starts if these are `told`."""
        self.now, self.policy, self.history = start, policy, history or History()
        self.fleet, self.pools, self.tree, self.suspended = fleet.fork(), pools, tree.copy(), suspended
        self.records: dict[int, Record] = {}
        self.waiting: dict[int, Job] = {}
        self.estimates: dict[int, Estimate] = {}
        self.decisions = 0
        self.spending = Spending(limits, start)
        self._next_period = start
        # Jobs overtake each other as they age. Every so many seconds at most that alone is a reason to decide.
        self._reorder = reorder
        self._reordered = start
        # The next time at which more nodes are lent, once it is among the events.
        self._opening: float | None = None
        self._watch, self._told = watch, told
        self._live: dict[int, _Live] = {}
        self._tries: dict[int, int] = {}
        self._pairs: list[tuple[Hashable, Hashable]] = []
        self._claims: set[int] = set()
        self._kept = dict(kept or {})
        self._chances = Chances()
        # Whether decisions were left out that could have changed nothing but the words of refusals.
        self._silent = False
        # Cancelled before they came.
        self._cancelled: set[int] = set()
        self._number = count()
        # (time, what comes first at a time, number, what happens)
        self._events: list[tuple[float, int, int, object]] = []
        for item in started:
            self._begin(item)
        self._events += [(item.at, 1, next(self._number), item) for item in changes]
        self._events += [
            (max(start, job.candidate.submitted, job.candidate.not_before), 2, next(self._number), job) for job in jobs
        ]
        heapify(self._events)

    def run(self, until: float = float("inf"), *, check: Callable[[], None] = lambda: None) -> dict[int, Record]:
        """Go on until nothing happens any more, or to a time; returns the records.

        `check` is called before every moment, and may raise to end it all.
        """
        while self._events and self._events[0][0] <= until:
            check()
            self.now = self._events[0][0]
            while self._events and self._events[0][0] == self.now:
                self._happen(heappop(self._events)[3])
            if self.waiting:
                self._decide()
                self._look_again()
                self._await_period()
        if self._silent and self.waiting:
            self._tell(decide(self.snapshot(), now=self.now))
        return self.records

    def _await_period(self) -> None:
        """Decide again when the next period of a budget begins that is used up."""
        at = self.spending.next_period(self.now)
        if at is not None and not self.now < self._next_period <= at:
            self._next_period = at
            heappush(self._events, (at, 3, next(self._number), None))

    def _look_again(self) -> None:
        """Decide again when more nodes are lent, or the order of those who still wait will have changed."""
        if self.fleet.terms is not None and self.fleet.terms.now is not None:
            for opening in self.fleet.terms.openings(float("inf"))[:1]:
                if opening != self._opening:
                    self._opening = opening
                    heappush(self._events, (opening, 3, next(self._number), None))
        if self._reorder is None or self.policy.order is None or self._reordered > self.now:
            return
        waiting = [job.candidate for job in self.waiting.values()]
        expected = {item.job: self.estimates[item.job].p50 for item in waiting}
        across = self.policy.across
        at = next_change(self.policy.order, waiting, self.tree, now=self.now, expected=expected, across=across)
        if at is not None:
            self._reordered = max(at, self.now + self._reorder)
            heappush(self._events, (self._reordered, 3, next(self._number), None))

    @property
    def running(self) -> Mapping[int, tuple[Job, float]]:
        """Who runs, with the start."""
        return {number: (live.job, live.since) for number, live in self._live.items()}

    # What happens

    def _happen(self, event: object) -> None:
        if isinstance(event, _Live):
            # Whoever was stopped meanwhile ends here no more.
            if self._live.get(event.job.candidate.job) is event:
                how = "done" if event.job.seconds <= event.job.limit else "limit"
                self._end(event, how)
                self.history.add(event.job.keys, event.ends - event.since)
        elif isinstance(event, Change):
            self._change(event)
        elif isinstance(event, Job):
            number = event.candidate.job
            self.records[number] = Record(number, event.candidate.submitted)
            if number in self._cancelled:
                self.records[number].spans.append((self.now, self.now, "cancelled"))
            else:
                self._queue(event)

    def _queue(self, job: Job) -> None:
        number = job.candidate.job
        self.waiting[number] = job
        self._chances.note(job.candidate)
        self.estimates[number] = job.estimate or self.history.estimate(job.keys, job.limit)

    def _begin(self, started: Started) -> None:
        job, since, flavor, members = started.job, started.since, started.flavor, started.members
        item = job.candidate.granted(members)
        record = self.records.setdefault(item.job, Record(item.job, item.submitted))
        record.started, record.flavor, record.nodes = since, flavor, tuple(member[2] for member in members)
        record.ends = since + job.length
        estimate = self.estimates.get(item.job)
        if estimate is None:
            estimate = job.estimate or self.history.estimate(job.keys, job.limit)
            self.estimates[item.job] = estimate
        charge = charge_of(item, flavor) if started.usage is None else started.usage
        usage = {fr: amount for fr, amount in charge.items() if amount}
        places = placed_at(item.groups, members)
        plan = Running(item.job, item.queue, since + estimate.p90, usage, places)
        safe = since if started.saved is None else started.saved
        price = self._price(places) if item.budgets else 0.0
        live = _Live(job, since, since + job.length, flavor, members, places, usage, plan, safe, price)
        self._live[item.job] = live
        self.spending.begin(item.budgets, usage, self.now, price)
        heappush(self._events, (max(live.ends, self.now), 0, next(self._number), live))

    def _price(self, places: Places) -> float:
        """What an hour of these members costs."""
        return sum(float(self.fleet.price(request)[node]) for request, node, _ in places)

    def _end(self, live: _Live, how: str) -> None:
        item = live.job.candidate
        del self._live[item.job]
        for request, node, cards in live.places:
            self.fleet.give(request, node, cards)
        self.tree.remove(item.queue, live.usage)
        self.spending.end(item.budgets, live.usage, self.now, live.price)
        record = self.records[item.job]
        record.spans.append((live.since, self.now, how))
        record.started = record.ends = None
        if how in ("preempted", "lost"):
            self._tries[item.job] = self._tries.get(item.job, 0) + (how == "lost")
            # It goes on from its last checkpoint, if it has one.
            done = max(0.0, live.saved - live.since)
            self._queue(replace(live.job, seconds=live.job.seconds - done) if done else live.job)

    def _change(self, change: Change) -> None:
        if change.ready or change.closed or change.lost:
            for live in [live for live in self._live.values() if {place[1] for place in live.places} & change.lost]:
                self._end(live, "lost")
            self.fleet = _with_ready(self.fleet, change)
        if change.quotas is not None:
            self.tree = self.tree.configured(change.quotas)
        if change.policy is not None:
            self.policy = change.policy
        self.spending.change(change.limits)
        for number in change.cancelled:
            if self.waiting.pop(number, None) is not None:
                self.records[number].spans.append((self.now, self.now, "cancelled"))
            elif number in self._live:
                self._end(self._live[number], "cancelled")
            else:
                self._cancelled.add(number)

    # What is decided

    def _decide(self) -> None:
        terms = self.fleet.terms
        if terms is not None and terms.now is not None:
            self.fleet.terms, self.fleet.capacity_answer = terms.at(self.now, terms.left), None
        for _ in range(PASSES_MAX):
            if self._hopeless():
                self._silent = True
                return
            verdicts = decide(self.snapshot(), now=self.now)
            self.decisions += 1
            moved = False
            for verdict in verdicts:
                if verdict.outcome == "grant":
                    self._grant(verdict)
                    moved = True
                elif verdict.outcome == "preempt":
                    moved = self._preempt(verdict) or moved
                elif verdict.kept is not None:
                    self._kept[verdict.job] = verdict.kept
            if self._watch is not None:
                self._watch(self, verdicts)
            if not moved or self._exhausted(verdicts):
                break
        self._tell(verdicts)

    def _tell(self, verdicts: Sequence[Verdict]) -> None:
        """Note why jobs wait."""
        self._silent = False
        for verdict in verdicts:
            if verdict.outcome != "grant":
                self.records[verdict.job].verdict = verdict

    def _hopeless(self) -> bool:
        """Whether it is certain that nobody can start, so that nothing has to be decided, and nobody is to be told."""
        if self._watch is not None or self._evicts():
            return False
        if self._chances.any(self.fleet, self.tree, self.pools, self.waiting, self.suspended):
            return False
        self._expect_ends()
        return True

    def _exhausted(self, verdicts: Sequence[Verdict]) -> bool:
        """Whether another pass would certainly grant nothing: room and quota only shrank in this one, so whoever found
        none finds none now. But others' turns may have come, gangs may fit in another way, and who wants others near
        may have found them."""
        if self._watch is not None or self._evicts():
            return False
        if any(rules.strategy == Strategy.STRICT_FIFO for rules in self.policy.rules.values()):
            return False
        return all(
            verdict.outcome == "grant" or verdict.reason is not Reason.BEHIND_IN_QUEUE for verdict in verdicts
        ) and all(
            sum(members for _, members in groups) == 1 and groups[0][0].bonds is None
            for groups in (job.candidate.groups for job in self.waiting.values())
        )

    def _evicts(self) -> bool:
        return any(not rules.within_queue == rules.reclaim == Policy.NEVER for rules in self.policy.rules.values())

    def _grant(self, verdict: Verdict) -> None:
        job = self.waiting.pop(verdict.job)
        assert verdict.flavor is not None
        item = job.candidate.granted(verdict.members)
        take_members(self.fleet, item.groups, verdict.members)
        charge = charge_of(item, verdict.flavor, verdict.flavors)
        self.tree.add(item.queue, charge)
        self._claims.discard(item.job)
        self._kept.pop(item.job, None)
        self._begin(Started(job, self.now, verdict.flavor, verdict.members, usage=charge))

    def _preempt(self, verdict: Verdict) -> bool:
        """Victims stop at once; whether there were any."""
        victims = [self._live[number] for number, _ in verdict.victims if number in self._live]
        for live in victims:
            self._pairs.append((live.job.candidate.job, verdict.job))
            self.records[live.job.candidate.job].evicted_for.append(verdict.job)
            self._end(live, "preempted")
        if victims:
            self._claims.add(verdict.job)
        return bool(victims)

    def snapshot(self) -> Snapshot:
        """What the decider is given now."""
        evicts = self._evicts()
        candidates = [
            job.candidate if number not in self._tries else replace(job.candidate, attempts=self._tries[number])
            for number, job in self.waiting.items()
        ]
        return Snapshot(
            fleet=self.fleet,
            pools=self.pools,
            tree=self.tree,
            candidates=candidates,
            suspended=self.suspended,
            rules=self.policy.rules,
            holders=self._holders() if evicts else (),
            places={number: live.places for number, live in self._live.items()} if evicts else {},
            claims=frozenset(self._claims & self.waiting.keys()),
            yields=self._yields() if evicts else {},
            plan=self._plan(candidates),
            allowances=self.spending.allowances(self.now),
            across=self.policy.across,
        )

    def _expect_ends(self) -> None:
        """Those that run for longer than was expected are expected to end later."""
        for live in self._live.values():
            if live.plan.end <= self.now:
                elapsed = self.now - live.since
                later = self.history.estimate(live.job.keys, live.job.limit, elapsed=elapsed)
                live.plan = replace(live.plan, end=max(live.since + later.p90, self.now + 1.0))

    def _plan(self, candidates: Sequence[Candidate]) -> Plan:
        self._expect_ends()
        return Plan(
            mode=self.policy.mode,
            modes=self.policy.modes,
            running=[live.plan for live in self._live.values()],
            durations={item.job: self.estimates[item.job].p90 for item in candidates},
            points=self._points(candidates),
            depth=self.policy.depth,
            told=self._told,
            kept=self._kept,
        )

    def _points(self, candidates: Sequence[Candidate]) -> Mapping[int, float]:
        if self.policy.order is None:
            return {}
        expected = {item.job: self.estimates[item.job].p50 for item in candidates}
        return points(self.policy.order, candidates, self.tree, now=self.now, expected=expected)

    def _holders(self) -> list[Holder]:
        found = []
        for number, live in self._live.items():
            item, ran = live.job.candidate, self.now - live.since
            found.append(
                Holder(
                    uid=number,
                    queue=item.queue,
                    priority=item.priority,
                    submitted=item.submitted,
                    since=live.since,
                    usage=live.usage,
                    lost=self.now - live.saved,
                    protected=ran < self.policy.minimum_runs.get(item.queue, self.policy.minimum_run),
                )
            )
        return found

    def _yields(self) -> Mapping[Hashable, frozenset[Hashable]]:
        active = self._live.keys() | self.waiting.keys()
        self._pairs = [pair for pair in self._pairs if pair[0] in active and pair[1] in active]
        return yielding(self._pairs)


def _with_ready(fleet: Fleet, change: Change) -> Fleet:
    """The fleet with some nodes ready and others not."""
    ready: Mask = fleet.ready.copy()
    ready[sorted(change.ready)] = True
    ready[sorted(change.closed | change.lost)] = False
    fresh = fleet.fork()
    return replace(
        fresh,
        ready=np.asarray(ready),
        static_answers={},
        label_columns={},
        capacity_answer=None,
        slots=None,
        changes=[],
        rankings={},
    )
