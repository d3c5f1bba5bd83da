"""What the job pays."""

import numpy as np

from engine.fleet import WHOLE_CARD, Fleet, Float64, Request
from engine.scores.registry import Nodes, score


@score("cost", place=20)
def _cost(fleet: Fleet, request: Request, nodes: Nodes) -> Float64 | None:
    """1 where a member costs nothing, 0 at the dearest core and card of the fleet."""
    cores, cards = request.cpu / 1000, request.gpu_count * request.gpu_milli / WHOLE_CARD
    dearest = fleet.dearest[0] * cores + fleet.dearest[1] * cards
    if dearest <= 0:
        return None
    price = fleet.price_cpu[nodes] * cores + fleet.price_gpu[nodes] * cards
    return np.asarray(1.0 - price / dearest, dtype=np.float64)
