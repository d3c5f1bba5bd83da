"""Who gets the places that are free: a task starts when there is room at every gate on its way.

A gate is a limit with a size: the instances of a task in one run, a task over all runs, a workflow over all runs, a
slot pool. A claim passes its gates in that order, the narrowest first. Claims are looked at by weight (the larger one
first), then by run (the older one first), then by the order of the tasks. Each passes as far as there is room; for the
first that has to stop at a gate, what it has passed and the rest of that gate are kept. So nobody overtakes at a gate
the one who is first there, however little they want, and whoever waits behind it keeps nothing from anybody.

A claim that wants more than the size of a gate (also: anything of a gate of size 0) waits without keeping anything.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

# A gate and how much is wanted of it, the narrowest gate first.
Takes = Sequence[tuple[Hashable, int]]
# The room of a gate at which somebody waits.
CLOSED = -1


@dataclass(frozen=True, slots=True)
class Gate:
    """A limit: its size and how much of it is held; more may be held than there is, after it shrank."""

    size: int
    held: int = 0

    @property
    def room(self) -> int:
        """How much is free."""
        return max(0, self.size - self.held)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a task wants. `run` and `order` decide between equal weights, the smaller one first."""

    key: int
    weight: float
    run: int
    order: int
    takes: Takes

    @property
    def place(self) -> tuple[float, int, int]:
        """What claims are ordered by."""
        return (-self.weight, self.run, self.order)


def next_claims(gates: Mapping[Hashable, Gate], claims: Iterable[Claim]) -> list[Claim]:
    """The claims that may start now, in their order. Gates that are not given have no limit."""
    room = {key: gate.room for key, gate in gates.items()}
    granted: list[Claim] = []
    for claim in sorted(claims, key=lambda each: each.place):
        takes = [(key, count) for key, count in claim.takes if key in room]
        if out_of_reach(gates, takes) is not None:
            continue
        stop = next((place for place, (key, count) in enumerate(takes) if room[key] < count), len(takes))
        if stop < len(takes) and room[takes[stop][0]] < 0:
            continue  # Somebody is first there.
        for key, count in takes[:stop]:
            room[key] -= count
        if stop == len(takes):
            granted.append(claim)
        else:
            room[takes[stop][0]] = CLOSED
    return granted


def out_of_reach(gates: Mapping[Hashable, Gate], takes: Takes) -> Hashable | None:
    """The first gate that is smaller than what is wanted of it."""
    return next((key for key, count in takes if key in gates and gates[key].size < count), None)


def stops_at(gates: Mapping[Hashable, Gate], takes: Takes) -> Hashable | None:
    """The gate at which what wants this waits: one that could never let it through, or else the first without room."""
    found = out_of_reach(gates, takes)
    if found is not None:
        return found
    return next((key for key, count in takes if key in gates and gates[key].room < count), None)
