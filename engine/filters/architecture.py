"""The instruction set of the processor."""

from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


@filter(
    "architecture",
    lambda request: f"an architecture among {', '.join(sorted(request.hardware.architectures))}",
    static=True,
    place=61,
)
def _architecture(fleet: Fleet, request: Request) -> Mask | None:
    wanted = request.hardware.architectures
    return fleet.fact_mask(lambda facts: facts.architecture in wanted) if wanted else None
