"""How long the data would take to come."""

import numpy as np

from engine.fleet import Fleet, Float64, Request
from engine.scores.registry import Nodes, score


@score("locality", place=22)
def _locality(fleet: Fleet, request: Request, nodes: Nodes) -> Float64 | None:
    """1 − t ÷ T: t seconds to fetch what is missing, T for all of it on the slowest network of the fleet."""
    if request.wanted is None or not request.wanted.datasets:
        return None
    longest = fleet.stores.longest(request.wanted.datasets)
    if not 0 < longest < float("inf"):
        return None  # Nobody knows how large they are.
    return np.asarray(1.0 - fleet.stores.seconds(request.wanted.datasets)[nodes] / longest, dtype=np.float64)
