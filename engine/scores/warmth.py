"""What the job finds ready."""

import numpy as np

from engine.fleet import Fleet, Float64, Request
from engine.scores.registry import Nodes, score


@score("warmth", place=21)
def _warmth(fleet: Fleet, request: Request, nodes: Nodes) -> Float64 | None:
    """The part of its image and its datasets that is on a node."""
    wanted = request.wanted
    if wanted is None or not (wanted.image or wanted.datasets):
        return None
    there = [fleet.stores.has(name) for name in wanted.datasets]
    there += [fleet.stores.has_image(wanted.image)] if wanted.image else []
    return np.asarray(np.mean([mask[nodes] for mask in there], axis=0), dtype=np.float64)
