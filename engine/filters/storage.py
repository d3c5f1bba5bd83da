"""Free storage."""

from engine.amounts import amount_text
from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


@filter("storage", lambda request: amount_text("storage", request.storage), place=230)
def _storage(fleet: Fleet, request: Request) -> Mask | None:
    return fleet.storage >= request.storage if request.storage else None
