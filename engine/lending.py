"""Under which terms nodes are lent: in which spans of time, and how much of them others than their owner may hold.

An offer is one contribution as far as it bounds what is placed. A job of a domain may be placed on a node if one
offer that admits the domain is open from now until the job's time limit will have passed, and its cap leaves room.
What counts against a cap is what all domains hold there that the offer admits, except the owner's own.
"""

import copy
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.amounts import amount_text, duration_text

Mask = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]

# cpu (millicores), memory (bytes) and cards (thousandths).
Amounts = tuple[int, int, int]
# A cap that names no limit for a resource.
UNLIMITED = 2**62


class Span(NamedTuple):
    """From `start` until before `end` (epoch seconds); `opens` says the start for people, where it is."""

    start: float
    end: float
    opens: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """One contribution. `consumers` holds domain ids, None admits every domain; without spans it is always open.

    Spans are ascending and apart. `longest` is how long it is ever open at a time (seconds), by its rule.
    """

    id: int
    consumers: frozenset[int] | None = None
    spans: tuple[Span, ...] | None = None
    longest: float = inf
    cap: Amounts | None = None

    def admits(self, consumer: int) -> bool:
        """Whether it is for jobs of a domain."""
        return self.consumers is None or consumer in self.consumers

    def lasts(self, at: float, limit: float) -> bool:
        """Whether it is open from a time on for so many seconds."""
        if self.spans is None:
            return True
        place = bisect_right(self.spans, at, key=_start)
        return place > 0 and at + limit <= self.spans[place - 1].end

    def opening(self, after: float, limit: float) -> Span | None:
        """The first span after a time that is long enough."""
        return next((span for span in self.spans or () if span.start > after and span.end - span.start >= limit), None)


@dataclass(frozen=True, slots=True, eq=False)
class Lending:
    """All offers of a cluster that belongs to the domain `owner`; nodes share it."""

    owner: int
    offers: tuple[Offer, ...]

    def offered(self, consumer: int) -> list[Offer]:
        """What is offered to a domain."""
        return [offer for offer in self.offers if offer.admits(consumer)]

    def capped(self, consumer: int) -> list[Offer]:
        """The offers whose cap counts what a domain holds."""
        if consumer == self.owner:
            return []
        return [offer for offer in self.offers if offer.cap is not None and offer.admits(consumer)]


# By lending: the open offers, and which nodes have one.
_Open = tuple[list[list[Offer]], Mask]


