"""Victims inside a whole cycle: quota and nodes together, and the room that evicted jobs will leave.

Two states are kept. What is free *now*, with every victim still there and the room of those that wait for
them set aside, is what jobs are granted from. What is free *after* all victims have gone and all who wait for
them have moved in is what victims are searched against; a grant has to fit both.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from engine.fleet import Fleet, Nodes, Request, of_group
from engine.placement import Groups, Member, NodeFree, Placed, fits_node, matching, place_gang, take_members
from engine.preemption import Demand, Victim, candidates, find_victims
from engine.queues import Holder, Policy, World
from engine.quota import FlavorResource

# Where a holder's members are: what each takes, its node and its cards.
Places = Sequence[tuple[Request, int, tuple[int, ...]]]

# Bounds of one cycle: searches for victims in all and for one queue (each costs about as much as sorting all
# holders), candidates that are tried in one search, and in all.
SEARCHES_MAX = 64
SEARCHES_OF_QUEUE = 8
CANDIDATES_MAX = 256
TRIED_MAX = 1024
# Nodes on which room is made for a single member, before room is looked for on all of them together.
NODES_MAX = 4


class Eviction(NamedTuple):
    """Who has to go so that a job fits one choice of flavors, where its members go then, and how far up it borrows."""

    demand: Demand
    victims: tuple[Victim, ...]
    members: tuple[Member, ...]
    borrowing: int


class _Nodes:
    """The room on nodes for one job while victims go and come back."""

    def __init__(self, fleet: Fleet, places: Mapping[Hashable, Places], groups: Groups, nodes: Nodes) -> None:
        self.fleet, self.places, self.groups, self.nodes = fleet, places, groups, nodes
        self.placed: Placed | None = None
        self.released = 0

    def release(self, holder: Holder) -> None:
        self.released += 1
        for request, node, cards in self.places.get(holder.uid, ()):
            self.fleet.give(request, node, cards)

    def restore(self, holder: Holder) -> None:
        for request, node, cards in self.places.get(holder.uid, ()):
            self.fleet.take(request, node, cards)

    def fits(self) -> bool:
        placed = place_gang(self.fleet, self.groups, allowed=self.nodes, feasible=True)
        if isinstance(placed, Placed):
            self.placed = placed
        return isinstance(placed, Placed)


def _with(free: NodeFree, request: Request, cards: Sequence[int]) -> NodeFree:
    """What is free when a member has gone as well."""
    gpu = {card: milli + request.gpu_milli * (card in cards) for card, milli in free.gpu.items()}
    return NodeFree(free.cpu + request.cpu, free.memory + request.memory, free.storage + request.storage, gpu)


class Evictions:
    """The state after all victims of the cycle; `fleet` is that of now and is changed where room is set aside."""

    def __init__(self, world: World, fleet: Fleet, places: Mapping[Hashable, Places]) -> None:
        self.world, self.now, self.after, self.places = world.copy(), fleet, fleet.fork(), places
        self.chosen: dict[Hashable, Victim] = {}
        self.searches: dict[int, int] = {}
        self.searched = self.tried = 0

    def may_search(self, queue: int) -> bool:
        """Whether the queue may evict anybody at all, and has searches left in this cycle."""
        rules = self.world.rules_of(queue)
        if rules.within_queue == rules.reclaim == Policy.NEVER:
            return False
        if self.searched >= SEARCHES_MAX or self.tried >= TRIED_MAX:
            return False
        return self.searches.get(queue, 0) < SEARCHES_OF_QUEUE

    def search(self, demand: Demand, groups: Groups, nodes: Nodes) -> Eviction | None:
        """The victims that make room for a job on these nodes; None if there are none."""
        self.searched += 1
        self.searches[demand.queue] = self.searches.get(demand.queue, 0) + 1
        room = _Nodes(self.after, self.places, groups, nodes)
        victims: list[Victim] = []
        everybody = candidates(self.world, demand)
        for only in (*self._by_node(everybody, groups, nodes), None):
            victims = find_victims(self.world, demand, room, only=only, most=CANDIDATES_MAX, among=everybody)
            if victims:
                break
        self.tried += room.released
        if not victims or room.placed is None:
            return None
        # The last try that fitted may have been one with more victims gone than are needed.
        for victim in victims:
            room.release(victim.holder)
            self.world.remove(victim.holder)
        fits, borrowing = room.fits(), self._borrowing(demand)
        for victim in victims:
            room.restore(victim.holder)
            self.world.add(victim.holder)
        return Eviction(demand, tuple(victims), room.placed.members, borrowing) if fits else None

    def _by_node(self, everybody: Sequence[Holder], groups: Groups, nodes: Nodes) -> list[frozenset[Hashable]]:
        """For a single member: the candidates of the nodes that come free first when candidates go in order.

        Room scattered over many nodes helps it nowhere, so it is made on one. The first such node has the
        victims that are mildest in order.
        """
        request, count = groups[0]
        if len(groups) > 1 or count > 1:
            return []
        usable = matching(self.after, request, of_group(nodes, 0))
        gone: dict[int, list[Hashable]] = {}
        free: dict[int, NodeFree] = {}
        found: list[frozenset[Hashable]] = []
        for holder in everybody:
            for taken, node, cards in self.places.get(holder.uid, ()):
                if not usable[node]:
                    continue
                free[node] = left = _with(free.get(node) or self._free(node), taken, cards)
                gone.setdefault(node, []).append(holder.uid)
                whole = [card for card, milli in left.gpu.items() if milli >= request.gpu_milli]
                if fits_node(left, request, whole[: request.gpu_count]) is None:
                    found.append(frozenset(gone[node]))
                    usable = usable & (np.arange(len(usable)) != node)
                    if len(found) == NODES_MAX:
                        return found
        return found

    def _free(self, node: int) -> NodeFree:
        """What is free on a node after all that was decided."""
        fleet = self.after
        cards = {card: int(milli) for card, milli in enumerate(fleet.gpu_free[node]) if milli >= 0}
        return NodeFree(int(fleet.cpu[node]), int(fleet.memory[node]), int(fleet.storage[node]), cards)

    def _borrowing(self, demand: Demand) -> int:
        levels = (self.world.tree.borrowing_level(demand.queue, fr, amount) for fr, amount in demand.usage.items())
        return max((level for level, _ in levels), default=0)

    def fits_after(self, demand: Demand, groups: Groups, nodes: Nodes) -> Eviction | None:
        """A place in what earlier victims of this cycle leave, without any of one's own."""
        if not self.chosen or self.world.tree.fits(demand.queue, demand.usage) is not None:
            return None
        placed = place_gang(self.after, groups, allowed=nodes, feasible=True)
        if not isinstance(placed, Placed):
            return None
        return Eviction(demand, (), placed.members, self._borrowing(demand))

    def grant(self, queue: int, usage: Mapping[FlavorResource, int], groups: Groups, members: Sequence[Member]) -> None:
        """A job was granted room that is free now: it is taken after, too."""
        self.world.tree.add(queue, usage)
        take_members(self.after, groups, members)

    def commit(self, eviction: Eviction, groups: Groups) -> None:
        """The victims go and the job moves in; what it takes of room that is free now is set aside."""
        self.world.record((victim.holder for victim in eviction.victims), eviction.demand.uid)
        leaving: dict[int, list[tuple[Request, tuple[int, ...]]]] = {}
        for victim in eviction.victims:
            self.chosen[victim.holder.uid] = victim
            self.world.remove(victim.holder)
            for request, node, cards in self.places.get(victim.holder.uid, ()):
                self.after.give(request, node, cards)
                leaving.setdefault(node, []).append((request, cards))
        self.world.tree.add(eviction.demand.queue, eviction.demand.usage)
        take_members(self.after, groups, eviction.members)
        arriving: dict[int, list[tuple[Request, tuple[int, ...]]]] = {}
        for group, _, node, cards in eviction.members:
            arriving.setdefault(node, []).append((groups[group][0], cards))
        for node, members in arriving.items():
            self._set_aside(node, members, leaving.get(node, []))

    def _set_aside(
        self,
        node: int,
        arriving: Sequence[tuple[Request, tuple[int, ...]]],
        leaving: Sequence[tuple[Request, tuple[int, ...]]],
    ) -> None:
        """Take from one node what those who come need beyond what those who go leave."""

        def beyond(resource: str) -> int:
            needed: int = sum(getattr(request, resource) for request, _ in arriving)
            needed -= sum(getattr(request, resource) for request, _ in leaving)
            free = int(getattr(self.now, resource)[node])
            return max(0, min(needed, free))

        bonds = arriving[0][0].bonds  # Who comes is company already.
        aside = Request(cpu=beyond("cpu"), memory=beyond("memory"), storage=beyond("storage"), bonds=bonds)
        self.now.take(aside, node, ())
        cards: dict[int, int] = {}
        for sign, members in ((1, arriving), (-1, leaving)):
            for request, held in members:
                for card in held:
                    cards[card] = cards.get(card, 0) + sign * request.gpu_milli
        for card, milli in cards.items():
            milli = min(milli, int(np.maximum(self.now.gpu_free[node, card], 0)))
            if milli > 0:
                self.now.take(Request(gpu_count=1, gpu_milli=milli), node, (card,))
