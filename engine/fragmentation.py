"""How much idle GPU of a node the expected work could not use, and what a placement adds to that.

*Beware of Fragmentation* (FGD, USENIX ATC'23) measures a node by f(m), the idle GPU that one task of class m cannot
use, averaged over the classes of the workload. Here f(m) is what stays idle when the node is filled with tasks of
class m alone, as many as its cards, its cpu and the class allow:

    lost(n) = Σ_m p_m · (idle(n) − used(n, m))
    used(n, m) = min(Σ_card ⌊free / share_m⌋ ÷ cards_m, cpu(n) ÷ cpu_m) · cards_m · share_m    (0 where m may not run)

So a card that takes two of a share and wastes the rest, and a node whose cpu lasts for one task although it has cards
for eight, count for what they are. The node is best on which `lost` grows least (or falls most).
"""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from engine.fleet import WHOLE_CARD, Fleet, Float64, Int32, Int64, Request

Nodes = npt.NDArray[np.intp]

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
    def cpu(self) -> Int64:
        """Millicores of each class, at least 1."""
        return np.array([max(1, request.cpu) for request in self.requests], dtype=np.int64)

    @cached_property
    def cards(self) -> Int64:
        """Cards of each class."""
        return np.array([request.gpu_count for request in self.requests], dtype=np.int64)

    @cached_property
    def share(self) -> Int64:
        """Thousandths of each card of each class."""
        return np.array([request.gpu_milli for request in self.requests], dtype=np.int64)

    @cached_property
    def fits(self) -> Int64:
        """How many shares of each class a card with so many thousandths free takes: [0 … 1000] by class."""
        free = np.arange(WHOLE_CARD + 1, dtype=np.int64)
        return free[:, None] // self.share

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


def lost(mix: Mix, may_run: npt.NDArray[np.bool_] | None, cpu: Int64, gpu_free: Int32) -> Float64:
    """Thousandths of idle GPU that the mix could not use, for K nodes.

    `cpu` [K] and `gpu_free` [K, cards] as they would be; `may_run` [K, classes], None where all may.
    """
    free = np.maximum(gpu_free, 0)
    idle = free.sum(axis=1, dtype=np.int64)
    tasks = mix.fits[free].sum(axis=1) // mix.cards
    np.minimum(tasks, cpu[:, None] // mix.cpu, out=tasks)
    used = np.minimum(tasks * (mix.cards * mix.share), idle[:, None])
    if may_run is not None:
        used = used * may_run
    return np.asarray(idle - used @ mix.parts, dtype=np.float64)


def growth(
    fleet: Fleet, mix: Mix, may_run: npt.NDArray[np.bool_] | None, request: Request, nodes: Nodes
) -> tuple[Float64, Nodes]:
    """How much more is lost on each node once the request runs there, and for a share the card that loses least.

    Every node given must fit the request. Equal cards are decided for the one that is left fullest.
    """
    cpu, free = fleet.cpu[nodes], fleet.gpu_free[nodes]
    allowed = None if may_run is None else may_run[nodes]
    before, after = lost(mix, allowed, cpu, free), cpu - request.cpu
    card = np.zeros(len(nodes), dtype=np.intp)
    if request.gpu_count == 1 and request.gpu_milli < WHOLE_CARD:
        best = np.full(len(nodes), np.inf)
        least = np.full(len(nodes), np.inf)
        for index in range(free.shape[1]):
            rows = np.flatnonzero(free[:, index] >= request.gpu_milli)
            if not len(rows):
                continue
            changed = free[rows]
            changed[:, index] -= request.gpu_milli
            more = steps(lost(mix, None if allowed is None else allowed[rows], after[rows], changed) - before[rows])
            left = changed[:, index]
            better = (more < best[rows]) | ((more == best[rows]) & (left < least[rows]))
            chosen = rows[better]
            best[chosen], least[chosen], card[chosen] = more[better], left[better], index
        return best, card
    if request.gpu_count:
        fitting = free >= request.gpu_milli
        taken = fitting & (np.cumsum(fitting, axis=1) <= request.gpu_count)
        free = np.where(taken, free - request.gpu_milli, free)
    return steps(lost(mix, allowed, after, free) - before), card


# Differences smaller than this are noise of the learnt parts; below it the other scores decide.
STEP = 50.0


def steps(amount: Float64) -> Float64:
    """Thousandths of a card, rounded to STEP."""
    return np.asarray(np.round(amount / STEP) * STEP, dtype=np.float64)
