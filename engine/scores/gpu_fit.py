"""Cards that stay whole, while nothing is known of the work that comes."""

import numpy as np

from engine.fleet import WHOLE_CARD, Fleet, Float64, Request
from engine.fragmentation import Mix
from engine.scores.registry import Nodes, score


@score("gpu_fit", weight=2.0, place=40)
def _gpu_fit(fleet: Fleet, request: Request, nodes: Nodes) -> Float64 | None:
    """Keep whole cards whole: shares go where they leave least, whole cards where few are left over.

    Work without a GPU stays away from nodes with free cards.
    """
    width = fleet.gpu_free.shape[1]
    if request.strategy != "pack" or not width or isinstance(fleet.mix, Mix):
        return None  # The fragmentation score says it better.
    free = fleet.gpu_free[nodes]
    if not request.gpu_count:
        idle: Float64 = np.maximum(free, 0).sum(axis=1) / (WHOLE_CARD * width)
        return np.where(fleet.cards[nodes] == 0, 1.0, 0.5 - 0.5 * idle)
    if request.gpu_milli == WHOLE_CARD or request.gpu_count > 1:
        over = np.count_nonzero(free >= request.gpu_milli, axis=1) - request.gpu_count
        return np.asarray(1.0 - over / width, dtype=np.float64)
    fitting = np.where(free >= request.gpu_milli, free, WHOLE_CARD + request.gpu_milli)
    return np.asarray(1.0 - (fitting.min(axis=1) - request.gpu_milli) / WHOLE_CARD, dtype=np.float64)
