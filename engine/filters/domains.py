"""Nodes that are in a domain of every level that members have to share, with others too, or spread over."""

import numpy as np

from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


def _keys(request: Request) -> tuple[str, ...]:
    beside = request.bonds.keys if request.bonds is not None else ()
    if request.together is not None:
        return tuple(dict.fromkeys((*request.together.levels, *beside)))
    return (request.apart.key, *beside) if request.apart is not None else beside


@filter("domains", lambda request: f"the labels {', '.join(_keys(request))}", static=True, place=91)
def _domains(fleet: Fleet, request: Request) -> Mask | None:
    keys = _keys(request)
    if not keys:
        return None
    inside: Mask = np.logical_and.reduce([fleet.domains(key) > 0 for key in keys], axis=0)
    return inside
