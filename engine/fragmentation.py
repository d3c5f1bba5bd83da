"""How much idle GPU of a node the expected work could not use, and what a placement adds to that.

*Beware of Fragmentation* (FGD, USENIX ATC'23) measures a node by the idle GPU that one task of class m cannot use,
averaged over the classes of the workload. Here two views of class m are averaged, and classes have weights:

    lost(n) = idle(n) − Σ_m w_m · (FILL · filled(n, m) + (1 − FILL) · open(n, m))
    tasks(n, m)  = min(Σ_card ⌊free / share_m⌋ ÷ cards_m, cpu(n) ÷ cpu_m)    0 where m may not run
    filled(n, m) = tasks(n, m) · cards_m · share_m             what a node filled with m alone would use
    open(n, m)   = Σ free of the cards with free ≥ share_m     what the next task of m can reach; 0 if tasks(n, m) = 0
    w_m ∝ p_m · √cards_m / max(share_m, SMALLEST)²             p_m: the part of the members; Σ w = 1

`open` alone (as FGD counts) does not see cpu that lasts for one task although the node has cards for eight, nor a rest
that no second share fits in; `filled` alone takes for lost what another class would use.

Work comes until nothing more fits, and what stays idle then is what the easiest class cannot use: small shares fit
last, so room for them counts most. Members with many cards fit nowhere else once whole nodes are broken, so a class
counts by the root of its cards too. The node is best on which `lost` grows least (or falls most).
"""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from engine.fleet import WHOLE_CARD, Fleet, Float64, Int32, Int64, Mask, Request

Nodes = npt.NDArray[np.intp]

# How much a node filled with one class alone counts, beside the next task of the class.
FILL = 0.3
# Thousandths of a card: smaller shares weigh as much as this one, since they find room in any rest worth the name.
SMALLEST = 100
# How steeply the weight of a class falls with its share.
STEEPNESS = 2
# Two numbers in one: thousandths in the lower bits (more than all cards of a node have together), shares above them.
SHIFT = 32
REACH = (1 << SHIFT) - 1
# Classes of a mix, the most frequent ones.
CLASSES_MAX = 128
# Members seen before the first mix; each further mix follows when twice as many have been seen.
FIRST = 50
# When this many have been seen all counts are halved, so that old work fades.
REMEMBERED = 20_000


@dataclass(frozen=True, eq=False)
class Mix:
    """Classes of members that use GPUs, with the part of the members that each makes up; the parts add up to 1."""

    requests: tuple[Request, ...]
    parts: Float64

    @cached_property
    def weights(self) -> Float64:
        """How much what each class cannot use counts; adds up to 1."""
        weights = self.parts * np.sqrt(self.cards) / np.maximum(self.share, SMALLEST).astype(np.float64) ** STEEPNESS
        return np.asarray(weights / weights.sum(), dtype=np.float64)

    @cached_property
    def filled(self) -> Float64:
        """The weighted thousandths that one more task of each class counts on a node that is filled with it."""
        return np.asarray(FILL * self.weights * self.cards * self.share, dtype=np.float64)

    @cached_property
    def open(self) -> Float64:
        """The weight of each thousandth that the next task of each class can reach."""
        return np.asarray((1 - FILL) * self.weights, dtype=np.float64)

    @cached_property
    def cpu(self) -> Int64:
        """Millicores of each class, at least 1."""
        return np.array([max(1, request.cpu) for request in self.requests], dtype=np.int64)

    @cached_property
    def cards(self) -> Int64:
        """Cards of each class."""
        return np.array([request.gpu_count for request in self.requests], dtype=np.int64)

    @cached_property
    def gangs(self) -> bool:
        """Whether a class needs several cards."""
        return bool((self.cards > 1).any())

    @cached_property
    def share(self) -> Int64:
        """Thousandths of each card of each class."""
        return np.array([request.gpu_milli for request in self.requests], dtype=np.int64)

    @cached_property
    def room(self) -> Int64:
        """What a card with so many thousandths free has for each class, [0 … 1000] by class.

        Two numbers in one, so that one look-up and one sum over cards serve both: how many shares it takes, above
        SHIFT, and the thousandths that are free if it takes any.
        """
        free = np.arange(WHOLE_CARD + 1, dtype=np.int64)[:, None]
        takes = free // self.share
        return np.asarray((takes << SHIFT) + np.where(takes > 0, free, 0), dtype=np.int64)

    @cached_property
    def static(self) -> list[Hashable]:
        """What the static filters look at, by class."""
        return [request.static_key for request in self.requests]


