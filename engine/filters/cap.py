"""How much of what a domain lends others may hold at once."""

from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


@filter("cap", lambda request: "what is left of the amount that is lent to others", place=202)
def _cap(fleet: Fleet, request: Request) -> Mask | None:
    if fleet.terms is None or request.consumer is None:
        return None
    return fleet.terms.room(request.consumer, request.limit, request.held)
