"""Best fit."""

import numpy as np

from engine.fleet import Fleet, Float64, Request
from engine.fragmentation import Mix
from engine.scores.registry import Nodes, left_free, score


@score("pack", weight=1.0, place=50)
def _pack(fleet: Fleet, request: Request, nodes: Nodes) -> Float64 | None:
    """Best fit: the node that is left fullest.

    Of nodes with cards that the fragmentation score finds equal the first one is best: one node after the other.
    """
    if request.strategy != "pack":
        return None
    fullest = 1.0 - left_free(fleet, request, nodes)
    return np.where(fleet.cards[nodes] > 0, 0.0, fullest) if isinstance(fleet.mix, Mix) else fullest
