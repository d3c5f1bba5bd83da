"""What will be free on every node over time: the step function that reservations are made in.

The profile starts from a fleet as it is now and from the moments at which something is given back. Between two
moments nothing changes, so it is kept as one array row per moment: cpu, memory and storage of each node, and
the thousandths of each of its cards. Amounts fall only where a reservation starts, so a span is free if it is
free at its own start and at every reservation start inside it.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import groupby
from math import inf
from operator import itemgetter
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from engine.company import Bonds, Company
from engine.fleet import NO_CARD, Fleet, Int64, Mask, Nodes, Request, of_group
from engine.kept import kept_place
from engine.lending import Terms
from engine.placement import Groups, Member, find_places

# Where the members of a job are: what each takes, its node and its cards.
Places = Sequence[tuple[Request, int, tuple[int, ...]]]

Index = npt.NDArray[np.intp]
Answer = TypeVar("Answer")
_end = itemgetter(0)

# Moments kept apart; with more, what is given back is counted as given back a little later.
STEPS = 256

# Cpu, memory and storage come before the cards.
_CARDS = 3


class Slot(NamedTuple):
    """A start in epoch seconds and where the members go then."""

    start: float
    members: tuple[Member, ...]


def placed_at(groups: Groups, members: Iterable[Member]) -> list[tuple[Request, int, tuple[int, ...]]]:
    """The places of a job's members."""
    return [(groups[group][0], node, cards) for group, _, node, cards in members]


