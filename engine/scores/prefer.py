"""What the owner of the job prefers."""

import numpy as np

from engine.fleet import Fleet, Float64, Request
from engine.scores.registry import Nodes, score


@score("prefer", weight=1e7, place=10)
def _prefer(fleet: Fleet, request: Request, nodes: Nodes) -> Float64 | None:
    """The weighted part of the preferences that a node meets; a negative weight avoids."""
    total = sum(abs(weight) for _, _, weight in request.prefer)
    if not total:
        return None
    met = np.zeros(len(nodes))
    for label, values, weight in request.prefer:
        matches = fleet.label_mask(label, values)[nodes]
        met += (matches if weight >= 0 else ~matches) * (abs(weight) / total)
    return met
