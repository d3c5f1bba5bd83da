"""Free processing power."""

from engine.amounts import amount_text
from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


@filter("cpu", lambda request: amount_text("cpu", request.cpu), place=210)
def _cpu(fleet: Fleet, request: Request) -> Mask | None:
    return fleet.cpu >= request.cpu
