"""How cards and nodes are joined."""

from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


@filter(
    "interconnect",
    lambda request: f"the interconnects {', '.join(sorted(request.hardware.interconnects))}",
    static=True,
    place=83,
)
def _interconnect(fleet: Fleet, request: Request) -> Mask | None:
    wanted = request.hardware.interconnects
    return fleet.fact_mask(lambda facts: wanted <= facts.interconnects) if wanted else None
