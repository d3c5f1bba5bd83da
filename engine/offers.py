"""What a pool has to offer one job in a cycle: where it fits in each flavor, who would go for it, or why not."""

from collections.abc import Iterator
from functools import partial

from engine.backfill import Backfill, Option
from engine.evictions import Eviction, Evictions
from engine.flavors import Level, Mode, choose, level_of, reduced
from engine.fleet import Fleet, Mask
from engine.kinds import Kind, Kinds, Likeness
from engine.placement import Placed, fits_anywhere, obstacles, place_gang, place_one, shortages
from engine.preemption import Demand
from engine.queues import QueueRules, World
from engine.quota import FlavorResource, QuotaTree
from engine.reasons import GRAVITY, RANK, Reason
from engine.refusals import Deferred, Refusal, Told, behind, combined, no_flavor, no_place, no_quota
from engine.rooms import Rooms, within
from engine.snapshot import Candidate, Snapshot, charge_of


class Offers:
    """Quota, nodes, evictions and reserved starts of one cycle, as its grants leave them.

    `fleet` and `tree` are the cycle's own; it charges there what it grants.
    """

    def __init__(self, snapshot: Snapshot, fleet: Fleet, tree: QuotaTree, now: float) -> None:
        self.fleet, self.tree, self.pools = fleet, tree, snapshot.pools
        self.flavors = {name: pool.inside for name, pool in snapshot.pools.items()}
        self.backfill = Backfill(snapshot.plan, fleet, tree, now, self.open) if snapshot.plan is not None else None
        self.evictions: Evictions | None = None
        if snapshot.holders:
            world = World.of(
                tree, snapshot.rules, snapshot.holders, strategies=snapshot.strategies, yields=snapshot.yields
            )
            self.evictions = Evictions(world, fleet, snapshot.places)
        self.rooms = Rooms(tree, self.flavors, self.evictions)
        self.kinds = Kinds(self.rooms)

    def open(self, item: Candidate) -> list[Option]:
        """The flavors in which a job that waits could start some time, with the fewest members."""
        item = item.least
        kind, covered = self.kinds.of(item), self.rooms.of(item).covered
        return [
            Option(charge, nodes)
            for flavor, nodes in self.flavors[item.pool]
            if flavor in covered and flavor not in kind.infeasible
            if self.tree.ever_fits(item.queue, charge := charge_of(item, flavor)) is None
        ]

    def provisional(self, item: Candidate) -> dict[FlavorResource, int]:
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

    def nowhere(self, item: Candidate, kind: Kind) -> bool:
        """Whether it is known that no node has room for the job, which has a single member."""
        if not kind.nowhere and len(item.groups) == 1 and item.groups[0][1] == 1:
            kind.nowhere = not fits_anywhere(self.fleet, item.groups[0][0])
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

    def _words(self, item: Candidate) -> Refusal:
        """Why the job is refused in each flavor, all together; nothing is decided any more."""
        refusals: dict[str, Told] = {}
        for _ in self.options(item, refusals, evict=False):
            pass
        return combined(list(refusals.values())).words

    def fewer(
        self, item: Candidate, rules: QueueRules, refusals: dict[str, Told]
    ) -> tuple[Candidate, tuple[str, Mask, Placed]] | None:
        """The job with as many members as fit without evictions; why not even the fewest do goes to `refusals`."""

        def fit(smaller: Candidate, why: dict[str, Told]) -> tuple[Candidate, tuple[str, Mask, Placed]] | None:
            option, _, _ = choose(self.options(smaller, why, evict=False), rules)
            return None if option is None or isinstance(option, Eviction) else (smaller, option)

        if fit(item.least, refusals) is None:
            return None
        full = [count for _, count in item.groups]
        return reduced(full, item.minimums, lambda counts: fit(item.sized(counts), {}))

    def options(
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
        if self.evictions is None or not self.may_search(item.queue):
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
