"""One cycle of quota: the head of each queue, who goes first, who is admitted and who has to go for whom.

Flavors and victims are chosen for every head against the same state; then the heads are processed in order,
and what is accepted changes the state for those after it.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from engine.fairness import Entry, Tournament
from engine.flavors import Assignment, Mode, assign, reduced
from engine.preemption import Demand, Victim, find_victims
from engine.queues import Holder, Policy, Strategy, Workload, World, workload_order
from engine.quota import FlavorResource
from engine.reasons import Reason


class Outcome(NamedTuple):
    """What a cycle decided about one head.

    `state` is `admitted`, `preempting` (its victims have to leave first) or `waiting`. `retry` says that it is
    worth another look in the next cycle even if nothing changes; `resume` where the search for flavors goes on.
    """

    workload: Workload
    state: str
    assignment: Assignment
    victims: tuple[Victim, ...]
    reason: Reason | None
    retry: bool
    resume: Mapping[tuple[int, int], int]


@dataclass(frozen=True, slots=True)
class Nomination:
    """A head with the flavors chosen for it and, where it needs them, its victims."""

    workload: Workload
    assignment: Assignment
    victims: tuple[Victim, ...]


def heads(pending: Iterable[Workload]) -> list[Workload]:
    """The first workload of each queue: by priority, then age, then uid."""
    first: dict[int, Workload] = {}
    for workload in pending:
        known = first.get(workload.queue)
        if known is None or workload_order(workload) < workload_order(known):
            first[workload.queue] = workload
    return list(first.values())


def nominate(world: World, workload: Workload, *, partial: bool = True) -> Nomination:
    """Flavors and victims at full size or, if that can be had neither way, at the largest size that can.

    A queue that names an unknown flavor is inactive: nothing fits it.
    """
    if not world.active(workload.queue):
        return Nomination(workload, Assignment(Mode.NO_FIT, (), {}, frozenset(), 0, Reason.NO_FLAVOR, {}), ())
    chosen: dict[tuple[int, ...], Assignment] = {}

    def at(counts: list[int]) -> Nomination | None:
        assignment = chosen[tuple(counts)] = assign(world, workload, counts)
        if assignment.mode == Mode.FIT:
            return Nomination(workload, assignment, ())
        if assignment.mode == Mode.PREEMPT:
            victims = find_victims(world, assignment.demand(workload))
            if victims:
                return Nomination(workload, assignment, tuple(victims))
        return None

    full = [part.count for part in workload.parts]
    found = at(full)
    if found is None and partial:
        found = reduced(full, [part.min_count for part in workload.parts], at)
    return found or Nomination(workload, chosen[tuple(full)], ())


def cycle_key(borrowing: int, workload: Workload) -> tuple[Any, ...]:
    """The order of heads without fair sharing: smaller borrowing level, higher priority, older."""
    return (borrowing, *workload_order(workload))


def may_admit(ready: Iterable[bool | None]) -> bool:
    """With admission blocked until all are ready: whether every admitted workload is; unknown is not ready."""
    return all(state is True for state in ready)


def reserved(world: World, nomination: Nomination) -> dict[FlavorResource, int]:
    """What a head that waits without victims keeps for itself: within its nominal quota or, if it would
    borrow, as far as its borrowing limit goes.
    """
    tree, queue, kept = world.tree, nomination.workload.queue, {}
    for fr, amount in nomination.assignment.usage.items():
        limit, used = tree.nodes[queue].limits.get(fr), tree.usage(queue, fr)
        nominal = limit.nominal if limit else 0
        if not nomination.assignment.borrowing:
            kept[fr] = max(0, min(amount, nominal - used))
        elif limit is None or limit.borrowing_limit is None:
            kept[fr] = amount
        else:
            kept[fr] = max(0, min(amount, nominal + limit.borrowing_limit - used))
    return kept


class Cycle:
    """The state of one cycle over a world of its own."""

    def __init__(self, world: World, *, partial: bool = True, across: bool = False) -> None:
        """With `across` priority goes before shares, also between queues (engine.order)."""
        self.world, self.partial, self.across = world.copy(), partial, across
        # Victims of this cycle: for the heads after their preemptor they are as good as gone.
        self.leaving: dict[Hashable, Holder] = {}

    def run(self, workloads: Sequence[Workload]) -> list[Outcome]:
        """Decide about these heads, at most one of each queue."""
        nominations = [nominate(self.world, workload, partial=self.partial) for workload in workloads]
        if not self.world.fair:
            ordered = sorted(nominations, key=lambda item: cycle_key(item.assignment.borrowing, item.workload))
            return [self.process(item) for item in ordered]
        outcomes = []
        by_queue = {item.workload.queue: item for item in nominations}
        entries = {
            queue: Entry(
                queue, item.assignment.usage, workload_order(item.workload), item.workload.priority * self.across
            )
            for queue, item in by_queue.items()
        }
        tournament = Tournament(self.world.tree)
        for entry in entries.values():
            tournament.set(entry)
        while (winner := tournament.first()) is not None:
            tournament.drop(winner.queue)
            del entries[winner.queue]
            outcomes.append(self.process(by_queue[winner.queue]))
            for entry in entries.values():
                if self.world.tree.path(entry.queue)[-1] == self.world.tree.path(winner.queue)[-1]:
                    tournament.set(entry)
        return outcomes

    def without(self, holders: Iterable[Holder]) -> list[Holder]:
        """Take those away that are still there; returns them, for `back`."""
        gone = [holder for holder in holders if holder.uid in self.world.holders.get(holder.queue, {})]
        for holder in gone:
            self.world.remove(holder)
        return gone

    def back(self, gone: Iterable[Holder]) -> None:
        """Undo `without`."""
        for holder in gone:
            self.world.add(holder)

    def fits(self, nomination: Nomination) -> bool:
        """Whether a head still fits, with all victims so far and its own treated as gone."""
        own = {victim.holder.uid: victim.holder for victim in nomination.victims}
        gone = self.without((self.leaving | own).values())
        shortage = self.world.tree.fits(nomination.workload.queue, nomination.assignment.usage)
        self.back(gone)
        return shortage is None

    def process(self, nomination: Nomination) -> Outcome:
        """Decide about the next head in order."""
        assignment, workload = nomination.assignment, nomination.workload
        queue = workload.queue
        strict = self.world.rules_of(queue).strategy == Strategy.STRICT_FIFO
        again = strict or bool(assignment.resume)
        if assignment.mode == Mode.NO_FIT:
            return Outcome(workload, "waiting", assignment, (), assignment.reason, again, assignment.resume)
        deferred = False
        if any(victim.holder.uid in self.leaving for victim in nomination.victims):
            nomination, deferred = self.again(nomination)
        if assignment.mode == Mode.PREEMPT and not nomination.victims and not deferred:
            if self.world.rules_of(queue).reclaim != Policy.ANY:
                self.world.tree.add(queue, reserved(self.world, nomination))
            return Outcome(workload, "waiting", assignment, (), Reason.WAITING_FOR_QUOTA, again, assignment.resume)
        # Evictions decided earlier in this cycle may have made the workload yield to one of its victims.
        yields = self.world.yields.get(workload.uid, frozenset())
        forbidden = any(victim.holder.uid in yields for victim in nomination.victims)
        if forbidden or not self.fits(nomination):
            return Outcome(workload, "waiting", assignment, (), Reason.WAITING_FOR_QUOTA, True, {})
        self.world.tree.add(queue, assignment.usage)
        self.leaving |= {victim.holder.uid: victim.holder for victim in nomination.victims}
        self.world.record((victim.holder for victim in nomination.victims), workload.uid)
        if nomination.victims or deferred:
            return Outcome(
                workload, "preempting", assignment, nomination.victims, Reason.WAITING_FOR_PREEMPTION, True, {}
            )
        return Outcome(workload, "admitted", assignment, (), None, False, {})

    def again(self, nomination: Nomination) -> tuple[Nomination, bool]:
        """Victims chosen anew, in the same flavors, with those of earlier heads gone; and whether it fits then."""
        gone = self.without(self.leaving.values())
        demand: Demand = nomination.assignment.demand(nomination.workload)
        fitting = self.world.tree.fits(demand.queue, demand.usage) is None
        victims = [] if fitting else find_victims(self.world, demand)
        self.back(gone)
        return replace(nomination, victims=tuple(victims)), fitting


def admit(world: World, pending: Iterable[Workload], *, partial: bool = True) -> list[Outcome]:
    """One cycle over the heads of these workloads; the world is left as it was."""
    return Cycle(world, partial=partial).run(heads(pending))
