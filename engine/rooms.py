"""What is free of each queue's quota while a cycle runs, looked at again only where something was charged since."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from engine.choices import Choice
from engine.evictions import Evictions
from engine.quota import FlavorResource, QuotaTree
from engine.snapshot import Candidate, charge_of


@dataclass(slots=True)
class Room:
    """Quota of one queue in one pool: the flavors it has any in, what it could ever have in each, what is free there,
    and what in every one of them.

    It was measured after so many charges; `taken` is what had been granted to anybody by then, by resource: by no
    more than what was granted since can `free` have shrunk. `ample` says that there is room for the largest job of
    the pool, as it was after so many charges.
    """

    covered: frozenset[str]
    potential: Mapping[str, Mapping[str, int]]
    flavors: dict[str, dict[str, int]] = field(default_factory=dict)
    free: dict[str, int] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)
    measured: int = -1
    ample: bool = False
    charges: int = -1


class Rooms:
    """The rooms of all queues. `tree` is the cycle's own, `flavors` are those of each pool in their order."""

    def __init__(
        self, tree: QuotaTree, flavors: Mapping[str, Sequence[Choice]], evictions: Evictions | None
    ) -> None:
        self._tree, self._flavors, self._evictions = tree, flavors, evictions
        self._rooms: dict[tuple[int, str], Room] = {}
        self._most: dict[str, dict[str, int]] = {}
        self._taken: dict[str, int] = {}
        self._charges = 0

    def expect(self, item: Candidate) -> None:
        """Note the largest amounts that jobs of a pool ask for; to be told of each kind before any question."""
        most = self._most.setdefault(item.pool, {})
        for resource, amount in item.amounts.items():
            if amount > most.get(resource, 0):
                most[resource] = amount

    def of(self, item: Candidate) -> Room:
        """The room of a job's queue in its pool, as it was when somebody last looked."""
        key = (item.queue, item.pool)
        room = self._rooms.get(key)
        if room is None:
            potential = self._tree.potentials(item.queue)
            covered = frozenset([choice.name for choice in self._flavors[item.pool] if choice.name in potential])
            room = self._rooms[key] = Room(covered, potential)
            self._measure(room, item.queue)
        return room

    def measured(self, item: Candidate) -> Room:
        """The room of a job's queue as it is now."""
        room = self.of(item)
        if room.measured != self._charges:
            self._measure(room, item.queue)
        return room

    def roomy(self, item: Candidate, room: Room) -> bool:
        """Whether the queue has room for the job in each flavor that it has quota in."""
        if room.charges != self._charges:
            room.charges, room.ample = self._charges, self._leaves(room, self._most[item.pool])
        if room.ample or self._leaves(room, item.amounts):
            return True
        if room.measured == self._charges:
            return False
        self._measure(room, item.queue)
        return self._leaves(room, item.amounts)

    def charge(self, amounts: Mapping[str, int]) -> None:
        """Quota was taken: rooms may have shrunk by as much."""
        self._charges += 1
        for resource, amount in amounts.items():
            self._taken[resource] = self._taken.get(resource, 0) + amount

    def _leaves(self, room: Room, amounts: Mapping[str, int]) -> bool:
        """Whether there is room for the amounts even if all that was granted since was taken from this room."""
        free, then, taken = room.free, room.taken, self._taken
        for resource, amount in amounts.items():
            if amount and amount > free.get(resource, -1) - taken.get(resource, 0) + then.get(resource, 0):
                return False
        return True

    def _measure(self, room: Room, queue: int) -> None:
        room.taken, room.measured = dict(self._taken), self._charges
        flavors: dict[str, dict[str, int]] = {flavor: {} for flavor in room.covered}
        least: dict[str, int] = {}
        count = 0
        for (flavor, resource), amount in self._available(queue).items():
            if flavor in flavors:
                count += 1
                flavors[flavor][resource] = amount
                if amount < least.get(resource, amount + 1):
                    least[resource] = amount
        if count < len(flavors) * len(least):  # Some flavor has no quota at all of some resource.
            least = {name: min(free.get(name, -1) for free in flavors.values()) for name in least}
        room.flavors, room.free = flavors, least

    def _available(self, queue: int) -> dict[FlavorResource, int]:
        """What is free now, and still is after all victims have gone for those who wait for them."""
        free = self._tree.room(queue)
        if self._evictions is None:
            return free
        after = self._evictions.world.tree.room(queue)
        return {fr: min(amount, after[fr]) for fr, amount in free.items()}


def within(free: Mapping[str, int], amounts: Mapping[str, int]) -> bool:
    """Whether all amounts are free; of a resource that is not named nothing is."""
    for resource, amount in amounts.items():  # noqa: SIM110 - `all` costs twice as much in this hot place
        if amount > free.get(resource, 0):
            return False
    return True


def covers(room: Room, choice: Choice) -> bool:
    """Whether the queue has any quota in all flavors of the choice."""
    return room.covered.issuperset(choice.flavors) if choice.flavors else choice.name in room.covered


def affords(free: Mapping[str, Mapping[str, int]], item: Candidate, choice: Choice) -> bool:
    """Whether what a job would be charged is free; the flavors are covered."""
    if not choice.flavors:
        return within(free[choice.name], item.amounts)
    charge = charge_of(item, choice.name, choice.flavors)
    return all(amount <= free[flavor].get(resource, 0) for (flavor, resource), amount in charge.items())
