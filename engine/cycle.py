"""One cycle of the scheduler: which pending jobs get capacity, in which flavor and where, and why others not.

Made of the same parts as a cycle of quota alone (engine.admission), with nodes and with as many heads of each
queue as there are: the tournament of engine.fairness says whose head goes next, engine.flavors which flavor it
gets, engine.preemption who has to go for it. Within a cycle capacity and quota only shrink, so what failed once
fails again: every refusal is remembered by what was asked, and thousands of equal jobs cost one look.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count, repeat

from engine.backfill import Backfill, Option, Wait
from engine.evictions import Eviction, Evictions
from engine.fairness import Entry, Tournament
from engine.flavors import Level, Mode, choose, level_of, reduced
from engine.fleet import Mask
from engine.kinds import Kind, Kinds, Likeness
from engine.placement import (
    Placed,
    fits_anywhere,
    obstacles,
    place_gang,
    place_one,
    shortages,
    sieve,
    take_members,
)
from engine.preemption import Demand
from engine.queues import DEFAULT_RULES, Fungibility, Policy, Preference, QueueRules, Strategy, World
from engine.quota import FlavorResource
from engine.reasons import GRAVITY, RANK, Reason
from engine.refusals import (
    Deferred,
    Granted,
    Refusal,
    Told,
    behind,
    combined,
    full,
    no_flavor,
    no_place,
    no_quota,
    tried,
)
from engine.rooms import Rooms, within
from engine.snapshot import NO_POINTS, Candidate, Snapshot, Verdict, charge_of, queue_order

# Reasons of one job that others which ask for the same need not have.
_ITS_OWN = (Reason.WAITING_FOR_PREEMPTION, Reason.BUDGET_EXHAUSTED)
# What verdicts of jobs that are merely refused have after their position.
_NOTHING_ELSE = [repeat(Verdict._field_defaults[name]) for name in Verdict._fields[5:]]
# What a job with this reason gets a reserved start for.
_WAITS = {
    Reason.WAITING_FOR_CAPACITY: Wait.ROOM,
    Reason.WAITING_FOR_QUOTA: Wait.QUOTA,
    Reason.BEHIND_IN_QUEUE: Wait.TURN,
}


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
        self.points = plan.points if plan is not None else NO_POINTS
        self.durations = plan.durations if plan is not None else NO_POINTS
        self.backfill = Backfill(plan, self.fleet, self.tree, now, self._open) if plan is not None else None
        self.queues = queue_order(snapshot.candidates, self.points)
        # Where to go on in each queue, and how many of it stay pending.
        self.places = dict.fromkeys(self.queues, (0, 0))
        self.allowances = snapshot.allowances
        self.starts = {budget: allowance.starts for budget, allowance in snapshot.allowances.items()}
        self.granted = 0
        self.verdicts: list[Verdict] = []
        self.rules = snapshot.rules
        self.evictions: Evictions | None = None
        if snapshot.holders:
            world = World.of(
                self.tree, self.rules, snapshot.holders, strategies=snapshot.strategies, yields=snapshot.yields
            )
            self.evictions = Evictions(world, self.fleet, snapshot.places)
        self.rooms = Rooms(self.tree, self.flavors, self.evictions)
        self.kinds = Kinds(self.rooms)
        self.likenesses = {queue: self.kinds.likenesses(items) for queue, items in self.queues.items()}
        self.peculiar = {queue for queue, items in self.queues.items() if self._peculiar(items)}
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
        return self._told()

    def _told(self) -> list[Verdict]:
        """The verdicts, with the starts that are reserved if people are told of them."""
        if self.backfill is None or not self.backfill.plan.told:
            return self.verdicts
        starts = self.backfill.starts()
        return [item._replace(reserved=starts.get(item.job)) for item in self.verdicts] if starts else self.verdicts

    def _peculiar(self, items: Sequence[Candidate]) -> bool:
        """Whether some of a queue's jobs may fare otherwise than those that ask for the same."""
        if self.claims and any(item.job in self.claims for item in items):
            return True
        if self.starts and any(item.budgets for item in items):
            return True
        return max([item.not_before for item in items]) > self.now

    def _claim(self, queue: int, items: Sequence[Candidate]) -> None:
        """Jobs for which others stop already come before everybody else, in the order of their queue."""
        for item, likeness in zip(items, self.likenesses[queue], strict=True) if self.claims else ():
            if item.job in self.claims and item.not_before <= self.now:
                outcome = self._consider(item, likeness)
                if outcome is not None:
                    self._wait(item, outcome)

    def _bring_in(self, queue: int, heads: dict[int, int]) -> None:
        """Let the queue's next job that may start compete; those before it that are known not to are refused."""
        items = self.queues[queue]
        strict = self.rules.get(queue, DEFAULT_RULES).strategy == Strategy.STRICT_FIFO
        singly = strict or queue in self.peculiar
        index, waiting = self._pass_singly(queue, strict=strict) if singly else self._pass_by(queue)
        self.places[queue] = (index, waiting)
        if index < len(items):
            item = items[index]
            heads[queue] = index
            rank = (-self.points.get(item.job, item.priority), item.submitted, item.job)
            self.tournament.set(Entry(queue, self._provisional(item), rank))
        elif heads.pop(queue, None) is not None:
            self.tournament.drop(queue)

    def _pass_singly(self, queue: int, *, strict: bool) -> tuple[int, int]:
        """Refuse those next in a queue that are known not to start; where it goes on, and how many of it wait."""
        items, likenesses, now, claims = self.queues[queue], self.likenesses[queue], self.now, self.claims
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
                return index, waiting  # Whoever is refused blocks those behind it, so it has to be its turn.
            else:
                refusal = likeness.refusal or self._known(item, likeness)
            if refusal is None:
                return index, waiting
            waiting += 1
            self._refuse(item, refusal, waiting)
        return len(items), waiting

    def _pass_by(self, queue: int) -> tuple[int, int]:
        """The same for a queue in which all that are alike fare alike: nearly all of it at once."""
        items, likenesses = self.queues[queue], self.likenesses[queue]
        start, waiting = self.places[queue]
        told: list[Told] = []
        for index in range(start, len(items)):
            likeness = likenesses[index]
            refusal = likeness.refusal or self._known(items[index], likeness)
            if refusal is None:
                break
            told.append(refusal)
        if not told:
            return start, waiting
        end = start + len(told)
        passed, reasons = items[start:end], [refusal.reason for refusal in told]
        self._await(passed, told)
        jobs, numbers = [item.job for item in passed], count(waiting + 1)
        self.verdicts += map(Verdict._make, zip(jobs, repeat("pend"), reasons, told, numbers, *_NOTHING_ELSE))
        return end, waiting + len(told)

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
        if self.backfill is not None:
            self.backfill.settle()
        self.tree.add(item.queue, kept)
        if self.evictions is not None:
            self.evictions.world.tree.add(item.queue, kept)
        self.rooms.charge(item.amounts)

    def _known(self, item: Candidate, likeness: Likeness) -> Told | None:
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

    def _unaffordable(self, item: Candidate, likeness: Likeness) -> Deferred | None:
        """The refusal of a job that has no quota in any flavor in which it could still have a place.

        It agrees with `_try`, which also makes its words.
        """
        kind, room = likeness.kind, self.rooms.measured(item)
        if not kind.looked_at:
            self._look(item, kind)
        mildest, infeasible, blocked = len(GRAVITY), kind.infeasible, kind.blocked
        for flavor, _ in self.flavors[item.pool]:
            free = room.flavors.get(flavor)
            if free is None:
                reason = Reason.NO_FLAVOR
            elif within(free, item.amounts):
                if flavor not in blocked:
                    return None
                reason = blocked[flavor].reason
            elif not within(room.potential[flavor], item.amounts):
                reason = Reason.EXCEEDS_MAX_QUOTA if item.amounts.keys() <= free.keys() else Reason.NO_FLAVOR
            else:
                reason = blocked[flavor].reason if flavor in infeasible else Reason.WAITING_FOR_QUOTA
            mildest = min(mildest, RANK[reason])
        return Deferred(GRAVITY[mildest], partial(self._words, item))

    def _nowhere(self, item: Candidate, kind: Kind) -> bool:
        """Whether it is known that no node has room for the job, which has a single member."""
        if not kind.nowhere and len(item.groups) == 1 and item.groups[0][1] == 1:
            kind.nowhere = not fits_anywhere(self.fleet, item.groups[0][0])
        return kind.nowhere

    def _unplaced(self, item: Candidate, likeness: Likeness) -> Told:
        """The refusal of a job that no node has room for, as going through its flavors would find."""
        kind, room = likeness.kind, self.rooms.of(item)
        if not kind.looked_at:
            self._look(item, kind)
        roomy = self.rooms.roomy(item, room)
        for flavor in room.covered - kind.blocked.keys():
            if roomy or within(self.rooms.measured(item).flavors[flavor], item.amounts):
                kind.blocked[flavor] = self._no_node(item, kind, flavor)
        refusal = self._unaffordable(item, likeness)
        assert refusal is not None
        if roomy:
            kind.refusals[room.covered] = refusal
        return refusal

    def _words(self, item: Candidate) -> Refusal:
        """Why the job is refused in each flavor, all together; nothing is decided any more."""
        refusals: dict[str, Told] = {}
        for _ in self._options(item, refusals, evict=False):
            pass
        return combined(list(refusals.values())).words

    def _remember(self, item: Candidate, likeness: Likeness, refusal: Told) -> None:
        if refusal.held:
            likeness.held = likeness.held or {}
            likeness.held[self.durations.get(item.job)] = refusal
        elif item.equivalence is not None and refusal.reason not in _ITS_OWN:
            likeness.refusal = refusal

    def _provisional(self, item: Candidate) -> dict[FlavorResource, int]:
        """What the job counts with in the tournament: its charge in the first flavor that has room for it."""
        if item.pool not in self.flavors:
            return {}
        room = self.rooms.of(item)
        names = [name for name, _ in self.flavors[item.pool] if name in room.covered]
        if not names:
            return {}
        if self.rooms.roomy(item, room):
            return charge_of(item, names[0])
        free = self.rooms.measured(item).flavors
        return charge_of(item, next((name for name in names if within(free[name], item.amounts)), names[0]))

    def _refuse_queue(self, items: Sequence[Candidate], refusal: Told) -> None:
        for position, item in enumerate(items, 1):
            self._refuse(item, refusal, position)

    def _refuse(self, item: Candidate, why: Told, position: int) -> None:
        outcome = "preempt" if why.reason is Reason.WAITING_FOR_PREEMPTION else "pend"
        self._await([item], [why])
        self.verdicts.append(
            Verdict(item.job, outcome, why.reason, why, position, why.flavor, why.members, why.victims)
        )

    def _await(self, items: Sequence[Candidate], told: Sequence[Told]) -> None:
        """Let jobs of one queue have reserved starts, those of them that get one."""
        if self.backfill is None:
            return
        wanted: dict[tuple[str, Reason, bool], Wait | None] = {}
        for item, why in zip(items, told, strict=True):
            key = (item.pool, why.reason, why.held)
            if key not in wanted:
                wait = _WAITS.get(why.reason)
                turned = wait is None or (wait is Wait.TURN and not why.held)
                wanted[key] = None if wait is None or turned or not self.backfill.wants(item, wait) else wait
            if (to := wanted[key]) is not None:
                self.backfill.wait(item, to)

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

    def _consider(self, item: Candidate, likeness: Likeness) -> Told | None:
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
        if not item.minimums and not self._may_search(item.queue) and self._nowhere(item, likeness.kind):
            return self._unplaced(item, likeness)
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
        before = list(refusals.values())
        if isinstance(chosen, Eviction):
            return self._evict(item, chosen, before)
        if chosen is not None:
            flavor, nodes, placed = chosen
            if self.granted < self.limit:
                self._grant(item, flavor, nodes, placed, before)
                return None
            refusal: Told = full(flavor, self.granted, before)
        else:
            refusal = combined(before)
        room = self.rooms.of(item)
        # Who may not go ahead of whom depends on how long it runs, which other queues' jobs need not share.
        held = chosen is None and refusal.held
        final = not held and not shrinks and (chosen is not None or not self._may_search(item.queue))
        if final and self.rooms.roomy(item, room):
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

    def _refused_with_room(self, item: Candidate, likeness: Likeness) -> Told | None:
        """Why no node takes the job, if its queue has room and another queue's job was refused for that."""
        kind, room = likeness.kind, likeness.room
        if room is None:
            room = likeness.room = self.rooms.of(item)
        refusal = kind.refusals.get(room.covered)
        if refusal is None or not self.rooms.roomy(item, room):
            return None
        # Nothing is granted any more once the limit is reached, so what fits then goes on fitting.
        if refusal.reason is Reason.BEHIND_IN_QUEUE or not self._may_search(item.queue):
            return refusal
        return None

    def _options(
        self, item: Candidate, refusals: dict[str, Told], *, evict: bool
    ) -> Iterator[tuple[tuple[str, Mask, Placed] | Eviction | None, Level]]:
        """Flavors in order with how the job fits each; why it does not goes to `refusals`."""
        kind, room = self.kinds.of(item), self.rooms.of(item)
        roomy = self.rooms.roomy(item, room)
        for flavor, nodes in self.flavors[item.pool]:
            if flavor not in room.covered:
                refusals[flavor] = no_flavor(flavor)
                continue
            short = not roomy and not within(self.rooms.measured(item).flavors[flavor], item.amounts)
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

    def _evict(self, item: Candidate, eviction: Eviction, before: Sequence[Told]) -> Refusal:
        """Keep the room that the victims leave for the job, which waits for them."""
        assert self.evictions is not None
        if self.backfill is not None:
            self.backfill.evict([victim.holder.uid for victim in eviction.victims], item.job)
        self.evictions.commit(eviction, item.groups)
        self.rooms.charge(item.amounts)
        self._count(item)  # Nobody is evicted for a start that the budget has only once.
        count = len(eviction.victims)
        waits = f"{count} job{'s' if count > 1 else ''} to stop" if count else "jobs that stop for others"
        detail = f"the room is kept for it; it waits for {waits}."
        victims = tuple((int(str(victim.holder.uid)), victim.cause) for victim in eviction.victims)
        named = [{"job": job, "cause": cause.value} for job, cause in victims]
        flavor = next(iter(eviction.demand.usage))[0]
        entry: dict[str, object] = {"flavor": flavor, "outcome": "preempt", "detail": detail, "victims": named}
        entries = [*tried(before), entry]
        return Refusal(Reason.WAITING_FOR_PREEMPTION, detail, None, entries, eviction.members, victims, flavor)

    def _try(self, item: Candidate, kind: Kind, flavor: str, nodes: Mask, short: bool) -> Placed | Told:
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

    def _look(self, item: Candidate, kind: Kind) -> None:
        """Find the flavors that could not hold the job even if they were empty."""
        kind.looked_at = True
        never = obstacles(self.fleet, item.groups, self.pools[item.pool].split)
        for (flavor, _), obstacle in zip(self.flavors[item.pool], never, strict=True):
            if obstacle is not None:
                kind.infeasible.add(flavor)
                kind.blocked[flavor] = no_place(flavor, obstacle)

    def _try_one(self, item: Candidate, kind: Kind, flavor: str, nodes: Mask) -> Placed | Told:
        """A place for a single member."""
        request = item.groups[0][0]
        placed = place_one(self.fleet, request, nodes)
        if placed is not None:
            return self._ahead(item, flavor, nodes, placed)
        kind.blocked[flavor] = self._no_node(item, kind, flavor)
        return kind.blocked[flavor]

    def _no_node(self, item: Candidate, kind: Kind, flavor: str) -> Deferred:
        return Deferred(Reason.WAITING_FOR_CAPACITY, partial(self._shortage, item, kind, flavor))

    def _shortage(self, item: Candidate, kind: Kind, flavor: str) -> Refusal:
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
        """The flavors in which a job that waits could start some time, with the fewest members."""
        item = item.least
        kind, covered = self.kinds.of(item), self.rooms.of(item).covered
        return [
            Option(charge, nodes)
            for flavor, nodes in self.flavors[item.pool]
            if flavor in covered and flavor not in kind.infeasible
            if self.tree.ever_fits(item.queue, charge := charge_of(item, flavor)) is None
        ]

    def _grant(self, item: Candidate, flavor: str, nodes: Mask, placed: Placed, before: Sequence[Told]) -> None:
        why = Granted(flavor, before, sieve(self.fleet, item.groups[0][0], nodes))
        take_members(self.fleet, item.groups, placed.members)
        charge = charge_of(item, flavor)
        self.tree.add(item.queue, charge)
        if self.evictions is not None:
            self.evictions.grant(item.queue, charge, item.groups, placed.members)
        if self.backfill is not None:
            self.backfill.grant(item.job, item.queue, item.groups, charge, placed.members)
        self.rooms.charge(item.amounts)
        self._count(item)
        self.granted += 1
        self.verdicts.append(Verdict(item.job, "grant", None, why, 0, flavor, placed.members, (), placed.scores))
