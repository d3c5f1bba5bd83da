"""How far the domain that lends a node is trusted."""

from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


@filter("trust", lambda request: f"a trust of at least {request.trust}", static=True, place=30)
def _trust(fleet: Fleet, request: Request) -> Mask | None:
    return fleet.trust >= request.trust if request.trust else None