class Arrivals:
    """Learns the mix from the members that arrive, in the order in which they do; never from what is to come."""

    def __init__(self) -> None:
        self._counts: dict[Hashable, float] = {}
        self._requests: dict[Hashable, Request] = {}
        self._seen = 0.0
        self._next = float(FIRST)
        self._mix: Mix | None = None

    def see(self, request: Request, members: int = 1) -> None:
        """Members with this request have arrived."""
        if request.gpu_count:
            key = (request.cpu, request.gpu_count, request.gpu_milli, request.static_key)
            self._counts[key] = self._counts.get(key, 0.0) + members
            self._requests.setdefault(key, request)
        self._seen += members

    @property
    def mix(self) -> Mix | None:
        """The present mix, the same object until enough has arrived since; None before anything is known."""
        if self._seen >= self._next or (self._mix is None and self._counts):
            self._mix = self._learn()
            if self._seen >= REMEMBERED:
                self._counts = {key: count / 2 for key, count in self._counts.items() if count >= 1}
                self._requests = {key: self._requests[key] for key in self._counts}
                self._seen /= 2
            self._next = max(float(FIRST), min(2 * self._seen, float(REMEMBERED)))
        return self._mix

    def _learn(self) -> Mix | None:
        if not self._counts:
            return None
        ordered = sorted(self._counts.items(), key=lambda item: (-item[1], repr(item[0])))[:CLASSES_MAX]
        counts = np.array([count for _, count in ordered])
        return Mix(tuple(self._requests[key] for key, _ in ordered), counts / counts.sum())


def lost(mix: Mix, may_run: Mask | None, cpu: Int64, gpu_free: Int32) -> Float64:
    """Thousandths of idle GPU that the mix could not use, for K nodes.

    `cpu` [K] and `gpu_free` [K, cards] as they would be; `may_run` [K, classes], None where all may.
    """
    free = np.maximum(gpu_free, 0)
    return _lost(mix, _lasting(mix, may_run, cpu), free.sum(axis=1, dtype=np.int64), mix.room[free].sum(axis=1))


def _lasting(mix: Mix, may_run: Mask | None, cpu: Int64) -> Float64:
    """For how many tasks of each class the cpu lasts [K, classes]; 0 where a class may not run."""
    # Divided as floats, which numpy does several at a time; exact, as a quotient below an integer stays below it.
    tasks = np.floor(cpu[:, None] / mix.cpu)
    if may_run is not None:
        tasks *= may_run
    return np.asarray(tasks, dtype=np.float64)


def _lost(mix: Mix, lasting: Float64, idle: Int64, room: Int64) -> Float64:
    """`idle` [K] is free in all, `room` [K, classes] the sum of `Mix.room` over the cards."""
    tasks = (room >> SHIFT).astype(np.float64)
    if mix.gangs:
        tasks = np.floor(tasks / mix.cards)
    np.minimum(tasks, lasting, out=tasks)
    reach = (room & REACH) * (tasks > 0)
    return np.asarray(idle - tasks @ mix.filled - reach @ mix.open, dtype=np.float64)


def growth(fleet: Fleet, mix: Mix, may_run: Mask | None, request: Request, nodes: Nodes) -> tuple[Float64, Nodes]:
    """How much more is lost on each node once the request runs there, and for a share the card that loses least.

    Every node given must fit the request. Equal cards are decided for the one that is left fullest.
    """
    cpu, free = fleet.cpu[nodes], np.maximum(fleet.gpu_free[nodes], 0)
    allowed = None if may_run is None else may_run[nodes]
    idle, by_card = free.sum(axis=1, dtype=np.int64), mix.room[free]
    room = by_card.sum(axis=1)
    before = _lost(mix, _lasting(mix, allowed, cpu), idle, room)
    lasting = _lasting(mix, allowed, cpu - request.cpu)
    idle = idle - request.gpu_count * request.gpu_milli
    card = np.zeros(len(nodes), dtype=np.intp)
    if request.gpu_count == 1 and request.gpu_milli < WHOLE_CARD:
        best = np.full(len(nodes), np.inf)
        least = np.full(len(nodes), np.inf)
        for index in range(free.shape[1]):
            fitting = free[:, index] >= request.gpu_milli
            if index:
                fitting &= free[:, index] != free[:, index - 1]  # The card before is equal and has been looked at.
            rows = np.flatnonzero(fitting)
            if not len(rows):
                continue
            left = free[rows, index] - request.gpu_milli
            changed = room[rows] - by_card[rows, index] + mix.room[left]
            more = steps(_lost(mix, lasting[rows], idle[rows], changed) - before[rows])
            better = (more < best[rows]) | ((more == best[rows]) & (left < least[rows]))
            chosen = rows[better]
            best[chosen], least[chosen], card[chosen] = more[better], left[better], index
        return best, card
    if request.gpu_count:
        fitting = free >= request.gpu_milli
        taken = fitting & (np.cumsum(fitting, axis=1) <= request.gpu_count)
        room = mix.room[np.where(taken, free - request.gpu_milli, free)].sum(axis=1)
    return steps(_lost(mix, lasting, idle, room) - before), card


# Differences smaller than this are noise of the learnt parts; below it the other scores decide.
STEP = 50.0


def steps(amount: Float64) -> Float64:
    """Thousandths of a card, rounded to STEP."""
    return np.asarray(np.round(amount / STEP) * STEP, dtype=np.float64)
