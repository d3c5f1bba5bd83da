"""Which nodes could take one member of a job, by the filters, and how the others were ruled out."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from engine.filters import Filter, capacity_filters, static_filters
from engine.fleet import CapacityAnswer, Fleet, Mask, Request, StaticAnswer
from engine.fragmentation import Mix
from engine.funnels import Funnel, Step


def expect(fleet: Fleet, mix: Mix | None) -> None:
    """Let a fleet be scored for the work that is expected; call it before anything is placed."""
    if mix is fleet.mix:
        return
    fleet.mix, fleet.rankings = mix, {}
    fleet.may_run = None
    if mix is not None:
        columns = np.stack([static_answer(fleet, request).passing for request in mix.requests], axis=1)
        fleet.may_run = None if columns.all() else columns


def static_answer(fleet: Fleet, request: Request) -> StaticAnswer:
    answer = fleet.static_answers.get(request.static_key)
    if answer is None:
        masks = _ask(_STATIC, fleet, request)
        passing = np.ones(len(fleet), dtype=np.bool_)
        for _, mask in masks:
            passing = passing & mask
        answer = StaticAnswer(passing, tuple(masks))
        fleet.remember(request, answer)
    return answer


def _ask(filters: Sequence[Filter], fleet: Fleet, request: Request) -> list[tuple[str, Mask]]:
    return [(item.name, mask) for item in filters if (mask := item.check(fleet, request)) is not None]


def matching(fleet: Fleet, request: Request, allowed: Mask | None) -> Mask:
    """Nodes that pass every static filter; the caller must not change the mask."""
    mask = static_answer(fleet, request).passing
    return mask if allowed is None else mask & allowed


def fitting(fleet: Fleet, request: Request, allowed: Mask | None) -> Mask:
    """Nodes that pass every filter now; the caller must not change the mask."""
    mask = capacity_answer(fleet, request).fitting
    return mask if allowed is None else mask & allowed


def capacity_answer(fleet: Fleet, request: Request) -> CapacityAnswer:
    """Asked for one flavor after the other, so the last answer is kept."""
    answer = fleet.capacity_answer
    if answer is None or answer.version != fleet.version or answer.request is not request:
        static, masks = static_answer(fleet, request), _ask(_CAPACITY, fleet, request)
        fitting = static.passing
        for _, mask in masks:
            fitting = fitting & mask
        answer = CapacityAnswer(request, fleet.version, (*static.masks, *masks), fitting, bool(fitting.any()))
        fleet.capacity_answer = answer
    return answer


_STATIC, _CAPACITY = static_filters(), capacity_filters()


class Split:
    """Sets of nodes that are asked about together: a pool's flavors, for one. Masks have a place for each node."""

    __slots__ = ("columns", "masks")

    def __init__(self, masks: Sequence[Mask]) -> None:
        self.masks = masks
        # As numbers, so that one product of matrices counts in all sets.
        self.columns = np.array(masks, dtype=np.float32).T

    def counts(self, rows: Mask) -> list[list[int]]:
        """For each set, how many of its nodes are in each row."""
        found: list[list[int]] = (rows.astype(np.float32) @ self.columns).T.astype(np.int64).tolist()
        return found


def candidates(fleet: Fleet, request: Request, allowed: Mask | None = None) -> tuple[Funnel, Mask]:
    """The nodes that fit one member now, and the funnel that led to them.

    Nodes outside `allowed` are not counted at all: they are not the tenant's to see.
    """
    inside = np.ones(len(fleet), dtype=np.bool_) if allowed is None else allowed
    return funnels(fleet, request, Split([inside]))[0], fitting(fleet, request, inside)


def funnels(fleet: Fleet, request: Request, split: Split) -> list[Funnel]:
    """For each set of nodes, how those came to be that fit one member now."""
    answer = capacity_answer(fleet, request)
    return _funnels(answer.filters, answer.passed, split)


def sieve(fleet: Fleet, request: Request, allowed: Mask) -> Callable[[], Funnel]:
    """What makes the funnel of `candidates` as it is now, at any later time; bits take an eighth of the room."""
    answer = capacity_answer(fleet, request)
    return partial(_sifted, answer.filters, np.packbits(answer.passed, axis=1), allowed)


def _sifted(filters: Sequence[str], packed: npt.NDArray[np.uint8], allowed: Mask) -> Funnel:
    passed = np.unpackbits(packed, axis=1, count=len(allowed)).astype(np.bool_)
    return _funnels(filters, passed, Split([allowed]))[0]


def _funnels(filters: Sequence[str], passed: Mask, split: Split) -> list[Funnel]:
    left = passed.copy()
    for before, after in pairwise(left):  # Several times faster than `logical_and.accumulate`.
        after &= before
    failed = ~passed
    only = failed & (failed.view(np.uint8).sum(axis=0, dtype=np.uint8) == 1)
    totals = split.counts(np.ones((1, passed.shape[1]), dtype=np.bool_))
    found = []
    for (total,), remaining, alone in zip(totals, split.counts(left), split.counts(only), strict=True):
        counts = zip(filters, pairwise([total, *remaining]), alone, strict=True)
        steps = [Step(name, before - after, after, single) for name, (before, after), single in counts]
        found.append(Funnel(total, tuple(steps)))
    return found
