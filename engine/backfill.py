"""Who may go ahead of whom: starts are reserved for jobs that have to wait, and later jobs fill the holes.

EASY (Lifka 1995) reserves for the first job of a pool that waits for room, and for the first of each queue that
waits for quota; conservative backfill (Mu'alem and Feitelson 2001) for every one that waits. A job that comes
later may start now if it is expected to have ended by each reserved start, or if there is room for both. So no
reserved start moves later because of a job that was let ahead; it still does if a job runs for longer than was
expected, or if somebody comes who goes first by order.
"""

from bisect import bisect_right, insort
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from engine.fleet import Fleet, Nodes
from engine.kept import Kept
from engine.placement import Groups, Member, Placed, find_places
from engine.profile import STEPS, Places, Profile, Slot, first, placed_at, thinned
from engine.quota import FlavorResource, QuotaTree

# The least that a job is planned for (seconds).
SHORTEST = 1.0

# Amounts (of nodes over time) that a profile of a large fleet keeps at most, and the moments it has in any case.
CELLS = 1_000_000
STEPS_LEAST = 16

# So far ahead (seconds), and so many times at most, reserved starts know when nodes are lent again.
OPENINGS_AHEAD, OPENINGS = 8 * 86_400.0, 32

Charge = Mapping[FlavorResource, int]


class Mode(StrEnum):
    """For whom starts are reserved: nobody, the first that waits, or every one (up to the plan's depth)."""

    NONE = "none"
    EASY = "easy"
    CONSERVATIVE = "conservative"


class Wait(StrEnum):
    """For what a job waits: nodes, quota, or that those with a reserved start have had their turn."""

    ROOM = "room"
    QUOTA = "quota"
    TURN = "turn"


@dataclass(frozen=True, slots=True)
class Running:
    """Who holds what, and when that is expected to come back (epoch seconds)."""

    job: Hashable
    queue: int
    end: float
    usage: Charge
    places: Places


@dataclass(frozen=True, slots=True)
class Plan:
    """What is expected: the ends of those that run, and how many seconds each waiting job will take.

    `modes` has the pools whose mode is another than `mode`. `running` may be a function, which is called once
    somebody has to wait; durations are not looked at before that either. `points` is the order inside a queue
    (engine.order), larger first; a job without points has its priority. A job without a duration is taken to
    run for ever. Where nobody is `told` of reserved starts, they are made only once somebody could go ahead. `kept`
    are the places that were reserved before for jobs of several groups.
    """

    mode: Mode = Mode.EASY
    running: Sequence[Running] | Callable[[], Sequence[Running]] = ()
    durations: Mapping[int, float] = field(default_factory=dict)
    points: Mapping[int, float] = field(default_factory=dict)
    depth: int = 100
    modes: Mapping[str, Mode] = field(default_factory=dict)
    told: bool = True
    kept: Mapping[int, Kept] = field(default_factory=dict)

    def expected(self) -> Sequence[Running]:
        """Those that run."""
        return self.running() if callable(self.running) else self.running

    def duration(self, job: int) -> float:
        """Seconds that a job is planned for."""
        return max(SHORTEST, self.durations.get(job, float("inf")))


class Option(NamedTuple):
    """One choice of flavors that a job could have: its name, what the job would be charged, and the nodes."""

    name: str
    charge: Charge
    nodes: Nodes


if TYPE_CHECKING:  # The snapshot has the plan in it.
    from engine.snapshot import Candidate


@dataclass(slots=True)
class Reservation:
    """A start that is kept for a job. `tree` is the quota at that time, all charges included; those that start then
    have it in common.

    Without members it waits for quota alone: which nodes it gets is seen when it has that.
    """

    job: int
    start: float
    duration: float
    groups: Groups
    option: Option
    queue: int
    members: tuple[Member, ...]
    tree: QuotaTree

    @property
    def places(self) -> Places:
        """Where it will be."""
        return placed_at(self.groups, self.members)