@dataclass(eq=False)
class Terms:
    """The lendings of a fleet's nodes. `codes` has a place for each node: 0 is lent without bounds.

    `left` is by account (an offer with a cap) what others may still take. Without a time (`now`) nobody asks whether
    an offer is open.
    """

    lendings: list[Lending]
    codes: npt.NDArray[np.intp]
    accounts: dict[int, int]
    caps: Int64
    left: Int64
    now: float | None = None
    _open: dict[Hashable, _Open] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, rows: Sequence[Lending | None]) -> "Terms | None":
        """The terms of nodes in their order; None where all are lent without bounds."""
        known: dict[Lending, int] = {}
        codes = [0 if row is None else known.setdefault(row, len(known) + 1) for row in rows]
        if not known:
            return None
        capped = [offer for lending in known for offer in lending.offers if offer.cap is not None]
        caps = np.array([offer.cap for offer in capped], dtype=np.int64).reshape(-1, 3)
        accounts = {offer.id: place for place, offer in enumerate(capped)}
        return cls(list(known), np.array(codes, dtype=np.intp), accounts, caps, caps.copy())

    def fork(self) -> "Terms":
        """The same with its own accounts."""
        twin = copy.copy(self)
        twin.left = self.left.copy()
        return twin

    def at(self, now: float | None, left: Int64 | None = None) -> "Terms":
        """The same at another time, with what is left of the caps then; by default all of them."""
        twin = copy.copy(self)
        twin.now, twin.left = now, self.caps.copy() if left is None else left
        return twin

    def left_after(self, held: Mapping[tuple[int, int], Amounts], lendings: Mapping[int, Lending]) -> Int64:
        """What is left of the caps if domains hold amounts: by (key of a lending, domain)."""
        left = self.caps.copy()
        for (key, consumer), amounts in held.items():
            for offer in lendings[key].capped(consumer) if key in lendings else ():
                if offer.id in self.accounts:
                    left[self.accounts[offer.id]] -= amounts
        return left

    # What is open

    def _opened(self, consumer: int, limit: float) -> _Open:
        key = (self.now, consumer, limit)
        found = self._open.get(key)
        if found is None:
            now = self.now
            offers = [
                [one for one in lending.offered(consumer) if now is None or one.lasts(now, limit)]
                for lending in self.lendings
            ]
            found = offers, np.array([True, *map(bool, offers)], dtype=np.bool_)[self.codes]
            if len(self._open) >= 1024:
                self._open.clear()
            self._open[key] = found
        return found

    def open(self, consumer: int, limit: float) -> Mask:
        """Nodes that are lent to a domain from now on for so many seconds."""
        return self._opened(consumer, limit)[1]

    def state(self, at: float, consumer: int, limit: float) -> tuple[int, ...]:
        """How many offers of each lending are open at a time: while it stays the same, so does what is lent."""
        if self.now is None:
            return ()
        return tuple(sum(one.lasts(at, limit) for one in lending.offered(consumer)) for lending in self.lendings)

    def remaining(self, consumer: int) -> set[float]:
        """For how many seconds offers to a domain that are open now, and end, still are."""
        now = self.now
        if now is None:
            return set()
        spans = [span for lending in self.lendings for offer in lending.offered(consumer) for span in offer.spans or ()]
        return {span.end - now for span in spans if span.start <= now < span.end < inf}

    def openings(self, until: float) -> list[float]:
        """The times after now and up to another at which offers open, ascending."""
        now = -inf if self.now is None else self.now
        spans = (span for lending in self.lendings for offer in lending.offers for span in offer.spans or ())
        return sorted({span.start for span in spans if now < span.start <= until})

    def opening(self, node: int, consumer: int, limit: float) -> Span | None:
        """When a node is next lent to a domain for so many seconds, if it is known."""
        if not self.codes[node]:
            return None
        offers = self.lendings[self.codes[node] - 1].offered(consumer)
        found = (one for offer in offers if (one := offer.opening(self.now or 0.0, limit)) is not None)
        return min(found, default=None)

    def possible(self, consumer: int, limit: float, amounts: Amounts) -> Mask:
        """Nodes on which one member could ever be: an offer is open for so long at a time, with a cap that large."""
        table = [True]
        for lending in self.lendings:
            capped = lending.capped(consumer)
            table.append(
                any(
                    offer.longest >= limit and (offer not in capped or _within(amounts, offer.cap))
                    for offer in lending.offered(consumer)
                )
            )
        return np.array(table, dtype=np.bool_)[self.codes]

    # What caps leave

    def room(self, consumer: int, limit: float, amounts: Amounts) -> Mask | None:
        """Nodes that are open and where the cap of an open offer leaves room, or that are closed; None without caps."""
        if not self.accounts:
            return None
        offers, _ = self._opened(consumer, limit)
        table = [True]
        table += (
            not mine or self._has_room(lending, mine, consumer, amounts)
            for lending, mine in zip(self.lendings, offers, strict=True)
        )
        return None if all(table) else np.array(table, dtype=np.bool_)[self.codes]

    def _has_room(self, lending: Lending, offers: Iterable[Offer], consumer: int, amounts: Amounts) -> bool:
        capped = lending.capped(consumer)
        return any(offer not in capped or _within(amounts, self.left_of(offer)) for offer in offers)

    def left_of(self, offer: Offer) -> Amounts:
        """What others may still take of an offer with a cap."""
        cpu, memory, cards = self.left[self.accounts[offer.id]].tolist()
        return cpu, memory, cards

    def allow(self, node: int, consumer: int, limit: float, amounts: Amounts) -> bool:
        """Whether one member may go to a node now."""
        code = int(self.codes[node])
        if not code:
            return True
        lending = self.lendings[code - 1]
        offers = self._opened(consumer, limit)[0][code - 1]
        return bool(offers) and self._has_room(lending, offers, consumer, amounts)

    def usable(self, consumer: int, limit: float, amounts: Amounts) -> Mask:
        """Nodes that are open and where the cap of an open offer leaves room."""
        mask, room = self.open(consumer, limit), self.room(consumer, limit, amounts)
        return mask if room is None else mask & room

    def words(self, names: Sequence[str], nodes: Mask, consumer: int, limit: float, amounts: Amounts) -> str:
        """What bounds one more member on these nodes now, for people; empty where nothing does."""
        closed = nodes & ~self.open(consumer, limit)
        room = self.room(consumer, limit, amounts)
        full = np.zeros_like(nodes) if room is None else nodes & ~room
        count, said = int(np.count_nonzero(closed)), []
        if full.any():
            node = int(np.argmax(full))
            offers = self._opened(consumer, limit)[0][self.codes[node] - 1]
            left = max(self.left_of(offer) for offer in offers)
            named = zip(("cpu", "memory", "gpu"), left, amounts, strict=True)
            rest = " and ".join(amount_text(name, max(0, have)) for name, have, need in named if have < need)
            said.append(f"of {names[node]} and the nodes that are lent with it, others may hold {rest} more.")
        if count:
            which = "the only matching node is" if nodes.sum() == 1 else f"{count} of {nodes.sum()} matching nodes are"
            text = f"{which} not lent for the whole of the time limit of {duration_text(limit)} from now on"
            # The lowest node of each lending stands for the others.
            first = np.unique(self.codes[closed], return_index=True)[1]
            spans = [(span, node) for node in np.flatnonzero(closed)[first].tolist()
                     if (span := self.opening(node, consumer, limit)) is not None]  # fmt: skip
            if spans:
                span, node = min(spans)
                text += f": {names[node]} is lent again from {span.opens}"
            said.append(text + ".")
        return " ".join(said)

    def take(self, node: int, consumer: int, amounts: Amounts, sign: int = 1) -> None:
        """Count what a member holds on a node, or with -1 no more."""
        for account in self.charged(node, consumer):
            self.left[account] -= sign * np.array(amounts, dtype=np.int64)

    def charged(self, node: int, consumer: int) -> list[int]:
        """The accounts that what a domain holds on a node counts against."""
        code = int(self.codes[node])
        return [self.accounts[offer.id] for offer in self.lendings[code - 1].capped(consumer)] if code else []


def _start(span: Span) -> float:
    return span.start


def _within(amounts: Amounts, left: Amounts | None) -> bool:
    """What is not asked for need not be left."""
    return left is None or all(not amount or amount <= rest for amount, rest in zip(amounts, left, strict=True))