class Profile:
    """Free amounts from `now` on. Times are epoch seconds; after the last moment nothing changes any more."""

    def __init__(
        self,
        fleet: Fleet,
        now: float,
        ends: Iterable[tuple[float, Places]],
        *,
        steps: int = STEPS,
        openings: Iterable[float] = (),
    ) -> None:
        """`ends` says when which places are given back; what should have ended by now ends right after it.

        `openings` are moments at which more nodes are lent (engine.lending).
        """
        self._fleet, self._steps = fleet, steps
        # Those of reservations, and which row each has.
        self._starts: list[float] = []
        self._start_rows: dict[float, int] = {}
        at_once = float(np.nextafter(now, np.inf))
        given = sorted(ends, key=_end)
        times = np.maximum(np.array([end for end, _ in given], dtype=np.float64), at_once)
        moments = np.array(thinned(np.unique(times).tolist(), steps))
        self._times = sorted({now, *moments.tolist(), *(at for at in openings if at > now)})
        # What is given back, and the moment in which it is; ascending.
        self._gone = [places for _, places in given]
        self._back = moments[np.searchsorted(moments, times)]
        # Which row of the arrays each moment has: new moments get theirs at the end. Only so many moments have been
        # counted up to now, with so much of what is given back: starts are mostly reserved soon, and what comes back
        # long after nobody asks for.
        self._rows = np.arange(len(self._times))
        self._counted, self._returned = 1, 0
        # The ends of reservations in moments that have not been counted yet.
        self._later: list[tuple[float, Places, int]] = []
        # With room for more moments: memory that is not used costs nothing, and a copy that is made later does.
        count = len(self._times)
        amounts = len(fleet), _CARDS + fleet.gpu_free.shape[1]
        self._free = np.zeros((2 * count + 1, *amounts), dtype=np.int64)
        self._free[0] = _amounts(fleet)
        # What is left by moment and account of the caps on what others hold.
        left = np.empty((0, 3), dtype=np.int64) if fleet.terms is None else fleet.terms.left
        self._left = np.zeros((len(self._free), *left.shape), dtype=np.int64)
        self._left[0] = left
        # Who has bonds to others: those that are there, and the reservations, with their spans.
        self._company = fleet.company and fleet.company.fork()
        self._leaving: list[tuple[float, float, Places]] = []
        self._coming: list[tuple[float, float, Places]] = []
        if self._company is not None:
            ended = zip(self._back.tolist(), self._gone, strict=True)
            self._leaving = [(now, at, places) for at, places in ended if _bonds(places)]

    def _count_until(self, moment: int) -> None:
        """Let a moment (by number) be counted, and all before it."""
        since = self._counted
        if moment < since:
            return
        self._counted = moment + 1
        rows, times = self._rows[since : moment + 1], np.array(self._times[since : moment + 1])
        returned = slice(self._returned, int(np.searchsorted(self._back, times[-1], side="right")))
        self._returned = returned.stop
        at = rows[np.searchsorted(times, self._back[returned])]
        self._give_back(at, self._gone[returned])
        for row, places in zip(at.tolist(), self._gone[returned], strict=True) if self._left.shape[1] else ():
            self._count_left(row, places, 1)
        later, self._later = self._later, []
        for time, places, sign in later:
            if time > times[-1]:
                self._later.append((time, places, sign))
                continue
            row = int(rows[np.searchsorted(times, time)])
            _change(self._free, row, places, sign)
            self._count_left(row, places, sign)
        before = int(self._rows[since - 1])
        for row in rows.tolist():
            self._free[row] += self._free[before]
            self._left[row] += self._left[before]
            before = row

    def _give_back(self, rows: Index, gone: Sequence[Places]) -> None:
        """Add what is held in places to the rows of the moments in which it is given back."""
        index = np.repeat(rows, np.fromiter(map(len, gone), dtype=np.intp, count=len(gone)))
        node = np.fromiter((row for places in gone for _, row, _ in places), dtype=np.intp, count=len(index))
        for column, name in enumerate(("cpu", "memory", "storage")):
            held = (getattr(request, name) for places in gone for request, _, _ in places)
            amounts = np.fromiter(held, dtype=np.int64, count=len(index))
            np.add.at(self._free[:, :, column], (index, node), amounts)
        on_cards = ((request.gpu_milli, cards) for places in gone for request, _, cards in places)
        for at, row, (milli, cards) in zip(index.tolist(), node.tolist(), on_cards, strict=True):
            for card in cards:
                self._free[at, row, _CARDS + card] += milli

    @property
    def times(self) -> Sequence[float]:
        """The moments, ascending; the first is now."""
        return self._times

    def free(self, at: float) -> Int64:
        """What is free at a time: per node cpu, memory, storage and its cards (-1 where there is none)."""
        row: Int64 = self._free[self._row(at)].copy()
        return row

    def _row(self, at: float) -> int:
        moment = max(0, bisect_right(self._times, at) - 1)
        self._count_until(moment)
        return int(self._rows[moment])

    def _lowest(self, start: float, end: float) -> Int64:
        """The least that is free of everything from `start` until before `end`; not to be changed."""
        rows = self._lows(start, end)
        lowest: Int64 = self._free[rows].min(axis=0) if len(rows) > 1 else self._free[rows[0]]
        return lowest

    def _lows(self, start: float, end: float) -> list[int]:
        """The rows in which anything may be at its least from `start` until before `end`."""
        inside = self._starts[bisect_left(self._starts, start) : bisect_left(self._starts, end)]
        return [self._row(start), *{self._start_rows[at] for at in inside}]

    def _terms(self, start: float, end: float) -> Terms | None:
        """The terms of lending at a start, with the least that is left of the caps until before `end`."""
        terms = self._fleet.terms
        if terms is None:
            return None
        left: Int64 = self._left[self._lows(start, end)].min(axis=0)
        return terms.at(None if terms.now is None else start, left)

    def _count_left(self, rows: Index | int, places: Places, sign: int) -> None:
        """Add what places count with to what is left of the caps in some rows, or with -1 take it away."""
        terms = self._fleet.terms
        if terms is None or not terms.accounts:
            return
        for request, node, _ in places:
            if request.consumer is not None:
                for account in terms.charged(node, request.consumer):
                    self._left[rows, account] += sign * np.array(request.held, dtype=np.int64)

    def fleet(self, start: float, duration: float, *, within: Fleet | None = None) -> Fleet:
        """The fleet as it is free throughout a span; with `within`, what that fleet has free at most."""
        end = start + duration
        return self._as_fleet(self._lowest(start, end), within, self._terms(start, end), self._around(start, end))

    def _expect(self, places: Places, start: float, end: float, sign: int) -> None:
        """Let the company know of a reservation, or with -1 no more; who starts now is there at once."""
        if self._company is None or _bonds(places) is None:
            return
        item: tuple[float, float, Places] = (start, end, places)
        if start <= self._times[0]:
            _count_company(self._company, places, sign)
        if sign > 0:
            (self._leaving if start <= self._times[0] else self._coming).append(item)
        else:
            (self._leaving if start <= self._times[0] else self._coming).remove(item)

    def _around(self, start: float, end: float) -> Company | None:
        """The company at a start: without those that have left by then, with those that will come until `end`."""
        if self._company is None:
            return None
        company = self._company.fork()
        for _, gone, places in self._leaving:
            if gone <= start:
                _count_company(company, places, -1)
        company.guests = [
            (request.bonds, node)
            for begins, ends, places in self._coming
            if begins < end and start < ends
            for request, node, _ in places
            if request.bonds is not None
        ]
        return company

    def _as_fleet(
        self, free: Int64, within: Fleet | None, terms: Terms | None, company: Company | None
    ) -> Fleet:
        twin = self._fleet.fork()
        twin.terms, twin.company = terms, company
        twin.cpu, twin.memory, twin.storage = free[:, 0].copy(), free[:, 1].copy(), free[:, 2].copy()
        cards = free[:, _CARDS:].astype(np.int32)
        if within is not None:
            for name in ("cpu", "memory", "storage"):
                setattr(twin, name, np.minimum(getattr(twin, name), getattr(within, name)))
            cards = np.minimum(cards, within.gpu_free)
            if terms is not None and within.terms is not None:
                terms.left = np.minimum(terms.left, within.terms.left)
        twin.gpu_free, twin.capacity_answer = np.asfortranarray(cards), None
        return twin

    def fits(self, places: Places, start: float, duration: float) -> bool:
        """Whether these places are free throughout a span."""
        lows, nodes = self._lows(start, start + duration), sorted({node for _, node, _ in places})
        free = self._free[np.array(lows)[:, np.newaxis], nodes].min(axis=0)
        left = free.copy()
        moved = [(request, nodes.index(node), cards) for request, node, cards in places]
        _change(left[np.newaxis], np.array([0]), moved, -1)
        cards = left[:, _CARDS:]
        fits = (left[:, :_CARDS] >= 0).all() and ((cards >= 0) | (free[:, _CARDS:] == NO_CARD)).all()
        end = start + duration
        return bool(fits) and self._within_terms(places, start, end) and self.suits(places, start, duration)

    def _within_terms(self, places: Places, start: float, end: float) -> bool:
        """Whether the terms of lending let all these members begin at `start`, and the caps leave room until `end`."""
        terms = self._terms(start, end)
        for request, node, _ in places if terms is not None else ():
            if terms is None or request.consumer is None:
                continue
            if not terms.allow(node, request.consumer, request.limit, request.held):
                return False
            terms.take(node, request.consumer, request.held)
        return True

    def suits(self, places: Places, start: float, duration: float) -> bool:
        """Whether these members find the company that they want, and everybody who comes meanwhile still does."""
        bonds, end = _bonds(places), start + duration
        if bonds is None or (company := self._around(start, end)) is None:
            return True
        nodes = [node for _, node, _ in places]
        allowed = company.allowed(bonds)
        if allowed is not None and not allowed[nodes].all():
            return False
        for begins, ends, others in self._coming:
            theirs = _bonds(others)
            if theirs is None or not (begins < end and start < ends) or theirs.tenant != bonds.tenant:
                continue
            # Whoever starts later as the first of its kind finds the other one there.
            later, sooner, at = (theirs, bonds, begins) if begins >= start else (bonds, theirs, start)
            for one in self._around(at, at).first_of(later) if later.near_needs else ():  # type: ignore[union-attr]
                both = [*nodes, *(node for _, node, _ in others)]
                if one.means(sooner.labels) and not company.together(one.key, both):
                    return False
        return True

    def earliest(
        self,
        groups: Groups,
        duration: float,
        *,
        allowed: Nodes | None = None,
        not_before: float | None = None,
        accept: Callable[[float], bool] = lambda at: True,
        accepted_from: float = -inf,
        kept: Sequence[Member] = (),
        before: float = inf,
    ) -> Slot | None:
        """The first start at which all groups have room at once for so many seconds, by the product's placement.

        `accept` may refuse a start for other reasons; after the last reservation's start, and from `accepted_from` on,
        it has to stay true once it is. `kept` are places that are taken wherever they are free, before others are
        looked for. None if there is no such start `before` a time.
        """

        def place(at: float) -> Slot | None:
            lowest = self._lowest(at, at + duration)
            roomy = all(
                _has_node(lowest, request, of_group(allowed, index)) for index, (request, _) in enumerate(groups)
            )
            if not roomy or not accept(at):
                return None
            end = at + duration
            fleet = self._as_fleet(lowest, None, self._terms(at, end), self._around(at, end))
            for members in (kept, None) if kept else (None,):
                placed = (
                    find_places(fleet, groups, allowed)
                    if members is None
                    else kept_place(fleet, groups, members, allowed)
                )
                if placed is not None and self.suits(placed_at(groups, placed.members), at, duration):
                    return Slot(at, placed.members)
            return None

        last = max(self._starts[-1] if self._starts else self._times[0], accepted_from)
        tail: list[float] = []
        for at in self._moments(not_before):
            if at >= before:
                break
            if at >= last and len(groups) == 1:
                tail.append(at)
                continue
            slot = place(at)
            if slot is not None:
                return slot
        # As long as the same nodes are lent, and the same company is there, what is free only grows.
        found = (first(list(run), place) for _, run in groupby(tail, key=lambda at: self._lent(groups, at)))
        return next((slot for slot in found if slot is not None), None)

    def _lent(self, groups: Groups, at: float) -> Hashable:
        """What is the same at two moments if the same nodes are lent then for these groups, with the same near them."""
        terms, (request, _) = self._fleet.terms, groups[0]
        lent = () if terms is None or request.consumer is None else terms.state(at, request.consumer, request.limit)
        near = None
        if request.bonds is not None and request.bonds.near_needs and (company := self._around(at, at)) is not None:
            near = company.near(request.bonds)
        return lent, None if near is None else near.tobytes()

    def _moments(self, not_before: float | None) -> Iterator[float]:
        first = self._times[0] if not_before is None else max(not_before, self._times[0])
        yield first
        yield from self._times[bisect_left(self._times, float(np.nextafter(first, np.inf))) :]

    def reserve(self, places: Places, start: float, end: float) -> None:
        """Take places for a span. Raises ValueError, and changes nothing, if they are not free throughout it."""
        if not end > start:
            raise ValueError(f"a reservation from {start} to {end} ends before it starts")
        if not self.fits(places, start, end - start):
            raise ValueError(f"the places are not free from {start} to {end}")
        self._add(places, start, end, -1)
        self._expect(places, start, end, 1)
        if start > self._times[0]:
            insort(self._starts, start)
            self._start_rows[start] = self._row(start)

    def release(self, places: Places, start: float, end: float) -> None:
        """Give back what was reserved with the same arguments."""
        self._add(places, start, end, 1)
        self._expect(places, start, end, -1)
        if start > self._times[0]:
            self._starts.remove(start)

    def _add(self, places: Places, start: float, end: float, sign: int) -> None:
        """Change what is free throughout a span."""
        begins, ends = self._split(start), self._split(end, later=True)
        self._count_until(begins)
        rows = self._rows[begins : min(ends, self._counted)]
        _change(self._free, rows, places, sign)
        self._count_left(rows, places, sign)
        if self._counted <= ends < len(self._times):
            self._later.append((self._times[ends], places, -sign))

    def _split(self, at: float, *, later: bool = False) -> int:
        """The moment of a time, by its place. If there are too many already and `later`, that of the next moment."""
        at = max(at, self._times[0])
        index = bisect_left(self._times, at)
        if index < len(self._times) and (self._times[index] == at or (later and len(self._times) >= 2 * self._steps)):
            return index
        row = len(self._rows)
        if row == len(self._free):
            self._free, self._left = _longer(self._free), _longer(self._left)
        if index <= self._counted:
            before = int(self._rows[index - 1])
            self._free[row], self._left[row] = self._free[before], self._left[before]
            self._counted += 1
        self._times.insert(index, at)
        self._rows = np.concatenate((self._rows[:index], [row], self._rows[index:]))
        return index


