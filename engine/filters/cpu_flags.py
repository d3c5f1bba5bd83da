"""What the processor can do beyond its architecture."""

from engine.filters.registry import filter
from engine.fleet import Fleet, Mask, Request


@filter(
    "cpu_flags",
    lambda request: f"the cpu flags {', '.join(sorted(request.hardware.cpu_flags))}",
    static=True,
    place=62,
)
def _cpu_flags(fleet: Fleet, request: Request) -> Mask | None:
    wanted = request.hardware.cpu_flags
    return fleet.fact_mask(lambda facts: wanted <= facts.cpu_flags) if wanted else None
