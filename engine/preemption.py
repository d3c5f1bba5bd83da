"""Whom a workload evicts so that it fits: candidates by policy, their order, and a minimal set.

Rules as in Kueue. A candidate uses a contested (flavor, resource); in the preemptor's own queue the policy
`within_queue` decides, in others `reclaim`, and those must exceed their quota. Victims are removed in order
until the preemptor fits, then each one that turns out not to be needed is put back. If it never fits, nobody
is evicted.

No two workloads can evict each other for ever. Each eviction says "the victim yields to the preemptor", and
nobody evicts one to whom it yields, directly or through others (`World.yields`). So the relation stays a strict
order: it only grows, at most to n(n-1)/2 pairs of n workloads. Once it has stopped growing, sort the workloads
by any linear extension of it, the one that is yielded to first, and write 1 for each holder and 0 for each
other: an eviction with the admission that it was for sets a digit to 1 and clears only later ones, and any
other admission only sets a digit. The number grows with each step and has n digits, so there are finitely
many. It takes that the room made is kept for the preemptor (engine.cycle) and that nobody comes or goes; with
arrivals it holds between them.
"""

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, pairwise
from typing import Protocol

from engine.fairness import TargetOrdering, allowed_by
from engine.queues import Holder, Policy, QueueRules, World, victim_order
from engine.quota import FlavorResource


class Cause(StrEnum):
    """Why a victim was chosen."""

    IN_QUEUE = "in_queue"
    RECLAIM = "reclaim"
    RECLAIM_WHILE_BORROWING = "reclaim_while_borrowing"
    FAIR_SHARING = "fair_sharing"


@dataclass(frozen=True, slots=True)
class Victim:
    """A holder that has to go, and why."""

    holder: Holder
    cause: Cause


@dataclass(frozen=True, slots=True)
class Demand:
    """What a workload would be charged, and which of that needs somebody else to leave."""

    uid: Hashable
    queue: int
    priority: int
    submitted: float
    usage: Mapping[FlavorResource, int]
    contested: frozenset[FlavorResource]


class Room(Protocol):
    """What besides quota has to fit, say places on nodes; changed as victims go and come back."""

    def release(self, holder: Holder) -> None:
        """The holder is gone."""

    def restore(self, holder: Holder) -> None:
        """The holder is back."""

    def fits(self) -> bool:
        """Whether the preemptor has room now."""


class _Anywhere:
    """Quota alone decides."""

    def release(self, holder: Holder) -> None:
        pass

    def restore(self, holder: Holder) -> None:
        pass

    def fits(self) -> bool:
        return True


def find_victims(
    world: World,
    demand: Demand,
    room: Room | None = None,
    *,
    only: Collection[Hashable] | None = None,
    most: int | None = None,
    among: Sequence[Holder] | None = None,
) -> list[Victim]:
    """The victims whose leaving lets the demand fit; empty if there are none. The world is left as it was.

    With `only`, nobody else is a candidate; with `most`, so many of the candidates that come first in order. `among` is
    what `candidates` said of the demand in this very world, if that is known.
    """
    search = Search(world, demand, room or _Anywhere(), only, most)
    if not world.fair:
        return search.classical()
    if among is None or only is not None:
        among = search.candidates()
    return search.fair(among[:most])


def candidates(world: World, demand: Demand) -> list[Holder]:
    """Everybody whom the policies let the demand evict, in the order in which they are tried."""
    return Search(world, demand, _Anywhere()).candidates()


def yielding(pairs: Iterable[tuple[Hashable, Hashable]]) -> dict[Hashable, frozenset[Hashable]]:
    """For `World.yields`: from (victim, preemptor) pairs, whom each victim yields to, directly or through others."""
    direct: dict[Hashable, set[Hashable]] = {}
    for victim, preemptor in pairs:
        direct.setdefault(victim, set()).add(preemptor)
    found: dict[Hashable, frozenset[Hashable]] = {}
    for start in direct:
        reached: set[Hashable] = set()
        ahead = list(direct[start])
        while ahead:
            uid = ahead.pop()
            if uid not in reached:
                reached.add(uid)
                ahead.extend(direct.get(uid, ()))
        found[start] = frozenset(reached)
    return found


def satisfies(policy: Policy, demand: Demand, holder: Holder) -> bool:
    """Whether the policy lets the demand evict the holder."""
    if policy == Policy.ANY:
        return True
    if policy == Policy.NEVER:
        return False
    if holder.priority < demand.priority:
        return True
    newer = holder.priority == demand.priority and demand.submitted < holder.submitted
    return newer and policy == Policy.LOWER_OR_NEWER_EQUAL_PRIORITY


def may_preempt_while_borrowing(world: World, rules: QueueRules) -> bool:
    """Whether a queue may evict for a request that does not fit its own quota."""
    return rules.borrow != Policy.NEVER or (world.fair and rules.reclaim != Policy.NEVER)


# A candidate of classical preemption: the cause, whether it may be used by a preemptor that ends up borrowing,
# and the ancestor at which both meet (None in the own queue).
_Entry = tuple[Holder, Cause, bool, int | None]


