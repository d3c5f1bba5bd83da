"""Running jobs that the owner of the job would have near or away."""

from engine.fleet import Fleet, Float64, Request
from engine.scores.registry import Nodes, score


@score("company", weight=1e7, place=12)
def _company(fleet: Fleet, request: Request, nodes: Nodes) -> Float64 | None:
    """The weighted part of the wishes for company that a node meets."""
    if fleet.company is None or request.bonds is None:
        return None
    return fleet.company.preferred(request.bonds, nodes)