class Backfill:
    """The reservations of one cycle. `fleet` and `tree` are the cycle's own, with what it has granted so far.

    They are made when somebody could go ahead of those that wait, or at last when their starts are asked for; so
    whoever changes `fleet` or `tree` other than by a grant or an eviction calls `settle` before.
    """

    def __init__(
        self,
        plan: Plan,
        fleet: Fleet,
        tree: QuotaTree,
        now: float,
        options: "Callable[[Candidate], Sequence[Option]]",
    ) -> None:
        """`options` tells in which flavors a job that waits could start some time, with the fewest members."""
        self.plan, self.now, self._options = plan, now, options
        self.reservations: list[Reservation] = []
        self._waiting: list[tuple[Candidate, Wait]] = []
        self._fleet, self._tree = fleet, tree
        # Those that run, by their ends; until somebody has to wait, only what this cycle has granted.
        self._known: list[Running] | None = None
        # Their ends, as far as they are kept apart; made when it is asked for.
        self._ends: list[float] | None = None
        self._granted: list[tuple[int, int, Charge, Places]] = []
        self._profile: Profile | None = None
        # Who has a reserved start, or will never have one.
        self._heads: set[Hashable] = {None}
        self._tries = 0
        # Quota as it will be at times that were asked for, ascending; kept true when something is granted or reserved.
        self._trees: list[tuple[float, QuotaTree]] = []
        self._known_trees: dict[float, QuotaTree] = {}
        # Those of reservations that were made before somebody was evicted.
        self._before_evictions: list[tuple[float, QuotaTree]] = []
        # Who was in the way of a single member that would have been somewhere for so many seconds, or on any of some
        # nodes.
        self._in_the_way: dict[Hashable, tuple[float, Nodes, Reservation]] = {}

    @property
    def _running(self) -> list[Running]:
        if self._known is None:
            granted = [
                Running(job, queue, self.now + self.plan.duration(job), charge, places)
                for job, queue, charge, places in self._granted
            ]
            self._known = sorted([*self.plan.expected(), *granted], key=_end)
        return self._known

    # Who waits

    def wants(self, item: "Candidate", wait: Wait) -> bool:
        """Whether a job that waits may get a reserved start; said of one, it holds for all of its queue and pool."""
        return self._tries < self.plan.depth and self._head(item, wait) not in self._heads

    def wait(self, item: "Candidate", wait: Wait) -> None:
        """A job that may get a reserved start has to wait; those that are told so first come first."""
        self._waiting.append((item, wait))

    def _head(self, item: "Candidate", wait: Wait) -> Hashable:
        """Those of whom only the first gets a reserved start have this in common; for those who get none it is None,
        and for those who all get one their own."""
        mode = self.plan.modes.get(item.pool, self.plan.mode) if self.plan.modes else self.plan.mode
        if mode is Mode.CONSERVATIVE:
            return item.job
        if mode is Mode.NONE or wait is Wait.TURN:
            return None
        return wait, item.queue if wait is Wait.QUOTA else item.pool

    def starts(self) -> dict[int, float]:
        """The start (epoch seconds) that is reserved for each job that is to have one."""
        self.settle()
        return {one.job: one.start for one in self.reservations}

    def places(self) -> dict[int, Kept]:
        """Where the jobs of several groups are to be whose starts were reserved up to now."""
        return {
            one.job: Kept(one.option.name, one.members)
            for one in self.reservations
            if one.members and len(one.groups) > 1
        }

    def settle(self) -> None:
        """Reserve starts for those that have had to wait up to now."""
        waiting, self._waiting = self._waiting, []
        for item, wait in waiting:
            if self._tries >= self.plan.depth:
                return
            head = self._head(item, wait)
            if head not in self._heads:
                self._reserve(item, wait, head)

    def _reserve(self, item: "Candidate", wait: Wait, head: Hashable) -> None:
        self._tries += 1
        job, queue, groups = item.job, item.queue, item.least.groups
        mode, duration = self.plan.modes.get(item.pool, self.plan.mode), self.plan.duration(job)
        # The head of a queue that lacks quota keeps no nodes from others; in a full schedule it has its place.
        reserve = self._for_quota if wait == Wait.QUOTA and mode == Mode.EASY else self._for_room
        found: tuple[Slot, Option] | None = None
        for option in self._options(item):
            slot = reserve(job, queue, groups, option, duration, inf if found is None else found[0].start)
            if slot is not None:
                found = slot, option
        if found is None:
            return
        slot, option = found
        tree = self._tree_at(slot.start)
        best = Reservation(job, slot.start, duration, groups, option, queue, slot.members, tree)
        if best.members:
            self._profiled().reserve(best.places, best.start, best.start + duration)
        self.reservations.append(best)
        self._heads.add(head)
        self._charge_trees(queue, best.option.charge, best.start, best.start + duration)

    def _for_room(
        self, job: int, queue: int, groups: Groups, option: Option, duration: float, before: float
    ) -> Slot | None:
        def accept(at: float) -> bool:
            return self._quota_lasts(queue, option.charge, at, duration)

        kept = self.plan.kept.get(job)
        members = kept.members if kept is not None and kept.choice == option.name else ()
        # Those who wait for quota alone are not in the profile.
        last = max((one.start for one in self.reservations), default=-inf)
        slot = self._profiled().earliest(
            groups, duration, allowed=option.nodes, accept=accept, accepted_from=last, kept=members, before=before
        )
        return None if slot is None or slot.start <= self.now else slot

    def _for_quota(
        self, job: int, queue: int, groups: Groups, option: Option, duration: float, before: float
    ) -> Slot | None:
        if self._ends is None:
            self._ends = thinned(sorted({item.end for item in self._running if item.end > self.now}), STEPS)
        start = first(self._ends, lambda at: at if self._quota_lasts(queue, option.charge, at, duration) else None)
        return None if start is None or start >= before else Slot(start, ())

    def _quota_lasts(self, queue: int, charge: Charge, at: float, duration: float) -> bool:
        """Whether quota allows a start then, and still does when the reserved starts after it come."""
        if not self.reservations and self._tree.fits(queue, charge) is None:
            return True  # What fits now goes on fitting, as nobody takes anything at a later time.
        if self._tree_at(at).fits(queue, charge) is not None:
            return False
        later = (one for one in self.reservations if at < one.start < at + duration)
        return all(one.tree.fits(queue, charge) is None for one in later)

    def _tree_at(self, at: float) -> QuotaTree:
        """Quota as it will be: without those that have ended by then, with those whose reserved span it is in.

        It is made from the latest one before that is known, as most of the work is in what ends between.
        """
        known = self._known_trees.get(at)
        if known is not None:
            return known
        place = bisect_right(self._trees, at, key=_time)
        before, tree = self._trees[place - 1] if place else (float("-inf"), self._tree)
        tree = tree.copy()
        running = self._running
        ended: dict[int, dict[FlavorResource, int]] = {}
        for item in running[bisect_right(running, before, key=_end) : bisect_right(running, at, key=_end)]:
            sums = ended.setdefault(item.queue, {})
            for fr, amount in item.usage.items():
                sums[fr] = sums.get(fr, 0) + amount
        for queue, sums in ended.items():
            tree.remove(queue, sums)
        for one in self.reservations:
            was, will = (one.start <= time < one.start + one.duration for time in (before, at))
            if will and not was:
                tree.add(one.queue, one.option.charge)
            elif was and not will:
                tree.remove(one.queue, one.option.charge)
        self._trees.insert(place, (at, tree))
        self._known_trees[at] = tree
        return tree

    def _charge_trees(self, queue: int, charge: Charge, start: float, end: float) -> None:
        for at, tree in chain(self._trees, self._before_evictions):
            if start <= at < end:
                tree.add(queue, charge)

    def _profiled(self) -> Profile:
        if self._profile is None:
            width = len(self._fleet) * (3 + self._fleet.gpu_free.shape[1])
            steps = min(STEPS, max(STEPS_LEAST, CELLS // max(1, width)))
            ends = ((item.end, item.places) for item in self._running)
            terms = self._fleet.terms
            openings = [] if terms is None else terms.openings(self.now + OPENINGS_AHEAD)[:OPENINGS]
            self._profile = Profile(self._fleet, self.now, ends, steps=steps, openings=openings)
        return self._profile

    # Who goes ahead

    def admit(self, job: int, queue: int, groups: Groups, option: Option, placed: Placed) -> Placed | Reservation:
        """Where a job that fits now may start without making a reserved start later, or whom it would delay."""
        self.settle()
        if not self.reservations:
            return placed
        duration = self.plan.duration(job)
        ahead = [one for one in self.reservations if one.start < self.now + duration]
        if not ahead:
            return placed
        for one in ahead:
            if one.tree.fits(queue, option.charge) is not None:
                return one
        if self._profile is None:
            return placed
        # Those who ask for the same and would be there for longer are in the way, too: what is free only shrinks.
        alone = len(groups) == 1 and groups[0][1] == 1 and groups[0][0].bonds is None
        question = (groups[0][0], placed.members) if alone else None
        known = self._in_the_way.get(question)
        if known is not None and known[0] <= duration and known[1] is option.nodes:
            return known[2]
        outcome = self._beside(groups, option, placed, duration, ahead)
        if question is not None and isinstance(outcome, Reservation):
            self._in_the_way[question] = duration, option.nodes, outcome
        return outcome

    def _beside(
        self, groups: Groups, option: Option, placed: Placed, duration: float, ahead: Sequence[Reservation]
    ) -> Placed | Reservation:
        """Where there is room for so long beside the reserved starts, or one that would be delayed."""
        if self._profile is None or self._profile.fits(placed_at(groups, placed.members), self.now, duration):
            return placed
        room = self._profile.fleet(self.now, duration, within=self._fleet)
        beside = find_places(room, groups, option.nodes)
        if beside is not None and self._profile.suits(placed_at(groups, beside.members), self.now, duration):
            return beside
        return self._moved_aside(placed_at(groups, placed.members), duration, ahead) or placed

    def _moved_aside(self, places: Places, duration: float, ahead: Sequence[Reservation]) -> Reservation | None:
        """Give reserved starts other nodes, at the same time, so that these places can be taken.

        None if that was possible, or else the reservation in the way, with nothing changed.
        """
        profile = self._profiled()
        roomy = [one for one in ahead if one.members]
        for one in roomy:
            profile.release(one.places, one.start, one.start + one.duration)
        before = [one.members for one in roomy]
        obstacle: Reservation | None = None
        if profile.fits(places, self.now, duration):
            profile.reserve(places, self.now, self.now + duration)
            done = 0
            for one in roomy:
                free = profile.fleet(one.start, one.duration)
                placed = find_places(free, one.groups, one.option.nodes)
                others = placed_at(one.groups, placed.members) if placed is not None else []
                if placed is None or not profile.suits(others, one.start, one.duration):
                    obstacle = one
                    break
                one.members, done = placed.members, done + 1
                profile.reserve(one.places, one.start, one.start + one.duration)
            profile.release(places, self.now, self.now + duration)
        else:
            obstacle, done = roomy[0], 0
        if obstacle is None:
            self._in_the_way.clear()
            return None
        for one in roomy[:done]:
            profile.release(one.places, one.start, one.start + one.duration)
        for one, members in zip(roomy, before, strict=True):
            one.members = members
            profile.reserve(one.places, one.start, one.start + one.duration)
        return obstacle

    def grant(self, job: int, queue: int, groups: Groups, charge: Charge, members: Sequence[Member]) -> None:
        """A job starts now."""
        places = placed_at(groups, members)
        if self._known is None:
            self._granted.append((job, queue, charge, places))
            return
        end = self.now + self.plan.duration(job)
        self._ends = None
        self._charge_trees(queue, charge, float("-inf"), end)
        insort(self._known, Running(job, queue, end, charge, places), key=_end)
        if self._profile is not None:
            self._profile.reserve(places, self.now, end)

    def evict(self, victims: Sequence[Hashable], job: int) -> None:
        """Victims make room for a job: what they hold comes back when that job will have ended."""
        self.settle()
        starts = {one.start for one in self.reservations}
        self._before_evictions += [(at, tree) for at, tree in self._trees if at in starts]
        self._trees.clear()
        self._known_trees.clear()
        self._ends = None
        self._in_the_way.clear()
        end = self.now + self.plan.duration(job)
        gone = set(victims)
        self._known = sorted(
            (
                Running(item.job, item.queue, max(end, item.end), item.usage, item.places) if item.job in gone else item
                for item in self._running
            ),
            key=_end,
        )


def _end(item: Running) -> float:
    return item.end


def _time(item: tuple[float, QuotaTree]) -> float:
    return item[0]
