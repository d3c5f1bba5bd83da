"""One cycle of the scheduler: which pending jobs get capacity, in which flavor and where, and why others not.

Made of the same parts as a cycle of quota alone (engine.admission), with nodes and with as many heads of each
queue as there are: the tournament of engine.fairness says whose head goes next, engine.flavors which flavor it
gets, engine.preemption who has to go for it. Within a cycle capacity and quota only shrink, so what failed once
fails again: every refusal is remembered by what was asked, and thousands of equal jobs cost one look.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import count, repeat
from math import inf

from engine.backfill import Wait
from engine.choices import Choice
from engine.evictions import Eviction
from engine.fairness import Entry, Tournament
from engine.flavors import choose
from engine.kinds import Likeness
from engine.offers import Offers
from engine.placement import Placed, sieve, take_members
from engine.preemption import Cause
from engine.queues import DEFAULT_RULES, Fungibility, Policy, Preference, Strategy
from engine.quota import FlavorResource
from engine.reasons import Reason
from engine.refusals import Granted, Refusal, Told, combined, full, tried
from engine.snapshot import NO_POINTS, Candidate, Snapshot, Verdict, charge_of, queue_order, urgency

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
        self.suspended, self.claims, self.rules = snapshot.suspended, snapshot.claims, snapshot.rules
        self.fleet, self.tree = snapshot.fleet.fork(), snapshot.tree.copy()
        self.now, self.limit = now, limit
        plan = snapshot.plan
        self.points = plan.points if plan is not None else NO_POINTS
        self.durations = plan.durations if plan is not None else NO_POINTS
        self.offers = Offers(snapshot, self.fleet, self.tree, now)
        self.backfill, self.evictions = self.offers.backfill, self.offers.evictions
        self.rooms, self.kinds = self.offers.rooms, self.offers.kinds
        self.across = snapshot.across
        self.queues = queue_order(snapshot.candidates, self.points, self.across)
        # Where to go on in each queue, and how many of it stay pending.
        self.places = dict.fromkeys(self.queues, (0, 0))
        self.allowances = snapshot.allowances
        self.starts = {budget: allowance.starts for budget, allowance in snapshot.allowances.items()}
        self.granted = 0
        self.verdicts: list[Verdict] = []
        self.likenesses = {queue: self.kinds.likenesses(items) for queue, items in self.queues.items()}
        self.peculiar = {queue for queue, items in self.queues.items() if self._peculiar(items)}
        self.offers.look()
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
        """The verdicts, with the starts that are reserved if people are told of them, and the places to be kept."""
        if self.backfill is None:
            return self.verdicts
        starts = self.backfill.starts() if self.backfill.plan.told else {}
        places = self.backfill.places()
        if not starts and not places:
            return self.verdicts
        return [item._replace(reserved=starts.get(item.job), kept=places.get(item.job)) for item in self.verdicts]

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
            self.tournament.set(Entry(queue, self.offers.provisional(item), rank, urgency(item, self.across)))
        elif heads.pop(queue, None) is not None:
            self.tournament.drop(queue)

    def _pass_singly(self, queue: int, *, strict: bool) -> tuple[int, int]:
        """Refuse those next in a queue that are known not to start; where it goes on, and how many of it wait."""
        items, likenesses, now, claims = self.queues[queue], self.likenesses[queue], self.now, self.claims
        start, waiting = self.places[queue]
        end = self._level_end(items, start)
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
            if refusal is None or (index >= end and refusal.reason in _WAITS):
                return index, waiting
            waiting += 1
            self._refuse(item, refusal, waiting)
        return len(items), waiting

    def _level_end(self, items: Sequence[Candidate], start: int) -> int:
        """Up to where those next in a queue are as urgent as the one before, whose turn it was.

        Whoever is less so and could have a start reserved waits for the turns of the more urgent ones of other queues,
        even if it is known not to start now: starts are reserved in this order.
        """
        if not self.across:
            return len(items)
        if start == 0:
            return 0
        level = urgency(items[start - 1], self.across)
        return bisect_right(items, -level, lo=start, key=lambda item: -urgency(item, self.across))

    def _pass_by(self, queue: int) -> tuple[int, int]:
        """The same for a queue in which all that are alike fare alike: nearly all of it at once."""
        items, likenesses = self.queues[queue], self.likenesses[queue]
        start, waiting = self.places[queue]
        told: list[Told] = []
        level_end = self._level_end(items, start)
        for index in range(start, len(items)):
            likeness = likenesses[index]
            refusal = likeness.refusal or self._known(items[index], likeness)
            if refusal is None or (index >= level_end and refusal.reason in _WAITS):
                break
            told.append(refusal)
        if not told:
            return start, waiting
        end = start + len(told)
        passed, reasons = items[start:end], [refusal.reason for refusal in told]
        self._await(passed, told)
        jobs, numbers = [item.job for item in passed], count(waiting + 1)
        fields = zip(jobs, repeat("pend"), reasons, told, numbers, *_NOTHING_ELSE)
        self.verdicts += map(tuple.__new__, repeat(Verdict), fields)  # As `_make` does, ten thousand times.
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
        for fr, amount in self.offers.provisional(item).items():
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
        if likeness.held is not None and likeness.held[0] <= self.durations.get(item.job, inf):
            return likeness.held[1]
        if not self.offers.flavors.get(item.pool):
            return None
        refusal: Told | None = self.offers.refused_with_room(item, likeness)
        # Fewer members may be affordable; how many is looked at when it is the job's turn.
        if refusal is None and not item.minimums and not self.offers.may_search(item.queue):
            refusal = self._nowhere(item, likeness) or self.offers.unaffordable(item, likeness)
        if refusal is not None:
            self._remember(item, likeness, refusal)
        return refusal

    def _nowhere(self, item: Candidate, likeness: Likeness) -> Told | None:
        """The refusal of a job that no node has room for, unless its turn decides whose start is reserved."""
        if self.backfill is not None and self.backfill.wants(item, Wait.ROOM):
            return None
        return self.offers.unplaced(item, likeness) if self.offers.nowhere(item, likeness.kind) else None

    def _remember(self, item: Candidate, likeness: Likeness, refusal: Told) -> None:
        if refusal.held:
            likeness.held = self.durations.get(item.job, inf), refusal
        elif item.equivalence is not None and refusal.reason not in _ITS_OWN:
            likeness.refusal = refusal

    def _refuse_queue(self, items: Sequence[Candidate], refusal: Told) -> None:
        for position, item in enumerate(items, 1):
            self._refuse(item, refusal, position)

    def _refuse(self, item: Candidate, why: Told, position: int) -> None:
        outcome = "preempt" if why.reason is Reason.WAITING_FOR_PREEMPTION else "pend"
        self._await([item], [why])
        self.verdicts.append(
            Verdict(
                item.job, outcome, why.reason, why, position, why.flavor, why.members, why.victims, flavors=why.flavors
            )
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
        flavors = self.offers.flavors.get(item.pool)
        if flavors is None:
            return Refusal(Reason.NO_POOL, "the pool that the job names does not exist.")
        if not flavors:
            return Refusal(Reason.NO_FLAVOR, "the pool that the job names has no flavor.")
        known = self.offers.refused_with_room(item, likeness)
        if known is not None:
            return known
        if not item.minimums and not self.offers.may_search(item.queue) and self.offers.nowhere(item, likeness.kind):
            return self.offers.unplaced(item, likeness)
        rules = self.rules.get(item.queue, DEFAULT_RULES)
        # Evictions count only if nothing fits, unless the queue would rather evict than try the next flavor.
        eager = (
            rules.when_can_preempt == Fungibility.MAY_STOP_SEARCH
            or rules.preference == Preference.PREEMPTION_OVER_BORROWING
        )
        refusals: dict[str, Told] = {}
        chosen, _, _ = choose(self.offers.options(item, refusals, evict=eager), rules)
        if chosen is None and not eager and self.offers.may_search(item.queue):
            chosen, _, _ = choose(self.offers.options(item, dict(refusals), evict=True), rules)
        shrinks = bool(item.minimums)
        if chosen is None and shrinks:
            refusals = {}
            found = self.offers.fewer(item, rules, refusals)
            if found is not None:
                item, chosen = found
        before = list(refusals.values())
        if chosen is not None:
            choice, outcome = chosen
            if isinstance(outcome, Eviction):
                return self._evict(item, choice, outcome, before)
            if self.granted < self.limit:
                self._grant(item, choice, outcome, before)
                return None
            refusal: Told = full(choice.name, self.granted, before)
        else:
            refusal = combined(before)
        room = self.rooms.of(item)
        # Who may not go ahead of whom depends on how long it runs, which other queues' jobs need not share.
        held = chosen is None and refusal.held
        final = not held and not shrinks and (chosen is not None or not self.offers.may_search(item.queue))
        if final and self.rooms.roomy(item, room):
            likeness.kind.refusals[room.covered] = refusal
        return refusal

    def _evict(self, item: Candidate, choice: Choice, eviction: Eviction, before: Sequence[Told]) -> Refusal:
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
        # A tenant is not told which jobs of others these are.
        named = [{"job": job if cause is Cause.IN_QUEUE else None, "cause": cause.value} for job, cause in victims]
        entry: dict[str, object] = {"flavor": choice.name, "outcome": "preempt", "detail": detail, "victims": named}
        entries = [*tried(before), entry]
        return Refusal(
            Reason.WAITING_FOR_PREEMPTION, detail, None, entries, eviction.members, victims, choice.name, choice.flavors
        )

    def _grant(self, item: Candidate, choice: Choice, placed: Placed, before: Sequence[Told]) -> None:
        flavor, flavors = choice.name, choice.flavors
        nodes = choice.nodes[0] if isinstance(choice.nodes, tuple) else choice.nodes
        why = Granted(flavor, before, sieve(self.fleet, item.groups[0][0], nodes))
        take_members(self.fleet, item.groups, placed.members)
        charge = charge_of(item, flavor, flavors)
        self.tree.add(item.queue, charge)
        if self.evictions is not None:
            self.evictions.grant(item.queue, charge, item.groups, placed.members)
        if self.backfill is not None:
            self.backfill.grant(item.job, item.queue, item.groups, charge, placed.members)
        self.rooms.charge(item.amounts)
        self._count(item)
        self.granted += 1
        self.verdicts.append(
            Verdict(item.job, "grant", None, why, 0, flavor, placed.members, (), placed.scores, None, flavors)
        )
