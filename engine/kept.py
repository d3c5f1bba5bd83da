"""Places that were found for a job of several groups before: they are taken again as long as they hold.

Different groups are placed one after the other, hardest first. That may miss places which are there, so a start that
is looked for anew could be lost although nobody has taken anything from it. Equal members always find theirs again.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.domains import Evenly, shared
from engine.fleet import Fleet, Mask, Nodes, of_group
from engine.matching import fitting, matching
from engine.placement import Groups, Member, Placed, allowed_by_terms, fits_row, placed_members


@dataclass(frozen=True, slots=True)
class Kept:
    """Where a job will be when its reserved start has come, and in which choice of flavors."""

    choice: str
    members: tuple[Member, ...]


def kept_place(fleet: Fleet, groups: Groups, kept: Sequence[Member], allowed: Nodes | None) -> Placed | None:
    """These very places, if they are those of all members and free for them now; the fleet is not changed."""
    if Counter(group for group, *_ in kept) != Counter({index: count for index, (_, count) in enumerate(groups)}):
        return None
    scratch = fleet.draft()
    for index in range(len(groups)):
        if not _take(scratch, groups, index, kept, of_group(allowed, index)):
            return None
    return placed_members(kept) if _near(fleet, groups, kept, allowed) else None


def _take(scratch: Fleet, groups: Groups, index: int, kept: Sequence[Member], allowed: Mask | None) -> bool:
    """Take the places of one group; False as soon as one of them is not free."""
    request = groups[index][0]
    usable = fitting(scratch, request, allowed)
    evenly = Evenly(scratch, request.apart, matching(scratch, request, allowed)) if request.apart else None
    level = np.zeros(len(scratch))
    for group, _, node, cards in kept:
        if group != index:
            continue
        free = usable[node] and fits_row(scratch, request, node) and allowed_by_terms(scratch, request, node)
        if not free or len(set(cards)) != request.gpu_count:
            return False
        if any(scratch.gpu_free[node, card] < request.gpu_milli for card in cards):
            return False
        if evenly is not None:
            if evenly.open_scores(level)[node] < 0:
                return False
            evenly.add(node)
        scratch.take(request, node, cards)
    return True


def _near(fleet: Fleet, groups: Groups, kept: Sequence[Member], allowed: Nodes | None) -> bool:
    """Whether the members are as close together as they have to be."""
    together = next((request.together for request, _ in groups if request.together), None)
    if together is None:
        return True
    matches = [matching(fleet, request, of_group(allowed, index)) for index, (request, _) in enumerate(groups)]
    nodes = [node for _, _, node, _ in kept]
    return any(inside[nodes].all() for inside in shared(fleet, together, np.logical_or.reduce(matches, axis=0)))
