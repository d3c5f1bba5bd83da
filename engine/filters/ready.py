"""Only nodes that take new work."""

from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


@filter("ready", lambda request: "being ready", static=True, place=10)
def _ready(fleet: Fleet, request: Request) -> Mask | None:
    return fleet.ready
