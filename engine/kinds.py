"""Jobs that fare alike in a cycle: what has been found out about one holds for the others."""

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field

from engine.choices import Choice
from engine.fleet import Request
from engine.refusals import Refusal, Told
from engine.rooms import Room, Rooms
from engine.snapshot import Candidate


@dataclass(slots=True)
class Kind:
    """Jobs of one pool that ask for the same, whatever their queue: what placement has said about them.

    `blocked` is by flavor, or choice of several, and final for the cycle; in `infeasible` are those that could not
    hold the job even if they were empty (of choices of several, once they are `tested`). There is room `nowhere` if
    no node at all has it; `roomy` is one that had it when it was last asked for. `refusals` is by the flavors that a
    queue has quota in, for queues with room in all of them.
    """

    looked_at: bool = False
    choices: Sequence[Choice] | None = None
    tested: set[str] = field(default_factory=set)
    nowhere: bool = False
    roomy: int | None = None
    infeasible: set[str] = field(default_factory=set)
    blocked: dict[str, Told] = field(default_factory=dict)
    refusals: dict[frozenset[str], Told] = field(default_factory=dict)
    shortages: dict[str, Refusal] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Likeness:
    """Jobs of one queue that ask for the same: why those before were refused.

    Whether a job may go ahead of reserved starts depends on how long it runs: `held` is for those that run for at
    least so many seconds.
    """

    kind: Kind
    refusal: Told | None = None
    held: tuple[float, Told] | None = None
    room: Room | None = None


class Kinds:
    """All kinds of one cycle. A job with places of its `own` fares like no other. `single` are those of jobs with one
    member, with what it asks for."""

    def __init__(self, rooms: Rooms, own: Collection[int] = ()) -> None:
        self._rooms, self._own = rooms, own
        self._kinds: dict[Hashable, Kind] = {}
        self.single: list[tuple[Kind, Request]] = []

    def of(self, item: Candidate) -> Kind:
        """The kind of a job."""
        name: Hashable = item.equivalence
        if name is None:
            name = (tuple((request.shape, count) for request, count in item.groups), item.minimums)
        if item.job in self._own:
            name = (item.job, name)
        kind = self._kinds.get((item.pool, name))
        if kind is None:
            kind = self._kinds[item.pool, name] = Kind()
            if item.single is not None:
                self.single.append((kind, item.single))
        return kind

    def likenesses(self, items: Sequence[Candidate]) -> list[Likeness]:
        """For each of a queue's jobs what is shared by those that are alike."""
        found: dict[Hashable, Likeness] = {}
        result, own = list[Likeness](), self._own
        key: Hashable
        for item in items:
            key = (item.pool, item.equivalence)
            if key[1] is None or (own and item.job in own):
                key = item.job
            likeness = found.get(key)
            if likeness is None:
                likeness = found[key] = Likeness(self.of(item))
                self._rooms.expect(item)
            result.append(likeness)
        return result
