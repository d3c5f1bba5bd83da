"""Idle GPU that the work which is expected could not use."""

import numpy as np

from engine.fleet import WHOLE_CARD, Fleet, Float64, Request
from engine.fragmentation import STEP, Mix, growth
from engine.scores.registry import Nodes, score


@score("fragmentation", weight=1e5, place=30)
def _fragmentation(fleet: Fleet, request: Request, nodes: Nodes) -> Float64 | None:
    """How little more idle GPU is lost to the work that is expected (`engine.fragmentation`); 1 is least."""
    if request.strategy != "pack" or not isinstance(fleet.mix, Mix):
        return None
    more, cards = growth(fleet, fleet.mix, fleet.may_run, request, nodes)
    width = max(1, fleet.gpu_free.shape[1])
    free = fleet.gpu_free[nodes]
    # Among equals the card, or the node, with the least to spare: it counts for less than a step.
    if request.gpu_count == 1 and request.gpu_milli < WHOLE_CARD:
        spare = (free[np.arange(len(nodes)), cards] - request.gpu_milli) / WHOLE_CARD
    else:
        spare = np.maximum(free, 0).sum(axis=1) / (WHOLE_CARD * width)
    most = 2.0 * WHOLE_CARD * width
    return np.asarray(np.clip(0.5 - (more + 0.9 * STEP * spare) / most, 0.0, 1.0), dtype=np.float64)
