"""What an hour of one member may cost."""

from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


@filter("price", lambda request: f"a price of at most {request.max_price:g} an hour", static=True, place=90)
def _price(fleet: Fleet, request: Request) -> Mask | None:
    return None if request.max_price is None else fleet.price(request) <= request.max_price
