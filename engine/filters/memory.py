"""Free memory."""

from engine.amounts import amount_text
from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


@filter("memory", lambda request: amount_text("memory", request.memory), place=220)
def _memory(fleet: Fleet, request: Request) -> Mask | None:
    return fleet.memory >= request.memory
