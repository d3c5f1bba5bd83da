"""What the job adds to the bill of power, or to the air."""

import numpy as np

from engine.fleet import WHOLE_CARD, Fleet, Float64, Request
from engine.scores.registry import Nodes, score


@score("energy", place=24)
def _energy(fleet: Fleet, request: Request, nodes: Nodes) -> Float64 | None:
    """1 − e ÷ E: e is watts of the cores and cards in use · grams a kWh, E the same at the worst core and card."""
    core, card = fleet.sites.power
    cores, cards = request.cpu / 1000, request.gpu_count * request.gpu_milli / WHOLE_CARD
    worst = float(core.max(initial=0.0)) * cores + float(card.max(initial=0.0)) * cards
    if worst <= 0:
        return None
    return np.asarray(1.0 - (core[nodes] * cores + card[nodes] * cards) / worst, dtype=np.float64)