class Search:
    """One search for victims. Every change of the world is undone before it ends."""

    def __init__(
        self,
        world: World,
        demand: Demand,
        room: Room,
        only: Collection[Hashable] | None = None,
        most: int | None = None,
    ) -> None:
        self.only, self.most = only, most
        self.world, self.tree, self.demand, self.room = world, world.tree, demand, room
        self.rules = world.rules_of(demand.queue)
        self.contested = sorted(demand.contested)
        self.yields = world.yields.get(demand.uid, frozenset())

    # What both ways share

    def borrows(self, node: int) -> bool:
        """Whether the node exceeds its quota in anything contested."""
        return any(self.tree.exceeds(node, fr) for fr in self.contested)

    def candidates_in(self, queue: int, policy: Policy) -> Iterator[Holder]:
        """Holders of one queue that the policy lets the preemptor evict."""
        if policy == Policy.NEVER:
            return
        held = self.world.holders.get(queue, {})
        for holder in held.values() if self.only is None else [held[uid] for uid in self.only if uid in held]:
            if holder.uid in self.yields or (holder.protected and not holder.evicting):
                continue
            usage = holder.usage
            for fr in self.contested:  # Thousands run, and many a search looks at all of them.
                if usage.get(fr, 0) > 0:
                    if satisfies(policy, self.demand, holder):
                        yield holder
                    break

    def queues_below(self, node: int, leaving_out: int | None = None) -> Iterator[int]:
        """Other queues below a cohort that exceed their quota, as does each cohort on the way to them."""
        for child in self.tree.children(node):
            if child in (leaving_out, self.demand.queue) or not self.borrows(child):
                continue
            if child in self.world.holders and not self.tree.children(child):
                yield child
            else:
                yield from self.queues_below(child)

    def order(self, holder: Holder) -> tuple[object, ...]:
        """The key in which candidates are tried."""
        return victim_order(holder, self.demand.queue)

    def fits(self, *, borrowing: bool = True) -> bool:
        """Whether the demand fits now, by quota and by what else has to fit."""
        queue, tree = self.demand.queue, self.tree
        for fr, amount in self.demand.usage.items():
            if not borrowing and tree.exceeds(queue, fr, amount):
                return False
            if amount > tree.available(queue, fr):
                return False
        return self.room.fits()

    def take(self, holder: Holder) -> None:
        """Remove a victim."""
        self.world.remove(holder)
        self.room.release(holder)

    def put_back(self, holder: Holder) -> None:
        """Undo `take`."""
        self.world.add(holder)
        self.room.restore(holder)

    def restore(self, victims: list[Victim]) -> None:
        """Put back everybody that is still removed."""
        for victim in victims:
            self.put_back(victim.holder)

    def minimal(self, victims: list[Victim], *, borrowing: bool = True) -> list[Victim]:
        """Those that are needed, with everybody put back: from the last but one to the first."""
        needed = list(victims)
        for index in range(len(victims) - 2, -1, -1):
            self.put_back(needed[index].holder)
            if self.fits(borrowing=borrowing):
                needed[index] = needed[-1]
                needed.pop()
            else:
                self.take(needed[index].holder)
        self.restore(needed)
        return needed

    # Without fair sharing

    def classical(self) -> list[Victim]:
        """Entitled candidates first, then those by priority, then the own queue's; see `passes`."""
        entitled, by_priority = self.collect()
        within = self.candidates_in(self.demand.queue, self.rules.within_queue)
        own: list[_Entry] = [(holder, Cause.IN_QUEUE, True, None) for holder in within]
        lists: list[list[_Entry]] = [entitled, by_priority, own]
        for entries in lists:
            entries.sort(key=lambda entry: self.order(entry[0]))
        ordered = [entry for entries in lists for entry in entries if entry[0].evicting]
        ordered += [entry for entries in lists for entry in entries if not entry[0].evicting]
        ordered = ordered[: self.most]
        for borrowing in self.passes(entitled=bool(entitled), others=bool(entitled or by_priority)):
            victims: list[Victim] = []
            for entry in ordered:
                if not self.usable(entry, borrowing):
                    continue
                self.take(entry[0])
                victims.append(Victim(entry[0], entry[1]))
                if self.fits(borrowing=borrowing):
                    return self.minimal(victims, borrowing=borrowing)
            self.restore(victims)
        return []

    def passes(self, *, entitled: bool, others: bool) -> tuple[bool, ...]:
        """Whether the preemptor may end up borrowing, pass by pass."""
        forbidden = self.rules.borrow == Policy.NEVER
        under = all(
            self.tree.usage(self.demand.queue, fr) < self.tree.subtree(self.demand.queue, fr) for fr in self.contested
        )
        if not others or (forbidden and not under):
            return (True,)
        return (False, True) if forbidden and not entitled else (True, False)

    def collect(self) -> tuple[list[_Entry], list[_Entry]]:
        """Candidates of other queues: those that the preemptor is entitled to evict, and those by priority.

        It is entitled from the node up within whose quota its request (less what is kept and free below) fits.
        """
        tree, path = self.tree, self.tree.path(self.demand.queue)
        found: tuple[list[_Entry], list[_Entry]] = ([], [])
        if self.rules.reclaim == Policy.NEVER:
            return found
        rest, advantage = dict(self.demand.usage), False
        for below, node in pairwise(path):
            advantage = advantage or not any(tree.exceeds(below, fr, amount) for fr, amount in rest.items())
            rest = {fr: max(0, amount - tree.free_kept(below, fr)) for fr, amount in rest.items()}
            for queue in self.queues_below(node, leaving_out=below):
                for holder in self.candidates_in(queue, self.rules.reclaim):
                    cause, may_borrow = self.cause_of(holder, advantage)
                    found[0 if advantage else 1].append((holder, cause, may_borrow, node))
        return found

    def cause_of(self, holder: Holder, advantage: bool) -> tuple[Cause, bool]:
        """Why a holder of another queue may go, and whether the preemptor may then borrow."""
        if advantage:
            return Cause.RECLAIM, True
        threshold = self.rules.borrow_threshold
        if (
            self.rules.borrow == Policy.NEVER
            or holder.priority >= self.demand.priority
            or (threshold is not None and holder.priority > threshold)
        ):
            return Cause.RECLAIM, False
        return Cause.RECLAIM_WHILE_BORROWING, True

    def usable(self, entry: _Entry, borrowing: bool) -> bool:
        """Whether a candidate still counts: its queue and all up to the meeting point exceed their quota."""
        holder, _, may_borrow, meeting = entry
        if meeting is None:
            return True
        if borrowing and not may_borrow:
            return False
        for node in self.tree.path(holder.queue):
            if node == meeting:
                return True
            if not self.borrows(node):
                return False
        return True

    # With fair sharing

    def fair(self, candidates: Sequence[Holder]) -> list[Victim]:
        """Victims from the queues with the highest shares, as far as the strategies allow."""
        demand, tree = self.demand, self.tree
        if not candidates:
            return []
        victims: list[Victim] = []
        # Shares are those with the request; without it while asking whether it fits.
        tree.add(demand.queue, demand.usage)
        try:
            fitting, passed_over = self.first_strategy(candidates, victims)
            if not fitting and len(self.world.strategies) > 1:
                fitting = self.second_strategy(passed_over, victims)
        finally:
            tree.remove(demand.queue, demand.usage)
        if fitting:
            return self.minimal(victims)
        self.restore(victims)
        return []

    def candidates(self) -> list[Holder]:
        """Own and others in one list, in order; others from queues that exceed their own quota."""
        queue = self.demand.queue
        root = self.tree.path(queue)[-1]
        others = self.borrowing_queues(root) if root != queue and self.rules.reclaim != Policy.NEVER else iter(())
        own = self.candidates_in(queue, self.rules.within_queue)
        elsewhere = (self.candidates_in(other, self.rules.reclaim) for other in others)
        return sorted(chain(own, chain.from_iterable(elsewhere)), key=self.order)

    def borrowing_queues(self, node: int) -> Iterator[int]:
        """Other queues anywhere below that exceed their own quota in anything contested."""
        for child in self.tree.children(node):
            if self.tree.children(child):
                yield from self.borrowing_queues(child)
            elif child != self.demand.queue and self.borrows(child):
                yield child

    def evict(self, victims: list[Victim], holder: Holder, cause: Cause) -> bool:
        """Take a victim; whether the preemptor fits now."""
        self.take(holder)
        victims.append(Victim(holder, cause))
        self.tree.remove(self.demand.queue, self.demand.usage)
        fitting = self.fits()
        self.tree.add(self.demand.queue, self.demand.usage)
        return fitting

    def first_strategy(self, candidates: Sequence[Holder], victims: list[Victim]) -> tuple[bool, list[Holder]]:
        """All candidates by the first strategy; whether it fits, and who was passed over."""
        passed_over: list[Holder] = []
        targets = TargetOrdering(self.tree, self.demand.queue, candidates, self.order)
        while (queue := targets.next()) is not None:
            if queue == self.demand.queue:
                if self.evict(victims, targets.pop(queue), Cause.IN_QUEUE):
                    return True, passed_over
                continue
            if not self.borrows(self.demand.queue):
                if self.evict(victims, targets.pop(queue), Cause.RECLAIM):
                    return True, passed_over
                continue
            while targets.has(queue):
                holder = targets.pop(queue)
                if not allowed_by(self.world.strategies[0], self.tree, self.demand.queue, holder):
                    passed_over.append(holder)
                    continue
                if self.evict(victims, holder, Cause.FAIR_SHARING):
                    return True, passed_over
                break
        return False, passed_over

    def second_strategy(self, candidates: list[Holder], victims: list[Victim]) -> bool:
        """Those passed over by the second strategy, at most one from each queue; whether it fits."""
        targets = TargetOrdering(self.tree, self.demand.queue, candidates, self.order)
        while (queue := targets.next()) is not None:
            holder = targets.pop(queue)
            if allowed_by(self.world.strategies[1], self.tree, self.demand.queue, holder) and self.evict(
                victims, holder, Cause.FAIR_SHARING
            ):
                return True
            targets.drop(queue)
        return False
