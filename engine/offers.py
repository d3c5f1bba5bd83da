"""What a pool has to offer one job in a cycle: where it fits in each flavor, who would go for it, or why not."""

from collections.abc import Iterator, Sequence
from functools import partial

from engine.backfill import Backfill, Option
from engine.choices import Choice, choices
from engine.evictions import Eviction, Evictions
from engine.flavors import Level, Mode, choose, level_of, reduced
from engine.fleet import Fleet, of_group
from engine.kept import kept_place
from engine.kinds import Kind, Kinds, Likeness
from engine.placement import (
    Placed,
    feasibility,
    node_with_room,
    nodes_with_amounts,
    obstacles,
    place_gang,
    place_one,
    shortages,
)
from engine.preemption import Demand
from engine.queues import QueueRules, World
from engine.quota import FlavorResource, QuotaTree
from engine.reasons import GRAVITY, RANK, Reason
from engine.refusals import Deferred, Refusal, Told, behind, combined, no_flavor, no_place, no_quota
from engine.rooms import Room, Rooms, affords, covers, within
from engine.snapshot import Candidate, Snapshot, charge_of

# Flavors with places of all members there, or with whom the job would evict.
Chosen = tuple[Choice, Placed | Eviction]


class Offers:
    """Quota, nodes, evictions and reserved starts of one cycle, as its grants leave them.

    `fleet` and `tree` are the cycle's own; it charges there what it grants.
    """

    def __init__(self, snapshot: Snapshot, fleet: Fleet, tree: QuotaTree, now: float) -> None:
        self.fleet, self.tree, self.pools = fleet, tree, snapshot.pools
        self.flavors: dict[str, Sequence[Choice]] = {name: pool.choices for name, pool in snapshot.pools.items()}
        self.backfill = Backfill(snapshot.plan, fleet, tree, now, self.open) if snapshot.plan is not None else None
        self.evictions: Evictions | None = None
        if snapshot.holders:
            world = World.of(
                tree, snapshot.rules, snapshot.holders, strategies=snapshot.strategies, yields=snapshot.yields
            )
            self.evictions = Evictions(world, fleet, snapshot.places)
        self.rooms = Rooms(tree, self.flavors, self.evictions)
        self.kept = snapshot.plan.kept if snapshot.plan is not None else {}
        self.kinds = Kinds(self.rooms, self.kept)

    def open(self, item: Candidate) -> list[Option]:
        """The flavors in which a job that waits could start some time, with the fewest members."""
        item = item.least
        kind, room = self.kinds.of(item), self.rooms.of(item)
        return [
            Option(choice.name, charge, choice.nodes)
            for choice in self.choices(item)
            if covers(room, choice) and choice.name not in kind.infeasible
            if self.tree.ever_fits(item.queue, charge := charge_of(item, choice.name, choice.flavors)) is None
        ]

    def choices(self, item: Candidate) -> Sequence[Choice]:
        """The flavors that the job could have, in the order to try: for several groups different ones, too."""
        flavors = self.flavors[item.pool]
        if len(item.groups) == 1:
            return flavors
        kind = self.kinds.of(item)
        if kind.choices is None:
            kind.choices = choices(self.fleet, item.groups, flavors, self.pools[item.pool].split)
        return kind.choices

    def provisional(self, item: Candidate) -> dict[FlavorResource, int]:
        """What the job counts with in the tournament: its charge in the first flavor that has room for it."""
        if item.pool not in self.flavors:
            return {}
        room = self.rooms.of(item)
        covered = [choice for choice in self.choices(item) if covers(room, choice)]
        if not covered:
            return {}
        first = covered[0]
        if not self.rooms.roomy(item, room):
            free = self.rooms.measured(item).flavors
            first = next((choice for choice in covered if affords(free, item, choice)), first)
        return charge_of(item, first.name, first.flavors)

    def may_search(self, queue: int) -> bool:
        return self.evictions is not None and self.evictions.may_search(queue)

    def refused_with_room(self, item: Candidate, likeness: Likeness) -> Told | None:
        """Why no node takes the job, if its queue has room and another queue's job was refused for that."""
        kind, room = likeness.kind, likeness.room
        if room is None:
            room = likeness.room = self.rooms.of(item)
        refusal = kind.refusals.get(room.covered)
        if refusal is None or not self.rooms.roomy(item, room):
            return None
        # Nothing is granted any more once the limit is reached, so what fits then goes on fitting.
        if refusal.reason is Reason.BEHIND_IN_QUEUE or not self.may_search(item.queue):
            return refusal
        return None

    def look(self) -> None:
        """Find the kinds of jobs with a single member that no node has room for, all at once."""
        roomy = nodes_with_amounts(self.fleet, [request for _, request in self.kinds.single])
        for (kind, _), node in zip(self.kinds.single, roomy, strict=True):
            kind.roomy, kind.nowhere = node, node is None

    def nowhere(self, item: Candidate, kind: Kind) -> bool:
        """Whether it is known that no node has room for the job, which has a single member."""
        request = item.single
        if not kind.nowhere and request is not None:
            kind.roomy = node_with_room(self.fleet, request, kind.roomy)
            kind.nowhere = kind.roomy is None
        return kind.nowhere

    def unplaced(self, item: Candidate, likeness: Likeness) -> Told:
        """The refusal of a job that no node has room for, as going through its flavors would find."""
        kind, room = likeness.kind, self.rooms.of(item)
        if not kind.looked_at:
            self._look(item, kind)
        roomy = self.rooms.roomy(item, room)
        for flavor in room.covered - kind.blocked.keys():
            if roomy or within(self.rooms.measured(item).flavors[flavor], item.amounts):
                kind.blocked[flavor] = self._no_node(item, kind, flavor)
        refusal = self.unaffordable(item, likeness)
        assert refusal is not None
        if roomy:
            kind.refusals[room.covered] = refusal
        return refusal

    def unaffordable(self, item: Candidate, likeness: Likeness) -> Deferred | None:
        """The refusal of a job that has no quota in any flavor in which it could still have a place.

        It agrees with `_try`, which also makes its words.
        """
        kind, room = likeness.kind, self.rooms.of(item)
        roomy = self.rooms.roomy(item, room)
        if not roomy:
            self.rooms.measured(item)
        if not kind.looked_at:
            self._look(item, kind)
        mildest, infeasible, blocked = len(GRAVITY), kind.infeasible, kind.blocked
        for choice in self.choices(item):
            if choice.flavors:
                self._test(item, kind, choice)
            if not covers(room, choice):
                reason = Reason.NO_FLAVOR
            elif roomy or affords(room.flavors, item, choice):
                if choice.name not in blocked:
                    return None
                reason = blocked[choice.name].reason
            elif not affords(room.potential, item, choice):
                reason = Reason.EXCEEDS_MAX_QUOTA if _limited(room, item, choice) else Reason.NO_FLAVOR
            else:
                reason = blocked[choice.name].reason if choice.name in infeasible else Reason.WAITING_FOR_QUOTA
            mildest = min(mildest, RANK[reason])
        return Deferred(GRAVITY[mildest], partial(self._words, item))

    def _words(self, item: Candidate) -> Refusal:
        """Why the job is refused in each flavor, all together; nothing is decided any more."""
        refusals: dict[str, Told] = {}
        for _ in self.options(item, refusals, evict=False):
            pass
        return combined(list(refusals.values())).words

    def fewer(
        self, item: Candidate, rules: QueueRules, refusals: dict[str, Told]
    ) -> tuple[Candidate, Chosen] | None:
        """The job with as many members as fit without evictions; why not even the fewest do goes to `refusals`."""

        def fit(smaller: Candidate, why: dict[str, Told]) -> tuple[Candidate, Chosen] | None:
            option, _, _ = choose(self.options(smaller, why, evict=False), rules)
            return None if option is None else (smaller, option)

        if fit(item.least, refusals) is None:
            return None
        full = [count for _, count in item.groups]
        return reduced(full, item.minimums, lambda counts: fit(item.sized(counts), {}))

    def options(
        self, item: Candidate, refusals: dict[str, Told], *, evict: bool
    ) -> Iterator[tuple[Chosen, Level]]:
        """Flavors in order with how the job fits each; why it does not goes to `refusals`."""
        kind, room = self.kinds.of(item), self.rooms.of(item)
        roomy = self.rooms.roomy(item, room)
        for choice in self.choices(item):
            if not covers(room, choice):
                missing = (name for name in choice.flavors if name not in room.covered)
                refusals[choice.name] = no_flavor(choice.name, next(missing, choice.name))
                continue
            short = not roomy and not affords(self.rooms.measured(item).flavors, item, choice)
            outcome = self._try(item, kind, choice, short)
            if isinstance(outcome, Placed):
                yield (choice, outcome), Level(Mode.FIT, self._borrowing(item, choice))
                continue
            refusals[choice.name] = outcome
            if evict and outcome.reason in (Reason.WAITING_FOR_QUOTA, Reason.WAITING_FOR_CAPACITY):
                eviction = self._search(item, choice)
                if eviction is not None:
                    own = any(victim.holder.queue == item.queue for victim in eviction.victims)
                    yield (choice, eviction), Level(Mode.PREEMPT if own else Mode.RECLAIM, eviction.borrowing)

    def _borrowing(self, item: Candidate, choice: Choice) -> int:
        charge = charge_of(item, choice.name, choice.flavors)
        return max((self.tree.borrowing_level(item.queue, fr, amount)[0] for fr, amount in charge.items()), default=0)

    def _search(self, item: Candidate, choice: Choice) -> Eviction | None:
        """Who would have to go for the job in these flavors; contested is what quota lacks, or else all of it."""
        if self.evictions is None or not self.may_search(item.queue):
            return None
        world = self.evictions.world
        usage = {fr: amount for fr, amount in charge_of(item, choice.name, choice.flavors).items() if amount}
        short = {fr: amount for fr, amount in usage.items() if amount > world.tree.available(item.queue, fr)}
        for fr, amount in short.items():
            if level_of(world, item.queue, fr, amount, lambda *_: Level(Mode.RECLAIM, 0))[0].mode == Mode.NO_FIT:
                return None
        contested = frozenset(short or usage)
        demand = Demand(item.job, item.queue, item.priority, item.submitted, usage, contested)
        return self.evictions.fits_after(demand, item.groups, choice.nodes) or self.evictions.search(
            demand, item.groups, choice.nodes
        )

    def _try(self, item: Candidate, kind: Kind, choice: Choice, short: bool) -> Placed | Told:
        """A place in some flavors under quota, or why not; what does not pass by waiting is looked at first."""
        flavor = choice.name
        if short:
            amounts = charge_of(item, flavor, choice.flavors)
            shortage = self.tree.ever_fits(item.queue, amounts)
            if shortage is not None:
                uncovered = shortage.limit == "not covered"
                return no_quota(flavor, shortage, Reason.NO_FLAVOR if uncovered else Reason.EXCEEDS_MAX_QUOTA)
        if choice.flavors:
            self._test(item, kind, choice)
        elif not kind.looked_at:
            self._look(item, kind)
        if short and flavor not in kind.infeasible:
            shortage = self.tree.fits(item.queue, amounts)
            if shortage is None and self.evictions is not None:
                shortage = self.evictions.world.tree.fits(item.queue, amounts)
            if shortage is not None:
                return no_quota(flavor, shortage, Reason.WAITING_FOR_QUOTA)
        if flavor not in kind.blocked:
            if item.single is not None:
                return self._try_one(item, kind, choice)
            return self._try_gang(item, kind, choice)
        return kind.blocked[flavor]

    def _try_gang(self, item: Candidate, kind: Kind, choice: Choice) -> Placed | Told:
        """Places for several members: found anew or, where that fails, those that were kept for them."""
        found = place_gang(self.fleet, item.groups, allowed=choice.nodes, feasible=True)
        outcome = self._ahead(item, choice, found) if isinstance(found, Placed) else no_place(choice.name, found)
        kept = self.kept.get(item.job)
        if isinstance(outcome, Placed) or kept is None or kept.choice != choice.name:
            again = None
        else:
            again = kept_place(self.fleet, item.groups, kept.members, choice.nodes)
        if again is not None:
            outcome = self._ahead(item, choice, again)
        elif not isinstance(found, Placed):
            kind.blocked[choice.name] = no_place(choice.name, found)
        return outcome

    def _look(self, item: Candidate, kind: Kind) -> None:
        """Find the flavors that could not hold the job even if they were empty."""
        kind.looked_at = True
        never = obstacles(self.fleet, item.groups, self.pools[item.pool].split)
        for choice, obstacle in zip(self.flavors[item.pool], never, strict=True):
            if obstacle is not None:
                kind.infeasible.add(choice.name)
                kind.blocked[choice.name] = no_place(choice.name, obstacle)

    def _test(self, item: Candidate, kind: Kind, choice: Choice) -> None:
        """The same for one choice of different flavors, of which there are many: each when it is tried."""
        if choice.name in kind.tested:
            return
        kind.tested.add(choice.name)
        obstacle = feasibility(self.fleet, item.groups, allowed=choice.nodes)
        if obstacle is not None:
            kind.infeasible.add(choice.name)
            kind.blocked[choice.name] = no_place(choice.name, obstacle)

    def _try_one(self, item: Candidate, kind: Kind, choice: Choice) -> Placed | Told:
        """A place for a single member."""
        placed = place_one(self.fleet, item.groups[0][0], of_group(choice.nodes, 0))
        if placed is not None:
            return self._ahead(item, choice, placed)
        kind.blocked[choice.name] = self._no_node(item, kind, choice.name)
        return kind.blocked[choice.name]

    def _no_node(self, item: Candidate, kind: Kind, flavor: str) -> Deferred:
        return Deferred(Reason.WAITING_FOR_CAPACITY, partial(self._shortage, item, kind, flavor))

    def _shortage(self, item: Candidate, kind: Kind, flavor: str) -> Refusal:
        """What a single member is short of in a flavor, at the end of the cycle."""
        if not kind.shortages:
            names = (choice.name for choice in self.flavors[item.pool])
            found = shortages(self.fleet, item.groups[0][0], self.pools[item.pool].split)
            kind.shortages = {name: no_place(name, short) for name, short in zip(names, found, strict=True)}
        return kind.shortages[flavor]

    def _ahead(self, item: Candidate, choice: Choice, placed: Placed) -> Placed | Told:
        """Where the job may go ahead of those that wait, or that it may not."""
        if self.backfill is None:
            return placed
        option = Option(choice.name, charge_of(item, choice.name, choice.flavors), choice.nodes)
        outcome = self.backfill.admit(item.job, item.queue, item.groups, option, placed)
        if isinstance(outcome, Placed):
            return outcome
        return behind(choice.name, outcome.job if outcome.queue == item.queue else None, outcome.start)


def _limited(room: Room, item: Candidate, choice: Choice) -> bool:
    """Whether the queue has a quota of everything that the job would be charged."""
    charge = charge_of(item, choice.name, choice.flavors)
    return all(resource in room.flavors[flavor] for flavor, resource in charge)
