"""Nodes that hold the data."""

import numpy as np

from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


def _words(request: Request) -> str:
    needed = request.wanted.needed if request.wanted is not None else ()
    return f"holding the dataset{'s' if len(needed) > 1 else ''} {', '.join(needed)}"


@filter("datasets", _words, static=True, place=62)
def _datasets(fleet: Fleet, request: Request) -> Mask | None:
    if request.wanted is None or not request.wanted.needed:
        return None
    mask: Mask = np.logical_and.reduce([fleet.stores.has(name) for name in request.wanted.needed], axis=0)
    return mask
