"""Nodes that are in a domain of every level that members have to share or spread over."""

import numpy as np

from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


def _keys(request: Request) -> tuple[str, ...]:
    if request.together is not None:
        return request.together.levels
    return (request.apart.key,) if request.apart is not None else ()


@filter("domains", lambda request: f"the labels {', '.join(_keys(request))}", static=True, place=91)
def _domains(fleet: Fleet, request: Request) -> Mask | None:
    keys = _keys(request)
    if not keys:
        return None
    inside: Mask = np.logical_and.reduce([fleet.domains(key) > 0 for key in keys], axis=0)
    return inside
