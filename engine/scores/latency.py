"""How far it is to the users, or else to the data."""

from functools import partial

import numpy as np

from engine.fleet import Fleet, Float64, Request
from engine.scores.registry import Nodes, score


def round_trips(fleet: Fleet, request: Request) -> Float64:
    """Milliseconds from each node: to the region that the job names, or to the farthest of its datasets, each where it
    is nearest; inf where nobody knows."""
    if request.near_region:
        return fleet.sites.round_trip(request.near_region)
    farthest = np.zeros(len(fleet))
    for name in request.wanted.datasets if request.wanted is not None else ():
        there = fleet.stores.has(name)
        ways = [fleet.sites.round_trip(region) for region in fleet.sites.regions_of(there)]
        nearest = np.min([np.where(there, 0.0, np.inf), *ways], axis=0)
        if there.any():
            farthest = np.maximum(farthest, nearest)
    return farthest


@score("latency", place=23)
def _latency(fleet: Fleet, request: Request, nodes: Nodes) -> Float64 | None:
    """1 − t ÷ T: t is a node's round trip, T the longest that is known of any node; 0 where nobody knows."""
    found = fleet.sites.ways(
        (request.near_region, request.wanted and request.wanted.datasets), partial(round_trips, fleet, request)
    )
    known = found[np.isfinite(found)]
    longest = float(known.max(initial=0.0))
    if not len(known) or (longest <= 0 and len(known) == len(found)):
        return None
    part = np.where(np.isfinite(found), 1.0 - found / longest, 0.0) if longest > 0 else np.isfinite(found) * 1.0
    return np.asarray(part[nodes], dtype=np.float64)