def _bonds(places: Places) -> Bonds | None:
    """What a job is to others; its members have it in common."""
    return places[0][0].bonds if places else None


def _count_company(company: Company, places: Places, sign: int) -> None:
    for request, node, _ in places:
        if request.bonds is not None:
            company.count(request.bonds, node, sign)


def _amounts(fleet: Fleet) -> Int64:
    """What is free now: per node cpu, memory, storage and its cards."""
    return np.column_stack((fleet.cpu, fleet.memory, fleet.storage, fleet.gpu_free)).astype(np.int64)


def _longer(rows: Int64) -> Int64:
    """The same rows with room for half as many more, which are 0."""
    longer = np.zeros((len(rows) + len(rows) // 2 + 1, *rows.shape[1:]), dtype=np.int64)
    longer[: len(rows)] = rows
    return longer


def _has_node(free: Int64, request: Request, allowed: Mask | None) -> bool:
    """Whether any node has the amounts for one member: far cheaper than placing it, and mostly the end of it."""
    fits = (free[:, :_CARDS] >= (request.cpu, request.memory, request.storage)).all(axis=1)
    if request.gpu_count:
        fits &= np.count_nonzero(free[:, _CARDS:] >= request.gpu_milli, axis=1) >= request.gpu_count
    return bool((fits if allowed is None else fits & allowed).any())


def thinned(moments: Sequence[float], most: int) -> list[float]:
    """At most so many moments, the last included: each group of neighbours by its latest."""
    if len(moments) <= most:
        return list(moments)
    picked = np.linspace(0, len(moments), most + 1)[1:].round().astype(int) - 1
    return [moments[index] for index in dict.fromkeys(picked.tolist())]


def _change(free: Int64, rows: Index | int, places: Places, sign: int) -> None:
    """Add places to some rows of (moments, nodes, amounts), or take them away."""
    for request, node, cards in places:
        free[rows, node, :_CARDS] += sign * np.array((request.cpu, request.memory, request.storage), dtype=np.int64)
        for card in cards:
            free[rows, node, _CARDS + card] += sign * request.gpu_milli


def first(moments: Sequence[float], ask: Callable[[float], Answer | None]) -> Answer | None:
    """The answer at the first moment that has one: once there is one, there is one at every later moment.

    Searched for in growing steps, then by bisection, as it is mostly soon; where it is not so, one that passes.
    """
    low, step, found = 0, 1, None
    while found is None:
        if low == len(moments):
            return None
        high = min(low + step, len(moments)) - 1
        found = ask(moments[high])
        if found is None:
            low, step = high + 1, 2 * step
    while low < high:
        middle = (low + high) // 2
        answer = ask(moments[middle])
        if answer is None:
            low = middle + 1
        else:
            found, high = answer, middle
    return found
